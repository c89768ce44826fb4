"""Whether a picture scores its true captions above others of nearly the same words: SugarCrepe, ARO, Winoground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.data.problems import Problem, summary
from boresight.editing import Scorer
from boresight.editing.scorer import check_batches, ways
from boresight.embeddings.batches import caption_batches, picture_batches
from boresight.encoders.long_text import warn_of_truncation
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Contrasts
from boresight.evaluation.results import Scores
from boresight.progress import progress, say
from boresight.recall import limits

MOST_LINES = 40


@dataclass(frozen=True, repr=False)
class CompositionScores(Scores):
    """How often the true captions of an item all score above all others, in percent; a tie is a miss.

    Values: 'macro accuracy', the mean over the groups `in_macro`, NaN where there are none; 'micro accuracy', over all
    items. Chance of the latter is what putting the captions of each item in a random order gets right.

    Attributes:
        groups: group -> accuracy.
        sizes: group -> items.
        in_macro: the groups that 'macro accuracy' is a mean over.
    """

    groups: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    in_macro: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Values and counts by name, and {"groups": {group: {"accuracy", "items", "in macro"}}}."""
        groups = {
            group: {"accuracy": value, "items": self.sizes[group], "in macro": group in self.in_macro}
            for group, value in self.groups.items()
        }
        return {**super().to_dict(), "groups": groups}

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]], str]:
        """The groups in the macro mean, where they are not too many, and the means."""
        shown = self.in_macro if len(self.in_macro) <= MOST_LINES else ()
        rows = [(group, self.groups[group], self.sizes[group]) for group in shown]
        in_macro, items = sum(self.sizes[group] for group in self.in_macro), self.counts["items"]
        rows.append((f"mean of {len(self.in_macro):,} groups (macro)", self["macro accuracy"], in_macro))
        rows.append(("all items (micro)", self["micro accuracy"], items))
        rows.append(("chance", self.chance["micro accuracy"], items))
        cells = [[name, f"{accuracy:.2f}", f"{size:,}"] for name, accuracy, size in rows]
        return ["", "accuracy", "items"], cells, self.title


def evaluate_contrasts(
    encoder: Encoder,
    contrasts: Contrasts,
    editor: Scorer | None = None,
    *,
    batch_size: int = 64,
    workers: int = 2,
) -> dict[str, CompositionScores]:
    """How often a picture scores its true caption above each of its false ones: 'plain' and, given an editor, 'edited'.

    Of an item with several true captions all of them must. Scores within 1e-6 * max(1, |true caption's score|) are
    ties, and ties are misses: a model that cannot tell two captions apart gets 0, not 50.

    Args:
        contrasts: what a reader of `boresight.benchmarks` gives, or items of your own.
        editor: a caption editor or anything that scores alike, beside the plain cosine.
        batch_size: pictures, and captions, that the encoder sees at once.
        workers: threads that read pictures.

    Every picture is embedded once, however many items it has. Memory: two batches of pictures, the embeddings of the
    captions of one, and the scores of the items.

    Relations:
        Of items that come in pairs, two pictures with two captions, use `evaluate_winoground`; of whole galleries
        `evaluate_retrieval`; of altered captions in a gallery `evaluate_attack`. `evaluate_paraphrases` asks the same
        of the captions alone.

    Raises:
        InputError: no items, no picture that can be read, a batch size below 1.
        ArtefactError: an editor of another encoder or width.
    """
    scored, problems, cut = _scored(encoder, contrasts, editor, batch_size, workers)
    return {
        way: composition_scores(
            contrasts,
            [None if own is None else _is_right(item, own) for item, own in zip(contrasts.items, scores, strict=True)],
            problems,
            cut,
        )
        for way, scores in scored.items()
    }


