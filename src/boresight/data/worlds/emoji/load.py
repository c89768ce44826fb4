"""The emoji collection: pictures by three artists, captions in the words people gave them, splits of what is unseen.

SOURCES, installed from npm into a cache and never part of boresight itself:
    @lobehub/fluent-emoji-3d and @iconify-json/fluent-emoji-flat: Fluent Emoji, Microsoft, MIT.
    @iconify-json/noto: Noto Emoji, Google, Apache-2.0.
    emojibase-data: labels, keywords, short codes, Miles Johnson, MIT; Unicode CLDR data, Unicode licence.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.worlds.emoji.concepts import KINDS, Concept, captions_of, read_concepts
from boresight.data.worlds.emoji.npm import read_emoji_packages
from boresight.data.worlds.emoji.pictures import STYLES, load_pictures
from boresight.data.worlds.emoji.splits import assign_splits
from boresight.errors import InputError


def load_emoji(*, cache: str | Path | None = None, size: int = 96) -> Collection:
    """Emoji as pictures of size x size pixels on white, in the splits of `emoji.splits.SPLITS`.

    Example:
        emoji = load_emoji()  # installs and renders once
        emoji.split("test-combination").captions[0]

    Relations:
        Use `make_scenes` instead where the whole truth of a picture must be known, masks included, or where nothing
        can be installed.

    The first call installs the packages and renders the pictures into `cache` (default: see `npm.cache_folder`);
    later calls read them. A picture that two emoji of one style share is kept for the first of them only.

    Columns beside those of every collection: `concept` (code points), `style`, `label`, `family`, `held_out` (what the
    split has not seen: 'combination', 'concept', 'style' or ''), `attributes` (json: skin_tones, gender, hair, group,
    subgroup, tags, aliases), `caption_kinds` (['short', 'medium', 'long'] for the three captions of a picture).
    Raises InputError when packages or pictures cannot be had.
    """
    if size < 8:
        raise InputError(f"Emoji of {size} pixels show nothing; choose a size of 8 or more.")
    concepts = read_emoji_packages(read_concepts, cache)
    pictures = {style: _distinct(load_pictures(style, size, cache), concepts) for style in STYLES}
    drawn = defaultdict(set)
    for style, by_code in pictures.items():
        for code in by_code:
            drawn[code].add(style)
    rows = assign_splits(concepts, drawn)
    table = pa.table(
        {
            "id": [f"{row.concept.code}/{row.style}" for row in rows],
            "image": pa.StructArray.from_arrays(
                [pa.array([pictures[row.style][row.concept.code] for row in rows]), pa.nulls(len(rows), pa.string())],
                ["bytes", "path"],
            ),
            "captions": [captions_of(row.concept) for row in rows],
            "split": [row.split for row in rows],
            "concept": [row.concept.code for row in rows],
            "style": [row.style for row in rows],
            "label": [row.concept.label for row in rows],
            "family": [row.concept.family for row in rows],
            "held_out": [row.held_out for row in rows],
            "attributes": [_attributes(row.concept) for row in rows],
            "caption_kinds": [list(KINDS)] * len(rows),
        }
    )
    return Collection(dataset_of(table), "emoji")


def _distinct(table: pa.Table, concepts: Sequence[Concept]) -> dict[str, bytes]:
    """Pictures by code, for the codes that have words; of equal pictures the first concept's only."""
    images = dict(zip(table["code"].to_pylist(), table["image"].to_pylist(), strict=True))
    owners: dict[bytes, str] = {}
    for concept in concepts:
        if concept.code in images:
            owners.setdefault(images[concept.code], concept.code)
    return {code: picture for picture, code in owners.items()}


def _attributes(concept: Concept) -> str:
    rest = {name: getattr(concept, name) for name in ("gender", "hair", "group", "subgroup", "tags", "aliases")}
    return json.dumps({"skin_tones": concept.tones, **rest}, ensure_ascii=False)
