"""What an index knows of each image beside its vectors: captions, columns to filter by, where its picture is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import torch
from PIL import Image

from boresight.data import Collection
from boresight.data.images import decode, thumbnail
from boresight.embeddings import Embeddings
from boresight.errors import InputError, first_line
from boresight.progress import progress, say

if TYPE_CHECKING:
    import pyarrow
    import pyarrow as pa

Metadata: TypeAlias = Union["pyarrow.Table", Mapping[str, Any], str, Path]
OWN = ("id", "split", "captions", "picture")
"""Columns that every index has; those of the user have other names."""
THUMBNAIL_SIZE = 256  # pixels of the longer side
_OF_COLLECTION = ("id", "image", "captions", "split")


def meta_table(embeddings: Embeddings, collection: Collection | None, metadata: Metadata | None) -> pa.Table:
    """The N images of the embeddings as a table: `OWN`, and what the collection and the metadata add.

    metadata: a table with a column `id`, or a file of one (csv, parquet, jsonl). Images that it lacks have nulls.
    Raises InputError for ids that stand twice, a table without ids, or with a column of a name in `OWN`.
    """
    import pyarrow as pa

    ids = _words(embeddings.ids, "The id")
    if len(ids.unique()) != len(ids):
        twice = next(value for value in ids.value_counts().to_pylist() if value["counts"] > 1)
        raise InputError(f"The id '{twice['values']}' stands {twice['counts']} times; every image needs its own.")
    columns = {"id": ids, "split": pa.array(embeddings.splits, pa.string()), "captions": _captions(embeddings)}
    table = pa.table(columns)
    pictured: Any = pa.nulls(len(ids), _picture_type())
    if collection is not None:
        further = collection.dataset.with_format("arrow")[:]
        sources = further["image"].combine_chunks()
        further = further.select([name for name in further.column_names if name not in _OF_COLLECTION[1:]])
        table, found = _joined(table, _usable(further), f"The collection {collection.name}".strip())
        pictured = _sources(sources, found)
    if metadata is not None:
        table, _ = _joined(table, read_metadata(metadata), "The metadata")
    return table.append_column("picture", pictured)


def read_metadata(metadata: Metadata) -> pa.Table:
    """A table of columns by id. Raises InputError for a file that cannot be read or a table without the column `id`."""
    import pyarrow as pa

    if isinstance(metadata, str | Path):
        table = _read_file(Path(metadata))
    else:
        try:
            table = metadata if isinstance(metadata, pa.Table) else pa.table(dict(metadata))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"The metadata is no table ({first_line(error)}); pass columns of one length and one type each."
            ) from error
    if "id" not in table.column_names:
        raise InputError(f"The metadata has no column 'id'; it has {', '.join(table.column_names)}. Name one 'id'.")
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise InputError(f"The metadata has the column '{twice[0]}' twice; rename one of them.")
    if "" in table.column_names:
        raise InputError("The metadata has a column without a name; give it one.")
    if taken := [name for name in table.column_names if name in OWN[1:]]:
        raise InputError(f"The metadata has a column '{taken[0]}', which every index has of its own; rename it.")
    try:
        ids = table["id"].cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(f"The ids of the metadata are {table['id'].type}; pass strings.") from error
    if ids.null_count:
        raise InputError(f"{ids.null_count:,} of {len(ids):,} rows of the metadata have no id; fill it, or drop them.")
    table = table.set_column(table.column_names.index("id"), "id", ids)
    if empty := [name for name in table.column_names if pa.types.is_null(table[name].type)]:
        say(f"Without a value in the metadata, and left out: {', '.join(empty)}.")
        table = table.drop_columns(empty)
    usable = _usable(table)
    if lost := [name for name in table.column_names if name not in usable.column_names]:
        kind = table.schema.field(lost[0]).type
        raise InputError(
            f"The column '{lost[0]}' of the metadata is of type {kind}, which no filter compares; drop it."
        )
    return usable


def fitted(meta: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table, its columns of the types that they have in an index.

    A column that the index lacks stays as it is. Raises InputError for one whose values are of another kind.
    """
    import pyarrow as pa

    for number, field in enumerate(meta.schema):
        kind = field.type if field.name not in schema.names else schema.field(field.name).type
        if kind != field.type:
            words, numbers = pa.types.is_string(kind), pa.types.is_integer(field.type)  # numbers may be words: '7'
            try:
                if not (words and numbers) and _sort(kind) != _sort(field.type):
                    raise ValueError(f"they are {field.type}")
                cast = meta[field.name].cast(kind)
                if pa.types.is_temporal(kind) and not cast.cast(field.type).equals(meta[field.name]):
                    raise ValueError(f"they are {field.type}")
                meta = meta.set_column(number, field.name, cast)
            except (pa.ArrowException, ValueError) as error:
                raise InputError(
                    f"The column '{field.name}' of the index holds {kind}, and the new values do not fit "
                    f"({first_line(error)}); change them, or give the column another name."
                ) from error
    return meta


