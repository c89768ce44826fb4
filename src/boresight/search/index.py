"""The index as it is used: made of embeddings and an editor, changed, searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boresight.brief import brief, spelled
from boresight.data import Collection
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.encoders import Encoder
from boresight.errors import InputError
from boresight.sae import LatentNames
from boresight.sae.autoencoder import encoder_of
from boresight.search.answers import answers, reasons
from boresight.search.belonging import latent_number, named_encoder, require_same_editor, require_same_encoder
from boresight.search.captions import CaptionResults, caption_answers
from boresight.search.contents import Metadata, fitted, meta_table, opened, require_words, thumbnails
from boresight.search.graph import GraphOptions
from boresight.search.query import PreparedQuery, Query, prepare
from boresight.search.results import Reasons, Results
from boresight.search.segments import KIND, verify_segment
from boresight.search.sides import graph_matrix, layout_of
from boresight.search.snapshot import Snapshot, current
from boresight.search.tuning import Tuning, tried, tuned
from boresight.search.writing import begin, changing
from boresight.storage import replacing_folder

EDITOR, NAMES = "editor", "names"


class SearchIndex:
    """Images on disk, found by a sentence, a picture or both, in the order of an editor's score or of the cosine.

    Searching scores every image exactly, or with `candidates` those that a graph finds. The folder is mapped into
    memory, not read, and holds all that a search needs but the encoder. It may be searched while another process
    changes it; the next search sees the change.

    Attributes:
        folder: where it is.
        editor: whose score orders the answers; None searches by the cosine.
        names: of the editor's latents; None where there are none.

    Example:
        index = SearchIndex.create("photos.index", embeddings, editor=editor, collection=photos, encoder=encoder)
        for result in index.search("a dog leaping over a hurdle", without="people", where="year > 2020"):
            print(result.id, result.score, result.moved)

        index = SearchIndex.open("photos.index", encoder=encoder)
        print(index.search("a dog leaping over a hurdle").reasons(0))
    """

    def __init__(
        self,
        folder: Path,
        snapshot: Snapshot,
        editor: CaptionEditor | None,
        names: LatentNames | None,
        encoder: Encoder | None,
    ) -> None:
        self.folder, self.editor, self.names = folder, editor, names
        self._snapshot, self._encoder = snapshot, encoder

    @classmethod
    def create(
        cls,
        folder: str | Path,
        embeddings: Embeddings,
        *,
        editor: CaptionEditor | None = None,
        names: LatentNames | None = None,
        collection: Collection | None = None,
        metadata: Metadata | None = None,
        encoder: Encoder | None = None,
        dtype: str | None = None,
        texts: bool = False,
    ) -> SearchIndex:
        """Write an index of the images of `embeddings`, whole or not at all.

        Args:
            folder: new, empty, or an index, which is replaced.
            embeddings: captions are not needed.
            editor: of the same encoder; copied into the folder.
            names: of the editor's latents, so that they can be switched by name; copied too.
            collection: where the pictures are. Thumbnails are kept in the folder, the pictures stay where they are, and
                further columns of the collection can be filtered by.
            metadata: further columns: a table with a column `id`, or a csv, parquet or jsonl file.
            encoder: for queries in words and pictures; left out, it is loaded by its name when it is needed.
            dtype: 'float16' or 'float32', of what is stored; left out, that of the embeddings.
            texts: keep the embeddings of the captions too, so that `search_captions` finds those of a picture.

        Raises:
            InputError: ids that stand twice, metadata without ids, an editor that no index can hold, `texts` of
                embeddings without the words of their captions.
            ArtefactError: the folder cannot be written or holds something else, or the editor is of another encoder.
        """
        if editor is not None:
            editor.require_same_encoder(embeddings)
        if names is not None and editor is not None:
            names.require_same_autoencoder(editor.sae)
        stored = str(embeddings.images.dtype).removeprefix("torch.") if dtype is None else dtype
        if stored not in ("float16", "float32"):
            raise InputError(f"dtype is '{stored}'; choose float16 or float32.")
        layout = layout_of(editor, embeddings.width, stored, texts)
        facts = {
            **encoder_of(embeddings),
            "name": embeddings.name,
            "editor": None if editor is None else editor.fingerprint,
            "names": names is not None,
        }
        require_words(embeddings, texts)
        if encoder is not None:
            require_same_encoder(str(folder), facts, embeddings.width, encoder)
        meta = meta_table(embeddings, collection, metadata)
        with replacing_folder(folder, KIND) as staging:
            begin(staging, layout, facts)
            if editor is not None:
                editor.save(staging / EDITOR)
            if names is not None:
                names.save(staging / NAMES)
            with changing(staging) as change:
                change.append(embeddings, meta, thumbnails(embeddings, collection), editor)
        return cls.open(folder, encoder=encoder, editor=editor)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        encoder: Encoder | None = None,
        editor: CaptionEditor | None = None,
        device: str | torch.device | None = "cpu",
        verify: bool = False,
    ) -> SearchIndex:
        """An index that `create` wrote. Its vectors are read when they are used.

        Args:
            encoder: that made the embeddings; left out, it is loaded by its name when it is needed.
            editor: that it was made with; left out, it is read from the folder, which a mask of your own prevents.
            device: of the editor.
            verify: read all matrices once and compare hashes.

        Raises ArtefactError where it is none, torn, altered, of another format, or the encoder or editor is another.
        """
        folder = Path(folder).absolute()
        snapshot = Snapshot.read(folder)
        if snapshot.manifest.get("editor") is not None and editor is None:
            editor = CaptionEditor.load(folder / EDITOR, device)
        require_same_editor(str(folder), snapshot.manifest, editor)
        names = LatentNames.load(folder / NAMES) if snapshot.manifest.get("names") else None
        if verify:
            for segment in snapshot.segments:
                verify_segment(segment)
        index = cls(folder, snapshot, editor, names, None)
        if encoder is not None:
            index.use(encoder)
        return index

    def __len__(self) -> int:
        return len(self.snapshot())

    def __repr__(self) -> str:
        manifest = self._snapshot.manifest
        parts = {"images": f"{len(self._snapshot):,}", "width": str(self._snapshot.layout.width)}
        edited = {} if self.editor is None else {"editor": repr(self.editor.config.form)}
        return spelled(
            self, {"folder": repr(str(self.folder)), **parts, "encoder": brief(manifest.get("encoder", "")), **edited}
        )

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a filter may use."""
        return self.snapshot().columns

    @property
    def made_by(self) -> dict[str, str]:
        """What is known of the encoder of its embeddings: `encoder`, its name, and `encoder_fingerprint`."""
        manifest = self._snapshot.manifest
        return {key: manifest[key] for key in ("encoder", "encoder_fingerprint") if manifest.get(key)}

    @property
    def encoder(self) -> Encoder:
        """That made the embeddings. Raises InputError or ArtefactError where it cannot be loaded by its name."""
        if self._encoder is None:
            self.use(named_encoder(str(self.folder), self._snapshot.manifest))
        assert self._encoder is not None
        return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Read queries with this encoder. Raises ArtefactError where the embeddings are of another."""
        self._require_same(encoder)
        self._encoder = encoder

    def snapshot(self) -> Snapshot:
        """The index as it stands now, with what other processes changed.

        Raises ArtefactError where it was made anew with another editor or encoder.
        """
        self._snapshot = now = current(self.folder, self._snapshot)
        return now

    def add(
        self, embeddings: Embeddings, *, collection: Collection | None = None, metadata: Metadata | None = None
    ) -> None:
        """Add images; what is there is not touched. The arguments are as for `create`.

        Raises InputError for ids that are there already, ArtefactError for embeddings of another encoder, while another
        process writes, or where the disk is full: the index is then as it was.
        """
        self._write(embeddings, collection, metadata, replacing=False)

    def update(
        self, embeddings: Embeddings, *, collection: Collection | None = None, metadata: Metadata | None = None
    ) -> None:
        """Add images in place of those of the same ids, all at one stroke. Raises as `add`."""
        self._write(embeddings, collection, metadata, replacing=True)

    def remove(self, ids: str | Sequence[str]) -> None:
        """Remove images by id; their room comes back with `compact`. Raises InputError where one is not there."""
        with changing(self.folder) as change:
            change.remove(change.before.find([ids] if isinstance(ids, str) else list(ids)))

    def compact(self) -> None:
        """Give back the room of removed images, and join small segments, which many small additions leave.

        An index with a graph has one of all its images afterwards.
        """
        with changing(self.folder) as change:
            change.compact()
            if (options := change.before.manifest.get("graph")) is not None:
                change.build_graphs(graph_matrix(change.before.layout, self.editor), GraphOptions(**options))

    def build_graph(self, m: int = 32, ef_construction: int = 200) -> None:
        """Build the graph (HNSW, by FAISS) along which searches with `candidates` find them, where it is not yet.

        It is over the images that the index has now. Images that are added later are all scored, until this is called
        again, or `compact`, which builds the graph of what it joins. 100,000 images of width 512 take one to three
        minutes of a processor.

        Args:
            m: links of an image; it costs about 8 m bytes. More find more in data where search is hard.
            ef_construction: how many images are kept in view while one is linked; more link better, in more time.

        Raises InputError without FAISS (extra `search`), ArtefactError while another process writes.

        Example:
            index.build_graph()
            index.search("a street", candidates=1000)
        """
        options = GraphOptions(m, ef_construction)
        with changing(self.folder) as change:
            change.build_graphs(graph_matrix(change.before.layout, self.editor), options)

    def search(self, text: Any = (), **options: Any) -> Results:
        """The images that match best, by the editor's score. Options are the fields of `Query`, and `ranks`.

        Args:
            text: a sentence, several, or embeddings of texts.
            ranks: whether the rank of each answer by the cosine is found too, which scans once more. Left out: not in
                a search with `candidates`.

        Raises:
            InputError: nothing to search for, a filter that cannot be used, an id or latent that is not there;
                `candidates` without a graph.

        Example:
            index.search("a street", without="cars", where="year > 2020", k=20)
            index.search("the same at night", image="street.jpg")
        """
        ranks = options.pop("ranks", None)
        return self.search_batch([Query(text=text, **options)], ranks=ranks)[0]

    def search_batch(self, queries: Sequence[Query], *, ranks: bool | None = None) -> list[Results]:
        """The answers to several queries, in one scan for those with the same filter."""
        snapshot = self.snapshot()
        prepared = self.prepare(queries, snapshot)
        return answers(prepared, snapshot, self.editor, self.names, ranks)

    def search_captions(
        self, image: Any = (), *, like: str = "", k: int = 10, candidates: int | None = 1000
    ) -> CaptionResults:
        """The captions that match an image best, by the editor's score.

        Args:
            image: a picture, its file, or an embedding (d,).
            like: instead, the id of an image of the index.
            candidates: how many captions, the nearest by the cosine, the editor scores; None scores all, exactly, which
                takes about a second for 6,000 captions.

        Raises InputError for an index that was made without `texts`, and as `search` does.
        """
        snapshot = self.snapshot()
        vector = self.prepare([Query(image=image, like=like or ())], snapshot)[0].parts[0].vector
        if like:  # at its own length, which the autoencoder sees
            segment, at = snapshot.place(int(snapshot.find([like])[0]))
            vector = vector * float(segment.norms[at])
        return caption_answers(vector, snapshot, self.editor, k, candidates)

    def tune(
        self,
        queries: Sequence[str | Query] | Tensor | np.ndarray,
        recall: float = 0.95,
        k: int = 10,
        *,
        keep: bool = False,
    ) -> Tuning:
        """How many candidates a wished recall needs, measured against the exact search on queries of your own.

        Args:
            queries: as they will be asked, 50 or more: sentences, `Query`s, of which `k` and `candidates` do not
                count, or embeddings (T, d).
            recall: in (0, 1], the share of the k best that approximate searches are to find on average.
            keep: write the setting into the index, for searches with `candidates='tuned'`.

        Raises InputError without queries or a graph.

        Example:
            index.build_graph()
            print(index.tune(["a red ring", "two stars"], recall=0.99, keep=True))  # a table of what was tried
            index.search("a street", candidates="tuned")
        """
        snapshot = self.snapshot()
        tuning = tuned(self.prepare(tried(queries, k), snapshot), snapshot, recall)
        if keep:
            with changing(self.folder) as change:
                change.manifest["effort"] = asdict(tuning.chosen.effort)
        return tuning

    def explain(self, query: Query, image: str) -> Reasons:
        """Why an image of the index, by id, has the score it has under a query; it need not be among the answers.

        Raises InputError as `search` does, and where the index lacks the image.
        """
        snapshot = self.snapshot()
        row = int(snapshot.find([image])[0])
        return reasons(self.prepare([query], snapshot)[0], snapshot, row, self.editor, self.names)

    def prepare(self, queries: Sequence[Query], snapshot: Snapshot | None = None) -> list[PreparedQuery]:
        """Queries, embedded, as columns of a scan: what an engine of another make is asked with."""
        now = snapshot or self.snapshot()
        return prepare(
            queries,
            now.layout,
            editor=self.editor,
            embed_texts=lambda texts: self.encoder.embed_texts(texts),
            embed_images=lambda images: self.encoder.embed_images(images),
            vectors=lambda ids: now.plain(now.find(ids)),
            latent=self.latent,
        )

    def latent(self, name: int | str) -> int:
        """The number of a latent, from its number or name. Raises InputError where there is none of it."""
        return latent_number(name, self.editor, self.names)

    def image(self, image: str, *, most_pixels: int | None = None) -> Image.Image:
        """The picture of an image by id, upright RGB, whole where its file is known.

        Raises InputError without one, and where its header says that it has more than `most_pixels`.
        """
        snapshot = self.snapshot()
        row = int(snapshot.find([image])[0])
        source = snapshot.record(row)["picture"]
        return opened(source, snapshot.thumbnail(row), image, most_pixels)

    def thumbnail(self, image: str) -> bytes | None:
        """The small picture of an image by id, as the bytes of a WebP file; None where the index has none."""
        snapshot = self.snapshot()
        return snapshot.thumbnail(int(snapshot.find([image])[0]))

    def _write(
        self, embeddings: Embeddings, collection: Collection | None, metadata: Metadata | None, replacing: bool
    ) -> None:
        self._require_same(embeddings)
        require_words(embeddings, self._snapshot.layout.texts)
        meta = meta_table(embeddings, collection, metadata)
        with changing(self.folder) as change:
            require_same_editor(str(self.folder), change.before.manifest, self.editor)  # it may have been made anew
            meta = fitted(meta, change.before.meta.schema)
            there = change.before.present(embeddings.ids)
            if there and not replacing:
                raise InputError(
                    f"The index has '{next(iter(there))}' already ({len(there)} of {len(embeddings)} are there); use "
                    "update, which replaces them."
                )
            if there:
                change.remove(np.array(sorted(there.values())))
            change.append(embeddings, meta, thumbnails(embeddings, collection), self.editor)

    def _require_same(self, source: Embeddings | Encoder) -> None:
        require_same_encoder(str(self.folder), self._snapshot.manifest, self._snapshot.layout.width, source)
