"""The embedding run: a collection through an encoder into a folder, part by part."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from boresight.data.collection import Collection
from boresight.embeddings import store
from boresight.embeddings.batches import caption_batches, pixels_ahead
from boresight.embeddings.embeddings import Embeddings, left_out_words
from boresight.embeddings.rowfile import RowFile
from boresight.encoders.long_text import LongText, warn_of_truncation
from boresight.encoders.protocol import Encoder, check_encoder
from boresight.errors import ArtefactError, InputError, require_at_least
from boresight.progress import progress, say
from boresight.runs import GO_ON, JOURNAL, Run, open_run, refuse_other_run
from boresight.storage import MANIFEST, read_manifest, writing

_LABELS = {
    "encoder_fingerprint": "an encoder of fingerprint",
    "computed_in": "an encoder computing in",
    "collection": "a collection whose ids, splits and captions hash to",
    "dtype": "dtype",
    "long_text": "long_text =",
}
TEXT_WINDOW = 8  # batches of captions that are sorted by length together, so that little padding is computed


def embed(
    encoder: Encoder,
    collection: Collection | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | Path | None = None,
    *,
    batch_size: int = 64,
    on_error: Literal["skip", "refuse"] = "skip",
    workers: int = 2,
    dtype: Literal["float16", "float32"] = "float16",
    part_size: int = 1024,
    long_text: LongText = "truncate",
) -> Embeddings:
    """Embeddings of a collection's images and captions.

    With a `folder` the run can be stopped at any moment, a kill included: the same call goes on after the last
    finished part and computes nothing of it again. Memory does not grow with the collection.

    Args:
        collection: or what `load_collection` makes one of: a folder, a list of pictures' files.
        folder: where to put them; None keeps them in memory only.
        batch_size: images, and captions, that the encoder sees at once.
        on_error: 'skip' leaves out images that cannot be read, with their captions, and names them in the
            manifest under `problems`; 'refuse' stops at the first.
        workers: threads that read, decode and preprocess images; 0 does it in the calling thread. The result does
            not depend on it.
        dtype: of the stored embeddings.
        part_size: images in a part.
        long_text: 'truncate' cuts captions longer than the model reads; 'windows' reads the whole of them, piece by
            piece (`boresight.encoders.long_text`), and changes nothing for captions that fit.

    Returns:
        memory-mapped embeddings when there is a `folder`, unit length.

    Raises:
        InputError: an empty collection, an unknown option, no readable image, an unreadable one under 'refuse'.
        ArtefactError: the folder cannot be written, is being written, or was made from something else; or the place of
            the pictures went away, which is no fault of any picture: bring it back, and the same call goes on.
    """
    check_encoder(encoder)
    if not isinstance(collection, Collection):
        from boresight.data.load import load_collection  # brings readers of many formats

        collection = load_collection(collection)
    for label, value, least in (("batch_size", batch_size, 1), ("part_size", part_size, 1), ("workers", workers, 0)):
        require_at_least(label, value, least)
    if on_error not in ("skip", "refuse") or dtype not in ("float16", "float32"):
        raise InputError("on_error must be 'skip' or 'refuse' and dtype 'float16' or 'float32'; check the spelling.")
    if long_text not in ("truncate", "windows"):
        raise InputError(f"long_text is '{long_text}'; it must be 'truncate' or 'windows'.")
    if not len(collection):
        raise InputError(f"The collection {collection.name or ''} is empty; there is nothing to embed.")
    refuse, in_memory = on_error == "refuse", folder is None
    job = _Job(encoder, collection, batch_size, refuse, workers, dtype, part_size, in_memory, long_text)
    if folder is not None:
        return _embed_into(Path(folder), job)
    with tempfile.TemporaryDirectory(prefix="boresight-") as scratch:
        mapped = _embed_into(Path(scratch) / "embeddings", job)
        return replace(mapped, images=mapped.images.clone(), texts=mapped.texts.clone())


@dataclass(frozen=True)
class _Job:
    encoder: Encoder
    collection: Collection
    batch_size: int
    refuse: bool
    workers: int
    dtype: str
    part_size: int
    in_memory: bool
    long_text: LongText

    def rows(self, start: int, stop: int) -> dict[str, list[Any]]:
        """Columns id, captions and split of some images."""
        return self.collection.dataset.select_columns(["id", "captions", "split"])[start:stop]


def _embed_into(folder: Path, job: _Job) -> Embeddings:
    identity = {
        "encoder": job.encoder.name,
        "encoder_fingerprint": job.encoder.fingerprint,
        "computed_in": str(job.encoder.dtype).removeprefix("torch."),
        "collection": _collection_hash(job),
        "dtype": job.dtype,
        "long_text": job.long_text,
    }
    if (folder / MANIFEST).is_file():
        return _finished(folder, job, identity)
    with open_run(folder, identity, _LABELS) as run:
        if (folder / MANIFEST).is_file():  # another run ended while this one waited for the lock
            return _finished(folder, job, identity)
        _refuse_skipped(folder, job, [why for part in run.parts for _, why in part["skipped"]])
        try:
            files = _run_parts(folder, job, run)
        except (KeyboardInterrupt, ArtefactError):
            done = run.parts[-1]["stop"] if run.parts else 0
            if not job.in_memory:
                say(f"Stopped: {done} of {len(job.collection)} images are safe in {folder}; run the same to go on.")
            raise
        _write_end(folder, job, run, identity, files)
        run.finish()
    return Embeddings.load(folder)


def _finished(folder: Path, job: _Job, identity: dict[str, Any]) -> Embeddings:
    manifest = read_manifest(folder, store.KIND)
    refuse_other_run(folder, manifest, identity, _LABELS)
    _refuse_skipped(folder, job, [problem["problem"] for problem in manifest.get("problems", [])])
    with writing(folder, GO_ON):
        (folder / JOURNAL).unlink(missing_ok=True)  # left by a stop between the manifest and the end
    embeddings = Embeddings.load(folder)
    missing = f" Left out: {left_out_words(embeddings)}." if embeddings.left_out else ""
    say(f"{folder} is complete already; nothing was computed.{missing}")
    return embeddings


def _refuse_skipped(folder: Path, job: _Job, skipped: list[str]) -> None:
    if job.refuse and skipped:
        raise InputError(
            f"{folder} was made with on_error='skip' and left images out: {skipped[0]} "
            "Mend the pictures and delete the folder, or pass on_error='skip' where images may be left out."
        )


def _run_parts(folder: Path, job: _Job, run: Run) -> dict[str, dict[str, Any]]:
    """Embed what the run does not hold yet; returns what the manifest says of each matrix file."""
    total = len(job.collection)
    start = run.parts[-1]["stop"] if run.parts else 0
    with ExitStack() as stack:
        files: dict[str, RowFile] = {}
        warned = False
        for name in (store.IMAGES, store.TEXTS):
            with writing(folder, GO_ON):
                said = [part["files"][name] for part in run.parts]
                files[name] = stack.enter_context(RowFile(folder / name, job.encoder.width, job.dtype, said))
        depth = job.batch_size + 2 * job.workers
        rows, name_of = range(start, total), lambda row: job.rows(row, row + 1)["id"][0]
        reading = pixels_ahead(
            job.encoder, job.collection.image, rows, workers=job.workers, depth=depth, name_of=name_of
        )
        pixels = stack.enter_context(closing(reading))
        bar = stack.enter_context(progress(total=total, initial=start, what="embedding", unit=" images"))
        while start < total:
            stop = min(start + job.part_size, total)
            skipped = _embed_images(folder, job, files[store.IMAGES], range(start, stop), pixels, bar)
            left_out = {row for row, _ in skipped}
            captions = job.rows(start, stop)["captions"]
            kept = [c for row, cs in zip(range(start, stop), captions, strict=True) if row not in left_out for c in cs]
            long = _embed_texts(folder, job, files[store.TEXTS], kept, bar) if kept else 0
            if long and job.long_text == "truncate" and not warned:
                warn_of_truncation(job.encoder, long, len(kept))
                warned = True
            with writing(folder, GO_ON):
                sealed = {name: file.seal() for name, file in files.items()}
            run.add({"stop": stop, "files": sealed, "skipped": skipped, "truncated": long})
            start = stop
        with writing(folder, GO_ON):
            return {name: file.finish() for name, file in files.items()}


def _embed_images(
    folder: Path, job: _Job, file: RowFile, rows: range, pixels: Iterator[Tensor | InputError], bar: tqdm
) -> list[tuple[int, str]]:
    """Append the embeddings of one part's images; returns the rows that could not be read, and why."""
    skipped: list[tuple[int, str]] = []
    batch: list[Tensor] = []
    for row, image in zip(rows, pixels, strict=False):
        if isinstance(image, Tensor):
            batch.append(image)
        elif job.refuse:
            raise image
        else:
            skipped.append((row, str(image)))
        if len(batch) == job.batch_size or (batch and row == rows[-1]):
            embedded = job.encoder.embed_images(batch)
            with writing(folder, GO_ON):
                file.append(embedded)
            batch = []
        bar.update()
    return skipped


