"""The command `boresight search`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find the images of an index that match a sentence, a picture, or both.

    Example: boresight search INDEX "a dog leaping over a hurdle" --without people --where "year > 2020"
    """

    index: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight index'."""
    text: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """A sentence in quotes, or several, whose scores are averaged; left out: search by --image or --like alone."""
    without: tuple[str, ...] = ()
    """Sentences that the answers are not to match; left out: none."""
    image: tuple[Path, ...] = ()
    """Pictures that the answers are to be like; left out: none."""
    like: tuple[str, ...] = ()
    """Ids of images of the index that the answers are to be like; left out: none."""
    unlike: tuple[str, ...] = ()
    """Ids of images of the index that the answers are not to be like; left out: none."""
    where: str | None = None
    """Filter on the columns of the index, such as "year > 2020 and place == 'Rome'"; left out: all images."""
    off: tuple[str, ...] = ()
    """Latents of the editor, by number or name, to search without; left out: none."""
    k: int = 10
    """Number of answers."""
    offset: int = 0
    """Number of best answers to leave out, for the next page."""
    min_score: float | None = None
    """Leave out answers that score less; left out: none."""
    plain: bool = False
    """Order by the plain cosine instead of the editor's score."""
    captions: bool = False
    """Find captions for the one picture of --image or --like, instead of images."""
    candidates: int | Literal["tuned"] | None = None
    """Number of images that a graph finds and that are scored; 'tuned': as 'boresight tune --keep' found; left out: all
    images are scored."""
    ef_search: int | None = None
    """Number of images kept in view while candidates are looked for; left out: as many as --candidates."""
    reasons: int = 0
    """Number of answers whose score is explained, from the first on."""
    html: Path | None = None
    """Write a page with the pictures here; left out: only the table is printed."""
    encoder: str | None = None
    """Encoder that made the embeddings; left out: the one that the index names."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""

    def run(self) -> None:
        """Search and print."""
        from boresight.cli.sources import open_index
        from boresight.errors import InputError
        from boresight.search import Query

        index = open_index(self.index, self.encoder, device=self.device, dtype=self.dtype)
        if self.captions:
            if len(self.image) + len(self.like) != 1:
                raise InputError("--captions are found for one picture; pass one of --image and --like.")
            if self.candidates is not None or self.ef_search is not None:
                raise InputError("--candidates are images; leave it out with --captions.")
            if self.html is not None:
                raise InputError("The page of --html shows images; leave it or --captions out.")
            print(index.search_captions(self.image, like="".join(self.like), k=self.k))
            return
        query = Query(
            text=self.text,
            image=self.image,
            like=self.like,
            without=self.without,
            unlike=self.unlike,
            latents=dict.fromkeys(self.off, 0.0),
            where=self.where,
            k=self.k,
            offset=self.offset,
            min_score=self.min_score,
            plain=self.plain,
            candidates=self.candidates,
            ef_search=self.ef_search,
        )
        results = index.search_batch([query])[0]
        print(results)
        if self.candidates is not None:
            print(
                "Every image was scored." if results.exact else "Only candidates were scored; the best may be missing."
            )
        for place in range(min(self.reasons, len(results))):
            print(f"\n{results.reasons(place)}")
        if self.html is not None:
            from boresight.progress import say
            from boresight.reports import write_search_page

            write_search_page(self.html, results, index)
            say(f"The page is in {self.html}")
