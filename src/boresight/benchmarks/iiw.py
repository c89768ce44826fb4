"""ImageInWords (IIW): human captions of three sets of images, each and all together, whole or by sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.retrieval import (
    PublishedRetrieval,
    Split,
    captioned,
    flair_sentences,
    from_rows,
    sentence_rows,
)
from boresight.data.rows import SourceRow

SOURCE = "https://github.com/google/imageinwords/tree/main/datasets"
_PICTURES = (
    "images",
    "docci_aar",
    "images_aar",
    "docci",
    "docci/images",
    "docci/images_aar",
    "dci",
    "dci/densely_captioned_images/photos",
    "",
)


@from_rows
def read_parts(files: PublishedFiles, parts: Sequence[str], split: Split | None = None) -> Iterator[SourceRow]:
    """The human captions of `parts`, folders of its repository.

    With `split` by sentence; for all three parts from the file that FLAIR has published, where it is there.
    """
    if split is not None and len(parts) > 1 and (rows := sentence_rows(files, "finegrained_annotations.json")):
        yield from rows
        return
    for part in parts:
        spellings = dict.fromkeys((part, part.replace("_Test", "_TEST")))
        file = files.find(*(f"{above}{name}/data.jsonl" for name in spellings for above in ("", "datasets/")))
        for where, row in files.json_lines(file):
            name = files.text(row, "image/key" if "image/key" in row else "image", where)
            yield captioned(name.removesuffix(".jpg") + ".jpg", files.text(row, "IIW", where), where, split)


def _whole_and_split(
    name: str, title: str, images: int, *parts: str, pieces: int | None = None
) -> list[PublishedRetrieval]:
    whole, split = partial(read_parts, parts=parts), partial(read_parts, parts=parts, split=flair_sentences)
    return [
        PublishedRetrieval(name, f"{title}, whole captions", SOURCE, whole, _PICTURES, (images, images)),
        PublishedRetrieval(f"{name}-sentences", f"{title}, sentence-split", SOURCE, split, _PICTURES, (images, pieces)),
    ]


SETS = (
    *_whole_and_split("iiw-400", "IIW-400", 400, "IIW-400"),
    *_whole_and_split("iiw-dci", "IIW's DCI-Test", 112, "DCI_Test"),
    *_whole_and_split("iiw-docci", "IIW's DOCCI-Test", 100, "DOCCI_Test"),
    *_whole_and_split("iiw", "IIW, all 612 images", 612, "IIW-400", "DCI_Test", "DOCCI_Test", pieces=6204),
)
