"""Urban1k: 1,000 pictures of streets, each with a text file that holds one long caption."""

from __future__ import annotations

from collections.abc import Iterator

from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.retrieval import Draft, PublishedRetrieval, captioned, gather, read_flair
from boresight.data.assemble import SourceRow

SOURCE = "https://huggingface.co/datasets/BeichenZhang/Urban1k"


def read_captions(files: PublishedFiles) -> Draft:
    """A text file beside each picture, its first line the caption; or FLAIR's annotations, where those are there."""
    if annotations := files.find_optional("annotations/annotations.json", "annotations.json"):
        return read_flair(files, annotations)
    folder = files.find("caption", "Urban1k/caption")

    def rows() -> Iterator[SourceRow]:
        texts = [file for file in folder.glob("*.txt") if not file.name.startswith(".")]
        for file in sorted(texts, key=lambda file: (len(file.stem), file.stem)):
            lines = files.lines(file)
            yield captioned(file.stem + ".jpg", lines[0][1] if lines else "", str(file))

    return gather(files, rows())


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
