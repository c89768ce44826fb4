"""Zero-shot classification (CLIP, arXiv 2103.00020, section 3.1): the class whose name in a sentence scores highest."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from boresight.data import Collection, Problem
from boresight.data.images import open_picture
from boresight.data.problems import summary
from boresight.editing import PlainScorer, Scorer
from boresight.editing.scorer import check_batches, ways
from boresight.embeddings.batches import caption_batches, embed_pictures
from boresight.encoders.long_text import warn_of_truncation
from boresight.encoders.protocol import Encoder, Picture, check_encoder
from boresight.errors import InputError
from boresight.evaluation.ranking import ScoreBlocks, Tally
from boresight.evaluation.results import Scores
from boresight.indexing import as_tensor
from boresight.progress import say
from boresight.recall import Counts

_MARK = re.compile(r"\{\w*\}")
TEMPLATES = (
    "{}",
    "a {}",
    "a photo of a {}",
    "a picture of the {}",
    "an image that shows a {}",
    "a close view of a {}",
    "a drawing of a {}",
)
BLOCK = 1024  # classes, and images, of one block of scores


@dataclass(frozen=True, repr=False)
class ZeroShotScores(Scores):
    """Zero-shot classification, in percent.

    Values: 'top-1' and 'top-5', pictures whose class is the first, or among the first five (none for five classes or
    fewer); 'mean per class', the mean of `per_class` over the classes that have pictures.

    Attributes:
        per_class: (C,) float64, top-1 accuracy over the pictures of each class; NaN where it has none.
        classes: C names.
    """

    per_class: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    classes: Sequence[str] = ()


def evaluate_zero_shot(
    encoder: Encoder,
    pictures: Collection | Picture | Sequence[Picture],
    labels: Tensor | np.ndarray | Sequence[int],
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    editor: Scorer | None = None,
    *,
    batch_size: int = 64,
    workers: int = 2,
) -> dict[str, ZeroShotScores]:
    """How often the class of a picture scores highest of all: 'plain' and, given an editor, 'edited'.

    Ties are as in `evaluate_retrieval`: within 1e-6 * max(1, |score|), and accuracy is an expectation over a random
    order of the tied, so a model that tells no classes apart gets chance.

    Args:
        pictures: N pictures or files, or one, or a collection, whose captions play no part.
        labels: (N,) integers in [0, C).
        classes: C names, at least two.
        templates: sentences with `{}` where the name goes, or another mark in braces, as CLIP_benchmark's `{c}`.
        editor: a caption editor or anything that scores alike, beside the plain cosine. It takes the class embedding
            (`class_embeddings`) for that of a caption.
        batch_size: pictures, and sentences, that the encoder sees at once.
        workers: threads that read pictures.

    Memory: the embeddings of N pictures and C classes, two batches of pictures, and blocks of BLOCK classes.

    Raises:
        InputError: labels, classes or templates that make no sense, or no picture that can be read.
        ArtefactError: an editor of another encoder or width.
    """
    check_encoder(encoder)
    check_batches(encoder, editor, batch_size)
    if isinstance(pictures, Image.Image | str | os.PathLike):
        pictures = [pictures]
    name, left_out = (pictures.name, pictures.problems) if isinstance(pictures, Collection) else ("", ())

    def open_row(row: int) -> Image.Image:
        return pictures.image(row) if isinstance(pictures, Collection) else open_picture(pictures[row])

    truth = _labels(labels, len(pictures), len(classes))
    names, cut = class_embeddings(encoder, classes, templates, batch_size=batch_size)
    rows, wrong = embed_pictures(
        encoder, open_row, len(pictures), batch_size=batch_size, workers=workers, what="classifying"
    )
    kept = [row for row, error in enumerate(wrong) if error is None]
    problems = [Problem("unreadable picture", str(error)) for error in wrong if error is not None]
    if problems:
        say(f"{name or 'pictures'}: left out {summary(problems)}")
    if not kept:
        raise InputError(f"No picture can be read, the first: {problems[0].where}")
    counts = {way: count_classes(rows, names, truth[kept], scorer) for way, scorer in ways(editor).items()}
    return {
        way: _result(of, truth[kept].numpy(), classes, name, [*left_out, *problems], cut) for way, of in counts.items()
    }


def class_embeddings(
    encoder: Encoder, classes: Sequence[str], templates: Sequence[str] = TEMPLATES, *, batch_size: int = 64
) -> tuple[Tensor, int]:
    """(C, d) float32: the mean of the unit embeddings of a class's name in all templates, brought to unit length.

    Also how many sentences were longer than the model reads. Raises InputError for fewer than two classes, an empty
    name, or a template without `{}` or with marks of several names.
    """
    if isinstance(classes, str) or len(classes) < 2 or not all(isinstance(one, str) and one.strip() for one in classes):
        raise InputError("classes must be at least two names, none of them empty.")
    if isinstance(templates, str) or not len(templates):
        raise InputError("templates must be a list of at least one sentence with {} where the name goes.")
    for number, template in enumerate(templates):
        marks = sorted(set(_MARK.findall(template)))
        if len(marks) != 1:
            found = f"has {' and '.join(marks)}" if marks else "has no {}"
            raise InputError(f"Template {number}, '{template}', {found}; write {{}} where the name of the class goes.")
    said = [_MARK.sub(one.replace("\\", r"\\"), template) for one in classes for template in templates]
    sums, cut = torch.zeros(len(classes), encoder.width), 0
    owners = torch.arange(len(classes)).repeat_interleave(len(templates))
    for rows, embedded, long in caption_batches(encoder, said, batch_size=batch_size):
        sums.index_add_(0, owners[rows], F.normalize(embedded, dim=1))
        cut += long
    if cut:
        warn_of_truncation(encoder, cut)
    return F.normalize(sums, dim=1), cut


def count_classes(images: Tensor, classes: Tensor, labels: Tensor, editor: Scorer | None = None) -> Counts:
    """For each image how many classes score above its own and how many tie with it; `.recall(k)` is top-k.

    images: (N, d); classes: (C, d), of `class_embeddings`; labels: (N,) int64 in [0, C). In blocks, twice over.
    """
    scored = ScoreBlocks(images, PlainScorer() if editor is None else editor, BLOCK, range(len(images)))
    own = torch.empty(len(images))
    with torch.inference_mode():
        for counting in (False, True):
            tally = Tally(own, torch.ones(len(images), dtype=torch.int64))
            for columns in torch.arange(len(classes)).split(BLOCK):
                for rows, scores in scored.of(classes, columns):
                    column = labels[rows] - columns[0]
                    here = ((column >= 0) & (column < len(columns))).nonzero()[:, 0]
                    if counting:
                        scores[here, column[here]] = -torch.inf  # the answer does not compete with itself
                        tally.add(scores, rows, 1)
                    else:
                        own[rows][here] = scores[here, column[here]].cpu()
    return tally.counts()


def _labels(labels: Tensor | np.ndarray | Sequence[int], n_images: int, n_classes: int) -> Tensor:
    truth = as_tensor(labels, "labels")
    if not n_images or truth.shape != (n_images,) or truth.is_floating_point() or truth.dtype == torch.bool:
        raise InputError(
            f"labels has shape {tuple(truth.shape)} and dtype {truth.dtype}; there are {n_images} pictures, and each "
            "needs the number of its class."
        )
    if int(truth.min()) < 0 or int(truth.max()) >= n_classes:
        raise InputError(f"labels go from {int(truth.min())} to {int(truth.max())} and there are {n_classes} classes.")
    return truth.long()


def _result(
    counts: Counts, truth: np.ndarray, classes: Sequence[str], name: str, problems: Sequence[Problem], cut: int
) -> ZeroShotScores:
    first = 100 * counts.recall(1)
    sizes = np.bincount(truth, minlength=len(classes))
    sums = np.bincount(truth, first, minlength=len(classes))
    per_class = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)
    values = {"top-1": float(first.mean()), "top-5": 100 * float(counts.recall(5).mean())}
    if len(classes) <= 5:
        del values["top-5"]
    return ZeroShotScores(
        values={**values, "mean per class": float(np.nanmean(per_class))},
        main="top-1",
        name=name or "zero-shot classification",
        counts={
            "images": len(truth),
            "classes": len(classes),
            "left out": len(problems),
            **({"cut captions": cut} if cut else {}),
        },
        chance={"top-1": 100 / len(classes), "mean per class": 100 / len(classes)},
        problems=problems,
        per_class=per_class,
        classes=list(classes),
    )
