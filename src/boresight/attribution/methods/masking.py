"""Images and captions with some of their units gone, as the model would be given them; only inputs are needed.

Patches that go turn to zero, which in normalised pixels is the mean colour, or to a filling. Tokens that go are deleted
and the caption closes up, so that it stays one that somebody could have written; what it lacks in length is padding.
`Patches` and `Words` hide units of one input many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.encoders.towers.tower import Hidden, Tower


@dataclass(frozen=True)
class Patches:
    """The patches of one image.

    Attributes:
        inputs: of a batch of one; `pixel_values` (1, C, H, W), or (1, n, side * side * 3) cut into patches (NaFlex).
        grid: rows and columns of patches, `count` in all.
        columns: (count,) int64, where their scores go.
    """

    inputs: Mapping[str, Tensor]
    grid: tuple[int, int]
    columns: Tensor

    @property
    def count(self) -> int:
        """Of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def patch(self) -> tuple[int, int]:
        """Pixels down and across. What the grid leaves over of a picture belongs to its last patches."""
        pixels = self.inputs["pixel_values"]
        if pixels.ndim == 3:
            side = round((pixels.shape[-1] / 3) ** 0.5)
            return side, side
        return pixels.shape[-2] // self.grid[0], pixels.shape[-1] // self.grid[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        pixels, (down, across) = self.inputs["pixel_values"], self.patch
        if pixels.ndim == 3:
            return self.grid[0] * down, self.grid[1] * across
        return pixels.shape[-2], pixels.shape[-1]

    def hide(self, keep: Tensor) -> dict[str, Tensor]:
        """Keep (K, count) bool -> the inputs of K images with only those patches."""
        return self.fade(by_pixel(keep.unflatten(1, self.grid), self.size).float())

    def fade(self, masks: Tensor) -> dict[str, Tensor]:
        """Masks (K, height, width) float32 in [0, 1] -> the inputs of K images with their pixels times that."""
        out = {name: value.expand(len(masks), *value.shape[1:]) for name, value in self.inputs.items()}
        pixels = self.inputs["pixel_values"].float()
        if pixels.ndim == 4:
            return out | {"pixel_values": pixels * masks[:, None]}
        (rows, columns), (side, _) = self.grid, self.patch
        # A patch holds its pixels row by row, the channels of each together.
        cut = masks.reshape(-1, rows, side, columns, side).transpose(2, 3).reshape(len(masks), self.count, -1)
        faded = pixels[:, : self.count] * cut.repeat_interleave(3, dim=-1)
        return out | {"pixel_values": torch.cat([faded, pixels[:, self.count :].expand(len(masks), -1, -1)], dim=1)}

    def shares(self, masks: Tensor) -> Tensor:
        """Masks (K, height, width) -> (K, count), their means over the patches."""
        means = F.avg_pool2d(masks[:, None], self.patch, self.patch)
        return means[:, 0, : self.grid[0], : self.grid[1]].flatten(1)


@dataclass(frozen=True)
class Words:
    """The tokens of one caption that may go.

    Attributes:
        inputs: of a batch of one; `input_ids` (1, T) and whatever else has its shape.
        columns: (count,) int64, those of the tokens; the others stay.
        filler: the token that padding is made of.
        left: padding stands before the caption, and not behind it.
        masked: whether padding is to be masked out where the inputs come without an attention mask.
    """

    inputs: Mapping[str, Tensor]
    columns: Tensor
    filler: int
    left: bool
    masked: bool

    @property
    def count(self) -> int:
        """Of tokens that may go."""
        return len(self.columns)

    def hide(self, keep: Tensor) -> dict[str, Tensor]:
        """Keep (K, count) bool -> the inputs of K captions with only those tokens and the ones that always stay."""
        inputs = dict(self.inputs)
        if self.masked:
            inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        gone = torch.zeros(len(keep), inputs["input_ids"].shape[1], dtype=torch.bool, device=keep.device)
        gone[:, self.columns] = ~keep
        order = (gone ^ self.left).int().argsort(dim=1, stable=True)
        gone = gone.gather(1, order)
        closed_up = {name: value.expand(len(keep), -1).gather(1, order) for name, value in inputs.items()}
        return {
            name: value.masked_fill(gone, self.filler if name == "input_ids" else 0)
            for name, value in closed_up.items()
        }


def units_of(tower: Tower, hidden: Hidden, row: int) -> Patches | Words:
    """The units of input `row`; of a caption all tokens but padding, the one that is read and a special first one.

    A black box keeps its special tokens to itself: all that it names may go.
    """
    inputs = {name: value[row : row + 1] for name, value in hidden.inputs.items()}
    if tower.modality == "image":
        assert hidden.grids is not None
        rows, columns = hidden.grids[row]
        device = inputs["pixel_values"].device
        return Patches(inputs, (rows, columns), tower.prefix + torch.arange(rows * columns, device=device))
    ids, mask = inputs["input_ids"][0], inputs.get("attention_mask")
    left = mask is not None and not bool(mask[0, 0])
    may_go = alive(tower, hidden, row).clone()
    if tower.blocks and tower.pooling in ("cls", "eos"):
        may_go[may_go.int().argmax()] = False
    if tower.blocks and hidden.row is not None:
        may_go[int(hidden.row[row])] = False
    filler = int(ids[0 if left else -1])
    # A black box gets the inputs that it was given, and a tower that reads its last position was trained on padding.
    masked = bool(tower.blocks) and tower.pooling != "last"
    return Words(inputs, may_go.nonzero()[:, 0], filler, left, masked)


def alive(tower: Tower, hidden: Hidden, row: int) -> Tensor:
    """(T,) bool, the tokens of caption `row` that are no padding.

    Padding is what may not be attended to. Where a caption comes without a mask, it is the run of one token that the
    caption ends in; of towers with layers, that concerns those that read the last position, for which a run of one is
    padding, too.
    """
    ids, mask = hidden.inputs["input_ids"][row], hidden.inputs.get("attention_mask")
    if tower.blocks and hidden.keep is not None:
        return F.pad(hidden.keep[row].to(ids.device), (0, len(ids) - hidden.keep.shape[1]))
    if mask is not None:
        return mask[row].bool()
    if tower.blocks and tower.pooling != "last":
        return torch.ones_like(ids, dtype=torch.bool)
    run = int((ids == ids[-1]).flip(0).int().cumprod(0).sum())
    if run == 1 and not tower.blocks:
        run = 0
    return torch.arange(len(ids), device=ids.device) < len(ids) - run


def by_pixel(keep: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, gh, gw) of patches -> (K, H, W) of the pixels of a picture of size = (H, W)."""
    rows, columns = (
        (torch.arange(extent, device=keep.device) // (extent // count)).clamp(max=count - 1)
        for extent, count in zip(size, keep.shape[1:], strict=True)
    )
    return keep[:, rows[:, None], columns]
