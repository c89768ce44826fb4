"""A folder of pictures, each with its captions in a text file of the same stem."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from boresight.data.assemble import Row, assemble
from boresight.data.collection import Problem
from boresight.data.files import walk
from boresight.data.images import is_picture
from boresight.data.splits import split_of_path


def read_text_files(folder: Path, *, name: str) -> tuple[Dataset, list[Problem]]:
    """`a.jpg` with `a.txt` beside it, at any depth; each line of the text that is not blank is a caption."""

    def rows() -> Iterator[Row | Problem]:
        files = list(walk(folder))
        texts = {os.path.splitext(file)[0]: file for file in files if file.lower().endswith(".txt")}
        used = set()
        for file in files:
            if not is_picture(file):
                continue
            stem, relative = os.path.splitext(file)[0], os.path.relpath(file, folder)
            text = texts.get(stem)
            if text is None:
                yield Problem("image without captions", relative)
                continue
            used.add(stem)
            if not os.path.isfile(file):  # a link to nowhere
                yield Problem("missing file", relative)
                continue
            where = os.path.relpath(text, folder)
            try:
                captions = lines_of(Path(text).read_bytes()) or [""]
            except OSError as error:
                yield Problem("unreadable file", f"{where}: {error.strerror}")
                continue
            yield Row(key=relative, path=file, captions=captions, where=where, split=split_of_path(relative))
        for stem in sorted(texts.keys() - used):
            yield Problem("caption for an unknown image", os.path.relpath(texts[stem], folder))

    return assemble(rows(), lambda file: file, name=name)


def lines_of(data: bytes) -> list[str]:
    """The lines of a caption file that are not blank; bytes that are not UTF-8 become lone surrogates."""
    text = data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def holds_text_files(folder: Path) -> bool:
    """Whether any picture below `folder` has a text file of its stem."""
    return any(is_picture(file) and os.path.isfile(os.path.splitext(file)[0] + ".txt") for file in walk(folder))