def _sort(kind: pa.DataType) -> str:
    import pyarrow.types as types

    numbers = types.is_integer(kind) or types.is_floating(kind)
    if types.is_timestamp(kind):
        return "time" if kind.tz is None else "time with a zone"
    return "number" if numbers else "time" if types.is_date(kind) else str(kind)


def require_words(embeddings: Embeddings, texts: bool) -> None:
    """Raises InputError for embeddings of captions that are to be found and came without the words."""
    if texts and embeddings.captions is None and len(embeddings.texts):
        raise InputError("The index is to find captions, and these embeddings came without the words; pass `captions`.")


def thumbnails(embeddings: Embeddings, collection: Collection | None) -> Iterator[bytes | None] | None:
    """A WebP file for each image, None where the collection lacks it or it cannot be read, which is said at the end.

    None at all without a collection.
    """
    return None if collection is None else _thumbnails(embeddings, collection)


def _thumbnails(embeddings: Embeddings, collection: Collection) -> Iterator[bytes | None]:
    rows = {image: row for row, image in enumerate(collection.ids)}
    missing = unreadable = 0
    for image in progress(embeddings.ids, total=len(embeddings), what="thumbnails", unit=" images"):
        row = rows.get(image)
        try:
            small = None if row is None else thumbnail(collection.image(row), THUMBNAIL_SIZE)
        except InputError:
            small, unreadable = None, unreadable + 1
        missing += row is None
        yield small
    if missing or unreadable:
        say(
            f"Without a picture in the index: {missing:,} images that the collection lacks, "
            f"{unreadable:,} that cannot be read."
        )


def opened(
    source: Mapping[str, Any] | None, small: bytes | None, image: str, most_pixels: int | None = None
) -> Image.Image:
    """The picture of an image, whole where its file is known, else its thumbnail.

    Raises InputError where there is neither, or the file cannot be read or has more than `most_pixels`.
    """
    if source is not None:
        return decode(source, f"image '{image}'", most_pixels)
    if small is None:
        raise InputError(f"The index has no picture of '{image}'; make it with the collection, to have pictures.")
    return decode({"bytes": small}, f"the thumbnail of '{image}'")


def _words(values: Sequence[str], what: str) -> pa.Array:
    """As text of Arrow. Raises InputError for what is no unicode, such as some names of files."""
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise InputError(f"{what} {error.object!a} is not unicode; rename it.") from error


def _captions(embeddings: Embeddings) -> pa.Array:
    import pyarrow as pa

    if embeddings.captions is None:
        return pa.nulls(len(embeddings), pa.list_(pa.string()))
    order = torch.argsort(embeddings.owners, stable=True).numpy()
    counts = torch.bincount(embeddings.owners, minlength=len(embeddings)).numpy()
    offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), _words(embeddings.captions, "The caption").take(pa.array(order)))


