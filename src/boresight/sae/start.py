"""Where the training of a sparse autoencoder starts: pre-bias and directions."""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.sae.config import Prebias
from boresight.seeds import generator


def geometric_median(rows: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration: (N, d) -> (d,).

    A row closer to the point than 1e-6 of the mean distance is weighted as if it lay at that distance, so that a
    start or a step that lands on a row does not stop there.
    """
    points = rows.double()
    median = points.mean(0)
    for _ in range(iterations):
        distances = (points - median).norm(dim=1)
        weights = 1 / distances.clamp_min(1e-6 * float(distances.mean()) + 1e-300)
        moved = (weights @ points) / weights.sum()
        done = float((moved - median).norm()) <= tolerance * float(distances.mean())
        median = moved
        if done:
            break
    return median.to(rows.dtype)


def starting_bias(sample: Tensor, prebias: Prebias) -> Tensor:
    """(d,) where the pre-bias starts. sample: (S, d)."""
    if prebias == "geometric_median":
        return geometric_median(sample)
    if prebias == "mean":
        return sample.double().mean(0).float()
    return torch.zeros(sample.shape[1])


def starting_directions(n_latents: int, width: int, seed: int) -> Tensor:
    """(n, d) unit rows, uniform on the sphere."""
    return torch.nn.functional.normalize(
        torch.randn(n_latents, width, generator=generator(seed, "sae directions")), dim=1
    )
