"""Mask networks: what a caption keeps of an image's latents.

Use 'bilinear' with few captions to learn from, 'mlp' for the paper's reading, 'ones' to drop nothing.
Every mask is a module `forward(texts (T, d) unit length) -> (T, n)` in [0, 1]; `OwnMask` makes one of a callable of
yours. TEVI (arXiv 2606.07451)
reads the mask off the caption with an MLP and a sigmoid; its widths are not known here, so they are our choice, and
so are all the other masks.

A trainable mask starts *open*: its last layer is zero under a bias of 20, where the sigmoid is exactly 1 in float32,
so an untrained editor keeps everything. Training begins from `start(seed)`, a little below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from boresight.editing.config import MaskKind
from boresight.errors import InputError
from boresight.seeds import generator

OPEN = 20.0  # log-odds at which the sigmoid is exactly 1 in float32
START = 3.0
GATE_START = 2.0
SHARPNESS, RAISED, LOWERED = 3.0, 1.0, 1.5
HALF = 0.5  # of a mask, from where a latent counts as kept


def log_odds(shares: Sequence[float]) -> Tensor:
    """Of shares in [0, 1], between -OPEN and OPEN."""
    return torch.logit(torch.tensor(shares)).clamp(-OPEN, OPEN)


class _LearntMask(nn.Module, ABC):
    """m = sigmoid(log-odds of the caption); a taught one as in `boresight.editing.presence`."""

    taught = False  # then the log-odds are shifts from the base rate of each latent

    @abstractmethod
    def logits(self, texts: Tensor) -> Tensor:
        """(T, n) log-odds of the mask; of a taught one, by how much a caption raises those of each latent's presence.

        texts: (T, d), unit.
        """

    def forward(self, texts: Tensor) -> Tensor:
        """(T, n) in [0, 1]. texts: (T, d), unit."""
        asked = self.logits(texts)
        if self.taught:
            asked = SHARPNESS * torch.maximum(asked - RAISED, -asked - LOWERED)
        return asked.sigmoid()


class MlpMask(_LearntMask):
    """m = sigmoid(W2 gelu(W1 sqrt(d) t) + B), the paper's reading with one hidden layer."""

    def __init__(self, width: int, n_latents: int, hidden: int = 256) -> None:
        super().__init__()
        self.first = skip_init(nn.Linear, width, hidden)
        self.last = skip_init(nn.Linear, hidden, n_latents)
        for layer in (self.first, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.last.bias, OPEN)

    def start(self, seed: int) -> None:
        """Where training begins."""
        draw = generator(seed, "mask")
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=draw)
        nn.init.zeros_(self.first.bias)
        nn.init.constant_(self.last.bias, START)

    def logits(self, texts: Tensor) -> Tensor:
        """(T, n) log-odds of the mask. texts: (T, d), unit."""
        hidden = F.gelu(self.first(texts * texts.shape[1] ** 0.5))
        return torch.addmm(self.last.bias.unsqueeze(1), self.last.weight, hidden.t()).t()

    @property
    def latent_bias(self) -> nn.Parameter:
        """(n,) of each latent, whatever the caption."""
        return self.last.bias


class BilinearMask(_LearntMask):
    """m_l = sigmoid(SCALE <d_l, A t> + B_l): low capacity, tied to the decoder directions d_l.

    A is (d, d) and B (n,): a latent is judged by where it points, so what is learnt of one latent serves its
    neighbours. With the axes of the space as directions this is a gate over its raw dimensions.
    """

    directions: Tensor
    SCALE = 4.0

    def __init__(self, directions: Tensor, start: float = START) -> None:
        super().__init__()
        n_latents, width = directions.shape
        self.start_bias = start
        self.register_buffer("directions", directions, persistent=False)
        self.map = nn.Parameter(torch.zeros(width, width))
        self.bias = nn.Parameter(torch.full((n_latents,), OPEN))

    def start(self, seed: int) -> None:
        """Where training begins."""
        nn.init.normal_(self.map, std=0.02, generator=generator(seed, "mask"))
        nn.init.constant_(self.bias, self.start_bias)

    def logits(self, texts: Tensor) -> Tensor:
        """(T, n) log-odds of the mask. texts: (T, d), unit."""
        asked = texts @ self.map.t() * self.SCALE
        return torch.addmm(self.bias.unsqueeze(1), self.directions, asked.t()).t()

    @property
    def latent_bias(self) -> nn.Parameter:
        """(n,) of each latent, whatever the caption."""
        return self.bias


