"""The world of attributes: what its captions tell is so, and exactly as much as asked for."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from boresight.errors import InputError
from worlds.glyphs import NAMES
from worlds.idx import DEBIAN_FOLDER, FASHION, load_idx
from worlds.mad import COLOURS, FACTORS, SPLITS, draw, make_mad, phrase

VALUE_OF = {word: (name, value) for name, words in FACTORS.items() for value, word in words.items()}


@pytest.fixture(scope="module")
def world():
    return make_mad(120, "test", k=range(6))


def told_by(caption: str) -> dict[str, str]:
    """Attributes and class as a reader finds them, word by word; fails on a word that tells nothing."""
    words = re.findall(r"\w+", caption)
    assert words[0] in ("a", "an")
    found = {}
    for word in words[1:]:
        if word != "and":
            name, value = ("class", word) if word in NAMES else VALUE_OF[word]
            assert name not in found
            found[name] = value
    return found


def test_there_are_as_many_combinations_as_published():
    assert {name: len(words) for name, words in FACTORS.items()} == {
        **{"thickness": 3, "swelling": 2, "fracture": 2, "scale": 2, "colour": 7}
    }
    assert len(VALUE_OF) == 16
    assert set(COLOURS) == set(FACTORS["colour"])


def test_captions_tell_the_class_and_exactly_k_attributes(world):
    for row in world.dataset:
        truth = json.loads(row["attributes"])
        described = json.loads(row["described"])
        assert row["caption_kinds"] == ["0", "1", "2", "3", "4", "5"]
        before: set[str] = set()
        for k, (caption, named) in enumerate(zip(row["captions"], described, strict=True)):
            told = told_by(caption)
            assert told.items() <= truth.items()
            assert set(told) == {"class", *named}
            assert len(named) == k
            assert before <= set(named)  # the poorer caption's are among them
            before = set(named)


def test_what_is_told_and_where_it_stands_varies(world):
    first = Counter(json.loads(row["described"])[1][0] for row in world.dataset)
    assert min(first[name] for name in FACTORS) > 120 / 5 / 3
    places = Counter(len(caption.split(",")[0].split()) - 2 for captions in world.captions for caption in captions[5:])
    assert set(places) == {0, 1, 2, 3, 4, 5}


def test_attributes_are_drawn_evenly():
    with mock.patch("worlds.mad.draw", return_value=np.zeros((28, 28, 3), np.uint8)):  # they are drawn by lot before
        truths = [json.loads(text) for text in make_mad(200, "train", 0).dataset["attributes"]]
    for name, words in {**FACTORS, "class": dict.fromkeys(NAMES)}.items():
        counts = Counter(truth[name] for truth in truths)
        for value in words:
            expected = 200 / len(words)
            assert abs(counts[value] - expected) < 4.5 * np.sqrt(expected)


def test_a_picture_depends_on_seed_split_and_number_alone(world):
    few = make_mad(10, "test", k=3)
    assert few.captions == [[captions[3]] for captions in world.captions[:10]]
    for row in range(10):
        assert few.dataset[row]["image"] == world.dataset[row]["image"]
    for other in (make_mad(10, "test", 3, seed=1), make_mad(10, "train", 3)):
        assert other.captions != few.captions
        assert not set(other.ids) & set(few.ids)
    assert few.image(0).size == (28, 28)


def test_pictures_show_their_colour(world):
    for row in range(len(world)):
        colour = COLOURS[json.loads(world.dataset[row]["attributes"])["colour"]]
        pixels = np.array(world.image(row)).reshape(-1, 3).astype(float)
        share = pixels.max(1) / max(colour)
        np.testing.assert_allclose(pixels, share[:, None] * np.array(colour), atol=1.5)
        assert share.max() > 0.3


def stroke() -> np.ndarray:
    shape = np.zeros((28, 28), np.uint8)
    shape[4:24, 12:15] = 255
    return shape


def plain(**changes: str) -> dict[str, str]:
    return {"thickness": "none", "swelling": "none", "fracture": "none", "scale": "large", "colour": "red", **changes}


def ink(seed: int = 0, **changes: str) -> np.ndarray:
    return draw(stroke(), plain(**changes), iter(np.random.default_rng(seed).random(40).tolist()))[..., 0] / 255


def test_each_attribute_shows():
    usual = ink()
    widths = {value: ink(thickness=value)[14].sum() for value in FACTORS["thickness"]}
    assert widths["none"] == pytest.approx(3, abs=0.3)
    assert widths["thickening"] == pytest.approx(3 * 1.7, abs=0.5)
    assert widths["thinning"] == pytest.approx(3 * 0.3, abs=0.5)
    assert ink(swelling="swelling").sum() > usual.sum() + 2
    broken = ink(fracture="fracture")[:, 13]
    assert (broken[5:23] < 0.3).any()
    assert not (usual[5:23, 13] < 0.9).any()
    assert (ink(scale="small")[:, 13] > 0.5).sum() == pytest.approx(0.75 * (usual[:, 13] > 0.5).sum(), abs=1)


@pytest.mark.parametrize(
    ("words", "before", "text"),
    [
        ([], 0, "an eight"),
        (["red"], 0, "an eight, red"),
        (["red"], 1, "a red eight"),
        (["thick", "red", "broken"], 1, "a thick eight, red and broken"),
        (["even", "red", "broken", "thin"], 1, "an even eight, red, broken and thin"),
    ],
)
def test_phrases(words, before, text):
    assert phrase("eight", words, before) == text
    assert phrase("one", [], 0) == "a one"


def test_nonsense_is_refused():
    for arguments, words in (
        ((0, "train", 1), "cannot be made"),
        ((5, "val", 1), "encoder, train, validation, test"),
        ((5, "train", 6), "0 to 5 attributes; k is 6"),
        ((5, "train", -1), "0 to 5"),
        ((5, "train", ()), "0 to 5"),
    ):
        with pytest.raises(InputError, match=words):
            make_mad(*arguments)


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(folder: Path, n_train: int = 24, n_test: int = 3, packed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Strokes of different heights, the row told by the height; labels go round."""
    folder.mkdir(exist_ok=True)
    rows = []
    for part, count in (("train", n_train), ("t10k", n_test)):
        pictures = np.zeros((count, 28, 28), np.uint8)
        for row in range(count):
            pictures[row, 2 : 4 + row, 10:13] = 200 if part == "train" else 250
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in ((f"{part}-images-idx3-ubyte", pictures), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx(values)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
        rows.append(pictures)
    return rows[0], rows[1]


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_and_dealt_out(tmp_path, packed):
    train, test = write_idx(tmp_path, packed=packed)
    found = load_idx(tmp_path)
    rows = {"encoder": [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 23], "train": [5, 6, 7, 8, 15, 16, 17, 18]}
    rows["validation"] = [9, 19]
    for split, mine in rows.items():
        for index in range(2 * len(mine)):
            picture, name = found(split, index)
            np.testing.assert_array_equal(picture, train[mine[index % len(mine)]])
            assert name == FASHION[mine[index % len(mine)] % 10]
    np.testing.assert_array_equal(found("test", 4)[0], test[1])
    assert set(rows) | {"test"} == set(SPLITS)
    made = make_mad(4, "test", 2, source=tmp_path)
    assert [json.loads(text)["class"] for text in made.dataset["attributes"]] == [FASHION[row % 3] for row in range(4)]
    assert all(FASHION[row % 3] in made.captions[row][0] for row in range(4))
    digits = make_mad(2, "test", 0, source=load_idx(tmp_path, names=NAMES))
    assert digits.captions == [["a zero"], ["a one"]]
    labels = np.resize(np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], np.uint8), 24)  # as MNIST's own begin
    (tmp_path / f"train-labels-idx1-ubyte{'.gz' * packed}").write_bytes(
        (gzip.compress if packed else bytes)(idx(labels))
    )
    assert make_mad(2, "test", 0, source=tmp_path).captions == digits.captions


