"""What can be asked of an index, and how it becomes columns of one scan.

score = mean over texts of s(i, t)                          s: the editor's score, or the cosine without one
+ image_weight * (mean cosine with the images - the texts' part)      where there are both
- without_weight * (mean of s(i, t) over what it is to be without + mean cosine with `unlike`)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief
from boresight.editing import CaptionEditor
from boresight.errors import InputError, require_at_least
from boresight.indexing import as_tensor
from boresight.search.scan import Columns, LinearQueries
from boresight.search.segments import Layout
from boresight.search.sides import Column, plain_column, text_columns

if TYPE_CHECKING:
    import pyarrow.compute as pc

Texts: TypeAlias = str | Sequence[str] | Tensor | np.ndarray
QueryImages: TypeAlias = Image.Image | str | Path | Tensor | np.ndarray | Sequence[Image.Image | str | Path]
MOST = 10_000  # answers


@dataclass(frozen=True, kw_only=True, repr=False)
class Query(Brief):
    """What is searched for. At least one of `text`, `image` and `like` is needed.

    Attributes:
        text: a sentence, or several, whose scores are averaged; or embeddings of texts (T, d).
        image: pictures, files or embeddings (I, d): images like these, or, with a text, like both.
        like: ids of images of the index, as `image`.
        without: texts that the answers are not to match.
        unlike: ids of images that the answers are not to be like.
        latents: latent, by number or name -> 0 switches it off, 1 takes it as the image has it, 2 twice, and so on,
            whatever the text says of it.
        where: which images may be answers (`boresight.search.filters.matching`).
        k, offset: how many answers, from which on.
        min_score: answers that score less are left out.
        plain: by the cosine, without the edit.
        image_weight: in [0, 1], the images' part where there is a text too.
        without_weight: how much what is not wanted is taken off.
        candidates: how many images, found along the graph of the index, are scored; None scores all. 'tuned': as many
            as `SearchIndex.tune` kept.
        ef_search: how many images a graph keeps in view while it looks for candidates, and the most that it gives;
            left out, as many as `candidates`. More find better candidates, in more time.
    """

    text: Texts = ()
    image: QueryImages = ()
    like: str | Sequence[str] = ()
    without: Texts = ()
    unlike: str | Sequence[str] = ()
    latents: Mapping[int | str, float] = field(default_factory=dict)
    where: str | pc.Expression | None = None
    k: int = 10
    offset: int = 0
    min_score: float | None = None
    plain: bool = False
    image_weight: float = 0.5
    without_weight: float = 0.5
    candidates: int | Literal["tuned"] | None = None
    ef_search: int | None = None

    def __post_init__(self) -> None:
        for name in ("k", "offset"):
            if not isinstance(getattr(self, name), Integral):
                raise InputError(f"{name} is {getattr(self, name)!r}; pass a whole number.")
        require_at_least("k", self.k, 1)
        require_at_least("offset", self.offset, 0)
        if self.k + self.offset > MOST:
            raise InputError(f"k and offset ask for {self.k + self.offset:,} answers; {MOST:,} at most are given.")
        _require_number("image_weight", self.image_weight)
        _require_number("without_weight", self.without_weight)
        if self.min_score is not None and not (isinstance(self.min_score, Real) and self.min_score == self.min_score):
            raise InputError(f"min_score is {self.min_score!r}; pass a number, or leave it out.")
        if not 0 <= self.image_weight <= 1:
            raise InputError(f"image_weight is {self.image_weight}; choose between 0 and 1.")
        require_at_least("without_weight", self.without_weight, 0)
        if self.ef_search is not None and not isinstance(self.candidates, int):
            raise InputError("ef_search is of searches with a number of candidates; pass candidates too.")
        for name in ("candidates", "ef_search"):
            given = getattr(self, name)
            if isinstance(given, int) and given < self.k + self.offset:
                raise InputError(f"{name} is {given:,}, and k and offset ask for {self.k + self.offset:,} answers.")
            if isinstance(given, str) and given != "tuned":
                raise InputError(f"{name} is '{given}'; pass a number, 'tuned' or None.")


@dataclass(frozen=True)
class Part:
    """One text or image of a query.

    Attributes:
        label: what a reader sees of it.
        kind: 'text' or 'image'.
        weight: of its score in the answer's, negative where it is not wanted.
        vector: (d,) float32, its embedding.
    """

    label: str
    kind: str
    weight: float
    vector: Tensor


@dataclass(frozen=True)
class PreparedQuery:
    """A query, embedded: its parts, and the columns of a scan by the edited and by the plain score."""

    query: Query
    parts: tuple[Part, ...]
    columns: tuple[Column, ...]
    plain_columns: tuple[Column, ...]
    switched: Mapping[int, float]


def prepare(
    queries: Sequence[Query],
    layout: Layout,
    *,
    editor: CaptionEditor | None,
    embed_texts: Any,
    embed_images: Any,
    vectors: Any,
    latent: Any,
) -> list[PreparedQuery]:
    """Embed and prepare queries; all their texts, and all their pictures, in one call each.

    Args:
        embed_texts, embed_images: as of an `Encoder`.
        vectors: ids -> (n, d) embeddings of images of the index.
        latent: number or name -> latent.
    """
    parts = _parts(queries, layout.width, embed_texts, embed_images, vectors)
    together = [  # texts that are edited without a switch: of all queries at once
        part.vector
        for query, own in zip(queries, parts, strict=True)
        for part in own
        if editor is not None and part.kind == "text" and not query.plain and not query.latents
    ]
    edited = iter(text_columns(torch.stack(together), layout, editor) if editor is not None and together else ())
    prepared = []
    for query, own in zip(queries, parts, strict=True):
        if query.latents and (editor is None or not layout.n_latents or query.plain):
            raise InputError("Latents are switched in an edited search; this one is without an edit that has latents.")
        switched: dict[int, float] = {}
        for name, weight in query.latents.items():
            _require_number(f"The weight of the latent {name}", weight)
            if (number := latent(name)) in switched:
                raise InputError(f"The latent {number} is switched twice, once as {name!r}; leave one out.")
            switched[number] = float(weight)
        plain = _merged([plain_column(part.vector, layout) * part.weight for part in own])
        columns = plain if editor is None or query.plain else _merged(_edited(own, layout, editor, switched, edited))
        prepared.append(PreparedQuery(query, tuple(own), columns, plain, switched))
    return prepared


def stacked(queries: Sequence[Sequence[Column]], layout: Layout) -> LinearQueries:
    """The columns of several queries as one scan."""
    groups: dict[tuple[int, bool, float], list[tuple[Column, int]]] = {}
    for number, columns in enumerate(queries):
        for column in columns:
            groups.setdefault((column.matrix, column.gate is not None, column.exponent), []).append((column, number))
    stacked_columns = []
    for (matrix, gated, exponent), members in groups.items():
        combine = np.zeros((len(members), len(queries)), dtype=np.float32)
        for row, (_, number) in enumerate(members):
            combine[row, number] = 1
        latent: list[np.ndarray | None] = []
        for slot in range(len(layout.values)):
            each = [column.latent[slot] for column, _ in members]
            zeros = np.zeros(layout.n_latents, dtype=np.float32)
            known = any(one is not None for one in each)
            latent.append(np.stack([zeros if one is None else one for one in each], axis=1) if known else None)
        gates = [column.gate for column, _ in members if column.gate is not None]
        stacked_columns.append(
            Columns(
                matrix,
                np.stack([column.dense for column, _ in members]),
                tuple(latent),
                np.stack(gates) if gated else None,
                exponent,
                combine,
            )
        )
    sums = [[sum(getattr(column, name) for column in columns) for columns in queries] for name in ("bias", "constant")]
    bias, constant = (np.array(each, dtype=np.float32) for each in sums)
    return LinearQueries(tuple(stacked_columns), bias, constant)


def _edited(
    parts: Sequence[Part],
    layout: Layout,
    editor: CaptionEditor,
    switched: Mapping[int, float],
    unswitched: Iterator[Column],
) -> list[Column]:
    """The columns of one query; of its texts, where no latent is switched, the next of `unswitched`."""
    texts = [part for part in parts if part.kind == "text"]
    columns = [plain_column(part.vector, layout) * part.weight for part in parts if part.kind == "image"]
    if texts:
        own = text_columns(torch.stack([part.vector for part in texts]), layout, editor, switched) if switched else None
        edited = islice(unswitched, len(texts)) if own is None else own
        columns += [column * part.weight for column, part in zip(edited, texts, strict=True)]
    return columns


def _merged(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Undivided columns of one matrix become one."""
    sums: dict[int, Column] = {}
    divided = []
    for column in columns:
        if column.gate is not None and column.exponent:
            divided.append(column)
        else:
            sums[column.matrix] = sums[column.matrix] + column if column.matrix in sums else column
    return (*sums.values(), *divided)


