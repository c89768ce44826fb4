"""Readers of the files in which retrieval benchmarks are published; `published.py` says which reads what."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from boresight.benchmarks.expected import expected, read_published_json
from boresight.data.assemble import SourceRow, assemble
from boresight.data.columns import Columns
from boresight.data.files import Find, finder
from boresight.data.formats.coco import read_coco, read_karpathy
from boresight.data.problems import Problem
from boresight.errors import InputError
from boresight.progress import say

Draft = tuple[Dataset, list[Problem]]
Split = Callable[[str], list[str]]
_READ = 1 << 20  # characters
_FINE_GRAINED = ("annotations/test_annotations.json", "test_annotations.json")


@dataclass(frozen=True)
class Place:
    """Where a benchmark is read: `folder`, and `bases`, the folders that may hold its pictures, never none.

    `title` and `source` name it in errors.
    """

    folder: Path
    bases: Sequence[Path]
    title: str
    source: str

    def file(self, *names: str) -> Path:
        """The first of these that is there; see `boresight.benchmarks.expected.expected`."""
        return expected(self.folder, names, of=self.title, source=self.source)

    def json(self, file: Path, kind: type | tuple[type, ...]) -> Any:
        """The content of a json file. Raises InputError when it is no json, or not of this kind."""
        content = read_published_json(file, of=self.title, source=self.source)
        if not isinstance(content, kind):
            raise self.torn(file, f"holds a {type(content).__name__} at its top and not what it is published with")
        return content

    def lines(self, file: Path) -> list[tuple[str, str]]:
        """The lines of a text file that are not blank, each after its place in words."""
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise self.torn(file, f"cannot be read as UTF-8 ({error})") from error
        # Not splitlines: it would also cut at signs that stand inside captions, such as U+2028.
        lines = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
        return [(f"line {number} of {file}", line) for number, line in lines if line.strip()]

    def field(self, row: Any, key: str, where: str) -> str:
        """The text under `key`. Raises InputError when there is none."""
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, str):
            raise self.torn(where, f"lacks a text '{key}'")
        return value

    def torn(self, what: Path | str, why: str) -> InputError:
        return InputError(f"{what} {why}; get it anew for {self.title} from {self.source}.")

    def assemble(self, rows: Iterator[SourceRow | Problem]) -> Draft:
        return assemble(rows, _lenient(finder(self.bases)), name=self.title)


def coco_karpathy(place: Place) -> Draft:
    names = ("coco_karpathy_test.json", "coco_test_karpathy.json", "dataset_coco.json")
    return _captions_json(place, place.file(*_with_annotations(names)))


def coco_val2017(place: Place) -> Draft:
    file = place.file(*_with_annotations(["captions_val2017.json"]))
    return read_coco(place.json(file, dict), file, name=place.title, images=place.bases[0])


def flickr30k_karpathy(place: Place) -> Draft:
    names = ("flickr30k_test.json", "flickr30k_test_karpathy.txt", "dataset_flickr30k.json")
    file = place.file(*_with_annotations(names))
    if file.suffix == ".json":
        return _captions_json(place, file)

    def rows() -> Iterator[SourceRow]:
        for number, (where, line) in enumerate(place.lines(file)):
            stem, comma, caption = line.partition(".jpg,")
            if comma:
                yield _one_caption(stem.strip() + ".jpg", caption, where)
            elif number:  # the first line is the header
                raise place.torn(where, "is not of the form 'x.jpg,caption'")

    return place.assemble(rows())


def flickr30k_all(place: Place) -> Draft:
    """Lines 'x.jpg#0<tab>caption'."""
    file = place.file(*_with_annotations(["results_20130124.token"]))

    def rows() -> Iterator[SourceRow]:
        for where, line in place.lines(file):
            name, tab, caption = line.partition("\t")
            image, sign, _ = name.partition("#")
            if not (tab and sign):
                raise place.torn(where, "is not of the form 'x.jpg#0<tab>caption'")
            yield _one_caption(image, caption, where)

    return place.assemble(rows())


def docci(place: Place, split: Split | None = None) -> Draft:
    """DOCCI's test images; with `split` by sentence, as FLAIR has published them where its file is there."""
    if split is not None and (fine_grained := _first_of(place, _FINE_GRAINED)):
        say(f"{place.title}: sentences as in {fine_grained}.")
        return _annotations(place, fine_grained)

    def rows() -> Iterator[SourceRow]:
        for where, row in _json_lines(place, place.file(*_with_annotations(["docci_descriptions.jsonlines"]))):
            if place.field(row, "split", where) == "test":
                name = row.get("image_file") or place.field(row, "example_id", where) + ".jpg"
                yield _captioned(str(name), place.field(row, "description", where), split, where)

    return place.assemble(rows())


def iiw(place: Place, parts: Sequence[str], split: Split | None = None) -> Draft:
    """ImageInWords: the human captions of `parts`, folders of its repository.

    With `split` by sentence; for all three parts as FLAIR has published them where its file is there.
    """
    names = (*_FINE_GRAINED, "finegrained_annotations.json")
    if split is not None and len(parts) > 1 and (fine_grained := _first_of(place, names)):
        say(f"{place.title}: sentences as in {fine_grained}.")
        return _annotations(place, fine_grained)

    def rows() -> Iterator[SourceRow]:
        for part in parts:
            spellings = dict.fromkeys((part, part.replace("_Test", "_TEST")))
            file = place.file(*(f"{above}{name}/data.jsonl" for name in spellings for above in ("", "datasets/")))
            for where, row in _json_lines(place, file):
                name = place.field(row, "image/key" if "image/key" in row else "image", where)
                name = name if name.endswith(".jpg") else name + ".jpg"
                yield _captioned(name, place.field(row, "IIW", where), split, where)

    return place.assemble(rows())


