"""What every attribution method shares: pairs in batches, one side explained against the other's embedding.

A method sees `Towers` and hidden states, and knows no library of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.grids import joined, on_grid
from boresight.brief import Brief
from boresight.encoders.towers.hf import towers_of
from boresight.encoders.towers.parts import WAY_OUT
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.errors import InputError, require_choice

Target = Literal["both", "image", "text"]


@dataclass(frozen=True, repr=False)
class Maps(Brief):
    """Attribution of some pairs, raw.

    Attributes:
        image: (P, gh, gw) float32; NaN outside the grid of a picture smaller than the others; None if not asked for.
        text: (P, T) float32; NaN on padding; None if not asked for.
        score: (P,) float32, the cosine that is explained.
    """

    image: Tensor | None
    text: Tensor | None
    score: Tensor


@dataclass(frozen=True)
class Method(ABC):
    """A way to tell which patches and tokens a match rests on; a dataclass whose fields are its options.

    Attributes:
        model: a transformers dual encoder, an encoder of `load_encoder`, or its `Towers`. It is read only: no weight,
            gradient, hook, training flag or global random state of it changes, whatever happens.
        batch_size: pairs at once; memory grows with it and not with the number of pairs.
    """

    model: Any = field(repr=False)
    batch_size: int = 8

    def start(self, tower: Tower) -> int:
        """The layer whose hidden states `scores` is given, of this tower: the option `layer`, or 0 without one."""
        return getattr(self, "layer", 0)

    @abstractmethod
    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) float32, a score for every token of `hidden` (B inputs), prefix and special tokens included.

        other: (B, d) unit embeddings of the other side. What stands at tokens outside `hidden.keep` is of no account.
        Called with gradients off. Input b's scores depend on nothing but itself and `seed`.
        """

    def attribute(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        target: Target = "both",
        seed: int = 0,
        **image_inputs: Tensor,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Raw maps of the pairs (pixel_values[i], input_ids[i]): (P, gh, gw) and (P, T), NaN on padding.

        Args:
            pixel_values, image_inputs: as the model's image tower takes them; `pixel_attention_mask` and
                `spatial_shapes` for SigLIP 2 NaFlex.
            input_ids, attention_mask: (P, T) int64, as the model's text tower takes them. SigLIP was trained on padding
                it attends to, and wants no mask.
            target: which sides to explain; the other's map is None.

        Raises:
            InputError: a model that this method cannot open, a layer it does not have, sides of different length,
                nothing to explain, or inputs that are not finite.

        Relations:
            For pictures and captions as they are, use `explain`.
        """
        towers = towers_of(self.model)
        texts = {"input_ids": input_ids} | ({} if attention_mask is None else {"attention_mask": attention_mask})
        if len(pixel_values) != len(input_ids):
            raise InputError(
                f"There are {len(pixel_values)} images and {len(input_ids)} captions; give one caption for each image."
            )
        if len(input_ids) == 0:
            raise InputError("There are no pairs to explain; pass at least one image and one caption.")
        images = {"pixel_values": pixel_values, **image_inputs}
        pairs = torch.arange(len(input_ids))[:, None].expand(-1, 2).split(max(1, self.batch_size))
        parts = [attribute_batch(self, towers, images, texts, rows, target, seed) for rows in pairs]
        maps = joined_maps(parts, input_ids.shape[1])
        return maps.image, maps.text


@torch.no_grad()
def attribute_batch(
    method: Method,
    towers: Towers,
    images: Mapping[str, Tensor],
    texts: Mapping[str, Tensor],
    rows: Tensor,
    target: Target,
    seed: int,
) -> Maps:
    """Maps of the pairs (image row, text row) of `rows` (P, 2) int64, all at once, on the CPU.

    An image or text that stands in several pairs goes through its tower once.
    Raises InputError as `Method.attribute` does.
    """
    require_choice("target", target, get_args(Target))
    sides = []
    for tower, inputs, column in ((towers.image, images, rows[:, 0]), (towers.text, texts, rows[:, 1])):
        once, inverse = column.unique(return_inverse=True)
        layer = method.start(tower) if target in ("both", tower.modality) else 0
        hidden = trimmed(tower.lower({name: value[once] for name, value in inputs.items()}, layer))
        embedding = tower.upper(hidden)
        finite = torch.isfinite(embedding).all(1)
        if not bool(finite.all()):
            row = int(once[(~finite).nonzero()[0, 0].cpu()])
            raise InputError(f"The model gives no finite embedding for {tower.modality} {row}; check that input.")
        sides.append((tower, hidden.select(inverse), F.normalize(embedding, dim=1)[inverse]))
    (image, image_hidden, image_unit), (text, text_hidden, text_unit) = sides
    image_maps = text_maps = None
    if target != "text":
        scores = method.scores(image, image_hidden, text_unit, seed)
        image_maps = on_grid(scores, image_hidden.grids, image.prefix).cpu()
    if target != "image":
        scores = method.scores(text, text_hidden, image_unit, seed)
        text_maps = (scores if text_hidden.keep is None else scores.masked_fill(~text_hidden.keep, torch.nan)).cpu()
    return Maps(image_maps, text_maps, (image_unit * text_unit).sum(1).cpu())


def trimmed(hidden: Hidden) -> Hidden:
    """Without the columns at the end that no input keeps."""
    if hidden.keep is None:
        return hidden
    last = int(hidden.keep.any(0).nonzero().max()) + 1
    if hidden.row is not None:
        last = max(last, int(hidden.row.max()) + 1)
    return replace(hidden, states=hidden.states[..., :last, :], keep=hidden.keep[:, :last])


def joined_maps(parts: list[Maps], length: int) -> Maps:
    """One after the other, grids and captions padded with NaN; `length` is T, of the captions."""
    images = [part.image for part in parts if part.image is not None]
    texts = [part.text for part in parts if part.text is not None]
    score = torch.cat([part.score for part in parts])
    return Maps(joined(images) if images else None, joined(texts, length) if texts else None, score)


def cosine(tower: Tower, hidden: Hidden, states: Tensor, other: Tensor) -> Tensor:
    """(..., B): what the layers above make of `states` (..., B, N, D) in place of the hidden ones, with `other`."""
    return F.cosine_similarity(tower.upper(hidden.with_states(states)), other, dim=-1)


def require_layers(tower: Tower, name: str) -> None:
    """Raises InputError for a tower without blocks, of which nothing is known but its embeddings."""
    if not tower.blocks:
        raise InputError(
            f"{name} looks into the layers of the {tower.modality} tower, and this model shows none; {WAY_OUT}"
        )


def columns(tower: Tower, hidden: Hidden) -> int:
    """N, the scores an input has: its hidden states, or where the tower shows none, its patches or tokens."""
    if tower.blocks:
        return hidden.states.shape[-2]
    if tower.modality == "text":
        return hidden.inputs["input_ids"].shape[1]
    assert hidden.grids is not None
    return tower.prefix + max(rows * columns for rows, columns in hidden.grids)
