"""A folder of pictures, each with its captions in a text file of the same stem."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from boresight.data.assemble import SourceRow, assemble
from boresight.data.files import walk
from boresight.data.images import is_picture
from boresight.data.problems import Problem
from boresight.data.splits import split_of_path

if TYPE_CHECKING:
    from datasets import Dataset


def read_text_files(folder: Path, *, name: str) -> tuple[Dataset, list[Problem]]:
    """`a.jpg` with `a.txt` beside it, at any depth; each line of the text that is not blank is a caption."""
    return assemble(_rows(folder), lambda file: file, name=name)


def lines_of(data: bytes) -> list[str]:
    """The lines of a caption file that are not blank; bytes that are not UTF-8 become lone surrogates."""
    text = data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def holds_text_files(folder: Path) -> bool:
    """Whether any picture below `folder` has a text file of its stem."""
    return any(is_picture(file) and os.path.isfile(os.path.splitext(file)[0] + ".txt") for file in walk(folder))


def _rows(folder: Path) -> Iterator[SourceRow | Problem]:
    files = list(walk(folder))
    texts = {os.path.splitext(file)[0]: file for file in files if file.lower().endswith(".txt")}
    for file in filter(is_picture, files):
        relative, text = os.path.relpath(file, folder), texts.get(os.path.splitext(file)[0])
        if text is None:
            yield Problem("image without captions", relative)
        elif not os.path.isfile(file):  # a link to nowhere
            yield Problem("missing file", relative)
        else:
            where = os.path.relpath(text, folder)
            try:
                captions = lines_of(Path(text).read_bytes()) or [""]
            except OSError as error:
                yield Problem("unreadable file", f"{where}: {error.strerror}")
                continue
            yield SourceRow(key=relative, path=file, captions=captions, where=where, split=split_of_path(relative))
    stems = {os.path.splitext(file)[0] for file in files if is_picture(file)}
    for stem in sorted(texts.keys() - stems):
        yield Problem("caption for an unknown image", os.path.relpath(texts[stem], folder))
