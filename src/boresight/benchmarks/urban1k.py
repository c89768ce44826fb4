"""Urban1k: 1,000 pictures of streets, each with a text file that holds one long caption."""

from __future__ import annotations

from collections.abc import Iterator

from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.retrieval import PublishedRetrieval, captioned, flair_rows, from_rows
from boresight.data.rows import SourceRow

SOURCE = "https://huggingface.co/datasets/BeichenZhang/Urban1k"


@from_rows
def read_captions(files: PublishedFiles) -> Iterator[SourceRow]:
    """A text file beside each picture, its first line the caption; or FLAIR's annotations, where those are there."""
    if annotations := files.find_optional("annotations/annotations.json", "annotations.json"):
        yield from flair_rows(files, annotations)
        return
    folder = files.find("caption", "Urban1k/caption")
    texts = [file for file in folder.glob("*.txt") if not file.name.startswith(".")]
    for file in sorted(texts, key=lambda file: (len(file.stem), file.stem)):
        lines = files.lines(file)
        yield captioned(file.stem + ".jpg", lines[0][1] if lines else "", str(file))


SETS = (
    PublishedRetrieval(
        "urban1k",
        "Urban1k",
        SOURCE,
        read_captions,
        ("image", "images", "Urban1k/image", "Urban1k/images", ""),
        (1000, 1000),
    ),
)