def composition_scores(
    contrasts: Contrasts, right: Sequence[bool | None], problems: Sequence[Problem], cut: int
) -> CompositionScores:
    """Accuracy, of which items were right (None for those left out) and how many captions were too long."""
    items: list[Contrast] = []
    marks: dict[str, list[bool]] = {}
    for item, hit in zip(contrasts.items, right, strict=True):
        if hit is not None:
            items.append(item)
            marks.setdefault(item.group, []).append(hit)
    sizes = {group: len(right) for group, right in marks.items()}
    accuracy = {group: 100 * sum(right) / len(right) for group, right in marks.items()}
    in_macro = tuple(name for name in sizes if sizes[name] >= contrasts.fewest and name not in contrasts.outside_macro)
    macro = float(np.mean([accuracy[name] for name in in_macro])) if in_macro else float("nan")
    return CompositionScores(
        values={"macro accuracy": macro, "micro accuracy": 100 * (sum(map(sum, marks.values())) / len(items))},
        main="macro accuracy",
        name=contrasts.name or "composition",
        counts={"items": len(items), "left out": len(problems), **({"cut captions": cut} if cut else {})},
        chance={
            "micro accuracy": 100 * float(np.mean([1 / comb(len(item.captions), len(item.right)) for item in items]))
        },
        problems=problems,
        groups=accuracy,
        sizes=sizes,
        in_macro=in_macro,
    )


def evaluate_winoground(
    encoder: Encoder,
    contrasts: Contrasts,
    editor: Scorer | None = None,
    *,
    batch_size: int = 64,
    workers: int = 2,
) -> dict[str, Scores]:
    """Winoground's three scores (arXiv 2204.03162), of it or any items that come in such pairs; a tie is a miss.

    In percent of the examples whose two pictures can be read: 'text', both pictures score their own caption above the
    other; 'image', both captions score their own picture above the other; 'group', both of that.

    Arguments, ways, ties, memory and errors are those of `evaluate_contrasts`; and InputError for a group that is not
    two items with the same two captions of which each has its own. An example one of whose pictures cannot be read is
    left out whole.
    """
    examples: dict[str, list[int]] = {}
    for row, item in enumerate(contrasts.items):
        examples.setdefault(item.group, []).append(row)
    for group, rows in examples.items():
        both = [contrasts.items[row] for row in rows]
        if [len(one.captions) for one in both] != [2, 2] or [one.true for one in both] != [0, 1]:
            raise InputError(f"Example '{group}' is not two pictures that each have one of two captions; mend it.")
        if both[0].captions != both[1].captions:
            raise InputError(f"The two pictures of example '{group}' have different captions; mend it.")
    scored, problems, cut = _scored(encoder, contrasts, editor, batch_size, workers)
    return {way: _winoground(contrasts, examples, scores, problems, cut) for way, scores in scored.items()}


def _winoground(
    contrasts: Contrasts,
    examples: Mapping[str, Sequence[int]],
    scores: Sequence[Tensor | None],
    problems: Sequence[Problem],
    cut: int,
) -> Scores:
    text, image = [], []
    for rows in examples.values():
        readable = [part for row in rows if (part := scores[row]) is not None]
        if len(readable) == 2:
            pairs = torch.stack(readable)  # [picture, caption]
            below = limits(pairs.diagonal())[0]
            text.append(bool((pairs.flip(1).diagonal() < below).all()))
            image.append(bool((pairs.flip(0).diagonal() < below).all()))
    if not text:
        raise InputError(f"No example of {contrasts.name or 'this benchmark'} has two pictures that can be read.")
    hits = {"text": text, "image": image, "group": np.logical_and(text, image)}
    return Scores(
        values={name: 100 * float(np.mean(right)) for name, right in hits.items()},
        main="group",
        name=contrasts.name or "Winoground",
        counts={"examples": len(text), "left out": len(problems), **({"cut captions": cut} if cut else {})},
        chance={"text": 25, "image": 25, "group": 100 / 6},
        problems=problems,
    )


