"""The command line end to end, as a user types it, on a folder of pictures made here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from boresight import CaptionEditor, Embeddings
from boresight.cli.main import main
from boresight.cli.sources import shipped_warning
from boresight.data import make_scenes
from boresight.encoders.model_files import file_fingerprint
from boresight.models import default_model_path
from boresight.storage import save_artefact

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "BORESIGHT_QUIET": "1", "OMP_NUM_THREADS": "1"}


@dataclass
class Done:
    """What a command left: exit code and what it printed."""

    code: int
    out: str
    err: str


def typed(*words: object, cwd: Path) -> Done:
    """The command in a process of its own, as from a shell."""
    command = [sys.executable, "-m", "boresight", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def boresight(*words: object, cwd: Path | None = None) -> Done:
    """The same entry point in this process, which spares the imports."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, ENVIRONMENT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or "."),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def quick_fits(sae: int = 200, editor: int = 20, mask: int = 20) -> Iterator[None]:
    """Few steps where none are asked for: nothing here needs good fits."""
    with (
        mock.patch("boresight.sae.config.default_steps", return_value=sae),
        mock.patch("boresight.editing.config.EditorFit.steps_for", return_value=editor),
        mock.patch("boresight.editing.presence.STEPS", mask),
    ):
        yield


def refused(*words: object) -> str:
    """The sentence of a command that must refuse."""
    done = boresight(*words)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    sentence = done.err.strip()
    assert sentence.startswith("boresight: ")
    assert "\n" not in sentence
    return sentence


