"""Benchmarks of composition: a picture, its true caption, and captions that say nearly the same and are false."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from boresight.benchmarks.aro_relations import SYMMETRIC
from boresight.benchmarks.expected import expected, read_published_json
from boresight.benchmarks.published import open_published
from boresight.data.files import Find, finder, folder_of_images
from boresight.data.formats.huggingface import load_parquet
from boresight.data.images import decode
from boresight.data.problems import Problem, is_unicode, summary
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture
from boresight.evaluation.word_order import shuffles_of, words_of
from boresight.progress import say

SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
AroPart = Literal["vg-relation", "vg-attribution", "coco-order", "flickr-order"]
_SUGARCREPE = {"of": "SugarCrepe", "source": "https://github.com/RAIVNLab/sugar-crepe"}
_WINOGROUND = {
    "of": "Winoground",
    "source": "https://huggingface.co/datasets/facebook/winoground (gated: accept its terms first)",
}
_ARO = {"of": "ARO", "source": "https://github.com/mertyg/vision-language-models-are-bows"}


def read_sugarcrepe(folder: str | Path, images: str | Path | None = None) -> Contrasts:
    """SugarCrepe (arXiv 2306.14610): 7,511 captions of COCO val2017, each beside one that was made false.

    The seven files `<group>.json`, {"0": {"filename", "caption", "negative_caption"}, ...}, lie in `folder` or its
    `data/`; keys may have gaps. Pictures are looked for in `images`, else in `folder`, and in `val2017/` and
    `coco/images/val2017/` below either or its `data/`. Pictures that are not there are left out and named.
    Raises InputError when a file is missing or torn, a row lacks something, or no picture is there.
    """
    base = Path(folder) if images is None else folder_of_images(images)
    below = ("", "val2017", "images/val2017", "coco/images/val2017")
    find = finder([base / part / end for part in ("", "data") for end in below])

    def items() -> Iterator[Contrast | Problem]:
        for group in SUGARCREPE:
            file = expected(folder, [f"{group}.json", f"data/{group}.json"], **_SUGARCREPE)
            rows = read_published_json(file, **_SUGARCREPE)
            if not isinstance(rows, dict):
                raise InputError(f"{file} holds no object of rows; get it anew from {_SUGARCREPE['source']}.")
            for key, row in rows.items():
                where = f"row {key} of {file}"
                captions = (_text(row, "caption", where), _text(row, "negative_caption", where))
                yield _item(_text(row, "filename", where), find, captions, group)

    return _gathered(items(), "SugarCrepe", "pass `images`, the folder of COCO's val2017 pictures", published=7511)


def read_winoground(folder: str | Path) -> Contrasts:
    """Winoground (arXiv 2204.03162): 400 examples of two pictures and two captions of the same words.

    Every example is two items in a group of its own, one a picture, both with the same two captions. `folder`, its
    `data/` or its `default/test/` holds parquet files with the pictures in them, or one of the first two
    `examples.jsonl` with `images/<name>.png` beside it (image_0, image_1, caption_0, caption_1). An example one of
    whose pictures is not there is left out and named.
    Raises InputError when the files are missing or torn, a row lacks something, or no picture is there.
    """
    places = [Path(folder) / below for below in ("", "data", "default/test")]
    files = next((found for place in places if (found := sorted(place.glob("*.parquet")))), [])
    rows = _winoground_parquet(files, Path(folder)) if files else _winoground_lines(Path(folder))

    def items() -> Iterator[Contrast | Problem]:
        for group, captions, pictures in rows:
            missing = [picture for picture in pictures if isinstance(picture, Problem)]
            if missing:
                yield missing[0]
                continue
            for true, picture in enumerate(pictures):
                assert isinstance(picture, Picture)
                yield Contrast(picture, captions, true, group)

    return _gathered(items(), "Winoground", "unpack images.zip beside examples.jsonl", published=800)


def read_aro(
    folder: str | Path,
    part: AroPart,
    images: str | Path | None = None,
    *,
    seed: int = 0,
) -> Contrasts:
    """One part of ARO (arXiv 2210.01936).

    'vg-relation' and 'vg-attribution': `visual_genome_relation.json` and `visual_genome_attribution.json`, pictures
    in `images/`, each cut to its box. Groups are relations, and pairs of attributes. The macro mean is the published
    one: over relations without those of `boresight.benchmarks.aro_relations`, and over pairs with at least 25 items.

    'coco-order' and 'flickr-order': captions of Karpathy's test split against their own words in another order. The
    published orders were drawn without a seed and by a part-of-speech tagger; these are others, drawn under `seed`
    (`boresight.evaluation.word_order`), so figures are comparable among themselves and not with published ones. The
    files are those of the retrieval benchmarks 'coco-karpathy-5k' and 'flickr30k-1k', and are read alike.

    Pictures that are not there are left out and named; `images` is their folder where it is elsewhere.
    Raises InputError when a file is missing or torn, a row lacks something, or no picture is there.
    """
    if part not in get_args(AroPart):
        raise InputError(f"ARO has no part '{part}'; choose one of {', '.join(get_args(AroPart))}.")
    if part in ("coco-order", "flickr-order"):
        return _order(folder, part, images, seed)
    key = part.removeprefix("vg-")
    file = expected(folder, [f"visual_genome_{key}.json"], **_ARO)
    rows = read_published_json(file, **_ARO)
    if not isinstance(rows, list):
        raise InputError(f"{file} holds no list of rows; get it anew from {_ARO['source']}.")
    base = Path(folder) if images is None else folder_of_images(images)
    find = finder([base / "images", base])

    def items() -> Iterator[Contrast | Problem]:
        for number, row in enumerate(rows):
            where = f"row {number} of {file}"
            captions = (_text(row, "true_caption", where), _text(row, "false_caption", where))
            group = _text(row, "relation_name", where) if key == "relation" else _attributes(row, where)
            yield _item(_text(row, "image_path", where), find, captions, group, _box(row, where))

    hint = "put vgr_vga_images.zip's pictures into images/, or pass their folder as `images`"
    if key == "relation":
        return _gathered(items(), "ARO VG-Relation", hint, outside_macro=SYMMETRIC, published=23937)
    return _gathered(items(), "ARO VG-Attribution", hint, fewest=25, published=28748)


def against_orders(picture: Picture, caption: str, group: str, seed: int) -> Contrast | None:
    """A caption among other orders of its words (`boresight.evaluation.word_order`); None where it has none."""
    words = words_of(caption)
    others = shuffles_of(words, seed)
    return Contrast(picture, (" ".join(words), *others), 0, group) if others else None


def _order(folder: str | Path, part: AroPart, images: str | Path | None, seed: int) -> Contrasts:
    name = {"coco-order": "coco-karpathy-5k", "flickr-order": "flickr30k-1k"}[part]
    collection = open_published(name, folder, images=images)

    def items() -> Iterator[Contrast | Problem]:
        for row, (identity, captions) in enumerate(zip(collection.ids, collection.captions, strict=True)):
            picture = Picture(identity, partial(collection.image, row))
            for caption in captions:
                item = against_orders(picture, caption, part, seed)
                yield item or Problem("unshufflable caption", f"'{caption}' of {identity}")

    found = _gathered(items(), f"ARO {part}", "take captions of two words or more")
    return Contrasts(found.items, found.name, [*collection.problems, *found.problems])


def _winoground_lines(folder: Path) -> Iterator[tuple[str, tuple[str, ...], list[Picture | Problem]]]:
    file = expected(folder, ["examples.jsonl", "data/examples.jsonl", "default/test/*.parquet"], **_WINOGROUND)
    find = finder([place / end for place in dict.fromkeys((file.parent, folder)) for end in ("images", "")])
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        rows = [(number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as json lines ({error}); get it anew from {_WINOGROUND['source']}."
        ) from error
    for number, row in rows:
        where = f"line {number} of {file}"
        pictures: list[Picture | Problem] = []
        for name in (_text(row, "image_0", where), _text(row, "image_1", where)):
            path = find(f"{name}.png") or find(name)
            pictures.append(Problem("missing file", f"images/{name}.png") if path is None else Picture(name, path))
        captions = (_text(row, "caption_0", where), _text(row, "caption_1", where))
        yield str(row.get("id", number - 1)), captions, pictures


def _winoground_parquet(
    files: Sequence[Path], folder: Path
) -> Iterator[tuple[str, tuple[str, ...], list[Picture | Problem]]]:
    parts, problems = load_parquet(files, folder)
    if problems:
        raise InputError(f"{folder / problems[0].where}; get it anew from {_WINOGROUND['source']}.")
    columns = ("image_0", "image_1", "caption_0", "caption_1")
    for split, part in parts.items():
        lacking = [column for column in columns if column not in part.column_names]
        if lacking:
            raise InputError(f"The parquet files of {folder} have no column '{lacking[0]}'; Winoground's have.")
        stored = [
            part.select_columns([column]).cast_column(column, ImageFeature(decode=False)) for column in columns[:2]
        ]
        texts = part.select_columns([name for name in ("id", *columns[2:]) if name in part.column_names])
        for number, row in enumerate(texts):
            where = f"row {number} of the parquet files of {folder}"
            group = str(row.get("id", number))
            pictures = [
                Picture(f"{split} {group}, {column}", partial(_stored, cells, column, number))
                for column, cells in zip(columns[:2], stored, strict=True)
            ]
            yield group, (_text(row, "caption_0", where), _text(row, "caption_1", where)), [*pictures]


def _stored(cells: Dataset, column: str, row: int) -> Image.Image:
    return decode(cells[row][column] or {}, f"row {row} of '{column}'")


def _item(
    name: str,
    find: Find,
    captions: tuple[str, ...],
    group: str,
    box: tuple[float, float, float, float] | None = None,
) -> Contrast | Problem:
    path = find(name)
    return Problem("missing file", name) if path is None else Contrast(Picture(name, path, box), captions, 0, group)


def _gathered(
    found: Iterable[Contrast | Problem],
    name: str,
    hint: str,
    *,
    outside_macro: frozenset[str] = frozenset(),
    fewest: int = 1,
    published: int | None = None,
) -> Contrasts:
    items: list[Contrast] = []
    problems: list[Problem] = []
    for one in found:
        if isinstance(one, Problem):
            problems.append(one)
        else:
            items.append(one)
    if not items:
        raise InputError(f"Nothing of {name} can be used: {summary(problems) or 'it holds no rows'}; {hint}.")
    if problems:
        say(f"{name}: left out {summary(problems)}")
    return Contrasts(items, name, tuple(problems), outside_macro, fewest, published)


def _text(row: Any, key: str, where: str) -> str:
    value = row.get(key) if isinstance(row, Mapping) else None
    if not isinstance(value, str) or not value.strip() or not is_unicode(value):
        raise InputError(f"{where} has no '{key}' that is a text of Unicode; get the file anew.")
    return value.strip()


def _attributes(row: Mapping[str, Any], where: str) -> str:
    pair = row.get("attributes")
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) and one for one in pair):
        raise InputError(f"{where} has no 'attributes' that are two texts; get the file anew.")
    return ", ".join(pair)


def _box(row: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    values = [row.get(f"bbox_{end}") for end in "xywh"]
    numbers = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    if len(numbers) < 4 or min(numbers[2:]) <= 0:
        raise InputError(f"{where} has no box: bbox_x, bbox_y, bbox_w and bbox_h are {values}; get the file anew.")
    left, top, width, height = numbers
    return left, top, width, height
