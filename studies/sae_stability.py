"""How much of its dictionary a second fit of a sparse autoencoder finds again."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from boresight.errors import InputError
from boresight.sae.model import SaeModel

HUNGARIAN_UP_TO = 4096


def stability(first: SaeModel, second: SaeModel) -> float:
    """How far two fits, say of two seeds, found the same directions: mean |cosine| of matched directions, in [0, 1].

    Up to 4,096 latents the matching is one to one and the best there is (Hungarian); above, every direction of
    each is matched to its nearest of the other, which flatters a little. Directions of latents that never fire
    count like all others. Raises InputError when widths or sizes differ.
    """
    if (first.n_latents, first.width) != (second.n_latents, second.width):
        raise InputError(
            f"The autoencoders have {first.n_latents} latents of width {first.width} and {second.n_latents} of "
            f"width {second.width}; compare two of one shape."
        )
    a, b = first.directions.detach().cpu(), second.directions.detach().cpu()
    if first.n_latents <= HUNGARIAN_UP_TO:
        cosines = (a @ b.T).abs().numpy()
        return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())
    nearest = [
        torch.cat([(part @ other.T).abs().amax(1) for part in one.split(1024)]) for one, other in ((a, b), (b, a))
    ]
    return float(torch.cat(nearest).mean())
