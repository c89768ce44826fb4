"""The command `boresight index`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Index:
    """Make an index of embedded images for 'boresight search', or change one: add, update and remove images."""

    embeddings: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder written by 'boresight embed', with the images; left out with --remove, --compact and --graph alone."""
    out: Path
    """Folder of the index."""
    editor: Path | None = None
    """Folder of a caption editor of these embeddings, whose score orders the answers; left out: the plain cosine."""
    names: Path | None = None
    """Folder of names for the editor's latents, written by 'boresight names'; left out: numbers instead of names."""
    collection: str | None = None
    """The collection that was embedded, for thumbnails and for columns to filter by; left out: no pictures."""
    format: str | None = None
    """Format of the collection, such as 'coco' or 'parquet'; left out: it is found from the files."""
    images: Path | None = None
    """Folder of the pictures of a captions file; left out: they are looked for beside the file."""
    metadata: Path | None = None
    """Table (csv, parquet or jsonl) with the column 'id' and further columns to filter by; left out: none."""
    dtype: Literal["float16", "float32"] | None = None
    """Precision of what is stored; left out: that of the embeddings."""
    texts: bool = False
    """Keep the embeddings of the captions too, so that captions are found for a picture."""
    add: bool = False
    """Add the images to the index that is there, instead of making a new one."""
    update: bool = False
    """Add the images, and replace those that the index has already."""
    remove: tuple[str, ...] = ()
    """Ids of images to remove from the index; left out: none."""
    compact: bool = False
    """At the end, give back the room of removed images and join the parts that many additions left."""

    graph: bool = False
    """At the end, build the graph along which 'boresight search --candidates' finds images; it needs faiss."""

    def run(self) -> None:
        """Write."""
        from boresight.cli.sources import open_collection
        from boresight.editing import CaptionEditor
        from boresight.embeddings import Embeddings
        from boresight.errors import InputError
        from boresight.sae import LatentNames
        from boresight.search import SearchIndex

        alone = self.embeddings is None
        changes = self.add or self.update or bool(self.remove) or self.compact or (alone and self.graph)
        if alone and not changes:
            raise InputError("Name a folder of embeddings (boresight index EMBEDDINGS --out INDEX).")
        if self.add and self.update:
            raise InputError("--update adds too; leave --add out.")
        if self.embeddings is not None and (self.remove or self.compact) and not (self.add or self.update):
            raise InputError("--remove and --compact change an index; with embeddings pass --add or --update too.")
        if changes and (self.editor or self.names or self.dtype or self.texts):
            raise InputError(
                "Editor, names, dtype and texts of an index stay as they were when it was made; leave them out."
            )
        embeddings = None if self.embeddings is None else Embeddings.load(self.embeddings)
        collection = None
        if self.collection is not None:
            collection = open_collection(self.collection, format=self.format, images=self.images)
        if changes:
            index = SearchIndex.open(self.out)
            if self.remove:
                index.remove(self.remove)
            if embeddings is not None:
                write = index.update if self.update else index.add
                write(embeddings, collection=collection, metadata=self.metadata)
            if self.compact:
                index.compact()
        else:
            assert embeddings is not None
            index = SearchIndex.create(
                self.out,
                embeddings,
                editor=None if self.editor is None else CaptionEditor.load(self.editor),
                names=None if self.names is None else LatentNames.load(self.names),
                collection=collection,
                metadata=self.metadata,
                dtype=self.dtype,
                texts=self.texts,
            )
        if self.graph:
            index.build_graph()
        ordered = "by the plain cosine" if index.editor is None else "by the editor's score"
        print(f"{self.out}: {len(index):,} images, searched {ordered}; columns: {', '.join(index.columns)}")
