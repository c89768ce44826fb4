"""What captions say of images, as rows beside the images themselves.

An image shows all at once, so latents that are fitted on images alone mix what goes together. A caption tells a part,
and the image that is guessed from it differs from the mean image along that part alone:

    x^(t) = mean x + s W (t - mean t)

with W by ridge regression on the training pairs, and s such that the guesses spread as far as the images do, or they
would hardly count. Ours; TEVI's autoencoder is fitted on images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.embeddings.embeddings import Embeddings, check_rows
from boresight.errors import InputError
from boresight.sae.rows import Rows

RIDGE = 1e-2  # of the mean variance of a dimension of the captions


@dataclass(frozen=True)
class CaptionedRows(Rows):
    """(N + M, d): N images, then the image guessed from each of M captions; made as they are read.

    Attributes:
        texts: (M, d) captions.
        image_mean, text_mean: (d,) float32.
        guess: (d, d) float32, s W.
    """

    texts: Tensor | np.ndarray
    image_mean: Tensor
    text_mean: Tensor
    guess: Tensor

    def __len__(self) -> int:
        return len(self.source) + len(self.texts)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(B, d) float32 copies on the CPU. `rows`: a slice or (B,) int64."""
        if isinstance(rows, slice):
            rows = torch.arange(len(self))[rows]
        guessed = rows >= len(self.source)
        out = torch.empty(len(rows), self.width)
        out[~guessed] = super().__getitem__(rows[~guessed])
        out[guessed] = (
            self.image_mean + (_unit(self.texts, rows[guessed] - len(self.source)) - self.text_mean) @ self.guess
        )
        return out


def captioned_rows(embeddings: Embeddings, block: int = 16384) -> CaptionedRows:
    """Images and what their captions say, in two passes of `block` captions at a time.

    Raises InputError where there are no captions, where all read the same, and for rows that are NaN or zero.
    """
    images, texts, owners = embeddings.images, embeddings.texts, embeddings.owners
    if len(owners) == 0:
        raise InputError("These embeddings have no captions; leave `captions` out to fit on the images alone.")
    blocks = torch.arange(len(owners)).split(block)
    image_mean, text_mean = torch.zeros(images.shape[1]).double(), torch.zeros(texts.shape[1]).double()
    for rows in blocks:
        check_rows(Rows(texts)[rows], "the captions", first=int(rows[0]))
        image_mean += Rows(images)[owners[rows]].double().sum(0) / len(owners)
        text_mean += _unit(texts, rows).double().sum(0) / len(owners)
    spread = torch.zeros(len(text_mean), len(text_mean)).double()
    shared, wanted = torch.zeros(len(text_mean), len(image_mean)).double(), 0.0
    for rows in blocks:
        x, t = Rows(images)[owners[rows]].double() - image_mean, _unit(texts, rows).double() - text_mean
        spread += t.T @ t
        shared += t.T @ x
        wanted += float(x.square().sum())
    ridge = RIDGE * spread.diagonal().mean()
    guess = torch.linalg.lstsq(spread + ridge * torch.eye(len(spread)).double(), shared).solution
    reached = float((guess * (spread @ guess)).sum())
    if not reached > 0:
        raise InputError("The captions tell nothing of these images; leave `captions` out to fit on the images alone.")
    guess *= (wanted / reached) ** 0.5
    return CaptionedRows(images, texts, image_mean.float(), text_mean.float(), guess.float())


def _unit(texts: Tensor | np.ndarray, rows: Tensor) -> Tensor:
    return F.normalize(Rows(texts)[rows], dim=1)