def _parts(queries: Sequence[Query], width: int, embed_texts: Any, embed_images: Any, vectors: Any) -> list[list[Part]]:
    """The parts of each query; all texts are embedded in one call, and all pictures in one."""
    plans: list[list[tuple[str, str, float, Any]]] = []
    for query in queries:
        text, without = _texts(query.text, "text", width), _texts(query.without, "without", width)
        images = [*_images(query.image, width), *(("id", one) for one in _ids(query.like, "like"))]
        unlike = [("id", one) for one in _ids(query.unlike, "unlike")]
        if not text and not images:
            raise InputError("There is nothing to search for; pass a text, an image, or ids of images as `like`.")
        share = 0.0 if not images else 1.0 if not text else query.image_weight
        plan = [("text", label, (1 - share) / len(text), given) for label, given in text]
        plan += [("text", label, -query.without_weight / len(without), given) for label, given in without]
        plan += [(kind, _named(one), share / len(images), one) for kind, one in images]
        plan += [("id", one, -query.without_weight / len(unlike), one) for _, one in unlike]
        plans.append(plan)
    words = [given for plan in plans for kind, _, _, given in plan if kind == "text" and isinstance(given, str)]
    pictures = [given for plan in plans for kind, _, _, given in plan if kind == "picture"]
    text_rows = iter(embed_texts(words)) if words else iter(())
    image_rows = iter(embed_images(pictures)) if pictures else iter(())
    parts = []
    for plan in plans:
        own = []
        for kind, label, weight, given in plan:
            if kind == "text":
                vector = next(text_rows) if isinstance(given, str) else given
            else:
                vector = next(image_rows) if kind == "picture" else vectors([given])[0] if kind == "id" else given
            own.append(Part(label, "text" if kind == "text" else "image", weight, F.normalize(vector.float(), dim=0)))
        parts.append(own)
    return parts


