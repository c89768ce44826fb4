"""What the pages share: templates, style, and pictures made small and put inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from boresight.data import Collection
from boresight.errors import InputError
from boresight.evaluation.examples import Place

THUMBNAIL = 160

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

    @cache
    def thumbnail(image_id: str) -> dict[str, Any]:
        if read is None:
            return {"id": image_id, "uri": "", "width": 0, "height": 0}
        picture = read(image_id).convert("RGB")
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        data = io.BytesIO()
        picture.save(data, "WEBP", quality=80)
        uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")
        return {"id": image_id, "uri": uri, "width": picture.width, "height": picture.height}

    return thumbnail


def shelf_of(places: Sequence[Place], thumbnail: Thumbnail) -> list[dict[str, Any]]:
    """One ranking as the template shows it; the true image stands apart where it is further down."""
    last = places[-2].rank if len(places) > 1 else 0
    return [
        {
            **thumbnail(place.image_id),
            "place": place.rank,
            "right": place.right,
            "apart": place is places[-1] and place.rank > last + 1,
        }
        for place in places
    ]


def page_from(template: str, **values: Any) -> str:
    """A page with its style inside; whatever comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("boresight.reports", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(**values)