class OnesMask(nn.Module):
    """Keeps everything: with the form `reconstruct`, the reconstruction alone."""

    def __init__(self, n_latents: int) -> None:
        super().__init__()
        self.n_latents = n_latents

    def logits(self, texts: Tensor) -> Tensor:
        """(T, n) zeros: no caption raises anything. texts: (T, d), unit."""
        return texts.new_zeros(len(texts), self.n_latents)

    def forward(self, texts: Tensor) -> Tensor:
        """(T, n) in [0, 1]. texts: (T, d), unit."""
        return texts.new_ones(len(texts), self.n_latents)


class OwnMask(nn.Module):
    """A callable of the user's, texts (T, d) float32 of unit length -> (T, n) in [0, 1], as a mask."""

    def __init__(self, mask: Callable[[Tensor], Tensor], n_latents: int) -> None:
        super().__init__()
        self.mask, self.n_latents = mask, n_latents

    def logits(self, texts: Tensor) -> Tensor:
        """(T, n) log-odds of the mask. texts: (T, d), unit."""
        return torch.logit(self(texts)).clamp(-OPEN, OPEN)

    def forward(self, texts: Tensor) -> Tensor:
        """(T, n) in [0, 1]. texts: (T, d), unit. Raises InputError for anything else that the callable gives."""
        kept = self.mask(texts)
        wanted = (len(texts), self.n_latents)
        if not isinstance(kept, Tensor) or kept.shape != wanted:
            given = f"a tensor {tuple(kept.shape)}" if isinstance(kept, Tensor) else f"a {type(kept).__name__}"
            raise InputError(f"The mask gave {given} of {len(texts)} captions; a tensor {wanted} is needed.")
        kept = kept.to(device=texts.device, dtype=texts.dtype)
        if not bool(((kept >= 0) & (kept <= 1)).all()):
            raise InputError("The mask gave a value outside [0, 1], or NaN; end it with .sigmoid() or .clamp(0, 1).")
        return kept


class RandomMask(nn.Module):
    """Control of equal density: another mask with its latents permuted, each caption in its own way.

    The permutation depends on the seed and on the caption's embedding alone, not on its place in a block.
    """

    def __init__(self, mask: Any, seed: int = 0) -> None:
        super().__init__()
        self.mask, self.seed = mask, seed

    def logits(self, texts: Tensor) -> Tensor:
        """(T, n), those of the mask, permuted as it is. texts: (T, d), unit."""
        return self._permuted(self.mask.logits(texts), texts)

    def forward(self, texts: Tensor) -> Tensor:
        """(T, n) in [0, 1]. texts: (T, d), unit."""
        return self._permuted(self.mask(texts), texts)

    def _permuted(self, kept: Tensor, texts: Tensor) -> Tensor:
        rows = texts.detach().float().cpu().numpy()
        order = [torch.randperm(kept.shape[1], generator=generator(self.seed, row.tobytes().hex())) for row in rows]
        return kept.gather(1, torch.stack(order).to(kept.device)) if order else kept


class HardMask(nn.Module):
    """Another mask, decided: a latent stays whole or goes whole."""

    def __init__(self, mask: Any) -> None:
        super().__init__()
        self.mask = mask

    def logits(self, texts: Tensor) -> Tensor:
        """(T, n), those of the mask before it is decided. texts: (T, d), unit."""
        return self.mask.logits(texts)

    def forward(self, texts: Tensor) -> Tensor:
        """(T, n), 0 or 1. texts: (T, d), unit."""
        return (self.mask(texts) >= HALF).float()


def make_mask(
    kind: MaskKind, directions: Tensor, *, taught: bool = False, own: Callable[[Tensor], Tensor] | None = None
) -> Any:
    """A mask network in its open state, on the device of the directions (n, d); of kind 'own' the callable itself.

    Raises InputError for 'own' without a callable.
    """
    if kind == "own":
        if not callable(own):
            raise InputError("The mask 'own' is a callable of yours; pass it as `mask`.")
        return OwnMask(own, len(directions)).to(directions.device)
    if kind == "ones":
        return OnesMask(directions.shape[0])
    mask = BilinearMask(directions) if kind == "bilinear" else MlpMask(directions.shape[1], directions.shape[0])
    mask.taught = taught
    return mask.to(directions.device)