def _texts(given: Texts, name: str, width: int) -> list[tuple[str, str | Tensor]]:
    if isinstance(given, Tensor | np.ndarray):
        return [(f"{name} {row}", vector) for row, vector in enumerate(_vectors(given, name, width))]
    words = [given] if isinstance(given, str) else _listed(given, name)
    for one in words:
        if not isinstance(one, str):
            raise InputError(f"{name} holds {type(one).__name__}; pass a string, strings, or embeddings (T, d).")
        if not one.strip():
            raise InputError(f"{name} is empty; say in words what is searched for, or leave it out.")
    return [(one, one) for one in words]


def _images(given: QueryImages, width: int) -> list[tuple[str, Any]]:
    if isinstance(given, Tensor | np.ndarray):
        return [("vector", vector) for vector in _vectors(given, "image", width)]
    alone = isinstance(given, Image.Image | str | Path)
    pictures = [given] if alone else _listed(given, "image")
    for one in pictures:
        if not isinstance(one, Image.Image | str | Path):
            raise InputError(f"image holds {type(one).__name__}; pass pictures, their files, or embeddings (I, d).")
    return [("picture", one) for one in pictures]


def _ids(given: str | Sequence[str], name: str) -> list[str]:
    return [given] if isinstance(given, str) else _listed(given, name)


def _listed(given: Any, name: str) -> list[Any]:
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise InputError(f"{name} is {type(given).__name__}; leave it out where there is none of it.")
    return list(given)


def _require_number(name: str, value: Any) -> None:
    if not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; pass a finite number.")


def _vectors(given: Tensor | np.ndarray, name: str, width: int) -> Tensor:
    rows = as_tensor(given, name)
    if rows.is_complex():
        raise InputError(f"{name} holds complex numbers; embeddings are real.")
    rows = rows.float()
    rows = rows.unsqueeze(0) if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InputError(f"{name} has shape {tuple(rows.shape)}; embeddings of the index are {width} wide.")
    if not torch.isfinite(rows).all() or (rows.abs().amax(1) == 0).any():
        raise InputError(f"{name} holds NaN, infinity or a row of zeros; compute it again.")
    return rows / rows.abs().amax(1, keepdim=True)  # so that the square of no length is too large or small a number


def _named(image: Any) -> str:
    return image if isinstance(image, str) else image.name if isinstance(image, Path) else "image"
