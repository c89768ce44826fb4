"""Embeddings in a folder: .npy matrices, parquet metadata and a manifest that is written last."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from boresight.embeddings.rowfile import RowFile, map_rows, verify_rows
from boresight.errors import ArtefactError, first_line
from boresight.runs import JOURNAL
from boresight.storage import FORMAT, MANIFEST, read_manifest, replacing_file, replacing_folder, write_json

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "embeddings"
IMAGES, TEXTS = "images.npy", "texts.npy"
META_IMAGES, META_TEXTS = "meta-images.parquet", "meta-texts.parquet"
_BLOCK = 8192  # rows written at once
_STORE_KEYS = ("kind", "format", "boresight", "width", "dtype", "images", "texts", "files")


def load(folder: Path, verify: bool) -> dict[str, Any]:
    """The fields of the `Embeddings` in a folder; see `Embeddings.load`."""
    if not (folder / MANIFEST).is_file() and (folder / JOURNAL).is_file():
        raise ArtefactError(f"{folder} holds an unfinished embedding run; run the same embed again to finish it.")
    manifest = read_manifest(folder, KIND)
    try:
        files = manifest["files"]
        images, texts = map_rows(folder / IMAGES, files[IMAGES]), map_rows(folder / TEXTS, files[TEXTS])
        if verify:
            for name, said in files.items():
                verify_rows(folder / name, said)
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{folder / MANIFEST} lacks {error}; make the embeddings again.") from error
    image_table, text_table = _read_table(folder / META_IMAGES), _read_table(folder / META_TEXTS)
    owners = torch.tensor(text_table["owner"].to_numpy())
    _agree(folder, len(images) == image_table.num_rows and len(texts) == text_table.num_rows)
    _agree(folder, images.shape[1] == texts.shape[1])
    _agree(folder, not len(owners) or (int(owners.min()) >= 0 and int(owners.max()) < len(images)))
    return {
        "images": images,
        "texts": texts,
        "owners": owners,
        "ids": image_table["id"].to_pylist(),
        "captions": text_table["caption"].to_pylist() if "caption" in text_table.column_names else None,
        "splits": image_table["split"].to_pylist(),
        "name": manifest.get("name", ""),
        "manifest": manifest,
    }


def save(folder: Path, *, images: Tensor, texts: Tensor, name: str, manifest: dict[str, Any], **meta: Any) -> None:
    """Write the fields of `Embeddings`; see `Embeddings.save`."""
    made_by = {key: value for key, value in manifest.items() if key not in _STORE_KEYS}
    with replacing_folder(folder, KIND) as staging:
        files = {IMAGES: _write_rows(staging / IMAGES, images), TEXTS: _write_rows(staging / TEXTS, texts)}
        write_meta(staging, **meta)
        write_manifest(staging, {**made_by, "name": name, **describe(files)})


def describe(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of the matrices."""
    return {
        "width": files[IMAGES]["width"],
        "dtype": files[IMAGES]["dtype"],
        "images": files[IMAGES]["rows"],
        "texts": files[TEXTS]["rows"],
        "files": files,
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Put the manifest in place at one stroke; from then on the folder can be loaded."""
    with replacing_file(folder / MANIFEST) as temporary:
        write_json(temporary, {**manifest, "kind": KIND, "format": FORMAT, "boresight": version("boresight")})


def write_meta(
    folder: Path, ids: Sequence[str], splits: Sequence[str], captions: Sequence[str] | None, owners: Tensor
) -> None:
    """The two parquet files, which say whose the rows of the matrices are; columns as of `Embeddings`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {} if captions is None else {"caption": pa.array(captions, pa.string())}
    tables = {
        META_IMAGES: pa.table({"id": pa.array(ids, pa.string()), "split": pa.array(splits, pa.string())}),
        META_TEXTS: pa.table({**texts, "owner": pa.array(owners.numpy(), pa.int64())}),
    }
    for name, table in tables.items():
        with replacing_file(folder / name) as file:
            pq.write_table(table, file)


def _write_rows(file: Path, rows: Tensor) -> dict[str, Any]:
    with RowFile(file, rows.shape[1], str(rows.dtype).removeprefix("torch.")) as out:
        for start in range(0, len(rows), _BLOCK):
            out.append(rows[start : start + _BLOCK])
        out.seal()
        return out.finish()


def _read_table(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(f"{file} is missing or torn ({first_line(error)}); make the embeddings again.") from error


def _agree(folder: Path, condition: bool) -> None:
    if not condition:
        raise ArtefactError(f"The files of {folder} do not belong together; make the embeddings again.")
