"""DOCCI's test images with one long caption each, whole or by sentence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from boresight.benchmarks.files import PublishedFiles, with_annotations
from boresight.benchmarks.retrieval import (
    PublishedRetrieval,
    Split,
    captioned,
    flair_sentences,
    from_rows,
    sentence_rows,
)
from boresight.data.rows import SourceRow

SOURCE = "https://google.github.io/docci/#downloads"
_PICTURES = ("images", "test_images", "")


@from_rows
def read_test(files: PublishedFiles, split: Split | None = None) -> Iterator[SourceRow]:
    """The test images; with `split` by sentence, from the file that FLAIR has published where it is there."""
    if split is not None and (rows := sentence_rows(files)):
        yield from rows
        return
    for where, row in files.json_lines(files.find(*with_annotations("docci_descriptions.jsonlines"))):
        if files.text(row, "split", where) == "test":
            name = row.get("image_file") or files.text(row, "example_id", where) + ".jpg"
            yield captioned(str(name), files.text(row, "description", where), where, split)


SETS = (
    PublishedRetrieval("docci", "DOCCI test, whole captions", SOURCE, read_test, _PICTURES, (5000, 5000)),
    PublishedRetrieval(
        "docci-sentences",
        "DOCCI test, sentence-split",
        SOURCE,
        partial(read_test, split=flair_sentences),
        _PICTURES,
        (5000, None),
    ),
)
