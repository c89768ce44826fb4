"""The command `boresight similar`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Similar:
    """Print the images most similar to one image in what the words name, such as 'the colour of the background'."""

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed', with the images to search; its captions define the words."""
    editor: Path
    """Folder of a caption editor of these embeddings."""
    image: str
    """Id of the image, as the embeddings have it."""
    by: tuple[str, ...]
    """A phrase that names an attribute, or two or more words or phrases that are its values."""
    model: str | None = None
    """Encoder that knows what the words mean; left out: the one that ships with boresight, which knows few."""
    split: str = "train"
    """Split whose captions define the words."""
    top: int = 10
    """Number of images to print."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""

    def run(self) -> None:
        """Compare and print."""
        from boresight.cli.sources import open_encoder
        from boresight.editing import CaptionEditor, Words
        from boresight.embeddings import Embeddings
        from boresight.errors import InputError, require_at_least
        from boresight.tables import table

        require_at_least("top", self.top, 1)
        embeddings, editor = Embeddings.load(self.embeddings), CaptionEditor.load(self.editor)
        editor.require_same_encoder(embeddings)
        if self.image not in embeddings.ids:
            some = ", ".join(embeddings.ids[:3])
            raise InputError(f"{self.embeddings} has no image '{self.image}'; its ids are such as {some}.")
        encoder = open_encoder(self.model, device=self.device, dtype=self.dtype)
        editor.words = Words.of(embeddings.split(self.split), encoder)
        words = self.by[0] if len(self.by) == 1 else self.by
        row = embeddings.ids.index(self.image)
        similar = editor.similarity(embeddings.images[row : row + 1], embeddings.images, by=words)[0]
        nearest = [other for other in similar.argsort(descending=True, stable=True).tolist() if other != row]
        first = {owner: place for place, owner in reversed([*enumerate(embeddings.owners.tolist())])}
        captions = embeddings.captions or ()
        lines = [
            [embeddings.ids[other], f"{float(similar[other]):.3f}", captions[first[other]] if other in first else ""]
            for other in nearest[: self.top]
        ]
        if isinstance(words, str):
            print(f"'{words}' is read as: {', '.join(editor.words.values(words).names[:10])}\n")
        print(table(["image", "similarity", "caption"], lines))