def urban1k(place: Place) -> Draft:
    """A text file beside each picture, its first line the caption; or FLAIR's annotations, where those are there."""
    if annotations := _first_of(place, ("annotations/annotations.json", "annotations.json")):
        return _annotations(place, annotations)
    folder = place.file("caption", "Urban1k/caption")

    def rows() -> Iterator[SourceRow]:
        files = [file for file in folder.glob("*.txt") if not file.name.startswith(".")]
        for file in sorted(files, key=lambda file: (len(file.stem), file.stem)):
            lines = place.lines(file)
            yield _captioned(file.stem + ".jpg", lines[0][1] if lines else "", None, str(file))

    return place.assemble(rows())


def sharegpt4v(place: Place, count: int) -> Draft:
    """The first `count` entries; newlines become spaces, as all who report numbers on it do."""
    file = place.file("share4v_sam_10k.json", "share-captioner_coco_lcs_sam_1246k_1107.json")

    def rows() -> Iterator[SourceRow]:
        for number, entry in enumerate(islice(_entries(place, file), count)):
            where = f"entry {number} of {file}"
            name, talk = place.field(entry, "image", where), entry.get("conversations")
            if not isinstance(talk, list) or len(talk) < 2:
                raise place.torn(where, "lacks 'conversations' of two turns")
            caption = place.field(talk[1], "value", f"the second turn of {where}")
            yield _captioned(name, caption.replace("\n", " "), None, where)

    return place.assemble(rows())


def _captions_json(place: Place, file: Path) -> Draft:
    """COCO captions json, Karpathy's original (only its test images) or BLIP's list of images."""
    content = place.json(file, (list, dict))
    if isinstance(content, dict) and "annotations" in content:
        return read_coco(content, file, name=place.title, images=place.bases[0])
    # Folders in the names are left out: many keep the pictures under another, and the files' names are unique.
    if isinstance(content, list):
        content = [
            {**row, "image": os.path.basename(place.field(row, "image", f"entry {number} of {file}"))}
            for number, row in enumerate(content)
        ]
    elif isinstance(content.get("images"), list):
        rows = [row for row in content["images"] if isinstance(row, dict) and row.get("split") == "test"]
        content = {**content, "images": [{**row, "filepath": ""} for row in rows]}
    return read_karpathy(content, file, Columns(), name=place.title, images=place.bases[0])


def _annotations(place: Place, file: Path) -> Draft:
    """FLAIR's form, {"annotations": [{"image_id", "image", "caption"}]}: an entry a caption."""
    entries = place.json(file, dict).get("annotations")
    if not isinstance(entries, list):
        raise place.torn(file, "lacks the list 'annotations'")

    def rows() -> Iterator[SourceRow]:
        for number, entry in enumerate(entries):
            where = f"annotation {number} of {file}"
            yield _one_caption(place.field(entry, "image", where), place.field(entry, "caption", where), where)

    return place.assemble(rows())


def _entries(place: Place, file: Path) -> Iterator[Any]:
    """The entries of a json list, one after another: the file may be larger than memory and few of them wanted."""
    decoder, size, at = json.JSONDecoder(), _READ, 1
    try:
        with open(file, encoding="utf-8-sig") as handle:
            text = handle.read(size).lstrip()
            if not text.startswith("["):
                raise place.torn(file, "holds no list of entries")
            while True:
                while at < len(text) and text[at] in " \t\r\n,":
                    at += 1
                if text.startswith("]", at):
                    return
                try:
                    entry, at = decoder.raw_decode(text, at)
                except ValueError as error:
                    more = handle.read(size)
                    if not more:
                        raise place.torn(file, f"cannot be read as json ({error})") from error
                    text, at, size = text[at:] + more, 0, 2 * size
                else:
                    size = _READ
                    yield entry
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise place.torn(file, f"cannot be read as json ({error})") from error


def _json_lines(place: Place, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in place.lines(file):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise place.torn(where, f"is no json ({error})") from error
        if not isinstance(row, dict):
            raise place.torn(where, "is no json object")
        yield where, row


def _captioned(image: str, caption: str, split: Split | None, where: str) -> SourceRow:
    """All captions of an image: one, or its sentences."""
    return SourceRow(key=image, path=image, captions=split(caption) if split else [caption], where=where, split="test")


def _one_caption(image: str, caption: str, where: str) -> SourceRow:
    """One of the captions of an image, which stand on lines of their own."""
    return SourceRow(key=image, path=image, captions=[caption], where=where, whole=False, split="test")


def _with_annotations(names: Sequence[str]) -> list[str]:
    return [above + name for name in names for above in ("", "annotations/")]


def _first_of(place: Place, names: Sequence[str]) -> Path | None:
    return next((place.folder / name for name in names if (place.folder / name).is_file()), None)


def _lenient(find: Find) -> Find:
    """Also without the last folder, or by the name alone: pictures often lie elsewhere than the source says."""

    def found(name: str) -> str | None:
        folders, file = os.path.split(name)
        return find(name) or find(os.path.join(os.path.dirname(folders), file)) or find(file)

    return found
