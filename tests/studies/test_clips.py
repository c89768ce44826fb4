"""The study of CLIPS: its captions, and a very small run from data to tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import clips
from boresight.data import Collection
from boresight.data.assemble import dataset_of
from boresight.data.images import png
from boresight.data.worlds.emoji.concepts import KINDS, Concept, captions_of
from boresight.data.worlds.scene_world import HELD_OUT
from boresight.data.worlds.scenes import make_scenes
from boresight.errors import ArtefactError, InputError
from boresight.training.subcaptions import sentences
from worlds import synthetic_captions as captions
from worlds.small_clip import train_tokenizer

COLOURS = ("red", "green", "blue", "brown")


def emoji(split: str, n: int = 40) -> Collection:
    """What looks like the emoji collection; every concept's words are its own and its split's."""
    rows = []
    for number in range(n):
        tag = f"{split}word{chr(97 + number // 26)}{chr(97 + number % 26)}"
        tone, hair = ("dark",) if number % 2 else (), "red hair" if number % 3 == 0 else ""
        label = f"{tag}: {', '.join(filter(None, ['dark skin tone' if tone else '', hair]))}".removesuffix(": ")
        tags = tuple(f"{tag}{each}" for each in range(number % 12))
        gender = ("", "woman", "man", "mixed")[number % 4]
        concept = Concept(
            f"{number:x}", label, tag, tag, (), tone, gender, hair, "people", "role", tags, (f"my {tag}",)
        )
        known = {"skin_tones": tone, "gender": gender, "hair": hair, "group": "people", "subgroup": "role"}
        image = np.full((24, 24, 3), 255, np.uint8)
        image[4:20, 4:20] = captions.HUES[COLOURS[number % 4]]
        rows.append(
            {
                "id": f"{split}/{number}",
                "image": {"bytes": png(image), "path": None},
                "captions": captions_of(concept),
                "split": split,
                "style": "noto",
                "label": label,
                "family": tag,
                "attributes": json.dumps({**known, "tags": tags, "aliases": concept.aliases}),
                "caption_kinds": list(KINDS),
            }
        )
    return Collection(dataset_of(pa.Table.from_pylist(rows)), "emoji")


def scenes(split: str, n: int = 40) -> Collection:
    return make_scenes(n, size=32, split=split)


def joined(*parts: Collection) -> Collection:
    return Collection(dataset_of(pa.concat_tables(part.dataset.data.table for part in parts)), parts[0].name)


@pytest.mark.parametrize("world", [emoji, scenes])
def test_captions_are_fixed_by_the_seed_and_the_row(world):
    whole = world("encoder", 30)
    first, again = (captions.with_training_captions(whole, seed=3).dataset for _ in range(2))
    other = captions.with_training_captions(whole, seed=4).dataset
    for name in (captions.WEB, captions.SYNTHETIC):
        assert first[name][:] == again[name][:]
        assert sum(one != two for one, two in zip(first[name], other[name], strict=True)) > 20
    assert first["captions"][:] == whole.captions
    # Of a picture alone: neither its neighbours nor its place count.
    assert captions.synthetic_captions(whole.select([7, 2]), seed=3) == [first["synthetic"][7], first["synthetic"][2]]


def test_synthetic_captions_are_long_and_web_captions_short():
    for whole in (emoji("encoder", 200), make_scenes(400, size=24, split="encoder")):
        data = captions.with_training_captions(whole).dataset
        web, synthetic = data[captions.WEB][:], data[captions.SYNTHETIC][:]
        assert max(len(text.split()) for text in web) <= 20
        words = [len(text.split()) for text in synthetic]
        assert min(words) >= captions.FEWEST_WORDS
        assert max(words) <= captions.MOST_WORDS
        assert min(len(sentences(text)) for text in synthetic) >= 5
        if whole.name == "scenes":  # the made-up words of the stand-in for emoji have more tokens than words have
            tokenizer = train_tokenizer([*web, *synthetic], clips.SHAPE)
            tokens = [len(ids) for ids in tokenizer(synthetic, add_special_tokens=False, verbose=False)["input_ids"]]
            assert min(tokens) >= 60
            assert max(tokens) <= clips.WHOLE_TOKENS


def test_a_synthetic_caption_of_a_scene_tells_all_and_nothing_false():
    whole = scenes("encoder", 200)
    for row, text in zip(whole.dataset, captions.synthetic_captions(whole), strict=True):
        known = json.loads(row["attributes"])
        assert known["background"] in text
        for thing in known["objects"]:
            assert f"{thing['colour']} {thing['shape']}" in text
            assert thing["texture"] in text
        shown = {(thing["colour"], thing["shape"]) for thing in known["objects"]}
        for colour in HELD_OUT:
            for shape in set(HELD_OUT.values()):
                assert f"{colour} {shape}" not in text or (colour, shape) in shown


def test_a_relation_of_a_scene_is_true():
    thing = captions.Thing("ring", "small", "solid", "red", "top left", 0.1, 0.1, 0.09)
    for place, where in (("top right", "to the left of"), ("bottom left", "above"), ("centre", "to the left of")):
        other = replace(thing, place=place, shape="star")
        assert captions._relation(thing, other) == f"A red ring is {where} a red star."
    assert "to the right of" in captions._relation(replace(thing, place="right"), thing)
    assert "is below a" in captions._relation(replace(thing, place="left"), thing)


def test_no_caption_of_one_split_tells_of_another():
    for seed in range(3):
        together = joined(emoji("encoder"), emoji("exam"))
        data = captions.with_training_captions(together, seed=seed).dataset
        for split, web, synthetic in zip(data["split"], data["web"], data["synthetic"], strict=True):
            strange = "examword" if split == "encoder" else "encoderword"
            assert strange not in web + synthetic
    seen = captions.with_training_captions(joined(scenes("encoder", 300), scenes("test-combination", 100))).dataset
    held = [f"{colour} {shape}" for colour, shape in HELD_OUT.items()]
    told = dict.fromkeys(seen.unique("split"), 0)
    for split, synthetic in zip(seen["split"], seen["synthetic"], strict=True):
        told[split] += any(pair in synthetic for pair in held)
    assert told == {"encoder": 0, "test-combination": 100}


def test_some_web_captions_are_astray():
    whole = emoji("encoder", 600)
    noisy, clean = captions.web_captions(whole), captions.web_captions(whole, astray=False)
    strayed = [one for one, other in zip(noisy, clean, strict=True) if one != other]
    assert 0.06 < len(strayed) / len(whole) < 0.14
    assert any(text in captions.NOTHING for text in strayed)
    assert any(text in clean for text in strayed)
    own = [tag in text.replace("_", " ") for tag, text in zip(whole.dataset["family"], clean, strict=True)]
    assert sum(own) / len(own) > 0.5


def test_colours_are_read_off_the_pixels():
    image = np.full((32, 32, 3), 255, np.uint8)
    assert captions.colours_of(Image.fromarray(image)) == []
    image[:, :12] = captions.HUES["teal"]
    image[:, 12:20] = captions.HUES["pink"]
    image[:1, 20:] = captions.HUES["brown"]
    assert captions.colours_of(Image.fromarray(image)) == ["teal", "pink"]


def test_other_collections_are_refused():
    plain = scenes("encoder", 2).dataset.remove_columns(["described"])
    with pytest.raises(InputError, match="is neither"):
        captions.with_training_captions(Collection(plain, "mine"))


def test_arms_need_as_many_positions_as_they_read():
    assert clips.ARMS["web"].text_length == 32
    assert clips.ARMS["block 8"].text_length == 10
    assert clips.ARMS["two positives 16"].text_length == 32
    assert clips.ARMS["two positives 32"].text_length == 34
    assert clips.ARMS["synthetic, whole"].text_length == clips.ARMS["two positives, whole"].text_length == 103


def test_a_remembering_tokenizer_says_the_same():
    plain = train_tokenizer(["a red ring", "a blue star"], clips.SHAPE)
    ours = clips.Remembering(plain)
    for _ in range(2):
        options = {"add_special_tokens": False, "truncation": False, "verbose": False}
        assert ours("a red star", **options)["input_ids"] == plain("a red star", **options)["input_ids"]
        assert ours("a red star")["input_ids"] == plain("a red star")["input_ids"]
        assert ours(["a", "ring"])["input_ids"] == plain(["a", "ring"])["input_ids"]
    assert len(ours) == len(plain)
    assert ours.eos_token_id == plain.eos_token_id


@pytest.fixture
def small(monkeypatch):
    shape = replace(clips.SHAPE, image_size=32, image_width=32, image_layers=1, image_heads=1)
    monkeypatch.setattr(clips, "SHAPE", replace(shape, text_width=32, text_layers=1, text_heads=1, vocabulary=900))
    monkeypatch.setattr(clips, "CAPTIONER", replace(clips.CAPTIONER, width=32, layers=1, heads=1))
    monkeypatch.setattr(clips, "emoji", lambda: joined(emoji("encoder"), emoji("validation"), emoji("test-style")))
    monkeypatch.setitem(clips.TEST_SPLITS, "emoji", ("test-style",))
    for kept in (clips.training_set, clips.tests):
        kept.cache_clear()
    yield
    for kept in (clips.training_set, clips.tests):
        kept.cache_clear()


@pytest.mark.filterwarnings("ignore:.*were longer than")
def test_the_study_runs_and_goes_on(small, tmp_path, monkeypatch, capsys):
    options = clips.Options(
        out=tmp_path,
        arms=("sub-caption 8", "synthetic, whole", "all, 32", "one softmax, 32"),
        seeds=(0, 1),
        steps=2,
        batch_size=8,
        n_images=16,
        n_test=12,
    )
    clips.main(replace(options, worlds=("scenes",), arms=("web",), seeds=(0,)))
    clips.main(replace(options, worlds=("emoji",)))
    report = capsys.readouterr().out
    assert "### emoji: R@1 in percent (2 steps of 8 pictures, seeds 0, 1)" in report
    assert report.count("| all, 32 |") == 1
    assert "test-combination: own I2T" in report
    assert (tmp_path / "test" / "emoji.png").stat().st_size > 10_000
    rows = sorted((tmp_path / "test" / "emoji-1").glob("*.json"))
    assert len(rows) == 4
    kept = json.loads(rows[0].read_text())["found"]
    assert set(kept["tests"]["test-style"]) == {"short", "medium", "long", "web"}
    assert kept["cost"]["captioner tokens"] == 8 * clips.CAPTIONER.queries  # 'all-32' comes first

    # Finished rows are read, and validation measures the models that are there.
    monkeypatch.setattr(clips, "train_arm", lambda *_: pytest.fail("was trained again"))
    clips.main(replace(options, worlds=("emoji",)))
    assert capsys.readouterr().out in report
    clips.main(replace(options, worlds=("emoji",), split="validation"))
    assert "validation: web T2I" in capsys.readouterr().out
    with pytest.raises(ArtefactError, match="other settings"):
        clips.main(replace(options, worlds=("emoji",), steps=3))
    with pytest.raises(InputError, match="There is no 'half'"):
        clips.main(replace(options, arms=("half",)))
