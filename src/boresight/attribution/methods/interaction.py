"""Which token matches which patch: second-order attribution of a dual encoder's score.

Moeller, Tilli, Vu and Pado, "Explaining dual encoders with second-order attributions" (arXiv 2408.14153, section 3).
With u(x) the unit embedding of one side as a function of its hidden states x, and J its Jacobian, token i and patch j
interact by

    A_ij = <J_text dt_i, J_image dv_j>,

dt_i and dv_j their states less a baseline of zero; J is taken at the input, where the paper averages it over the path
from the baseline. The Jacobians are never formed: forward mode gives J_text dt_i of all tokens and J_image dv_j of all
patches, and A is their product.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from boresight.attribution.grids import joined, on_grid
from boresight.attribution.methods.base import require_layers, trimmed
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.errors import InputError

TANGENTS_AT_ONCE = 64


def interaction(
    towers: Towers,
    image_inputs: Mapping[str, Tensor],
    text_inputs: Mapping[str, Tensor],
    *,
    layer: int = -3,
    batch_size: int = 8,
) -> Tensor:
    """(P, T, gh, gw) float32 on the CPU, signed, of the pairs (image i, text i); NaN on padding and outside the grid.

    Args:
        towers, image_inputs, text_inputs: as their `lower` takes them.
        layer: whose hidden states interact, numbered as `Tower.lower` does.
        batch_size: pairs at once.

    Relations:
        The only map of both sides at once; `explain(..., interaction=True)` gives it beside those of a method.

    Raises:
        InputError: towers without layers, a layer that is not there, sides of different length or none.
    """
    images, texts = image_inputs["pixel_values"], text_inputs["input_ids"]
    if len(images) != len(texts) or not len(images):
        raise InputError(f"There are {len(images)} images and {len(texts)} captions; give one caption for each image.")
    if batch_size < 1:
        raise InputError(f"{batch_size} pairs at once; ask for at least 1.")
    for tower in (towers.image, towers.text):
        require_layers(tower, "Interaction")
    parts = []
    for rows in torch.arange(len(images)).split(batch_size):
        with torch.no_grad():
            image, text = (
                trimmed(tower.lower({name: value[rows] for name, value in inputs.items()}, layer))
                for tower, inputs in ((towers.image, image_inputs), (towers.text, text_inputs))
            )
            of_patches, of_tokens = contributions(towers.image, image), contributions(towers.text, text)
        pairs = torch.einsum("ibd,jbd->bij", of_tokens, of_patches)
        if text.keep is not None:
            pairs = pairs.masked_fill(~text.keep[:, :, None], torch.nan)
        parts.append(on_grid(pairs, image.grids, towers.image.prefix).cpu())
    return joined(parts, texts.shape[1])


@sdpa_kernel(SDPBackend.MATH)  # the others know no forward mode
def contributions(tower: Tower, hidden: Hidden) -> Tensor:
    """(N, B, d): what each token's states move the unit embedding by, to first order."""
    x = hidden.states
    one_token = torch.eye(x.shape[-2], device=x.device)[:, :, None]

    def unit(states: Tensor) -> Tensor:
        return F.normalize(tower.upper(hidden.with_states(states)), dim=-1)

    moved = vmap(lambda token: jvp(unit, (x,), (x * token,))[1], chunk_size=max(1, TANGENTS_AT_ONCE // len(x)))
    return moved(one_token)