def _is_right(item: Contrast, scores: Tensor) -> bool:
    return bool(scores[list(item.wrong)].max() < limits(scores[list(item.right)])[0].min())


def _scored(
    encoder: Encoder, contrasts: Contrasts, editor: Scorer | None, batch_size: int, workers: int
) -> tuple[dict[str, list[Tensor | None]], list[Problem], int]:
    """By way, of each item the scores of its captions (C,), None where its picture cannot be read.

    Also all problems, and how many captions were longer than the model reads.
    """
    if not len(contrasts):
        raise InputError(f"{contrasts.name or 'This benchmark'} has no items; there is nothing to score.")
    check_batches(encoder, editor, batch_size)
    scorers = ways(editor)
    scores: dict[str, list[Tensor | None]] = {way: [None] * len(contrasts) for way in scorers}
    unread: list[Problem] = []
    cut = 0
    batches = _by_picture(contrasts.items, batch_size)
    pictures = [contrasts.items[rows[0]].picture for batch in batches for rows in batch]
    embedding = picture_batches(
        encoder, lambda row: pictures[row].open(), len(pictures), batch_size=batch_size, workers=workers
    )
    with (
        torch.inference_mode(),
        progress(total=len(contrasts), what=f"scoring {contrasts.name or 'contrasts'}", unit="item", delay=1.0) as bar,
    ):
        for batch, (embedded, wrong) in zip(batches, embedding, strict=True):
            for rows, error in zip(batch, wrong, strict=True):
                unread += [] if error is None else [Problem("unreadable picture", str(error))] * len(rows)
            readable = [rows for rows, error in zip(batch, wrong, strict=True) if error is None]
            if readable:
                cut += _score_batch(encoder, contrasts.items, readable, embedded, scorers, batch_size, scores)
            bar.update(sum(map(len, batch)))
    if unread:
        say(f"{contrasts.name or 'contrasts'}: left out {summary(unread)}")
    if cut:
        warn_of_truncation(encoder, cut)
    if len(unread) == len(contrasts):
        raise InputError(
            f"No picture of {contrasts.name or 'this benchmark'} can be read, the first: {unread[0].where}"
        )
    return scores, [*contrasts.problems, *unread], cut


def _score_batch(
    encoder: Encoder,
    items: Sequence[Contrast],
    batch: Sequence[Sequence[int]],
    embedded: Tensor,
    scorers: Mapping[str, Scorer],
    batch_size: int,
    scores: Mapping[str, list[Tensor | None]],
) -> int:
    """Fill in the scores of the items at `batch`, rows by picture; embedded: (K, d), a row a picture.

    Returns how many captions were longer than the model reads.
    """
    cut = 0
    captions = list(dict.fromkeys(caption for rows in batch for row in rows for caption in items[row].captions))
    column = {caption: number for number, caption in enumerate(captions)}
    tables = {name: torch.empty(len(embedded), len(captions)) for name in scorers}
    images = {name: scorer.prepare_images(embedded) for name, scorer in scorers.items()}
    for columns, texts, long in caption_batches(encoder, captions, batch_size=batch_size):
        cut += long
        for name, scorer in scorers.items():
            tables[name][:, columns] = scorer.score_prepared(images[name], scorer.prepare_texts(texts)).cpu()
    for picture, rows in enumerate(batch):
        for row in rows:
            own = [column[caption] for caption in items[row].captions]
            for name, of_scorer in tables.items():
                scores[name][row] = of_scorer[picture, own]
    return cut


def _by_picture(items: Sequence[Contrast], batch_size: int) -> list[list[list[int]]]:
    """Rows of items by picture, so that each picture is embedded once, `batch_size` pictures at a time."""

    def picture(row: int) -> tuple[str, tuple[float, ...]]:
        return items[row].picture.name, items[row].picture.box or ()

    together = [list(rows) for _, rows in groupby(sorted(range(len(items)), key=picture), picture)]
    return [together[start : start + batch_size] for start in range(0, len(together), batch_size)]
