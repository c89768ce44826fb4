"""From a scan to the answers of a query: what each had before the edit, and why it stands where it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from boresight.editing import CaptionEditor, Explanation
from boresight.sae import LatentNames
from boresight.search.approximate import Effort, best, effort_of
from boresight.search.query import PreparedQuery, stacked
from boresight.search.results import Reasons, Result, Results, Term
from boresight.search.scan import counts_above, scores_at
from boresight.search.sides import text_columns
from boresight.search.snapshot import Snapshot


def answers(
    prepared: Sequence[PreparedQuery],
    snapshot: Snapshot,
    editor: CaptionEditor | None,
    names: LatentNames | None,
    ranks: bool | None,
) -> list[Results]:
    """The answers to queries, those with the same filter and effort together; ranks None: those of exact searches."""
    groups: dict[tuple[str, Effort | None], list[int]] = {}
    for number, one in enumerate(prepared):
        groups.setdefault((repr(one.query.where), effort_of(one.query, snapshot)), []).append(number)
    found: dict[int, Results] = {}
    for (_, effort), numbers in groups.items():
        group = [prepared[number] for number in numbers]
        allowed = snapshot.allowed(group[0].query.where)
        ranked = effort is None if ranks is None else ranks
        found.update(zip(numbers, answer(group, snapshot, allowed, editor, names, ranked, effort), strict=True))
    return [found[number] for number in range(len(prepared))]


def answer(
    prepared: Sequence[PreparedQuery],
    snapshot: Snapshot,
    allowed: Sequence[np.ndarray | None],
    editor: CaptionEditor | None,
    names: LatentNames | None,
    ranks: bool,
    effort: Effort | None = None,
) -> list[Results]:
    """The answers to queries with one filter, together; `ranks` scans once more, by the cosine."""
    most = max(one.query.k + one.query.offset for one in prepared)
    found = best(prepared, snapshot, allowed, most, effort)
    kept = []
    for number, one in enumerate(prepared):
        part = slice(one.query.offset, one.query.offset + one.query.k)
        rows, own = found.rows[number, part], found.scores[number, part]
        good = rows >= 0 if one.query.min_score is None else (rows >= 0) & (own >= one.query.min_score)
        kept.append((rows[good], own[good]))
    return results(prepared, kept, snapshot, allowed, editor, names, ranks, exact=found.exact)


def results(
    prepared: Sequence[PreparedQuery],
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    snapshot: Snapshot,
    allowed: Sequence[np.ndarray | None],
    editor: CaptionEditor | None,
    names: LatentNames | None,
    ranks: bool,
    *,
    exact: bool = True,
) -> list[Results]:
    """Rows (n,) and scores (n,) of each query as its answers."""
    masks = zip(snapshot.segments, allowed, strict=True)
    matches = sum(len(each) if mask is None else int(mask.sum()) for each, mask in masks)
    plain = _plain(prepared, [rows for rows, _ in found], snapshot, allowed, ranks)
    answers = []
    for one, (rows, scores), (before, ranked) in zip(prepared, found, plain, strict=True):
        reader = _Reader(snapshot, one, None if one.query.plain else editor, names)
        items = tuple(
            reader.result(place, row, score, float(before[place]), None if ranked is None else int(ranked[place]))
            for place, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True))
        )
        answers.append(Results(items, matches, reader.editor is not None, exact, one, reader.reasons, reader.thumbnail))
    return answers


def reasons(
    prepared: PreparedQuery, snapshot: Snapshot, row: int, editor: CaptionEditor | None, names: LatentNames | None
) -> Reasons:
    """Why one row has its score, whether or not it is among the answers."""
    return _Reader(snapshot, prepared, None if prepared.query.plain else editor, names).reasons_of(row)


def _plain(
    prepared: Sequence[PreparedQuery],
    found: Sequence[np.ndarray],
    snapshot: Snapshot,
    allowed: Sequence[np.ndarray | None],
    ranks: bool,
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """For each query what its answers have by the cosine and, where asked for, their ranks by it."""
    scan = stacked([one.plain_columns for one in prepared], snapshot.layout)
    widest = max(len(rows) for rows in found)
    scores = np.full((widest, len(prepared)), np.inf, dtype=np.float32)
    of_all, start = scores_at(snapshot.rows, scan, np.concatenate(found)), 0
    for number, rows in enumerate(found):
        scores[: len(rows), number] = of_all[start : start + len(rows), number]
        start += len(rows)
    above = counts_above(snapshot.rows, scan, scores, allowed=allowed) if ranks and widest else None
    return [
        (scores[: len(rows), number], None if above is None else above[: len(rows), number] + 1)
        for number, rows in enumerate(found)
    ]


@dataclass(frozen=True)
class _Reader:
    """What an answer's row of the index says; editor: None where the query was plain."""

    snapshot: Snapshot
    prepared: PreparedQuery
    editor: CaptionEditor | None
    names: LatentNames | None

    def result(self, place: int, row: int, score: float, plain: float, plain_rank: int | None) -> Result:
        record = self.snapshot.record(row)
        del record["picture"]
        return Result(
            id=record.pop("id"),
            score=score,
            plain_score=plain,
            rank=self.prepared.query.offset + place + 1,
            plain_rank=plain_rank,
            captions=tuple(record.pop("captions") or ()),
            split=record.pop("split"),
            columns=record,
            row=row,
        )

    def thumbnail(self, result: Result) -> bytes | None:
        return self.snapshot.thumbnail(result.row)

    def reasons(self, result: Result) -> Reasons:
        return self.reasons_of(result.row)

    def reasons_of(self, row: int) -> Reasons:
        segment, at = self.snapshot.place(row)
        plain = self.snapshot.plain(np.array([row]))
        image = plain * float(segment.norms[at])
        terms = []
        for part in self.prepared.parts:
            explanation = self._explanation(image, part.vector) if part.kind == "text" else None
            score = explanation.edited_score if explanation else float((plain @ part.vector)[0])
            terms.append(Term(part.label, part.kind, part.weight, score, explanation))
        switched = {latent: self._switch(row, latent, weight) for latent, weight in self.prepared.switched.items()}
        total = sum(term.weight * term.score for term in terms) + sum(switched.values())
        return Reasons(self.snapshot.record(row)["id"], total, tuple(terms), switched)

    def _switch(self, row: int, latent: int, weight: float) -> float:
        """What switching one latent changes of the score."""
        assert self.editor is not None
        layout, changes = self.snapshot.layout, 0.0
        for part in self.prepared.parts:
            if part.kind == "text":
                texts = part.vector[None]
                both = [text_columns(texts, layout, self.editor, switch) for switch in ({}, {latent: weight})]
                before, after = scores_at(self.snapshot.rows, stacked(both, layout), np.array([row]))[0]
                changes += part.weight * float(after - before)
        return changes

    def _explanation(self, image: Tensor, text: Tensor) -> Explanation | None:
        """Of an edited score, with the captions of remembered pairs that the index knows."""
        if self.editor is None:
            return None
        explanation = self.editor.explain_edit(image, text, names=self.names)
        known = {pair.image_id for pair in (*explanation.image_memory, *explanation.text_memory)} - {""}
        rows = self.snapshot.present(sorted(known))
        captions = {image_id: tuple(self.snapshot.record(row)["captions"] or ()) for image_id, row in rows.items()}
        image_memory, text_memory = (
            tuple(replace(pair, captions=captions.get(pair.image_id, ())) for pair in side)
            for side in (explanation.image_memory, explanation.text_memory)
        )
        return replace(explanation, image_memory=image_memory, text_memory=text_memory)
