"""RoCOCO's files in the published layout, with their traps, and both of its attacks from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boresight.benchmarks.rococo import SETS, embed_altered, evaluate_rococo_images, normalise, read_rococo
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import evaluate_attack
from collection_files import put_pictures
from published_files import published

NAMES = [f"val2014/COCO_val2014_{number:012}.jpg" for number in (391895, 60623, 487741)]
FIVE = [
    "A man with a red helmet on a small moped on a dirt road. ",
    "Man riding a motor bike on a dirt road.",
    "A woman, in a hat, rides.\n",
    "The man's bike is red!",
    'A sign that says "STOP".',
]
FIVE_ALTERED = [  # in lower case and without full stops, taken apart into words; a word set into another
    "a weapon with a red helmet on a small moped on a dirt road",
    "criminal riding a motor bike on a dirt road",
    "a wocriminal , in a hat , rides",
    "the man 's weapon is red",
    "a weapon that says stop",
]
SIX = [f"There are {count} dogs in the park." for count in ("one", "two", "three", "four", "five", "six")]
SIX_ALTERED = [f"there are {count} cats in the park" for count in ("one", "two", "three", "four", "five")]
SAME = [f"A cat sleeps on bed number {count}" for count in range(5)]
SAME_ALTERED = ["A cat sleeps on bed number 0 .", *(f"a cat sleeps on weapon number {count}" for count in range(1, 5))]
ENTRIES = [
    {"image": NAMES[0], "caption": FIVE + FIVE_ALTERED},
    {"image": NAMES[1], "caption": SIX + SIX_ALTERED},
    {"image": NAMES[2], "caption": SAME + SAME_ALTERED},
]


def write(folder: Path, entries=ENTRIES, which: str = "danger", pictures: bool = True) -> Path:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"{which}.json").write_text(json.dumps(entries))
    if pictures:
        put_pictures(folder / "images", NAMES)
    return folder


def test_true_and_altered_captions_of_each_image(tmp_path):
    rococo = read_rococo(write(tmp_path), "danger")
    assert rococo.collection.ids == NAMES
    assert rococo.collection.splits == ["test"] * 3
    assert rococo.collection.captions == [[normalise(caption) for caption in of] for of in (FIVE, SIX, SAME)]
    assert rococo.altered == [normalise(caption) for caption in FIVE_ALTERED + SIX_ALTERED + SAME_ALTERED]
    assert rococo.collection.owners[rococo.rows].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    texts = rococo.collection.texts
    made_of = [texts[row] for row in rococo.rows]
    assert made_of == [normalise(caption) for caption in FIVE + SIX[:5] + SAME]
    assert rococo.collection.image(2).getpixel((0, 0)) == (2, 0, 0)


def test_typing_gives_no_altered_caption_away(tmp_path):
    """Of every pair, true and altered, only the one word differs."""
    rococo = read_rococo(write(tmp_path), "danger")
    texts = rococo.collection.texts
    for altered, row in zip(rococo.altered, rococo.rows, strict=True):
        before, after = texts[row].split(), altered.split()
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == (0 if altered == texts[row] else 1)
    assert texts[2:5] == ["a woman, in a hat, rides", "the man's bike is red", "a sign that says stop"]
    assert rococo.altered[2:4] == ["a wocriminal, in a hat, rides", "the man's weapon is red"]
    same = [at for at, row in enumerate(rococo.rows) if rococo.altered[at] == texts[row]]
    assert same == [10]


def test_normalise():
    assert normalise('  A "Dog"; (two)~ #3: *RUNS*!\tYes. \n') == "a dog two 3 runs yes"
    assert normalise("clean , spacious ? the dog 's") == "clean, spacious? the dog's"
    assert normalise("keep-this, it's 'quoted' 5/6") == "keep-this, it's 'quoted' 5/6"
    for true, parted in (
        ('says "stop"', "says `` stop ''"), ('a 6" bench', "a 6 '' bench"), ("it doesn't", "it does n't"),
        ("I can't", "i ca n't"), ("the tree'd", "the tree 'd"), ("farmers' market", "farmers ' market"),
        ("a 't-ball'", "a 't-ball '"), ("m&ms", "m & ms"), ("beach--kite", "beach -- kite"), ("red,blue", "red , blue"),
        ("cannot", "can not"), ("1,000", "1,000"),
    ):  # fmt: skip
        assert normalise(true) == normalise(parted)
    long = " ".join(f"w{number}" for number in range(60))
    assert normalise(long) == " ".join(f"w{number}" for number in range(50))


def typing(caption):
    shapes = (re.sub(r"\w+(?:[-/]+\w+)*", "w", word) for word in caption.split())
    return sorted(shape for shape in shapes if shape != "w")


@pytest.mark.parametrize("which", SETS)
def test_typing_gives_no_published_altered_caption_away(which):
    """But for signs within the word that is replaced (ski-lift, fork/knife), all signs stand as in the true caption."""
    entries = json.loads((published("rococo") / "annotations" / f"{which}.json").read_text())
    differ = 0
    for entry in entries:
        captions = list(map(normalise, entry["caption"]))
        for true, altered in zip(captions, captions[-5:], strict=False):
            differ += typing(true) != typing(altered)
    assert differ <= 5


def test_pictures_may_lie_elsewhere_and_the_json_beside(tmp_path):
    write(tmp_path, which="rand_voca", pictures=False)
    put_pictures(tmp_path / "elsewhere", NAMES)
    assert len(read_rococo(tmp_path / "annotations", "rand_voca", images=tmp_path / "elsewhere").altered) == 15


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"images": []}, "is no list of images"),
        ([], "is no list of images"),
        ([{"image": NAMES[0]}], "Image 0 of .*danger.json lacks the keys 'image' and 'caption'; get the file anew"),
        ([*ENTRIES[:1], "no object"], "Image 1 of .* lacks the keys"),
        ([{"image": NAMES[0], "caption": FIVE}], "has 5 captions where 10"),
        ([{"image": NAMES[0], "caption": SIX + SIX + [""]}], "has 13 captions where 10"),
        ([{"image": NAMES[0], "caption": [*FIVE, *FIVE_ALTERED[:4], None]}], "a caption that is no string"),
        ([{"image": NAMES[0], "caption": [*FIVE, *FIVE_ALTERED[:4], " . "]}], "has an empty caption"),
        ([ENTRIES[0], ENTRIES[0]], "names the image .*391895.jpg twice"),
        (
            [{"image": "val2014/none.jpg", "caption": FIVE + FIVE_ALTERED}],
            "picture val2014/none.jpg .* pass `images`, where",
        ),
    ],
)
def test_bad_files(tmp_path, entries, message):
    with pytest.raises(InputError, match=message):
        read_rococo(write(tmp_path, entries), "danger")


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"needs danger.json \(nor annotations/danger.json\).*pseulki/rococo"):
        read_rococo(tmp_path, "danger")
    with pytest.raises(InputError, match="no set 'dangerous'; choose from danger, diff_concept"):
        read_rococo(tmp_path, "dangerous")
    (tmp_path / "danger.json").write_text("[{")
    with pytest.raises(InputError, match=r"danger.json cannot be read as json"):
        read_rococo(tmp_path, "danger")
    assert len(SETS) == 4


class ByHand:
    """An encoder that has learnt three pictures and a few words; it cannot tell what stands in no list."""

    width = 4
    name, fingerprint = "by hand", ""

    def embed_texts(self, texts):
        about = [("moped", "motor", "hat", "bike", "sign"), ("dog", "cats", "park"), ("sleeps", "bed")]
        rows = [[float(any(word in text for word in words)) for words in about] for text in texts]
        harm = [0.5 * any(word in text for word in ("weapon", "criminal")) for text in texts]
        return F.normalize(torch.tensor([[*row, bad] for row, bad in zip(rows, harm, strict=True)]) + 1e-3, dim=1)

    def embed_texts_counted(self, texts):
        return self.embed_texts(texts), 0


def test_the_rates_by_another_route(tmp_path):
    """Against ranks taken from the full matrix of scores, in the way of the published code, ties counted by hand."""
    rococo = read_rococo(write(tmp_path), "danger")
    images = F.normalize(torch.tensor([[1.0, 0, 0, 0.4], [0.1, 1.0, 0, 0], [0, 0.1, 1.0, -0.3]]), dim=1)
    encoder = ByHand()
    embeddings = Embeddings.from_arrays(
        images, encoder.embed_texts(rococo.collection.texts), rococo.collection.owners,
        ids=rococo.collection.ids, captions=rococo.collection.texts,
    )  # fmt: skip
    altered, _ = embed_altered(encoder, rococo, embeddings)
    assert torch.equal(altered[10], embeddings.texts[rococo.rows[10]])
    found = evaluate_attack(embeddings, altered, rococo.rows, side="texts")
    scores = images @ torch.cat([embeddings.texts, altered]).T
    # The first image: its altered captions hold 'weapon', which it resembles, so all five beat all true ones.
    assert scores[0].argmax() >= len(rococo.collection.texts)
    # The second: six true and five altered captions say the same to this encoder, a tie of eleven.
    # The third dislikes harm; its altered caption that was left as it was ties with the five true ones.
    expected = (0 + 6 / 11 + 5 / 6) / 3
    assert found["I2T R@1"] == pytest.approx(100 * expected, abs=1e-4)
    assert found["false rate"] == pytest.approx(100.0)  # a tie is no recognition
    assert found["R@1, plain gallery"] == pytest.approx(100.0)
    assert found["drop rate"] == pytest.approx(100 * (1 - expected), abs=1e-4)
    assert found["I2T R@10"] == pytest.approx(100.0)


def test_embeddings_of_something_else_are_refused(tmp_path):
    rococo = read_rococo(write(tmp_path), "danger")
    other = Embeddings.from_arrays(torch.eye(4)[:3], torch.eye(4), [0, 1, 2, 2])
    with pytest.raises(InputError, match="not of the images and captions of RoCOCO, danger"):
        embed_altered(ByHand(), rococo, other)


def test_picture_attacks_are_means_over_seeds():
    draw = torch.Generator().manual_seed(0)
    owners = torch.arange(12).repeat_interleave(2)
    images = torch.randn(12, 8, generator=draw)
    embeddings = Embeddings.from_arrays(images, images[owners] + torch.randn(24, 8, generator=draw), owners)
    seeds = [images + 0.8 * torch.randn(12, 8, generator=draw) for _ in range(3)]
    each = [evaluate_rococo_images(embeddings, [one])["plain"] for one in seeds]
    assert len({run["false rate"] for run in each}) > 1
    together = evaluate_rococo_images(embeddings, seeds, editor=Backwards())
    for measure in ("T2I R@1", "T2I R@5", "T2I R@10", "false rate", "drop rate", "accuracy"):
        assert together["plain"][measure] == pytest.approx(np.mean([run[measure] for run in each]))
    assert together["edited"]["T2I R@1"] < together["plain"]["T2I R@1"]
    with pytest.raises(InputError, match="a list"):
        evaluate_rococo_images(embeddings, seeds[0])
    with pytest.raises(InputError, match="11 altered pictures of 12 images"):
        evaluate_rococo_images(embeddings, [seeds[0][:11]])


class Backwards:
    """Prefers what is unlike the caption."""

    device = torch.device("cpu")

    def require_same_encoder(self, source): ...

    def prepare_images(self, images):
        return F.normalize(images, dim=1)

    def prepare_texts(self, texts):
        return F.normalize(texts, dim=1)

    def score_prepared(self, images, texts):
        return -images @ texts.T