def _embed_texts(folder: Path, job: _Job, file: RowFile, captions: list[str], bar: tqdm) -> int:
    """Append the embeddings of one part's captions; returns how many were too long."""
    long = 0
    window = TEXT_WINDOW * job.batch_size
    for start in range(0, len(captions), window):
        bar.set_postfix_str(f"caption {start} of {len(captions)}", refresh=False)
        some = captions[start : start + window]
        order = sorted(range(len(some)), key=lambda j: len(some[j]))
        texts = torch.empty(len(some), job.encoder.width)
        in_order, how = [some[j] for j in order], job.long_text
        for rows, embedded, cut in caption_batches(job.encoder, in_order, batch_size=job.batch_size, long_text=how):
            texts[order[rows]] = embedded
            long += cut
        with writing(folder, GO_ON):
            file.append(texts)
    bar.set_postfix_str("")
    return long


def _write_end(folder: Path, job: _Job, run: Run, identity: dict[str, Any], files: dict[str, dict[str, Any]]) -> None:
    """Metadata, then the manifest, which makes the folder loadable."""
    skipped = {row: why for part in run.parts for row, why in part["skipped"]}
    total = len(job.collection)
    if len(skipped) == total:
        raise InputError(
            f"None of the {total} images could be read, the first because: {skipped[0]} "
            f"Mend the collection, delete {folder} and start again."
        )
    long, windows = sum(part["truncated"] for part in run.parts), job.long_text == "windows"
    rows, kept = job.rows(0, total), [row for row in range(total) if row not in skipped]
    counts = torch.tensor([len(rows["captions"][row]) for row in kept], dtype=torch.int64)
    with writing(folder, GO_ON):
        store.write_meta(
            folder,
            ids=[rows["id"][row] for row in kept],
            splits=[rows["split"][row] for row in kept],
            captions=[caption for row in kept for caption in rows["captions"][row]],
            owners=torch.repeat_interleave(torch.arange(len(kept)), counts),
        )
        store.write_manifest(
            folder,
            {
                **identity,
                **store.describe(files),
                "name": job.collection.name,
                "unit_length": True,
                "created_from": {"collection": job.collection.name, "images": total},
                "problems": [{"id": rows["id"][row], "problem": why} for row, why in skipped.items()],
                "left_out": _left_out(job.collection, [rows["split"][row] for row in skipped]),
                "truncated_captions": 0 if windows else long,
                "windowed_captions": long if windows else 0,
            },
        )
    if skipped:
        say(f"{len(skipped)} of {total} images could not be read and were left out; the manifest names them.")
    if long:
        how = "were read in windows" if windows else "lost their end"
        say(f"{long} of {files[store.TEXTS]['rows']} captions were longer than {job.encoder.name} reads and {how}.")


def _left_out(collection: Collection, splits_of_unread: list[str]) -> list[dict[str, Any]]:
    """What the embeddings lack, counted: by split what could not be read, and of all splits what was no row at all."""
    unread, earlier = Counter(splits_of_unread), Counter(problem.what for problem in collection.problems)
    return [
        *({"what": "unreadable picture", "count": count, "split": split} for split, count in unread.items()),
        *({"what": what, "count": count, "split": None} for what, count in earlier.items()),
    ]


def _collection_hash(job: _Job) -> str:
    """16 hex characters that depend on the ids, splits and captions, in order."""
    sha = hashlib.sha256()
    for start in range(0, len(job.collection), job.part_size):
        rows = job.rows(start, start + job.part_size)
        for row in zip(rows["id"], rows["split"], rows["captions"], strict=True):
            sha.update(json.dumps(row).encode())
    return sha.hexdigest()[:16]
