"""The examples are what the commands take, and do what their comments say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro
import yaml
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from boresight.cli.main import COMMANDS, _expand_config
from boresight.cli.pretrain import Pretrain
from boresight.encoders.tokens import content_ids
from boresight.models import default_model_path
from boresight.seeds import generator
from boresight.training.captioner import CaptionerConfig
from boresight.training.config import Stage
from boresight.training.model_folder import save_model
from boresight.training.subcaptions import reduce
from command_line import boresight
from pretraining_world import COLOURS, SHAPE, synthetic, tiny_tokenizer, web
from worlds.small_clip import small_clip, small_processor

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(EXAMPLES.glob("*.yaml"))
SCRIPT = EXAMPLES / "finetune_photos.sh"
SCALE = {"million": 1e6, "billion": 1e9}


def parsed(*words: object) -> object:
    """What a command line is read as, without running it."""
    arguments = _expand_config([str(word) for word in words])
    return tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="boresight", args=arguments)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_as_it_is_written(recipe: Path) -> None:
    command = parsed("pretrain", "a-{0..9}.tar", "--config", recipe, "--out", "runs/a")
    assert isinstance(command, Pretrain)
    for name, value in yaml.safe_load(recipe.read_text()).items():
        owner = next(part for part in (command, command.training, command.stream) if hasattr(part, name))
        read = getattr(owner, name)
        expected = [Stage.parse(stage) for stage in value] if name == "stages" else value
        assert (list(read) if isinstance(read, tuple) else read) == expected, name
    config = command.training
    if command.captioner_size is not None:
        width, layers, heads = command.captioner_size
        CaptionerConfig(image_width=8, text_width=8, vocabulary=8, width=width, layers=layers, heads=heads)
    assert config.warmup < config.steps
    assert config.betas == (0.9, 0.95)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_sums_in_a_recipe_are_right(recipe: Path) -> None:
    """'2.56 billion images / 32,768' beside steps and warm-up, '8e-6 x 32,768 / 256' beside the rate."""
    text, options = recipe.read_text(), yaml.safe_load(recipe.read_text())
    sums = re.findall(r"^(steps|warmup): \d+ +# ([\d.]+) (million|billion) images / ([\d,]+)$", text, re.MULTILINE)
    assert "steps" in {name for name, *_ in sums}
    for name, number, scale, batch in sums:
        assert int(batch.replace(",", "")) == options["batch_size"]
        assert abs(options[name] - float(number) * SCALE[scale] / options["batch_size"]) <= 0.5
    base, batch = re.search(r"^learning_rate: .*# (\S+) x ([\d,]+) / 256", text, re.MULTILINE).groups()
    assert int(batch.replace(",", "")) == options["batch_size"]
    assert options["learning_rate"] == pytest.approx(float(base) * options["batch_size"] / 256)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_a_command_that_can_be_typed(recipe: Path) -> None:
    told = "".join(line[1:] + "\n" for line in recipe.read_text().splitlines() if line.startswith("#"))
    command = re.search(r"torchrun .*?-m boresight (pretrain .*?)\n\n", told, re.DOTALL)[1]
    words = shlex.split(command.replace("\\\n", " "))
    assert words[words.index("--config") + 1] == f"examples/{recipe.name}"
    words[words.index("--config") + 1] = str(recipe)
    assert isinstance(parsed(*words), Pretrain)


def test_the_files_that_recipes_name_are_there() -> None:
    named = {name for recipe in RECIPES for name in re.findall(r"recap_\w+\.yaml", recipe.read_text())}
    assert named == {recipe.name for recipe in RECIPES}


def said(folder: Path, *words: object, **environment: str) -> list[list[str]]:
    """The calls of boresight that the script makes, with a command in its place that only notes its words."""
    stub = folder / "bin" / "boresight"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" END >> '{folder}/said'\n")
    stub.chmod(0o755)
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", SCRIPT, *map(str, words)], check=True, env={**os.environ, "PATH": path, **environment})
    calls = (folder / "said").read_text().split("END\n")
    return [call.splitlines() for call in calls[:-1]]


def test_the_script_is_short_and_its_options_exist(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text().splitlines()) < 10
    calls = said(tmp_path, "my photos", "run", "--seed", 3)
    assert [words[0] for words in calls] == ["pretrain", "embed", "evaluate"]
    for words in calls:
        assert isinstance(parsed(*words), COMMANDS[words[0]])
    training = parsed(*calls[0])
    assert isinstance(training, Pretrain)
    assert (training.data, training.out, training.training.seed) == ("my photos", Path("run"), 3)
    assert training.model == "openai/clip-vit-base-patch32"


def test_the_script_from_photos_to_figures(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    processor = small_processor(tokenizer, SHAPE)
    save_model(tmp_path / "tiny", small_clip(tokenizer, SHAPE, 0), processor.tokenizer, processor.image_processor)
    photos = tmp_path / "my photos"
    photos.mkdir()
    rows = []
    for row in range(12):
        Image.new("RGB", (20, 18), COLOURS[row % 8]).save(photos / f"{row}.png")
        split = ("train", "train", "validation", "test")[row % 4]
        rows.append({"file_name": f"{row}.png", "caption": web(row), "long": synthetic(row) + ". Yes.", "split": split})
    (photos / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    smaller = ["--steps", 2, "--batch-size", 4, "--workers", 0]
    for words in said(tmp_path, photos, "run", *smaller, MODEL=str(tmp_path / "tiny")):
        code, out, err = boresight(*words, cwd=tmp_path)
        assert code == 0, err
    assert "R@1" in out
    trained = CLIPModel.from_pretrained(tmp_path / "run" / "model").visual_projection.weight
    assert not trained.equal(CLIPModel.from_pretrained(tmp_path / "tiny").visual_projection.weight)


def test_the_reductions_in_the_documentation_are_what_comes_out() -> None:
    text = (EXAMPLES.parent / "docs" / "guide" / "training.md").read_text()
    caption = re.search(r"^> (.*)$", text, re.MULTILINE)[1]
    tokenizer = AutoTokenizer.from_pretrained(str(default_model_path()))
    assert f"{len(content_ids(caption, tokenizer))} tokens of the shipped tokenizer" in text
    rows = re.findall(r"^\| `(truncate|random|block|sub-caption)`(.*?) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    for strategy, note, *draws in rows:
        sentences = 2 if "--n-sentences 2" in note else 1
        for seed, draw in enumerate(draws):
            ids = reduce(caption, strategy, 12, tokenizer, generator(seed, "example"), n_sentences=sentences)
            assert tokenizer.decode(ids) == draw
