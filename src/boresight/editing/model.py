"""The mathematics of a caption editor.

TEVI (arXiv 2606.07451), for an image x and a caption t, vectors of one space:

    z = topk(relu(W_e (x - b) + b_e))    the image's code: n latents, k of them active
    m = sigmoid(MLP(t))                  the mask in [0, 1]^n: what the caption keeps of them
    x~ = D (m * z) + b                   the edited image
    u = unit(head(t))                    the caption vector
    s = <x~, u> / |x~|                   the score
    s' = s - b(x) - c(t)                 less the hubness of either side, ours (`boresight.editing.hubness`)

`reference_edit` says this and the other forms for one pair, as it would be written down; `EditModel` scores all images
against all captions and never holds an edited embedding for each pair (`boresight.editing.scoring`). Tests hold the two
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.editing import scoring
from boresight.editing.config import EditorConfig
from boresight.editing.hubness import Bank, bank_rows, bias_of
from boresight.editing.masks import GATE_START, OPEN, BilinearMask, make_mask
from boresight.editing.memory import Memory, Neighbours
from boresight.editing.scorer import PreparedImages, PreparedTexts, less_bias
from boresight.embeddings.embeddings import check_rows
from boresight.errors import InputError
from boresight.indexing import as_tensor
from boresight.sae.model import SaeModel

_IMAGES_AT_ONCE = 16384
_TEXT_FLOATS = 2**22


def reference_edit(model: EditModel, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """One image edited by one caption, x~ (d,), and their score () before correction; slow and plain. x, t: (d,)."""
    t = F.normalize(t, dim=0)
    m, r, s, v = model.mask(t[None])[0], model.gate(t[None])[0], *model.strength_and_level
    z, decoder, b = model.sae.encode(x[None]).dense()[0], model.sae.directions, model.sae.bias
    a = (1 - v) * z + v * torch.minimum(2 * z, model.usual)
    u, moved, memory = F.normalize(t + model.head_map @ t + model.head_bias, dim=0), x, model.memory
    if memory is not None:
        u = F.normalize(u + memory.strengths[1] * memory.pictured(memory.near_texts(t[None]))[0], dim=0)
        if model.config.memory == "both":
            written = memory.written(memory.near_images(F.normalize(x, dim=0)[None]))[0]
            written = F.normalize(written + model.head_map @ written, dim=0)
            moved = x.norm() * F.normalize(F.normalize(x, dim=0) + memory.strengths[0] * written, dim=0)
    edited = {
        "gated": r * (moved + s * (m * a - z) @ decoder),
        "residual": moved + s * (m * a - z) @ decoder,
        "reconstruct": (m * z) @ decoder + b + (moved - x),
        "raw": r * moved,
        "plain": moved,
    }[model.config.form]
    measured = r * moved if model.config.form == "gated" else edited
    length = (measured.norm() / x.norm()).clamp_min(scoring.MIN_LENGTH)
    return edited, edited @ u / (x.norm() * length**model.config.length_exponent)


class EditModel(nn.Module):
    """A sparse autoencoder, a mask network and a text head.

    Untrained, its masks are open and its head the identity: all forms but 'reconstruct' give the plain cosine exactly,
    and 'reconstruct' the score of the autoencoder's reconstruction.

    Attributes:
        sae: the frozen autoencoder.
        config: what this editor is.
        mask_network: texts (T, d) -> (T, n_latents) in [0, 1]; None where the form has no latents.
        dials: (2,), log-odds of the edit's strength and level, see `EditorConfig`; learnt where the mask is taught.
        taught_network: a mask that was taught what captions tell, beside one that learns by contrast; or None.
        usual: (n_latents,) usual activation of each latent in training (`boresight.editing.presence`); 0 until taught.
        gate_network: texts (T, d) -> (T, d) in [0, 1], the gate of 'gated' and 'raw'; None in the others.
        head_map, head_bias: (d, d) and (d,), zero at the start; u = unit(t + head_map t + head_bias) for a unit t.
        memory: of training pairs, which moves u and the images; None without one.
    """

    usual: Tensor

    def __init__(self, sae: SaeModel, config: EditorConfig, *, mask: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.config = config = config if mask is None else replace(config, mask="own")
        self.sae = sae
        directions = sae.directions.detach()
        self.mask_network: Any = None
        if config.has_latents:
            self.mask_network = make_mask(config.mask, directions, taught=config.taught, own=mask)
        self.taught_network: Any = None
        self.gate_network: Any = BilinearMask(torch.eye(sae.width), GATE_START) if config.has_gate else None
        learns = config.text == "finetuned"
        self.head_map = nn.Parameter(torch.zeros(sae.width, sae.width), requires_grad=learns)
        self.head_bias = nn.Parameter(torch.zeros(sae.width), requires_grad=learns)
        nothing = torch.zeros(0, sae.width)
        self.dials = nn.Parameter(torch.full((2,), -OPEN), requires_grad=config.taught)
        self.register_buffer("usual", torch.zeros(sae.n_latents))
        self.memory: Memory | None = None if config.memory == "none" else Memory(nothing, nothing)
        self._bank: Bank | None = None
        self.to(directions.device)

    @property
    def device(self) -> torch.device:
        """Where it edits and scores."""
        return self.head_map.device

    @property
    def strength_and_level(self) -> tuple[Tensor, Tensor]:
        """The s and v of the edit, both () in [0, 1]; 1 and 0 where the mask is not taught."""
        if not self.config.taught:
            return self.dials.new_ones(()), self.dials.new_zeros(())
        strength, level = self.dials.sigmoid()
        return strength, level if self.config.levels else torch.zeros_like(level)

    @property
    def taught_mask(self) -> Any:
        """The network that was taught what captions tell: the mask itself, or one that is kept beside it; or None."""
        return self.mask_network if self.config.taught else self.taught_network

    @property
    def held(self) -> float:
        """How much of each active latent the caption-free side of the edit still holds."""
        return 1 - float(self.strength_and_level[0].detach()) if self.config.levels else self.config.offset

    @property
    def width(self) -> int:
        """d, of the embeddings."""
        return self.sae.width

    @torch.no_grad()
    def mask(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, n_latents) in [0, 1], what each caption keeps; ones where the form has no latents. texts: (M, d)."""
        unit = self._unit(self.checked(texts, "the captions"))
        return unit.new_ones(len(unit), self.sae.n_latents) if self.mask_network is None else self.mask_network(unit)

    @torch.no_grad()
    def raised(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, n_latents), by how much each caption raises the log-odds of each latent. texts: (M, d).

        Raises InputError where the form has no latents.
        """
        if self.mask_network is None:
            raise InputError(f"The form '{self.config.form}' has no latents to choose from; use 'residual' or 'gated'.")
        network = self.mask_network if self.taught_mask is None else self.taught_mask
        return network.logits(self._unit(self.checked(texts, "the texts")))

    @torch.no_grad()
    def gate(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, d) in [0, 1], what each caption keeps of the dimensions; ones where the form has no gate."""
        unit = self._unit(self.checked(texts, "the captions"))
        return torch.ones_like(unit) if self.gate_network is None else self.gate_network(unit)

    @torch.no_grad()
    def text(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, d) unit caption vectors u, which edited images are compared with. texts: (M, d)."""
        return self._query(self._unit(self.checked(texts, "the captions")))

    @torch.no_grad()
    def edit(self, images: Tensor | np.ndarray, texts: Tensor | np.ndarray) -> Tensor:
        """(N, d) float32, image i edited by caption i, at the scale of the images. images, texts: (N, d).

        Relations: use `score` for all images against all captions.
        Raises InputError for another width, as many images as captions not given, NaN, infinity or rows all zero.
        """
        images, texts = self.checked(images, "the images"), self.checked(texts, "the captions")
        if len(images) != len(texts):
            raise InputError(f"edit works row by row, and there are {len(images)} images and {len(texts)} captions.")
        block = max(1, _TEXT_FLOATS // self.sae.n_latents)
        edited = [torch.empty(0, self.width, device=self.device)]
        for start in range(0, len(texts), block):
            x, unit = self._rows(images[start : start + block]), self._unit(texts[start : start + block])
            base, indices, values = self._parts(x)
            if self.mask_network is not None:
                kept = self.mask_network(unit).gather(1, indices)
                amount = values * (kept - self.config.offset)
                base = base + F.embedding_bag(indices, self.sae.directions, per_sample_weights=amount, mode="sum")
            edited.append(base if self.gate_network is None else base * self.gate_network(unit))
        return torch.cat(edited)

    @torch.no_grad()
    def score(self, images: Tensor | np.ndarray, texts: Tensor | np.ndarray) -> Tensor:
        """(N, M) float32 exact scores, on the CPU. Blocked: beside the result, memory does not grow with N x M.

        images: (N, d), texts: (M, d), in memory or memory-mapped.
        Raises InputError for another width, NaN, infinity or rows without direction.
        """
        images, texts = self.checked(images, "the images"), self.checked(texts, "the captions")
        out = torch.empty(len(images), len(texts))
        block = max(64, _TEXT_FLOATS // self.sae.n_latents)
        for top in range(0, len(images), _IMAGES_AT_ONCE):
            prepared = self.prepare_images(images[top : top + _IMAGES_AT_ONCE])
            for left in range(0, len(texts), block):
                captions = self.prepare_texts(texts[left : left + block])
                out[top : top + _IMAGES_AT_ONCE, left : left + block] = self.score_prepared(prepared, captions).cpu()
        return out

    def prepare_images(self, images: Tensor, *, near: Neighbours | None = None) -> PreparedImages:
        """The caption-free side of N images (N, d): O(N (d + k)) memory; O(N k^2) more to divide by |x~|.

        Differentiable where gradients are on. near: the images' neighbours in the memory, where they are known or are
        not simply the nearest: in training an image does not see itself.
        """
        prepared, rule = self._image_side(images, near), self.config.image_correction
        return prepared if rule is None else replace(prepared, bias=bias_of(prepared, self.bank.of_images, rule))

    def _image_side(self, images: Tensor, near: Neighbours | None = None) -> PreparedImages:
        x = self._rows(images)
        inverse = 1 / x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        base, indices, values = self._parts(x, near)
        base, values = base * inverse, values * inverse
        terms = scoring.length_terms(base, indices, values, self.sae.directions) if self.config.needs_terms else None
        return PreparedImages(base, indices, values, terms)

    def prepare_texts(self, texts: Tensor, *, near: Neighbours | None = None) -> PreparedTexts:
        """The image-free side of T captions (T, d): O(T n_latents) memory. Differentiable where gradients are on.

        `near` is as for `prepare_images`.
        """
        prepared, rule = self._text_side(texts, near), self.config.text_correction
        return prepared if rule is None else replace(prepared, bias=bias_of(prepared, self.bank.of_texts, rule))

    def _text_side(self, texts: Tensor, near: Neighbours | None = None) -> PreparedTexts:
        unit = self._unit(texts)
        gate = None if self.gate_network is None else self.gate_network(unit)
        query = self._query(unit, near) if gate is None else self._query(unit, near) * gate
        weights = latent_query = None
        if self.mask_network is not None:
            weights = self.mask_network(unit).t().contiguous() - self.config.offset
            latent_query = weights * (self.sae.directions @ query.t())
        if not self.config.divides:
            return PreparedTexts(query, latent_query)
        return PreparedTexts(query, latent_query, weights if self.config.needs_terms else None, gate)

    def score_prepared(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        """(N, T) exact scores of prepared images and captions."""
        if texts.latent_query is None:
            scores = images.base @ texts.query.t()
        else:
            scores = scoring.numerators(images.base, images.indices, images.values, texts.query, texts.latent_query)
        if self.config.divides:
            scores = scores / self.lengths(images, texts) ** self.config.length_exponent
        return less_bias(scores, images.bias, texts.bias)

    @property
    def bank(self) -> Bank:
        """Pairs of the memory, evenly spread, both sides prepared, which hubness is measured with; kept once made.

        No pair sees itself in the memory. Raises InputError where there is no memory.
        """
        if self.memory is None:
            raise InputError("Hubness is measured with the pairs of a memory, and this editor has none; fit one.")
        if self._bank is None or self._bank.images.base.device != self.device:
            with torch.no_grad():
                own = bank_rows(len(self.memory.images)).to(self.device)
                images, texts = self.memory.images[own].float(), F.normalize(self.memory.texts[own].float(), dim=1)
                self._bank = Bank(
                    self.score_prepared,
                    self._image_side(images, self.memory.near_images(images, own)),
                    self._text_side(texts, self.memory.near_texts(texts, own)),
                )
        return self._bank

    def checked(self, rows: Tensor | np.ndarray, label: str) -> Tensor:
        """The rows (M, d). Raises InputError for another width, NaN, infinity or rows without direction."""
        rows = rows if isinstance(rows, Tensor) else as_tensor(rows, label)
        self._require_width(rows)
        check_rows(rows, label)
        return rows

    def _rows(self, images: Tensor) -> Tensor:
        self._require_width(images)
        return images.to(self.device).float()

    def _require_width(self, images: Tensor) -> None:
        if images.ndim != 2 or images.shape[1] != self.width:
            raise InputError(
                f"Embeddings of shape {tuple(images.shape)} do not fit an editor of width {self.width}; "
                "use rows of the encoder it was fitted on."
            )

    def _unit(self, texts: Tensor) -> Tensor:
        return F.normalize(self._rows(texts), dim=1)

    def _query(self, unit: Tensor, near: Neighbours | None = None) -> Tensor:
        """(T, d) unit caption vectors u of unit captions."""
        query = F.normalize(unit + F.linear(unit, self.head_map, self.head_bias), dim=1)
        if self.memory is None:
            return query
        pictured = self.memory.pictured(self.memory.near_texts(unit) if near is None else near)
        return F.normalize(query + self.memory.strengths[1] * pictured, dim=1)

    def _moved(self, x: Tensor, near: Neighbours | None) -> Tensor:
        """(N, d) images moved towards what people wrote of the like, at their own length."""
        if self.memory is None or self.config.memory != "both":
            return x
        length = x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        unit = x / length
        written = self.memory.written(self.memory.near_images(unit) if near is None else near)
        written = F.normalize(written + F.linear(written, self.head_map), dim=1)
        return F.normalize(unit + self.memory.strengths[0] * written, dim=1) * length

    def _parts(self, x: Tensor, near: Neighbours | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Base (N, d), indices (N, k) and values (N, k) of the edit; k is 0 where the form has no latents."""
        base = self._moved(x, near)
        if not self.config.has_latents:
            return base, x.new_empty(len(x), 0, dtype=torch.int64), x.new_empty(len(x), 0)
        with torch.no_grad():
            codes = self.sae.encode(x)
        if self.config.form == "reconstruct":
            return self.sae.bias + (base - x), codes.indices, codes.values
        if not self.config.taught:
            return base, codes.indices, codes.values
        strength, level = self.strength_and_level
        if not self.config.levels:
            return base, codes.indices, strength * codes.values
        counted = torch.minimum(2 * codes.values, self.usual[codes.indices])
        explained = F.embedding_bag(codes.indices, self.sae.directions, per_sample_weights=codes.values, mode="sum")
        return base - strength * explained, codes.indices, strength * torch.lerp(codes.values, counted, level)

    def lengths(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        """(N, T) relative lengths l of edits whose score is divided. Raises InputError for another editor's sides."""
        if texts.weights is not None and images.terms is not None:
            return scoring.relative_lengths(images.terms, images.indices, texts.weights)
        if texts.gate is None:
            raise InputError("These images or captions were prepared by another editor; prepare them with this one.")
        return scoring.gated_lengths(images.base, texts.gate)