def own_columns() -> pa.Schema:
    """Of an index without images."""
    import pyarrow as pa

    kinds = (pa.string(), pa.string(), pa.list_(pa.string()), _picture_type())
    return pa.schema(list(zip(OWN, kinds, strict=True)))


def _picture_type() -> pa.DataType:
    import pyarrow as pa

    fields = {"path": pa.string(), "offset": pa.int64(), "size": pa.int64(), "orientation": pa.int64()}
    return pa.struct(list(fields.items()))


def _sources(images: pa.Array, found: pa.Array) -> pa.Array:
    """Where each picture's file is; null for pictures that are bytes in memory, or that are not there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    images = images.take(found)
    names = {images.type.field(number).name for number in range(images.type.num_fields)}
    parts = []
    for field in _picture_type():
        part = pc.struct_field(images, [field.name]) if field.name in names else pa.nulls(len(images))
        parts.append(part.cast(field.type))
    path = pc.if_else(pc.is_valid(pc.struct_field(images, ["bytes"])), None, parts[0]) if "bytes" in names else parts[0]
    absolute = pa.array([None if one is None else str(Path(one).absolute()) for one in path.to_pylist()], pa.string())
    return pa.StructArray.from_arrays([absolute, *parts[1:]], fields=list(_picture_type()), mask=pc.is_null(absolute))


def _usable(table: pa.Table) -> pa.Table:
    """Without columns that no filter compares: structs, lists, bytes."""
    import pyarrow as pa
    import pyarrow.types as types

    for number, field in enumerate(table.schema):
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if types.is_large_string(kind) or types.is_string_view(kind):
            kind = pa.string()
        if types.is_float16(kind):  # which no filter compares
            kind = pa.float32()
        if kind != field.type:
            table = table.set_column(number, field.name, table[field.name].cast(kind))
    simple = (types.is_string, types.is_boolean, types.is_integer, types.is_floating, types.is_temporal)
    table = table.select([field.name for field in table.schema if any(test(field.type) for test in simple)])
    for number, name in enumerate(table.column_names):
        if name != "id":
            table = table.set_column(number, name, _numbers(table[name]))
    return table


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text that holds whole numbers alone, as a csv has them, as numbers; '007' stays text."""
    import pyarrow as pa

    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return column
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    return numbers if numbers.cast(pa.string()).equals(column) else column


def _joined(table: pa.Table, further: pa.Table, what: str) -> tuple[pa.Table, pa.Array]:
    """`table` with the columns of `further` by id; and the row in `further` of each of its rows, or null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    of = further["id"].combine_chunks()
    if len(of.unique()) != len(of):
        twice = next(value for value in of.value_counts().to_pylist() if value["counts"] > 1)
        raise InputError(f"{what} has the id '{twice['values']}' {twice['counts']} times; one row an image is needed.")
    found = pc.index_in(table["id"].combine_chunks(), value_set=of)
    if found.null_count:
        say(f"{what} has nothing of {found.null_count:,} of {len(found):,} images; their columns are empty.")
    for name in further.column_names:
        if name == "picture":
            raise InputError(f"{what} has a column 'picture', which every index has of its own; rename it.")
        if name in table.column_names and name != "id":
            raise InputError(f"The column '{name}' is in the collection and in the metadata; rename one of them.")
        if name != "id":
            table = table.append_column(name, pa.chunked_array([further[name].combine_chunks().take(found)]))
    return table, found


def _read_file(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    words = pa.csv.ConvertOptions(column_types={"id": pa.string()})  # '007' stays what it is
    readers = {
        ".csv": lambda path: pa.csv.read_csv(path, convert_options=words),
        ".parquet": pa.parquet.read_table,
        ".jsonl": pa.json.read_json,
    }
    if file.suffix.lower() not in readers:
        raise InputError(f"The metadata {file} is of a kind that is not read; pass csv, parquet or jsonl.")
    try:
        return readers[file.suffix.lower()](file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The metadata {file} cannot be read ({first_line(error)}); check the file.") from error
