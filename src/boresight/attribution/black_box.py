"""An encoder that does not open layer by layer, as towers without layers: only its scores can be asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from boresight.encoders import Encoder
from boresight.encoders.protocol import check_texts
from boresight.encoders.tokens import Token, TokenizedTexts
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.errors import InputError

GRID = (7, 7)  # parts that a picture is cut into where the model's own patches are not known
_WORD = re.compile(r"\S+")


class BlackBox:
    """`collate`, `tokenized` and `towers` for any `Encoder`: pictures on a 7 x 7 grid, captions word by word."""

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
        found = [[Token(m.group(), m.start(), m.end(), False) for m in _WORD.finditer(text)] for text in texts]
        ids = torch.zeros(len(found), max(map(len, found)), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(found):
            numbers = [self.words.setdefault(token.text, len(self.words)) for token in tokens]
            ids[row, : len(tokens)] = torch.tensor(numbers)
            mask[row, : len(tokens)] = 1
        return TokenizedTexts({"input_ids": ids, "attention_mask": mask}, mask.bool(), found)

    def towers(self) -> Towers:
        return Towers(
            Tower("image", self._images, (), None, "cls", _same), Tower("text", self._texts, (), None, "cls", _same)
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


def _same(x: Tensor) -> Tensor:
    return x
