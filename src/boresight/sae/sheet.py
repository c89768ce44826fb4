"""A contact sheet: the strongest images of chosen latents, a row each, under the latent's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from boresight.data import Collection
from boresight.errors import InputError
from boresight.sae.names import SHOWN, LatentNames

_GAP, _HEAD = 6, 24
_INK, _QUIET, _PAPER = (32, 32, 32), (120, 120, 120), (255, 255, 255)


def contact_sheet(
    pictures: Collection | Callable[[int], Image.Image],
    names: LatentNames,
    latents: Sequence[int],
    *,
    columns: int = SHOWN,
    cell: int = 112,
) -> Image.Image:
    """The images that activate each latent most, strongest first, one row of at most 8 a latent.

    Args:
        pictures: the collection, whose images are found by id (by row where the names hold no ids); or a function
            from a row of the images that the names were made from to its picture.
        latents: which, from the top.
        columns: images a row, 1 to 8. cell: their side in pixels.

    Raises:
        InputError: a latent or a number of columns out of range, an image that the collection lacks.
    """
    if not 1 <= columns <= SHOWN:
        raise InputError(f"columns is {columns}; choose between 1 and {SHOWN}.")
    if not latents:
        raise InputError("No latents to show; name at least one.")
    for latent in latents:
        if not 0 <= latent < len(names):
            raise InputError(f"There is no latent {latent}; they run from 0 to {len(names) - 1}.")
    picture = _by_row(pictures, names) if isinstance(pictures, Collection) else pictures
    height = _HEAD + cell + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (cell + _GAP), _GAP + height * len(latents)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    # The font that matplotlib carries knows far more letters than the one built into PIL.
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    bold, plain = (ImageFont.truetype(str(fonts / file), 13) for file in ("DejaVuSans-Bold.ttf", "DejaVuSans.ttf"))
    for line, latent in enumerate(latents):
        top = _GAP + line * height
        title = names[latent] or "(no name)"
        draw.text((_GAP, top + 3), title, fill=_INK, font=bold)
        draw.text((_GAP + draw.textlength(title + "  ", font=bold), top + 3), f"{latent}", fill=_QUIET, font=plain)
        rows = [row for row in names.examples[latent, :columns].tolist() if row >= 0]
        for column, row in enumerate(rows):
            small = ImageOps.contain(picture(row).convert("RGB"), (cell, cell))
            left = _GAP + column * (cell + _GAP) + (cell - small.width) // 2
            sheet.paste(small, (left, top + _HEAD + (cell - small.height) // 2))
    return sheet


def _by_row(collection: Collection, names: LatentNames) -> Callable[[int], Image.Image]:
    if not names.ids:
        return collection.image
    place = {id_: row for row, id_ in enumerate(collection.ids)}

    def picture(row: int) -> Image.Image:
        if names.ids[row] not in place:
            raise InputError(f"The collection lacks image '{names.ids[row]}'; pass the one that was embedded.")
        return collection.image(place[names.ids[row]])

    return picture
