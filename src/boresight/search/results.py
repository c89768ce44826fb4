"""Answers of an index, and why each of them stands where it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from boresight.brief import Brief, brief, spelled
from boresight.data.images import embedded
from boresight.editing import Explanation
from boresight.search.query import PreparedQuery
from boresight.tables import table


@dataclass(frozen=True, repr=False)
class Result(Brief):
    """One image that was found.

    Attributes:
        id: of the image.
        score: by which it is ordered.
        plain_score: what it has by the cosine alone.
        rank: 1 for the first.
        plain_rank: which it would have by the cosine alone; None where ranks were not asked for.
        captions: of the image, as the index knows them.
        split: of the image.
        columns: further columns of the image.
        row: of the image in the index, which the next change of the index may move.
    """

    id: str
    score: float
    plain_score: float
    rank: int
    plain_rank: int | None
    captions: tuple[str, ...]
    split: str
    columns: Mapping[str, Any]
    row: int

    @property
    def moved(self) -> int:
        """Ranks that it rose against the cosine; 0 where they are not known."""
        return 0 if self.plain_rank is None else self.plain_rank - self.rank


@dataclass(frozen=True)
class Term:
    """One text or image of the query in one answer's score.

    Attributes:
        label, kind, weight: as of `boresight.search.query.Part`.
        score: of the image with it, before the weight.
        explanation: of an edited score, in parts that sum to it; None for a cosine.
    """

    label: str
    kind: str
    weight: float
    score: float
    explanation: Explanation | None = None


@dataclass(frozen=True, repr=False)
class Reasons:
    """Why an image has its score: weight times score of each term, and what switched latents changed, sum to it.

    Attributes:
        id: of the image.
        score: the sum.
        terms: one a text or image of the query.
        switched: latent -> what switching it changed.
    """

    id: str
    score: float
    terms: tuple[Term, ...]
    switched: Mapping[int, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return spelled(self, {"id": brief(self.id), "score": f"{self.score:.4f}", "terms": str(len(self.terms))})

    def __str__(self) -> str:
        lines = [f"{self.id}: {self.score:.4f}"]
        for term in self.terms:
            lines.append(f"{term.weight:+.2f} x {term.score:.4f}  {term.label}")
            lines += ["", str(term.explanation), ""] if term.explanation is not None else []
        lines += [f"{effect:+.4f}  latent {latent} switched" for latent, effect in self.switched.items()]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Results(Sequence[Result]):
    """The answers to one query, best first.

    Attributes:
        items: k at most.
        matches: how many images the filter let through.
        edited: whether an editor's score ordered them.
        exact: whether every image was scored.
        prepared: the query, embedded.
        explain: answer -> `Reasons`.
        thumbnail: answer -> its small picture, as the bytes of a WebP file, or None.
    """

    items: tuple[Result, ...]
    matches: int
    edited: bool
    exact: bool
    prepared: PreparedQuery = field(repr=False)
    explain: Callable[[Result], Reasons] = field(repr=False)
    thumbnail: Callable[[Result], bytes | None] = field(repr=False)

    def __repr__(self) -> str:
        parts = {"answers": str(len(self)), "matches": f"{self.matches:,}", "best": brief([one.id for one in self[:3]])}
        return spelled(self, parts)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.items)

    def reasons(self, place: int) -> Reasons:
        """Why the answer at this place (from 0) has its score."""
        return self.explain(self.items[place])

    def _repr_html_(self) -> str:
        """The answers with their pictures, for a notebook; whatever comes from data is escaped."""
        return f"<table><tr>{''.join(f'<td>{self._shown(one)}</td>' for one in self.items)}</tr></table>"

    def _shown(self, one: Result) -> str:
        small = self.thumbnail(one)
        moved = f" ({one.moved:+,})" if one.moved else ""
        drawn = "" if small is None else f'<img alt="" src="{embedded(small, "webp")}"><br>'
        words = "".join(f"<br>{escape(brief(caption))}" for caption in one.captions[:1])
        return f"{drawn}<b>{one.rank}</b>{moved} {one.score:.3f}<br>{escape(brief(one.id))}{words}"

    def __str__(self) -> str:
        """The table that the command line prints."""
        head = ["rank", "image", "score", *(["plain", "plain rank", "moved"] if self.edited else []), "caption"]
        lines = []
        for one in self.items:
            before = "" if one.plain_rank is None else f"{one.plain_rank:,}"
            moved = "" if not one.moved else f"{one.moved:+,}"
            edited = [f"{one.plain_score:.4f}", before, moved] if self.edited else []
            lines.append([str(one.rank), one.id, f"{one.score:.4f}", *edited, one.captions[0] if one.captions else ""])
        return table(head, lines) if lines else f"No image was found; the filter lets {self.matches:,} through."
