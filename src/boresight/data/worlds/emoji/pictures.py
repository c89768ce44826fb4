"""Pictures of emoji by three artists, rendered once on white and kept as one parquet file a style."""

from __future__ import annotations

import importlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from boresight.data.images import decode_bytes
from boresight.data.worlds.emoji.concepts import plain_code
from boresight.data.worlds.emoji.npm import cache_folder, pins_stamp, read_emoji_packages
from boresight.errors import InputError
from boresight.progress import progress
from boresight.storage import sync

STYLES = ("fluent-3d", "fluent-flat", "noto")
SCHEMA = pa.schema([("code", pa.string()), ("image", pa.binary())])
FORMAT = 2  # raise it when the same packages would be rendered otherwise


def load_pictures(style: str, size: int, cache: str | Path | None = None) -> pa.Table:
    """Columns `code` (string) and `image` (binary, a lossless WebP of size x size on white) of every emoji of a style.

    Rendered when the cache does not hold it whole; later calls only read. Raises InputError when it cannot be made.
    """
    file = cache_folder(cache) / f"{style}-{size}-{pins_stamp()}-{FORMAT}.parquet"
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        if table.schema.equals(SCHEMA) and len(table):
            return table
    except (OSError, pa.ArrowException):
        pass  # absent or torn: made again below
    table = read_emoji_packages(partial(_render, style, size), cache)
    try:
        with tempfile.TemporaryDirectory(prefix=".render.", dir=file.parent) as folder:
            staged = Path(folder) / file.name
            pq.write_table(table, staged, compression="none", write_page_checksum=True)
            sync(staged)
            staged.replace(file)
    except OSError as error:
        raise InputError(
            f"Cannot write {file} ({error.strerror or error}); free space or set BORESIGHT_CACHE."
        ) from error
    return table


def _render(style: str, size: int, modules: Path) -> pa.Table:
    sources: dict[str, Callable[[], bytes]]
    if style == "fluent-3d":
        files = (modules / "@lobehub" / "fluent-emoji-3d" / "assets").glob("*.webp")
        sources = {plain_code(file.stem): file.read_bytes for file in sorted(files)}
    else:
        drawings = _drawings(modules / "@iconify-json" / ("noto" if style == "noto" else "fluent-emoji-flat"))
        rasterise = _rasteriser()
        sources = {code: partial(rasterise, svg_string=drawing, width=size) for code, drawing in drawings}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(lambda source: _on_white(bytes(source()), size), sources.values())
        pictures = list(progress(drawn, total=len(sources), what=f"Rendering {style}", unit="picture"))
    return pa.table([list(sources), pictures], schema=SCHEMA)


def _drawings(package: Path) -> Iterator[tuple[str, str]]:
    """Code and SVG of every emoji of an icon set; an alias is its parent, mirrored where it says so."""
    icons = json.loads((package / "icons.json").read_bytes())
    for code, name in json.loads((package / "chars.json").read_bytes()).items():
        alias = icons["aliases"].get(name, {})
        icon = icons["icons"].get(alias.get("parent", name))
        if icon is None or alias.keys() - {"parent", "hFlip"}:
            continue
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        body = icon["body"]
        if alias.get("hFlip"):
            body = f'<g transform="translate({width} 0) scale(-1 1)">{body}</g>'
        yield (
            plain_code(code),
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>',
        )


def _rasteriser() -> Any:
    try:
        return importlib.import_module("resvg_py").svg_to_bytes
    except ImportError:
        raise InputError(
            "Drawing the emoji needs resvg-py; install it with pip install 'boresight[emoji]', "
            "or use the generated scenes instead."
        ) from None


def _on_white(data: bytes, size: int) -> bytes:
    picture = decode_bytes(data)
    square = Image.new("RGB", (max(picture.size),) * 2, "white")
    square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
    out = io.BytesIO()
    square.resize((size, size), Image.Resampling.LANCZOS).save(out, "WEBP", lossless=True, method=1)
    return out.getvalue()
