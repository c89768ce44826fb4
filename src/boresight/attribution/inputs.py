"""Pictures and captions as towers take them: of encoders that open, of those that do not, and what is seen of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boresight.encoders import Encoder
from boresight.encoders.protocol import check_texts
from boresight.encoders.tokens import Token, TokenizedTexts
from boresight.encoders.towers.parts import same
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.errors import InputError

GRID = (7, 7)  # parts that a picture is cut into where the model's own patches are not known
_WORD = re.compile(r"\S+")


class BlackBox:
    """`collate`, `tokenized` and `towers` for any `Encoder`: pictures on a 7 x 7 grid, captions word by word.

    The towers have no layers, so that only its scores can be asked for.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.words: dict[str, int] = {}

    def collate(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """(B, C, H, W). Raises InputError for a model that reads pictures of several shapes."""
        tensors = [self.encoder.preprocess(image) for image in images]
        if len({tensor.shape for tensor in tensors}) > 1:
            raise InputError(f"{self.encoder.name} reads pictures of several shapes; explain one picture at a time.")
        return {"pixel_values": torch.stack(tensors)}

    def tokenized(self, texts: Sequence[str]) -> TokenizedTexts:
        """Words between spaces, numbered as they come."""
        tokens = [[Token(m.group(), m.start(), m.end(), False) for m in _WORD.finditer(text)] for text in texts]
        ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, words in enumerate(tokens):
            numbers = [self.words.setdefault(word.text, len(self.words)) for word in words]
            ids[row, : len(words)] = torch.tensor(numbers)
            mask[row, : len(words)] = 1
        return TokenizedTexts({"input_ids": ids, "attention_mask": mask}, mask.bool(), tokens)

    def towers(self) -> Towers:
        """Both, without layers."""
        return Towers(
            Tower("image", self._images, (), None, "cls", same), Tower("text", self._texts, (), None, "cls", same)
        )

    def _images(self, inputs: Mapping[str, Tensor]) -> Hidden:
        embeddings = self.encoder.embed_images(inputs["pixel_values"])
        return _hidden(embeddings, inputs, (GRID,) * len(embeddings))

    def _texts(self, inputs: Mapping[str, Tensor]) -> Hidden:
        known = list(self.words)
        rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        texts = [" ".join(known[number] for number in ids[mask].tolist()) for ids, mask in rows]
        return _hidden(self.encoder.embed_texts(check_texts(texts)), inputs, None)


def _hidden(embeddings: Tensor, inputs: Mapping[str, Tensor], grids: tuple[tuple[int, int], ...] | None) -> Hidden:
    row = torch.zeros(len(embeddings), dtype=torch.int64)
    return Hidden(embeddings.clone()[:, None], 0, None, row, inputs, grids)  # clone: out of inference mode


def opened(encoder: Any, *, scores_suffice: bool, what: str) -> tuple[Any, Towers]:
    """What reads inputs for the towers, and the towers: black boxes where the encoder opens no other way.

    Raises InputError, naming `what` wants layers, where it does not open and its scores alone do not suffice.
    """
    try:
        return encoder, encoder.towers()
    except (AttributeError, InputError) as error:
        if not scores_suffice:
            reason = str(error) if isinstance(error, InputError) else f"{encoder.name} does not open layer by layer."
            raise InputError(f"'{what}' cannot explain this encoder: {reason}") from error
    box = BlackBox(encoder)
    return box, box.towers()


def seen_box(encoder: Encoder, size: tuple[int, int]) -> Tensor:
    """(4,) left, top, right, bottom: the part of a picture of `size` (width, height) that the model sees.

    In parts of the picture, [0, 1]; below 0 and above 1 where the preprocessing pads the picture there.
    Found by sending ramps through the model's own preprocessing, since each crops in a way of its own.
    """
    width, height = size
    across = np.linspace(0, 255, width).round().astype(np.uint8)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height).round().astype(np.uint8)[:, None].repeat(width, 1)
    ramps = encoder.preprocess(Image.fromarray(np.stack([across, down, across], axis=-1)))
    dark, light = (encoder.preprocess(Image.new("RGB", size, colour)) for colour in ("black", "white"))
    reach = light - dark
    inside = (reach > reach.max() / 2)[0]  # not the padding, which is the same in both
    share = (ramps - dark) / reach
    sides = (
        (share[0][:, inside.any(0)][inside.any(1)].mean(0), inside.any(0), width),
        (share[1][:, inside.any(0)][inside.any(1)].mean(1), inside.any(1), height),
    )
    (left, right), (top, bottom) = (_edges(*side) for side in sides)
    box = torch.tensor([left, top, right, bottom])
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return torch.where((box - whole).abs() < 0.02, whole, box)  # the ramps have 256 steps and blurred ends


def _edges(values: Tensor, inside: Tensor, pixels: int) -> tuple[float, float]:
    """Where the view begins and ends on one side of the picture.

    values: where the pixels of the view that show the picture stand in it; inside: which of all pixels these are.
    """
    if pixels == 1 or len(values) == 1:  # no ramp to find the edges by
        return 0.0, 1.0
    step = float(values[-1] - values[0]) / (len(values) - 1)
    shown = inside.nonzero()[:, 0]
    before, behind = int(shown[0]), len(inside) - 1 - int(shown[-1])
    edges = (float(values[0]) - step / 2, float(values[-1]) + step / 2)  # from the middle of a pixel to its edge
    left, right = (min(max(edge, 0.0), 1.0) for edge in edges)
    return left - before * step, right + behind * step
