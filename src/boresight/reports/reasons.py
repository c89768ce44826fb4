"""What an edit did to one pair, as the templates show it: parts of the score, latents, remembered pairs."""

from __future__ import annotations

from typing import Any

from boresight.editing.explanation import KEPT, MOVED, PICTURED, SHOWN_DIGITS, Explanation
from boresight.errors import InputError
from boresight.reports.page import Thumbnail, picture_of

LISTED = 5  # latents, and remembered pairs, of each list of an example
TITLES = {
    "kept": "latents kept, by their part of the score",
    "dropped": "latents dropped, by what that changed of the score",
    MOVED: "memory of images: pairs whose captions moved the image",
    PICTURED: "memory: pairs whose pictures moved the caption",
}


def score_table(explained: Explanation) -> dict[str, Any]:
    """The table of parts, whose figures add up as they are shown; hubness has no part of the caption."""
    columns = list(next(iter(explained.grid.values())))
    taken_off = [name for name in explained.parts if name not in explained.grid]
    return {
        "plain": _amount(explained.plain_score),
        "columns": columns,
        "rows": [
            {"name": name, "cells": [_amount(row[column]) for column in columns], "all": _amount(explained.parts[name])}
            for name, row in explained.grid.items()
        ]
        + [{"name": name, "cells": [""] * len(columns), "all": _amount(explained.parts[name])} for name in taken_off],
        "totals": [_amount(explained.caption_parts[column]) for column in columns],
        "edited": _amount(explained.edited_score),
    }


def latent_bars(explained: Explanation) -> list[dict[str, Any]]:
    """The latents that are kept and those that are dropped, a bar for each; nothing where the form has none."""
    strongest = max((latent.activation for latent in explained.latents), default=1.0)
    lists = []
    for title, latents in (("kept", explained.kept), ("dropped", explained.dropped)):
        bars = [
            {
                "name": latent.label,
                "certainty": f"{latent.certainty:.2f}" if latent.certainty else "",
                "activation": f"{latent.activation:.3g}",
                "kept": 100 * latent.activation * latent.mask / strongest,
                "gone": 100 * latent.activation * (1 - latent.mask) / strongest,
                "share": f"{latent.mask if title == 'kept' else 1 - latent.mask:.0%} {title}",
                "text": _amount(latent.kept if title == "kept" else latent.dropped),
            }
            for latent in latents
        ]
        others = _amount(explained.unlisted[KEPT]) if title == "kept" and KEPT in explained.unlisted else ""
        lists.append({"title": TITLES[title], "bars": bars, "others": others})
    return lists if explained.latents else []


def memory_lists(explained: Explanation, thumbnail: Thumbnail) -> list[dict[str, Any]]:
    """The remembered pairs that moved either side most; an id where the picture is not among those of the page."""

    def picture(image_id: str) -> dict[str, Any]:
        try:
            return thumbnail(image_id)
        except (InputError, KeyError):
            return picture_of(image_id, None)

    sides = ((MOVED, explained.image_memory), (PICTURED, explained.text_memory))
    return [
        {
            "title": TITLES[part],
            "pairs": [
                {
                    "picture": picture(pair.image_id or f"pair {pair.row}"),
                    "captions": list(pair.captions[:1]),
                    "weight": f"{pair.weight:.2f}",
                    "text": _amount(pair.effect),
                }
                for pair in pairs[: explained.top]
            ],
            "others": _amount(explained.unlisted[part]),
        }
        for part, pairs in sides
        if pairs
    ]


def _amount(value: float) -> str:
    return f"{value:+.{SHOWN_DIGITS}f}".replace("-", "−")