def test_too_few_pictures_for_a_split(tmp_path):
    write_idx(tmp_path, n_train=7, n_test=0)
    found = load_idx(tmp_path)
    assert found("train", 3)[1] == FASHION[6]
    for split in ("validation", "test"):
        with pytest.raises(InputError, match=f"'{split}' has none"):
            found(split, 0)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        load_idx(tmp_path / "nowhere")
    name = tmp_path / "train-labels-idx1-ubyte.gz"

    def refused(data: bytes, words: str) -> None:
        write_idx(tmp_path)
        name.write_bytes(data)
        with pytest.raises(InputError, match=words) as raised:
            load_idx(tmp_path)
        assert str(name) in str(raised.value)

    labels = np.zeros(24, np.uint8)
    refused(b"no gzip at all", "cannot be read")
    refused(gzip.compress(idx(labels))[:-6], "cannot be read")
    torn = bytearray(gzip.compress(idx(labels)))
    torn[12] ^= 0xFF  # no deflate stream
    refused(bytes(torn), "cannot be read")
    refused(gzip.compress(idx(labels)[:-1]), "holds 23 values and says 24")
    refused(gzip.compress(idx(labels)[:6]), "no IDX file of 1 dim")
    refused(gzip.compress(idx(labels[None])), "no IDX file of 1 dim")
    refused(gzip.compress(b"\0\0\x0d\1" + idx(labels)[4:]), "no IDX file of 1 dim")
    refused(gzip.compress(idx(labels[:9])), "holds 9 labels for 24 pictures")
    refused(gzip.compress(idx(labels + 10)), "the label 10 and there are 10 names")
    write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((3, 32, 32), np.uint8))))
    with pytest.raises(InputError, match=r"\(32, 32\) pixels, not 28 x 28"):
        load_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match="needs t10k-images-idx3-ubyte"):
        load_idx(tmp_path)


@pytest.mark.skipif(not Path(DEBIAN_FOLDER).is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_as_debian_ships_it():
    found = load_idx()
    assert found.pictures.shape == (60000, 28, 28)
    assert found.test_pictures.shape == (10000, 28, 28)
    np.testing.assert_array_equal(np.bincount(found.labels), [6000] * 10)
    assert found("test", 0)[1] == "ankle boot"  # the first picture of the test file, as everyone shows it
    made = make_mad(5, "train", 5, source=found)
    assert all(any(name in captions[0] for name in FASHION) for captions in made.captions)