def write_photos(folder: Path, n: int) -> None:
    scenes = make_scenes(n, seed=3)
    folder.mkdir()
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as lines:
        for row in range(n):
            scenes.image(row).save(folder / f"{row:03d}.png")
            entry = {"file_name": f"{row:03d}.png", "captions": scenes.captions[row]}
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, and what each step of the command line makes of them."""
    work = tmp_path_factory.mktemp("work")
    write_photos(work / "photos", 80)
    for step in (
        ("embed", "photos", "--out", "emb"),
        ("sae", "emb", "--out", "sae", "--n-latents", 64, "--k", 8),
        ("editor", "emb", "--sae", "sae", "--out", "editor"),
    ):
        with quick_fits():
            done = boresight(*step, cwd=work)
        assert done.code == 0, done.err
    return work


def test_help_is_quick_and_names_every_command() -> None:
    done = boresight("--help")
    assert done.code == 0
    for command in ("demo", "embed", "sae", "editor", "evaluate", "compare", "inspect"):
        assert command in done.out
    loaded = "import sys; import boresight.cli.main; print('torch' in sys.modules, 'transformers' in sys.modules)"
    probe = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert probe.stdout.split() == ["False", "False"]


def test_evaluate_prints_both_and_writes_what_it_prints(work: Path) -> None:
    done = boresight("evaluate", "emb", "--editor", "editor", "--out", "figures.json", cwd=work)
    assert done.code == 0, done.err
    figures = json.loads((work / "figures.json").read_text())
    said = figures.pop("verdict")
    assert set(figures) == {"plain", "plain, NNN", "plain, Sinkhorn", "edited"}
    assert said["sentence"] in done.out
    assert said["word"] in ("helps", "level", "hurts")
    assert all(f"Warning: {warning}" in done.out for warning in said["warnings"])
    for result in figures.values():
        for side in ("T2I", "I2T"):
            assert 0 <= result[f"{side} R@1"] <= result[f"{side} R@5"] <= result[f"{side} R@10"] <= 100
            assert f"{result[f'{side} R@10']:.2f}" in done.out


def test_evaluate_on_embeddings_refuses_what_is_for_benchmarks(work: Path) -> None:
    for option, value in (("data", "photos"), ("long-text", "windows"), ("classes", "names.txt"), ("labels", "class")):
        sentence = refused("evaluate", work / "emb", f"--{option}", value)
        assert f"takes no --{option}; leave it out" in sentence


def test_the_shipped_model_on_own_pictures_is_said(work: Path, tmp_path: Path) -> None:
    warning = "Warning: These embeddings are by the small model that ships with boresight."
    explain = ("explain", "photos/000.png", "a", "--method", "legrad", "--out", tmp_path / "a.png")
    with mock.patch.dict(ENVIRONMENT, {"BORESIGHT_QUIET": ""}):
        done = boresight("embed", "photos", "--out", tmp_path / "emb", cwd=work)
        assert "No --encoder was named for photos, so it is seen through the small model that ships" in done.err
        assert "Name one: --encoder openai/clip-vit-base-patch32." in done.err
        assert "was named" in boresight(*explain, cwd=work).err
        named = boresight("embed", "photos", "--out", tmp_path / "named", "--encoder", default_model_path(), cwd=work)
    assert warning in done.out
    assert "was named" not in named.err
    assert warning not in named.out
    assert warning in boresight("evaluate", "emb", cwd=work).out


def test_what_the_shipped_model_was_trained_on_is_said() -> None:
    made_by = {"encoder_fingerprint": file_fingerprint(default_model_path())}
    ours = Embeddings.from_arrays(
        torch.eye(3), torch.eye(3), range(3), splits=["encoder", "train", "test"], name="scenes"
    )
    ours = replace(ours, manifest=ours.manifest | made_by)
    assert shipped_warning(ours, "encoder") == "The model was trained on the split 'encoder'; test on others."
    assert shipped_warning(ours, "test") is None


def test_inspect_says_what_made_each_artefact(work: Path) -> None:
    for name, kind in (("emb", "embeddings"), ("sae", "sae"), ("editor", "editor")):
        done = boresight("inspect", name, cwd=work)
        assert done.code == 0, done.err
        assert yaml.safe_load(done.out)["kind"] == kind


def test_the_whole_job_on_own_photos(work: Path) -> None:
    words = ("demo", "photos", "--out", "run", "--report", "page.html", "--seeds", 0, "--n-latents", 64, "--k", 8)
    with quick_fits():
        first = boresight(*words, cwd=work)
    assert first.code == 0, first.err
    figures = json.loads((work / "run/comparison.json").read_text())
    names = [row["name"] for row in figures["rows"]]
    assert {"plain", "text fine-tuning", "edited", "random mask", "shuffled images", "chance"} <= set(names)
    for name in names:
        assert name in first.out
    page = (work / "page.html").read_text(encoding="utf-8")
    assert "data:image/webp" in page
    assert not re.search(r"(src|href)=[\"']https?://", page)

    started = time.time()
    again = typed(*words, cwd=work)
    assert again.code == 0, again.err
    assert again.out == first.out
    newer = [file for file in (work / "run").rglob("*.safetensors") if file.stat().st_mtime > started]
    assert not [file for file in newer if "seed-" in str(file)], "a finished fit was done again"


def test_compare_fits_on_embeddings_and_ends_in_a_verdict(work: Path) -> None:
    words = ("compare", "emb", "--out", "compared", "--seeds", 0, "--n-latents", 64, "--k", 8)
    with quick_fits():
        done = boresight(*words, cwd=work)
    assert done.code == 0, done.err
    figures = json.loads((work / "compared/comparison.json").read_text())
    assert done.out.rstrip().split("\n\n")[-1].startswith(f"test: {figures['verdicts']['test']['sentence']}")
    for row in figures["rows"]:
        assert row["name"] in done.out
    page = (work / "compared" / "comparison.html").read_text(encoding="utf-8")
    assert figures["verdicts"]["test"]["rival"] in page
    assert (work / "compared" / "comparison.csv").is_file()
    with mock.patch("boresight.editing.CaptionEditor.fit", None):
        again = boresight(*words, "--html", "page2.html", cwd=work)
    assert again.code == 0, again.err
    assert again.out == done.out
    assert (work / "page2.html").is_file()
    assert "needs a split 'unseen'" in refused("compare", work / "emb", "--test", "unseen", "--out", work / "other")


def test_compare_takes_bare_arrays(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(90, 16)).astype(np.float32)
    splits = ["train"] * 50 + ["validation"] * 20 + ["test"] * 20
    Embeddings.from_arrays(rows, rows + 0.5, np.arange(90), splits=splits).save(tmp_path / "emb")
    with quick_fits():
        done = boresight("compare", "emb", "--seeds", 0, "--n-latents", 32, "--k", 4, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "test: The edit" in done.out
    assert "What moved" not in (tmp_path / "runs/compare/comparison.html").read_text(encoding="utf-8")


def test_a_corrupt_picture_is_skipped_or_refused_as_asked(work: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 12)
    (tmp_path / "photos/005.png").write_bytes(b"\x89PNG\r\n\x1a\n this is no picture")
    assert "005.png" in refused("embed", tmp_path / "photos", "--out", tmp_path / "refused", "--on-error", "refuse")
    done = boresight("embed", tmp_path / "photos", "--out", tmp_path / "skipped")
    assert done.code == 0, done.err
    assert "11 images" in done.out


def test_config_file_gives_options_and_the_command_line_overrules_them(work: Path, tmp_path: Path) -> None:
    (tmp_path / "sae.yaml").write_text("n_latents: 32\nk: 4\nseed: 5\n")
    out = tmp_path / "sae"
    with mock.patch("boresight.sae.config.default_steps", return_value=20):
        done = boresight("sae", work / "emb", "--out", out, "--config", tmp_path / "sae.yaml", "--k", 6)
    assert done.code == 0, done.err
    config = json.loads((out / "manifest.json").read_text())["config"]
    assert (config["n_latents"], config["k"]) == (32, 6)


def test_a_list_in_the_config_file_does_not_swallow_what_is_typed(work: Path, tmp_path: Path) -> None:
    (tmp_path / "embed.yaml").write_text("caption_columns: [captions]\n")
    done = boresight("embed", f"--config={tmp_path / 'embed.yaml'}", "--out", tmp_path / "emb", work / "photos")
    assert done.code == 0, done.err
    assert done.out.startswith("80 images")


def test_a_fit_goes_on_from_its_checkpoint_and_leaves_none(work: Path, tmp_path: Path) -> None:
    words = ("sae", work / "emb", "--out", tmp_path / "sae", "--n-latents", 64, "--k", 8)
    with mock.patch("boresight.sae.config.default_steps", return_value=20):
        with mock.patch("boresight.sae.SparseAutoencoder.save", side_effect=KeyboardInterrupt):
            stopped = boresight(*words)
        assert stopped.code == 130
        assert stopped.err.startswith("boresight: Interrupted; the same command goes on from what was kept")
        with mock.patch("boresight.sae.training.train_step", side_effect=AssertionError("fitted anew")):
            assert boresight(*words).code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["sae"]


def test_a_place_that_cannot_be_written_is_refused_before_the_fit(work: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with mock.patch("boresight.embeddings.Embeddings.load", side_effect=AssertionError("began")):
        assert "file is a file" in refused("sae", work / "emb", "--out", tmp_path / "file")
        assert "kind 'embeddings', not 'sae'" in refused("sae", work / "emb", "--out", work / "emb")
        assert "kind 'sae', not 'editor'" in refused("editor", "emb", "--sae", work / "sae", "--out", work / "sae")


def test_a_run_does_not_go_on_in_another_precision(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 6)
    words = ("embed", tmp_path / "photos", "--out", tmp_path / "emb", "--device", "cpu")
    with mock.patch("boresight.embeddings.run._embed_images", side_effect=KeyboardInterrupt):
        assert boresight(*words, "--dtype", "bfloat16").code == 130
    assert "made with an encoder computing in bfloat16 and this run has float32" in refused(*words)
    assert boresight(*words, "--dtype", "bfloat16").code == 0
    assert Embeddings.load(tmp_path / "emb").manifest["computed_in"] == "bfloat16"


def test_bad_input_gets_one_sentence_and_exit_code_2(work: Path, tmp_path: Path) -> None:
    emb, sae = work / "emb", work / "sae"
    assert "nowhere" in refused("embed", tmp_path / "nowhere", "--out", tmp_path / "x")
    assert str(tmp_path) in refused("inspect", tmp_path)
    assert "99" in refused("sae", emb, "--out", tmp_path / "x", "--n-latents", 64, "--k", 99)
    assert "middle" in refused("sae", emb, "--out", tmp_path / "x", "--split", "middle")
    assert "sae" in refused("editor", emb, "--sae", emb, "--out", tmp_path / "x")
    assert "not 'embeddings'" in refused("sae", sae, "--out", tmp_path / "x")
    assert "missing.yaml" in refused("sae", emb, "--out", tmp_path / "x", "--config", tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("a: {b: 1}\n")
    assert "bad.yaml" in refused("sae", emb, "--out", tmp_path / "x", "--config", tmp_path / "bad.yaml")
    (tmp_path / "file").write_text("not a folder")
    assert "file" in refused("sae", emb, "--out", tmp_path / "file", "--n-latents", 32, "--k", 4)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_collection_without_a_needed_split_is_refused_by_name(work: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "train").mkdir(parents=True)
    with open(photos / "train" / "captions.jsonl", "w", encoding="utf-8") as lines:
        for row in range(6):
            pixels = np.full((32, 32, 3), 40 * row, np.uint8)
            Image.fromarray(pixels).save(photos / "train" / f"{row}.png")
            lines.write(json.dumps({"file_name": f"{row}.png", "caption": f"grey number {row}"}) + "\n")
    sentence = refused("demo", photos, "--out", tmp_path / "run", "--report", tmp_path / "page.html")
    assert "validation" in sentence
    assert not (tmp_path / "page.html").exists()


def test_an_autoencoder_of_another_encoder_is_refused(work: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    width = Embeddings.load(work / "emb").width
    rows = rng.normal(size=(20, width)).astype(np.float32)
    other = Embeddings.from_arrays(
        rows, rows, np.arange(20), splits=["train"] * 10 + ["validation"] * 10, encoder="another model"
    )
    other.save(tmp_path / "other")
    sentence = refused("editor", tmp_path / "other", "--sae", work / "sae", "--out", tmp_path / "x")
    assert "another model" in sentence


def test_explain_draws_a_pair(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    done = boresight("explain", "red.png", "a red square", "--out", "why.png", cwd=tmp_path)
    assert done.code == 0, done.err
    assert re.search(r"score -?0\.\d+, strongest words '.*': why.png", done.out)
    assert Image.open(tmp_path / "why.png").size[0] > 500
    for words, message in (
        (("red.png",), "Pass an image and a caption"), (("blue.png", "a"), "blue.png"),
        (("red.png", "a", "--method", "magic"), "no method 'magic'"), (("red.png", "a", "--layer", "99"), "99"),
        (("red.png", "a", "--out", "why.docx"), "why.docx"), (("red.png", "a", "--csv", "no.csv"), "or --csv"),
    ):  # fmt: skip
        done = boresight("explain", *words, cwd=tmp_path)
        assert done.code == 2
        assert message in done.err


def test_explain_prints_the_edited_score_part_by_part(work: Path) -> None:
    with quick_fits(mask=300):
        done = boresight("editor", "emb", "--sae", "sae", "--out", "remembering", "--memory", "both", cwd=work)
    assert done.code == 0, done.err
    assert "Chosen on validation: gated, " in done.out
    assert re.search(r"Warning: \d+ images to learn from\. Below some 750 an editor seldom beats", done.out)
    assert re.search(r"memory both\. Sum of six recalls there [\d.]+, plain cosine [\d.]+; [\d.]+ above", done.out)
    words = ("explain", "photos/000.png", "a red square", "--editor", "remembering", "--method", "legrad")
    editor = CaptionEditor.load(work / "remembering")
    editor.memory.strengths.fill_(0.3)  # which so short a training may leave silent
    editor.save(work / "remembering")
    done = boresight(*words, cwd=work)
    assert done.code == 0, done.err
    assert re.search(r"edited -?\d\.\d+, plain -?\d\.\d+", done.out)
    assert re.search(r"\nlatents kept, by their effect on the score:\n  latent \d+ ", done.out)
    moved = r"\nremembered pairs that moved the image most:\n "
    assert re.search(rf"{moved} \d+\.png +weight", done.out)
    assert done.out.endswith("Latents go by their numbers; 'boresight names' names them, for --names.\n")
    done = boresight(*words, "--remembered", "emb", cwd=work)
    assert re.search(rf"{moved} '.* weight", done.out)
    done = boresight(*words, "--shown", cwd=work)
    assert {float(m) for m in re.findall(r" m (\d\.\d\d) ", done.out)} <= {0.0, 1.0}
    assert "remembered" not in done.out
    done = boresight("explain", "photos/000.png", "a red square", "--shown", "--method", "legrad", cwd=work)
    assert done.code == 2
    assert "--shown is a form of an editor; pass --editor too." in done.err


def test_names_of_an_autoencoder(work: Path) -> None:
    done = boresight("names", "sae", "emb", "--out", "names", "--shown", 7, cwd=work)
    assert done.code == 0, done.err
    lines = done.out.strip().splitlines()
    assert lines[0].split() == ["name", "latent", "of", "all", "activation", "certainty", "strongest", "images"]
    assert len(lines) == 9
    assert re.fullmatch(r"\d+ of \d+ live latents have a name \(\d+%\), mean certainty \d\.\d\d: names", lines[-1])
    words = (
        "explain",
        "photos/000.png",
        "a red square",
        "--editor",
        "editor",
        "--names",
        "names",
        "--method",
        "legrad",
    )
    done = boresight(*words, cwd=work)
    assert done.code == 0, done.err
    assert done.out.strip().splitlines()[-1] == lines[-1].removesuffix(": names")
    (work / "words.txt").write_text("Red\nblue\n\nred\ncircle\n")
    done = boresight("names", "sae", "emb", "--out", "names", "--vocabulary", "words.txt", cwd=work)
    assert done.code == 0, done.err
    assert "no.txt cannot be read" in refused(
        "names", work / "sae", work / "emb", "--out", "x", "--vocabulary", "no.txt"
    )


def test_images_alike_by_what_words_name(work: Path) -> None:
    embeddings = Embeddings.load(work / "emb")
    words = ("similar", "emb", "--editor", "editor", "--image", embeddings.ids[2], "--by")
    done = boresight(*words, "red", "blue", "--top", 4, cwd=work)
    assert done.code == 0, done.err
    lines = done.out.strip().splitlines()
    assert lines[0].split() == ["image", "similarity", "caption"]
    shown = [line.split()[0] for line in lines[1:]]
    assert len(shown) == 4
    assert embeddings.ids[2] not in shown
    figures = [float(re.search(r"-?\d\.\d{3}", line).group()) for line in lines[1:]]
    assert figures == sorted(figures, reverse=True)
    named = boresight(*words, "a colour", cwd=work)
    assert named.code == 0, named.err
    assert named.out.startswith("'a colour' is read as: ")
    place = (work / "emb", "--editor", work / "editor")
    assert "has no image 'nobody'; its ids are such as " in refused(
        "similar", *place, "--image", "nobody", "--by", "red"
    )


def test_explain_goes_through_a_table(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        Image.new("RGB", (60, 40), name).save(tmp_path / f"{name}.png")
    (tmp_path / "pairs.csv").write_text("image,caption\nred.png,a red square\nblue.png,blue\nno.png,nothing\n")
    words = ("explain", "--csv", "pairs.csv", "--out", "why", "--method", "legrad")
    done = boresight(*words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "2 pairs: why" in done.out
    assert sorted(file.name for file in (tmp_path / "why").iterdir()) == [
        "000000.npz", "000000.png", "000001.npz", "000001.png", "explanations.csv", "journal.jsonl",
    ]  # fmt: skip
    before = (tmp_path / "why" / "000001.npz").stat().st_mtime_ns
    assert boresight(*words, cwd=tmp_path).code == 0
    assert (tmp_path / "why" / "000001.npz").stat().st_mtime_ns == before
    done = boresight(*words, "--seed", "1", cwd=tmp_path)
    assert done.code == 2
    assert (
        "why was made with the options method legrad, seed 0, target both and this run has method legrad, seed 1"
        in done.err
    )


def test_inspect_counts_long_lists(tmp_path: Path) -> None:
    ids = [f"picture{row}" for row in range(500)]
    save_artefact(
        tmp_path / "held", "editor", {"one": torch.ones(1)}, {"remembered": ids, "few": [1, 2], "in": {"ids": ids}}
    )
    done = boresight("inspect", tmp_path / "held")
    assert done.code == 0, done.err
    assert done.out.count("500 entries: picture0, picture1, picture2, ...") == 2
    assert "picture3" not in done.out
    assert "- 2" in done.out


def test_evaluate_says_that_pictures_have_no_captions(tmp_path: Path) -> None:
    Embeddings.from_arrays(torch.eye(4)).save(tmp_path / "bare")
    assert "has pictures without captions, and retrieval asks with captions" in refused("evaluate", tmp_path / "bare")


def test_names_say_why_there_are_none(work: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("submarine\n")
    words = ("--vocabulary", tmp_path / "words.txt")
    done = boresight("names", work / "sae", work / "emb", "--out", tmp_path / "names", *words)
    assert done.code == 0, done.err
    assert "No word stands so much more often where a latent is active" in done.out
    bare = Embeddings.load(work / "emb")
    Embeddings.from_arrays(bare.images, bare.texts, bare.owners, splits=bare.splits).save(tmp_path / "bare")
    said = refused("names", work / "sae", tmp_path / "bare", "--out", tmp_path / "none")
    assert "has no captions to name latents by; pass --vocabulary and --model" in said
