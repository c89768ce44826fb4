"""Whether a picture scores its true caption above captions of nearly the same words: SugarCrepe, ARO, Winoground."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.data.problems import Problem, summary
from boresight.editing import PlainScorer, Scorer
from boresight.editing.scorer import Editors, check_batches
from boresight.embeddings.batches import embed_batches
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Contrasts
from boresight.progress import progress, say
from boresight.recall import limits

MOST_LINES = 40


@dataclass(frozen=True)
class CompositionResult:
    """How often the true caption scores above all others of its item, in percent; a tie is a miss.

    Attributes:
        macro: mean of the accuracies of the groups `in_macro`; NaN where there are none.
        micro: accuracy over all items.
        accuracy: by group.
        counts: items by group.
        in_macro: the groups that `macro` is a mean over.
        chance: what is right by drawing a caption of each item, over all items.
        name: of the benchmark.
        problems: what was left out, by the reader and for pictures that could not be read.
    """

    macro: float
    micro: float
    accuracy: dict[str, float]
    counts: dict[str, int]
    in_macro: tuple[str, ...]
    chance: float
    name: str = ""
    problems: Sequence[Problem] = ()

    @property
    def n_items(self) -> int:
        return sum(self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """{"macro", "micro", "chance", "items", "left_out", "groups": {group: {"accuracy", "items", "in_macro"}}}."""
        return {
            "macro": self.macro,
            "micro": self.micro,
            "chance": self.chance,
            "items": self.n_items,
            "left_out": len(self.problems),
            "groups": {
                group: {"accuracy": value, "items": self.counts[group], "in_macro": group in self.in_macro}
                for group, value in self.accuracy.items()
            },
        }

    def __str__(self) -> str:
        lines = [
            f"{self.name or 'composition'}: {self.n_items:,} items, {len(self.problems):,} left out",
            f"{'':<32}{'accuracy':>10}{'items':>10}",
        ]
        shown = self.in_macro if len(self.in_macro) <= MOST_LINES else ()
        lines += [f"{group:<32}{self.accuracy[group]:>10.2f}{self.counts[group]:>10,}" for group in shown]
        in_macro = sum(self.counts[group] for group in self.in_macro)
        lines.append(f"{f'mean of {len(self.in_macro):,} groups (macro)':<32}{self.macro:>10.2f}{in_macro:>10,}")
        lines.append(f"{'all items (micro)':<32}{self.micro:>10.2f}{self.n_items:>10,}")
        lines.append(f"{'chance':<32}{self.chance:>10.2f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class WinogroundResult:
    """Winoground's three scores (arXiv 2204.03162), in percent of examples; a tie is a miss.

    Attributes:
        text: both pictures score their own caption above the other.
        image: both captions score their own picture above the other.
        group: both of that.
        n_examples: examples whose two pictures could be read.
        name: of the benchmark.
        problems: what was left out.
    """

    text: float
    image: float
    group: float
    n_examples: int
    name: str = ""
    problems: Sequence[Problem] = ()

    def to_dict(self) -> dict[str, Any]:
        """{"text", "image", "group", "examples", "left_out"}."""
        scores = {"text": self.text, "image": self.image, "group": self.group}
        return {**scores, "examples": self.n_examples, "left_out": len(self.problems)}

    def __str__(self) -> str:
        lines = [f"{self.name or 'Winoground'}: {self.n_examples:,} examples, {len(self.problems):,} left out"]
        rows = (("text score", self.text, 25), ("image score", self.image, 25), ("group score", self.group, 100 / 6))
        lines += [f"{label:<16}{value:>8.2f}    chance {chance:.2f}" for label, value, chance in rows]
        return "\n".join(lines)


def evaluate_contrasts(
    encoder: Encoder,
    contrasts: Contrasts,
    editor: Scorer | None = None,
    *,
    batch_size: int = 64,
) -> CompositionResult:
    """How often a picture scores its true caption above each of its false ones.

    Scores within 1e-6 * max(1, |true caption's score|) are ties, and ties are misses: a model that cannot tell two
    captions apart gets 0, not 50.

    Args:
        contrasts: what a reader of `boresight.benchmarks` gives, or items of your own.
        editor: a caption editor or anything that scores alike; None for the plain cosine.
        batch_size: pictures, and captions, that the encoder sees at once.

    Every picture is embedded once, however many items it has. Memory: two batches of pictures, the embeddings of the
    captions of one, and the scores of the items.

    Raises:
        InputError: no items, no picture that can be read, a batch size below 1.
        ArtefactError: an editor of another encoder or width.
    """
    return contrasts_by_editor(encoder, contrasts, {"": editor}, batch_size=batch_size)[""]


def contrasts_by_editor(
    encoder: Encoder, contrasts: Contrasts, editors: Editors, *, batch_size: int = 64, workers: int = 2
) -> dict[str, CompositionResult]:
    """`evaluate_contrasts` for each of the editors, with pictures and captions embedded once for all."""
    scored, problems = _scored(encoder, contrasts, editors, batch_size, workers)
    return {name: _composition(contrasts, scores, problems) for name, scores in scored.items()}


def _composition(
    contrasts: Contrasts, scores: Sequence[Tensor | None], problems: Sequence[Problem]
) -> CompositionResult:
    rows = [row for row, found in enumerate(scores) if found is not None]
    items = [contrasts.items[row] for row in rows]
    right = np.array([_tells(item, scores[row]) for item, row in zip(items, rows, strict=True)], bool)
    place = {name: number for number, name in enumerate(dict.fromkeys(item.group for item in items))}
    member = np.array([place[item.group] for item in items])
    counts = dict(zip(place, np.bincount(member).tolist(), strict=True))
    hits = dict(zip(place, np.bincount(member, right).tolist(), strict=True))
    accuracy = {name: 100 * hits[name] / counts[name] for name in place}
    in_macro = tuple(name for name in place if counts[name] >= contrasts.fewest and name not in contrasts.outside_macro)
    return CompositionResult(
        macro=float(np.mean([accuracy[name] for name in in_macro])) if in_macro else float("nan"),
        micro=100 * float(right.mean()),
        accuracy=accuracy,
        counts=counts,
        in_macro=in_macro,
        chance=100 * float(np.mean([1 / len(item.captions) for item in items])),
        name=contrasts.name,
        problems=problems,
    )


def evaluate_winoground(
    encoder: Encoder,
    contrasts: Contrasts,
    editor: Scorer | None = None,
    *,
    batch_size: int = 64,
) -> WinogroundResult:
    """Text, image and group score of Winoground, or of any items that come in such pairs; strict, as published.

    Arguments, ties, memory and errors are those of `evaluate_contrasts`; and InputError for a group that is not two
    items with the same two captions of which each has its own. An example one of whose pictures cannot be read is
    left out whole.
    """
    return winoground_by_editor(encoder, contrasts, {"": editor}, batch_size=batch_size)[""]


def winoground_by_editor(
    encoder: Encoder, contrasts: Contrasts, editors: Editors, *, batch_size: int = 64, workers: int = 2
) -> dict[str, WinogroundResult]:
    """`evaluate_winoground` for each of the editors, with pictures and captions embedded once for all."""
    pairs: dict[str, list[int]] = {}
    for row, item in enumerate(contrasts.items):
        pairs.setdefault(item.group, []).append(row)
    for group, rows in pairs.items():
        both = [contrasts.items[row] for row in rows]
        if [len(one.captions) for one in both] != [2, 2] or [one.true for one in both] != [0, 1]:
            raise InputError(f"Example '{group}' is not two pictures that each have one of two captions; mend it.")
        if both[0].captions != both[1].captions:
            raise InputError(f"The two pictures of example '{group}' have different captions; mend it.")
    scored, problems = _scored(encoder, contrasts, editors, batch_size, workers)
    return {name: _winoground(contrasts, pairs, scores, problems) for name, scores in scored.items()}


def _winoground(
    contrasts: Contrasts,
    pairs: Mapping[str, Sequence[int]],
    scores: Sequence[Tensor | None],
    problems: Sequence[Problem],
) -> WinogroundResult:
    text, image = [], []
    for rows in pairs.values():
        found = [part for row in rows if (part := scores[row]) is not None]
        if len(found) == 2:
            table = torch.stack(found)  # [picture, caption]
            own = table.diagonal()
            below = limits(own)[0]
            text.append(bool((table.flip(1).diagonal() < below).all()))
            image.append(bool((table.flip(0).diagonal() < below).all()))
    if not text:
        raise InputError(f"No example of {contrasts.name or 'this benchmark'} has two pictures that can be read.")
    return WinogroundResult(
        text=100 * float(np.mean(text)),
        image=100 * float(np.mean(image)),
        group=100 * float(np.logical_and(text, image).mean()),
        n_examples=len(text),
        name=contrasts.name,
        problems=problems,
    )


def _tells(item: Contrast, scores: Tensor | None) -> bool:
    assert scores is not None
    others = torch.arange(len(scores)) != item.true
    return bool((scores[others] < limits(scores[item.true])[0]).all())


def _scored(
    encoder: Encoder, contrasts: Contrasts, editors: Editors, batch_size: int, workers: int
) -> tuple[dict[str, list[Tensor | None]], list[Problem]]:
    """By editor, of each item the scores of its captions (C,), None where its picture cannot be read; all problems."""
    if not len(contrasts):
        raise InputError(f"{contrasts.name or 'This benchmark'} has no items; there is nothing to score.")
    for editor in editors.values():
        check_batches(encoder, editor, batch_size)
    scorers: dict[str, Scorer] = {name: PlainScorer() if one is None else one for name, one in editors.items()}
    scores: dict[str, list[Tensor | None]] = {name: [None] * len(contrasts) for name in editors}
    unread: list[Problem] = []
    batches = list(_by_picture(contrasts.items, batch_size))
    pictures = ([contrasts.items[rows[0]].picture.open for rows in batch] for batch in batches)
    with (
        torch.inference_mode(),
        progress(total=len(contrasts), what=f"scoring {contrasts.name or 'contrasts'}", unit="item", delay=1.0) as bar,
    ):
        for batch, (embedded, wrong) in zip(batches, embed_batches(encoder, pictures, workers), strict=True):
            for rows, error in zip(batch, wrong, strict=True):
                unread += [] if error is None else [Problem("unreadable picture", str(error))] * len(rows)
            readable = [rows for rows, error in zip(batch, wrong, strict=True) if error is None]
            if readable:
                _score_batch(encoder, contrasts.items, readable, embedded, scorers, batch_size, scores)
            bar.update(sum(map(len, batch)))
    if unread:
        say(f"{contrasts.name or 'contrasts'}: left out {summary(unread)}")
    if len(unread) == len(contrasts):
        raise InputError(
            f"No picture of {contrasts.name or 'this benchmark'} can be read, the first: {unread[0].where}"
        )
    return scores, [*contrasts.problems, *unread]


def _score_batch(
    encoder: Encoder,
    items: Sequence[Contrast],
    batch: Sequence[Sequence[int]],
    embedded: Tensor,
    scorers: Mapping[str, Scorer],
    batch_size: int,
    scores: Mapping[str, list[Tensor | None]],
) -> None:
    """Fill in the scores of the items at `batch`, rows by picture; embedded: (K, d), a row a picture."""
    captions = list(dict.fromkeys(caption for rows in batch for row in rows for caption in items[row].captions))
    column = {caption: place for place, caption in enumerate(captions)}
    tables = {name: torch.empty(len(embedded), len(captions)) for name in scorers}
    images = {name: scorer.prepare_images(embedded) for name, scorer in scorers.items()}
    for start in range(0, len(captions), batch_size):
        some = captions[start : start + batch_size]
        texts = encoder.embed_texts(some)
        for name, scorer in scorers.items():
            prepared = scorer.prepare_texts(texts)
            tables[name][:, start : start + len(some)] = scorer.score_prepared(images[name], prepared).cpu()
    for picture, rows in enumerate(batch):
        for row in rows:
            columns = [column[caption] for caption in items[row].captions]
            for name, table in tables.items():
                scores[name][row] = table[picture, columns]


def _by_picture(items: Sequence[Contrast], batch_size: int) -> Iterator[list[list[int]]]:
    """Rows of items by picture, so that each picture is embedded once, `batch_size` pictures at a time."""

    def picture(row: int) -> tuple[str, tuple[float, ...]]:
        return items[row].picture.name, items[row].picture.box or ()

    together = [list(rows) for _, rows in groupby(sorted(range(len(items)), key=picture), picture)]
    for start in range(0, len(together), batch_size):
        yield together[start : start + batch_size]
