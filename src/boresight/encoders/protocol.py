"""What a dual encoder is to the rest of boresight, and the checks every backend shares."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from boresight.data.images import open_picture
from boresight.errors import InputError

Picture: TypeAlias = Image.Image | str | os.PathLike[str]
"""A picture, or its file."""
Pictures: TypeAlias = Picture | Sequence[Picture | Tensor] | Tensor
"""One picture or several, or what `preprocess` made of them."""
MAX_ASPECT = 100  # a longer side than this many shorter ones would be resized into gigabytes of pixels


class Encoder(Protocol):
    """A dual encoder: pictures and captions into one space of `width` dimensions.

    Attributes:
        name: the hub name, or the name of the folder it came from.
        fingerprint: 16 hex characters that depend on configuration and weights.
        width: d, the width of the shared space.
        logit_scale: what the model multiplies a cosine by before its loss (already exponentiated).
        device, dtype: where and in what precision it computes; what it returns is always float32 on the CPU.
        token_limit: tokens of a caption that it reads, start and end included.
    """

    name: str
    fingerprint: str
    width: int
    logit_scale: float
    device: torch.device
    dtype: torch.dtype
    token_limit: int

    def preprocess(self, image: Picture) -> Tensor:
        """The model's own preprocessing: (C, H, W) float32 on the CPU. Safe to call from several threads.

        H and W differ between pictures only for models of native aspect ratio (SigLIP 2 NaFlex).
        """
        ...

    def embed_images(self, images: Pictures) -> Tensor:
        """(B, d) float32 on the CPU, unit length; `images` are pictures, files or what `preprocess` made of them.

        One picture alone gives (1, d).

        Raises InputError for an empty list, a picture that cannot be used, or an output that is not finite.
        """
        ...

    def embed_texts(self, texts: str | Sequence[str]) -> Tensor:
        """(B, d) float32 on the CPU, unit length; one caption alone gives (1, d).

        A caption longer than the model can read is cut so that its end token stays; the first time this happens
        a warning says so. Raises InputError for an empty list, an entry that is not a string, or an output that
        is not finite.
        """
        ...

    def embed_texts_counted(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """What `embed_texts` gives, and how many captions were cut, of which no warning is given."""
        ...

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each caption before it is cut to `token_limit`, start and end included."""
        ...


def check_encoder(encoder: Any) -> None:
    """Raises InputError for what is no encoder: another argument's place, the name of a model."""
    if not hasattr(encoder, "embed_images"):
        raise InputError(
            f"encoder is of type {type(encoder).__name__}, which embeds nothing; pass what load_encoder gives, before "
            "the pictures."
        )


def check_texts(texts: str | Sequence[str]) -> list[str]:
    """`texts` as a list, of one where it is a string. Raises InputError when it is empty or holds something else."""
    if not isinstance(texts, Iterable):
        raise InputError(f"Captions came as {type(texts).__name__}; pass a string or a list of strings.")
    captions = [texts] if isinstance(texts, str) else list(texts)
    if not captions:
        raise InputError("The list of captions is empty; pass at least one.")
    for row, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise InputError(f"Caption {row} is of type {type(caption).__name__}, not a string; convert or drop it.")
        try:
            caption.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"Caption {row} is no valid unicode ({error.reason}); repair or drop it.") from error
    return captions


def check_image(image: Picture) -> Image.Image:
    """`image` as every picture is treated, upright and in RGB (`boresight.data.images.to_rgb`).

    Raises InputError when it is no picture, cannot be used, or is so oblong that resizing it would fill the memory.
    """
    if not isinstance(image, Image.Image | str | os.PathLike):
        raise no_picture("An image", image)
    picture = open_picture(image)
    width, height = picture.size
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"A picture of {width} x {height} pixels is too oblong to embed; crop or drop it.")
    return picture


def check_batch(images: Pictures) -> list[Picture | Tensor]:
    """`images` as a list of pictures, files and (C, H, W) tensors. Raises InputError when empty, or for other tensors.

    A tensor of three colours, (3, H, W), is one picture.
    """
    alone = isinstance(images, Image.Image | str | os.PathLike) or not isinstance(images, Iterable)
    if isinstance(images, Tensor):
        alone = images.ndim == 3 and len(images) == 3
    batch: list[Any] = [images] if alone else list(images)  # type: ignore[arg-type]
    if not batch:
        raise InputError("The list of images is empty; pass at least one.")
    for row, image in enumerate(batch):
        if not isinstance(image, Tensor | Image.Image | str | os.PathLike):
            raise no_picture(f"Image {row}", image)
        if isinstance(image, Tensor) and not (image.ndim == 3 and image.is_floating_point()):
            raise InputError(f"Image {row} is not a (C, H, W) float tensor; pass what preprocess() returns.")
    return batch


def no_picture(what: str, found: Any) -> InputError:
    """The error to raise for something that stands in the place of a picture."""
    return InputError(
        f"{what} is of type {type(found).__name__}; pass a PIL picture (PIL.Image.fromarray makes one of an array) or "
        "the path of a file."
    )


def unit_rows(features: Tensor, encoder: str, what: str) -> Tensor:
    """`features` (B, d) as float32 rows of unit length on the CPU.

    Raises InputError naming the first row that is not finite or has no length.
    """
    rows = features.float().cpu()
    lengths = rows.norm(dim=1, keepdim=True)
    usable = torch.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
    if not usable.all():
        row = int((~usable).nonzero()[0])
        raise InputError(
            f"{encoder} gives no finite embedding for {what} {row} of the batch; "
            "load it with dtype='float32', and if that does not help its weights are damaged."
        )
    return rows / lengths
