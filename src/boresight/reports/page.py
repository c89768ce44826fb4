"""What the pages share: templates, style, and pictures put inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from PIL import Image

from boresight.data import Collection
from boresight.data.images import decode, embedded, thumbnail
from boresight.errors import InputError

Thumbnail = Callable[[str], dict[str, Any]]


def _reader(pictures: Collection | Callable[[str], Image.Image]) -> Callable[[str], Image.Image]:
    """A function from an image id to its picture."""
    if not isinstance(pictures, Collection):
        return pictures
    row_of = {name: row for row, name in enumerate(pictures.ids)}

    def read(image_id: str) -> Image.Image:
        if image_id not in row_of:
            raise InputError(
                f"The collection {pictures.name} has no image '{image_id}'; pass the one that was embedded."
            )
        return pictures.image(row_of[image_id])

    return read


def thumbnails(pictures: Collection | Callable[[str], Image.Image] | None) -> Thumbnail:
    """A function from an image id to what the template needs to show it; each picture is read once."""
    read = None if pictures is None else _reader(pictures)
    return cache(lambda image_id: picture_of(image_id, None if read is None else thumbnail(read(image_id))))


def picture_of(image_id: str, webp: bytes | None) -> dict[str, Any]:
    """What the template needs to show a small picture, and its id where there is none."""
    if webp is None:
        return {"id": image_id, "uri": "", "width": 0, "height": 0}
    picture = decode({"bytes": webp}, f"'{image_id}'")
    return {"id": image_id, "uri": embedded(webp, "webp"), "width": picture.width, "height": picture.height}


def shelf_of(ranking: Iterable[tuple[int, bool, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One ranking as the template shows it; the true image stands apart where it is further down.

    ranking: of each image its rank from 1, whether it is the true one, and what `picture_of` gives of it.
    """
    before, shelf = 0, []
    for rank, right, picture in ranking:
        shelf.append({**picture, "rank": rank, "right": right, "apart": rank > before + 1})
        before = rank
    return shelf


def page_from(template: str, **values: Any) -> str:
    """A page with its style inside; whatever comes from data is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("boresight.reports", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(**values)
