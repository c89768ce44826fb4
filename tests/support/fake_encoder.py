"""An encoder of a few lines, and collections of pictures that carry their own number."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from PIL import Image

from boresight.data import Collection

IMAGE = {"bytes": Value("binary"), "path": Value("string")}
FEATURES = Features(
    {"id": Value("string"), "image": IMAGE, "captions": List(Value("string")), "split": Value("string")}
)


class FakeEncoder:
    """Embeds a picture by its number and a caption by its letters; remembers what it was asked."""

    device = torch.device("cpu")
    dtype = torch.float32
    logit_scale = 10.0

    def __init__(self, width: int = 6, fingerprint: str = "f" * 16, limit: int = 12) -> None:
        self.name, self.fingerprint, self.width = "fake", fingerprint, width
        self.token_limit = limit
        self.images: list[int] = []
        self.texts: list[str] = []
        self.before_images: Callable[[], None] = lambda: None

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        red, green, _ = image.getpixel((0, 0))
        return torch.full((1, 1, 1), float(256 * red + green))

    def embed_images(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        self.before_images()
        numbers = [int(image.item()) for image in images]
        self.images += numbers
        return torch.stack([self._vector(number) for number in numbers])

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        return torch.stack([self._vector(sum(map(ord, text)) + 7) for text in texts])

    def embed_texts_counted(self, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        return self.embed_texts(texts), sum(len(text) > self.token_limit for text in texts)

    def _vector(self, number: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.sin(torch.arange(1, self.width + 1) * (number + 1.5)), dim=0)


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (number // 256, number % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def make_collection(
    count: int,
    *,
    corrupt: Sequence[int] = (),
    captions: Callable[[int], list[str]] | None = None,
    name: str = "numbers",
) -> Collection:
    """`count` pictures, number i with i % 3 captions, every fifth in the split 'test'; those in `corrupt` are torn."""
    captions = captions or (lambda i: [f"picture {i} " + "x" * (k * 3) for k in range(i % 3)])
    rows = {
        "id": [f"id-{i} é" for i in range(count)],
        "image": [{"bytes": picture(i)[: 20 if i in corrupt else None], "path": None} for i in range(count)],
        "captions": [captions(i) for i in range(count)],
        "split": ["test" if i % 5 == 4 else "train" for i in range(count)],
    }
    return Collection(Dataset.from_dict(rows, features=FEATURES), "numbers")


def one_picture_collection(count: int, file: Path) -> Collection:
    """`count` rows that all show the picture in `file`, with two captions each."""
    rows = {
        "id": [str(i) for i in range(count)],
        "image": [{"bytes": None, "path": str(file)}] * count,
        "captions": [["one", "two"]] * count,
        "split": ["train"] * count,
    }
    return Collection(Dataset.from_dict(rows, features=FEATURES), "same")
