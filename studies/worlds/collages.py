"""Collages of four captioned pictures: of a caption, the quarter that it tells of is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageOps

from boresight.data.collection import Collection
from boresight.errors import InputError
from boresight.seeds import generator
from worlds.grounded import GroundedPairs

RICH = ("medium", "long")  # kinds of captions that are preferred, where a collection tells kinds apart


def emoji_pairs(n: int, *, seed: int, collection: Collection, size: int = 96) -> GroundedPairs:
    """`n` collages of 2 x 2 pictures of size / 2 pixels; the caption is of one quarter, the other caption of another.

    The grid pointing game of Boehle et al. 2021 (arXiv 2104.00032, 'localisation metric'), with captions for classes.
    No two pictures of a collage share a caption. A caption is drawn among its picture's medium and long ones, where the
    column `caption_kinds` tells, else among all. Pictures that are not square stand on white. Pair i depends on the
    seed, i and the collection. Restrict the collection to a split that the model has not seen.

    Raises InputError for n < 1, a size that is odd or below 16, fewer than four pictures of different captions.
    """
    if n < 1 or size < 16 or size % 2:
        raise InputError(f"{n} collages of {size} pixels cannot be made; ask for 1 or more of an even size from 16 up.")
    said = [{" ".join(caption.lower().split()) for caption in captions} for captions in collection.captions]
    choices = _rich_captions(collection)
    half = size // 2
    quarters = torch.zeros(4, 2, half, 2, half, dtype=torch.bool)
    for quarter, mask in enumerate(quarters):
        mask[quarter // 2, :, quarter % 2] = True
    images: list[Image.Image] = []
    captions: tuple[list[str], list[str]] = ([], [])
    chosen: tuple[list[int], list[int]] = ([], [])
    for index in range(n):
        random = generator(seed, f"collages/{index}")
        rows = _strangers(said, torch.randperm(len(said), generator=random).tolist())
        if rows is None:
            raise InputError(
                f"{collection.name or 'The collection'} ({len(said)} pictures) holds no four pictures that share no "
                "caption; pass more of it."
            )
        collage = Image.new("RGB", (size, size), "white")
        for quarter, row in enumerate(rows):
            picture = ImageOps.pad(collection.image(row), (half, half), Image.Resampling.BICUBIC, color="white")
            collage.paste(picture, (quarter % 2 * half, quarter // 2 * half))
        images.append(collage)
        for quarter, texts, shown in zip(torch.randperm(4, generator=random).tolist(), captions, chosen, strict=False):
            from_these = choices[rows[quarter]]
            texts.append(from_these[int(torch.randint(len(from_these), (), generator=random))])
            shown.append(quarter)
    targets, distractors = (quarters.view(4, size, size)[shown] for shown in chosen)
    return GroundedPairs(images, captions[0], targets, captions[1], distractors, f"{collection.name} collages".strip())


def _rich_captions(collection: Collection) -> list[list[str]]:
    """Each picture's captions of a kind in RICH; all of them where it has none, or where kinds are not told."""
    captions = collection.captions
    if "caption_kinds" not in collection.dataset.column_names:
        return captions
    kinds = collection.dataset["caption_kinds"][:]
    return [
        [text for text, kind in zip(texts, of_texts, strict=True) if kind in RICH] or texts
        for texts, of_texts in zip(captions, kinds, strict=True)
    ]


def _strangers(said: Sequence[set[str]], order: Sequence[int]) -> list[int] | None:
    """The first four pictures in `order` that have captions and share none, begun anew further on where that fails."""
    for start in range(len(order)):
        rows: list[int] = []
        taken: set[str] = set()
        for row in order[start:]:
            if said[row] and not said[row] & taken:
                rows.append(row)
                taken |= said[row]
            if len(rows) == 4:
                return rows
    return None
