"""RoCOCO (arXiv 2304.10727): the COCO test images with altered captions, and with altered pictures, among them.

Four files hold the 5,000 images of Karpathy's test split: five or six true captions each, then five altered ones.
Of the altered pictures only the making is published: `boresight.evaluation.image_mixes` makes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from boresight.benchmarks.coco import KARPATHY_5K
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult, ScoresByWay, long_captions, size_facts
from boresight.benchmarks.record import PLAIN
from boresight.brief import Brief
from boresight.data.assemble import Table
from boresight.data.collection import Collection
from boresight.data.files import finder, key_of
from boresight.data.formats.coco import image_folders
from boresight.data.problems import is_unicode
from boresight.editing import Scorer
from boresight.editing.scorer import ways
from boresight.embeddings import Embeddings
from boresight.embeddings.batches import LongText, embed_captions
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.evaluation.attacks import evaluate_attack
from boresight.evaluation.image_mixes import (
    PUBLISHED_SEEDS,
    PUBLISHED_SIZE,
    Kind,
    MixedPictures,
    embed_mixes,
    mix_pictures,
)

RococoSet = Literal["danger", "diff_concept", "same_concept", "rand_voca"]
SETS: tuple[RococoSet, ...] = get_args(RococoSet)
ALTERED = 5
_TRUE = (5, 6)
_WORDS = 50
SOURCE = "https://github.com/pseulki/rococo"
_ANEW = f"get the file anew from {SOURCE}."


@dataclass(frozen=True, eq=False, repr=False)
class Rococo(Brief):
    """One of RoCOCO's four sets: N images, their M true captions, and S altered ones.

    Attributes:
        collection: the images in the published order, with the true captions alone; split 'test'.
        altered: S captions, image after image.
        rows: (S,) int64, the row in `collection.texts` of the true caption that each was made of: the k-th altered
            caption of an image is of its k-th true one, so that a sixth has none.
        which: the set.
    """

    collection: Collection
    altered: list[str]
    rows: np.ndarray
    which: RococoSet


def normalise(caption: str) -> str:
    """A caption as RoCOCO's evaluation reads it: lower case, `.!"()*#:;~` as spaces, at most 50 words.

    Ours goes further, since a tokenizer has been over the altered captions and not over the true ones: its quote marks
    `` and '' are spaces too, and what it parts ("do n't", "man 's", "farmers '", "m & ms", "red , blue") is typed one
    way in both.
    """
    plain = re.sub(r"``|''|[.!\"()*#:;~]", " ", caption.lower())
    plain = re.sub(r"&|--+", r" \g<0> ", re.sub(r",(?=[^\W\d])", ", ", plain)).replace("cannot", "can not")
    plain = re.sub(r"\s+", " ", plain).strip()
    return " ".join(re.sub(r" (?=[,?]|n't\b|'(?:s|d|m|t|ll|re|ve)?(?:\s|$))", "", plain).split(" ")[:_WORDS])


def read_rococo(folder: str | Path, which: RococoSet, *, images: str | os.PathLike[str] | None = None) -> Rococo:
    """One of the four sets, `WHICH.json` in `folder` or in its `annotations/`.

    Of ten captions of an image the first five are true, of eleven the first six. In three sets the altered captions
    are in lower case and without full stops, in 'danger' they are taken apart into words, so all captions, the true
    ones too, go through `normalise`: else a model could tell them apart by the typing.

    Args:
        images: the folder of the pictures ('val2014/COCO_val2014_*.jpg'); left out, they are looked for beside the
            json, beside its folder, and in `images/` of the two.

    Raises InputError for an unknown set, a missing or malformed file, another number of captions, an empty caption,
    a picture named twice or missing: a gallery with gaps is another benchmark.
    """
    if which not in SETS:
        raise InputError(f"RoCOCO has no set '{which}'; choose from {', '.join(SETS)}.")
    files = PublishedFiles(folder, "RoCOCO", SOURCE)
    file = files.find(f"{which}.json", f"annotations/{which}.json")
    content = files.read_json(file)
    if not isinstance(content, list) or not content:
        raise InputError(f"{file} is no list of images with captions; {_ANEW}")
    find, table, seen = finder(image_folders(file, images)), Table(), set[str]()
    altered: list[str] = []
    rows: list[int] = []
    texts = 0
    for number, entry in enumerate(content):
        name, captions = _entry(entry, f"Image {number} of {file}")
        if name in seen:
            raise InputError(f"{file} names the image {name} twice; {_ANEW}")
        seen.add(name)
        path = find(name)
        if path is None:
            raise InputError(f"The picture {name} of {file.name} is not there; pass `images`, where 'val2014/' is.")
        said = [normalise(caption) for caption in captions]
        if "" in said:
            raise InputError(f"Image {number} of {file} has an empty caption; {_ANEW}")
        own = len(said) - ALTERED
        row = table.add_image(key_of(name), {"bytes": None, "path": path}, "test", {})
        table.add_captions(row, said[:own])
        altered += said[own:]
        rows += range(texts, texts + ALTERED)
        texts += own
    return Rococo(Collection(table.finish(), f"RoCOCO, {which}"), altered, np.array(rows, np.int64), which)


def _entry(entry: Any, where: str) -> tuple[str, list[str]]:
    """Name and captions of an image in the json."""
    name, captions = (entry.get(key) if isinstance(entry, Mapping) else None for key in ("image", "caption"))
    if not isinstance(name, str) or not name or not isinstance(captions, list):
        raise InputError(f"{where} lacks the keys 'image' and 'caption'; {_ANEW}")
    if not all(isinstance(caption, str) and is_unicode(caption) for caption in captions):
        raise InputError(f"{where} has a caption that is no string of Unicode; {_ANEW}")
    if len(captions) - ALTERED not in _TRUE:
        raise InputError(
            f"{where} has {len(captions)} captions where 10 (5 true, 5 altered) or 11 (6 true, 5 altered) belong; "
            f"{_ANEW}"
        )
    return name, captions


def embed_altered(
    encoder: Encoder, rococo: Rococo, embeddings: Embeddings, *, long_text: LongText = "truncate"
) -> tuple[Tensor, int]:
    """(S, d) float32 embeddings of the altered captions, and how many of these were longer than the model reads.

    One that reads like a true caption takes its embedding, so that the two are a tie whatever an encoder's rounding
    does. `long_text` is what `embeddings` were made with. Raises InputError unless they are of the set's own images
    and captions, in order.
    """
    collection = rococo.collection
    if list(embeddings.ids) != collection.ids or list(embeddings.captions or ()) != collection.texts:
        raise InputError(
            f"These embeddings are not of the images and captions of {collection.name}; embed its collection, with "
            "on_error='refuse' so that none is left out."
        )
    true = {caption: row for row, caption in enumerate(collection.texts)}
    new = sorted({caption for caption in rococo.altered if caption not in true}, key=len)
    rows, long = embed_captions(encoder, new, long_text=long_text) if new else (torch.empty(0), 0)
    vectors = dict(zip(new, rows, strict=True))
    altered = [
        vectors[caption] if caption in vectors else embeddings.texts[true[caption]].float()
        for caption in rococo.altered
    ]
    return torch.stack(altered), long


def evaluate_rococo_images(
    embeddings: Embeddings, altered: Sequence[Tensor], editor: Scorer | None = None
) -> ScoresByWay:
    """Caption to image with the altered pictures in the gallery, plain and edited, by `evaluate_attack`.

    Args:
        embeddings: of the N originals and their captions.
        altered: for each seed (N, d) from `embed_mixes`, in the order of the originals; the figures are means over the
            seeds (published: 1, 10 and 100).

    Raises InputError for no seed, another number of altered pictures than of images, and as `evaluate_attack`.
    """
    if isinstance(altered, Tensor) or not len(altered):
        raise InputError("altered is a list, the embeddings of one seed each; pass at least one.")
    for one in altered:
        if len(one) != len(embeddings):
            raise InputError(f"There are {len(one)} altered pictures of {len(embeddings)} images; pass one of each.")
    every = range(len(embeddings))
    figures: ScoresByWay = {}
    for name, scorer in ways(editor).items():
        runs = [evaluate_attack(embeddings, rows, every, scorer, side="images").values for rows in altered]
        figures[name] = {measure: sum(run[measure] for run in runs) / len(runs) for measure in runs[0]}
    return figures


def run_texts(job: BenchmarkJob, which: RococoSet) -> BenchmarkResult:
    """Image to caption with the altered captions of one set in the gallery.

    The published figures are 'I2T R@1', 'I2T R@5', 'I2T R@10' and 'false rate'; published code takes no notice of
    ties, of which there are next to none but the altered captions that were left as they were.
    """
    rococo = read_rococo(job.folder, which, images=job.images)
    embeddings = job.embedded(rococo.collection, "refuse")
    altered, long = embed_altered(job.encoder, rococo, embeddings, long_text=job.long_text)
    scores: ScoresByWay = {
        way: dict(evaluate_attack(embeddings, altered, rococo.rows, scorer, side="texts").values)
        for way, scorer in job.ways.items()
    }
    facts = long_captions(long, job.long_text) | size_facts(embeddings) | KARPATHY_5K.facts(embeddings)
    facts |= {"altered captions": f"{len(rococo.altered):,}"}
    return attack_result(scores, "I2T R@1", "false rate", facts=facts)


def run_images(job: BenchmarkJob, kind: Kind) -> BenchmarkResult:
    """Caption to image with altered pictures in the gallery, squeezed and stored as JPEG as the published ones are."""
    collection = KARPATHY_5K.open(job.folder, job.images)
    embeddings = job.embedded(collection, "refuse")
    make = partial(mix_pictures, collection, kind, size=PUBLISHED_SIZE, jpeg=True)
    facts = size_facts(embeddings, collection.problems) | KARPATHY_5K.facts(embeddings)
    return run_mixes(job, embeddings, {kind: make}, PUBLISHED_SEEDS, facts)


def run_mixes(
    job: BenchmarkJob,
    embeddings: Embeddings,
    kinds: Mapping[Kind, Callable[..., MixedPictures]],
    seeds: Sequence[int],
    facts: Mapping[str, str],
) -> BenchmarkResult:
    """The attack by each kind of altered pictures, which `kinds` make for a seed; means over the seeds."""
    scores: ScoresByWay = {way: {} for way in job.ways}
    for kind, make in kinds.items():
        altered = [embed_mixes(job.encoder, make(seed=seed)) for seed in seeds]
        for way, values in evaluate_rococo_images(embeddings, altered, job.editor).items():
            scores[way] |= {name if len(kinds) == 1 else f"{kind}: {name}": value for name, value in values.items()}
    return attack_result(scores, "T2I R@1", "false rate", facts={**facts, "seeds": ", ".join(map(str, seeds))})


def attack_result(scores: ScoresByWay, *charts: str, facts: Mapping[str, str]) -> BenchmarkResult:
    """Figures of attacks; those whose names end in one of `charts` are drawn."""
    names = list(scores[PLAIN])
    return BenchmarkResult(
        scores=scores,
        charts=[name for name in names if name.endswith(charts)],
        lower=[name for name in names if name.endswith(("false rate", "drop rate"))],
        facts=facts,
    )
