"""Pictures and captions that stand for rows of two tables, for measures of items."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn import functional as F

from boresight.evaluation.contrasts import Contrast, Picture
from fake_encoder import FakeEncoder


class TableEncoder(FakeEncoder):
    """Embeds picture number i as row i of a table, and the caption 'j' as row j of another."""

    def __init__(self, images: torch.Tensor, texts: torch.Tensor) -> None:
        super().__init__(width=images.shape[1])
        self.name = "world"
        self.image_rows, self.text_rows = F.normalize(images.float(), dim=1), F.normalize(texts.float(), dim=1)

    def embed_images(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        numbers = [int(image.item()) for image in images]
        self.images += numbers
        return self.image_rows[numbers]

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        return self.text_rows[[int(text) for text in texts]]

    def embed_texts_counted(self, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        return self.embed_texts(texts), 0


def numbered(number: int) -> Picture:
    return Picture(f"p{number}", lambda: Image.new("RGB", (2, 2), (number // 256, number % 256, 0)))


def item(picture: int, captions: Sequence[int], true: int | tuple[int, ...] = 0, group: str = "g") -> Contrast:
    return Contrast(numbered(picture), tuple(map(str, captions)), true, group)
