"""ShareGPT4V: the first 1,000 or 10,000 entries of a list of captions that a model wrote of SA-1B's pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.retrieval import PublishedRetrieval, captioned, from_rows
from boresight.data.rows import SourceRow

SOURCE = "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V; pictures: SA-1B"
_READ = 1 << 20  # characters


@from_rows
def read_first(files: PublishedFiles, count: int) -> Iterator[SourceRow]:
    """The first `count` entries, newlines as spaces, as Long-CLIP reads them.

    FLAIR and LoTLIP cut captions at every full stop and new line and join the pieces by ". " ("2.5" becomes "2. 5").
    """
    file = files.find("share4v_sam_10k.json", "share-captioner_coco_lcs_sam_1246k_1107.json")
    for number, entry in enumerate(islice(entries(files, file), count)):
        where = f"entry {number} of {file}"
        name, talk = files.text(entry, "image", where), entry.get("conversations")
        if not isinstance(talk, list) or len(talk) < 2:
            raise files.torn(where, "lacks 'conversations' of two turns")
        caption = files.text(talk[1], "value", f"the second turn of {where}")
        yield captioned(name, caption.replace("\n", " "), where)


def entries(files: PublishedFiles, file: Path) -> Iterator[Any]:
    """The entries of a json list, one after another: the file may be larger than memory and few of them wanted."""
    decoder, size, at = json.JSONDecoder(), _READ, 1
    try:
        with open(file, encoding="utf-8-sig") as handle:
            text = handle.read(size).lstrip()
            if not text.startswith("["):
                raise files.torn(file, "holds no list of entries")
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
                        raise files.torn(file, f"cannot be read as json ({error})") from error
                    text, at, size = text[at:] + more, 0, 2 * size
                else:
                    size = _READ
                    yield entry
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise files.torn(file, f"cannot be read as json ({error})") from error


SETS = tuple(
    PublishedRetrieval(
        f"sharegpt4v-{count // 1000}k",
        f"ShareGPT4V {count // 1000}k",
        SOURCE,
        partial(read_first, count=count),
        ("", "sam/images", "images", "sa_*/images", "sam/sa_*/images", "sa_*"),
        (count, count),
    )
    for count in (1000, 10000)
)
