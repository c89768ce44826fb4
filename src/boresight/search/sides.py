"""Both sides of an editor's score as an index holds and asks them: rows of images, columns of a query.

The undivided score is one inner product over what is stored of an image,

    s = <base, q> + sum over its active latents l of (counted z)_l (m_l - offset) <d_l, q> - bias - c,     q = r * u

and a score divided by |r * x| has a second one, |r * x|^2 = <x^2, r^2>. What is stored of a latent is z over |x|: the
edit's strength goes into the query, so that a latent can be switched by its whole activation too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing import CaptionEditor
from boresight.errors import InputError
from boresight.search.segments import Layout

MOST_AT_ONCE = 4096  # images prepared at once


def layout_of(editor: CaptionEditor | None, width: int, dtype: str, texts: bool) -> Layout:
    """What an index for this editor stores.

    Raises InputError for an editor whose length is another for every pair, which no index can hold.
    """
    if editor is None:
        return Layout(width=width, dtype=dtype, texts=texts)
    if editor.config.needs_terms:
        raise InputError(
            f"The form '{editor.config.form}' divides by the length of each pair's edit, which no index holds; take "
            "an editor with length_exponent=0, or the form 'gated'; `rerank` scores candidates by any editor."
        )
    return Layout(
        width=width,
        dtype=dtype,
        based=editor.config.form == "reconstruct" or editor.config.levels or editor.config.memory == "both",
        n_latents=editor.sae.n_latents if editor.config.has_latents else 0,
        levelled=editor.config.levels and float(editor.strength_and_level[1]) > 0,
        biased=editor.config.image_correction is not None and editor.config.image_correction.share != 0,
        texts=texts,
    )


def graph_matrix(layout: Layout, editor: CaptionEditor | None) -> int:
    """Which of `Rows.dense` scores are nearest to, so that a graph over it finds candidates.

    The base where there is one, but for the form 'reconstruct', whose base is nearly the same for all images.
    """
    return int(layout.based and editor is not None and editor.config.form != "reconstruct")


@torch.inference_mode()
def image_rows(images: Tensor, layout: Layout, editor: CaptionEditor | None) -> dict[str, Tensor]:
    """What is stored of (B, d) images: name of the matrix -> (B, width of it) float32, codes int64."""
    x = images.float()
    norms = x.norm(dim=1, keepdim=True)
    stored = {"plain": x / norms, "norms": norms}
    if editor is None:
        return stored
    prepared = editor.prepare_images(x)
    if layout.based:
        stored["base"] = prepared.base
    if layout.n_latents:
        stored["indices"] = prepared.indices
        # Without a strength and a level the counted activations are the activations.
        stored["activations"] = editor.sae.encode(x).values / norms if editor.config.taught else prepared.values
        if layout.levelled:
            stored["values"] = prepared.values
    if layout.biased and prepared.bias is not None:
        stored["bias"] = prepared.bias.unsqueeze(1)
    return stored


@dataclass(frozen=True)
class Column:
    """One column of a query: a direction of a dense matrix and weights of the latents, maybe divided.

    Attributes:
        matrix: of `Rows.dense`.
        dense: (d,) float32.
        latent: (L,) float32, or None, for each of `Rows.values`.
        gate: (d,) float32, where |gate * row| ** exponent divides the column.
        constant: taken off after that, as is `bias` times the image's bias.
    """

    matrix: int
    dense: np.ndarray
    latent: tuple[np.ndarray | None, ...]
    gate: np.ndarray | None = None
    exponent: float = 0.0
    bias: float = 0.0
    constant: float = 0.0

    def __mul__(self, weight: float) -> Column:
        latent = tuple(None if each is None else each * np.float32(weight) for each in self.latent)
        bias, constant = self.bias * weight, self.constant * weight
        return Column(self.matrix, self.dense * np.float32(weight), latent, self.gate, self.exponent, bias, constant)

    def __add__(self, other: Column) -> Column:
        """The sum of two undivided columns of the same matrix."""
        latent = tuple(
            b if a is None else a if b is None else a + b for a, b in zip(self.latent, other.latent, strict=True)
        )
        return Column(
            self.matrix,
            self.dense + other.dense,
            latent,
            bias=self.bias + other.bias,
            constant=self.constant + other.constant,
        )


def plain_column(vector: Tensor, layout: Layout) -> Column:
    """The cosine of an image with a vector (d,)."""
    return Column(0, F.normalize(vector.float(), dim=0).numpy(), (None,) * len(layout.values))


@torch.inference_mode()
def text_columns(
    texts: Tensor, layout: Layout, editor: CaptionEditor, switched: Mapping[int, float] | None = None
) -> list[Column]:
    """The editor's score of an image under each of T texts (T, d).

    switched: latent -> how much of its activation the edited image has, whatever the caption says: 0 is without it,
    1 as the image has it.
    """
    prepared = editor.prepare_texts(texts)
    strength = float(editor.strength_and_level[0]) if editor.config.taught and not layout.levelled else 1.0
    columns = []
    for row in range(len(prepared)):
        query, latent = prepared.query[row], list[np.ndarray | None]([None] * len(layout.values))
        if prepared.latent_query is not None:
            weights = (prepared.latent_query[:, row] * strength).cpu().numpy().copy()
            latent[-1] = weights
            if switched:
                whole = np.zeros_like(weights) if layout.levelled else weights
                latents = list(switched)
                along = (editor.sae.directions[latents] @ query).cpu().numpy()
                weights[latents] = 0
                whole[latents] = (np.array(list(switched.values()), dtype=np.float32) - np.float32(editor.held)) * along
                latent[0] = whole
        columns.append(
            Column(
                matrix=1 if layout.based else 0,
                dense=query.cpu().numpy(),
                latent=tuple(latent),
                gate=prepared.gate[row].cpu().numpy() if prepared.gate is not None else None,
                exponent=editor.config.length_exponent if editor.config.divides else 0.0,
                bias=float(layout.biased),
                constant=0.0 if prepared.bias is None else -float(prepared.bias[row]),
            )
        )
    return columns
