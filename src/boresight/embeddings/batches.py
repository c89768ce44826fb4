"""Pictures and captions embedded a batch at a time, for benchmarks whose embeddings are scored and dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor

from boresight.encoders.long_text import LongText, embed_texts_in_windows, warn_of_truncation
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.progress import progress

Open = Callable[[], Image.Image]


def embed_captions(
    encoder: Encoder, texts: Sequence[str], *, long_text: LongText = "truncate", batch_size: int = 64
) -> tuple[Tensor, int]:
    """(S, d) float32 of captions that were altered, and how many were longer than the model reads.

    These are read as `boresight.embeddings.embed` read the true ones: another reading would tell the two apart.
    Raises InputError for no caption or a batch size below 1.
    """
    if not len(texts) or batch_size < 1:
        raise InputError(f"There are {len(texts)} captions to embed by {batch_size}; both must be at least 1.")
    rows, long = [], 0
    for start in progress(range(0, len(texts), batch_size), what="altered captions", unit="batch", delay=1.0):
        some = texts[start : start + batch_size]
        windows = long_text == "windows"
        part, cut = embed_texts_in_windows(encoder, some, batch_size) if windows else encoder.embed_texts_counted(some)
        rows.append(part)
        long += cut
    if long and long_text == "truncate":
        warn_of_truncation(encoder, long)
    return torch.cat(rows), long


def embed_batches(
    encoder: Encoder, batches: Iterable[Sequence[Open]], workers: int = 2
) -> Iterator[tuple[Tensor, list[InputError | None]]]:
    """For each batch of P pictures the embeddings (K, d) of the K that can be read, and P times what is wrong or None.

    `workers` threads, at least one, read and preprocess one batch while the encoder has the one before, so two are in
    memory.
    """
    with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="boresight-read") as threads:
        waiting: list[Future[Tensor | InputError]] = []
        for batch in batches:
            coming = [threads.submit(_read, encoder, one) for one in batch]
            if waiting:
                yield _embedded(encoder, waiting)
            waiting = coming
        if waiting:
            yield _embedded(encoder, waiting)


def _read(encoder: Encoder, open_one: Open) -> Tensor | InputError:
    try:
        return encoder.preprocess(open_one())
    except InputError as error:
        return error
    except (ValueError, OSError, RuntimeError) as error:
        return InputError(f"A picture cannot be preprocessed ({error}); drop or replace it.")


def _embedded(
    encoder: Encoder, waiting: Sequence[Future[Tensor | InputError]]
) -> tuple[Tensor, list[InputError | None]]:
    lot = [future.result() for future in waiting]
    pixels = [one for one in lot if isinstance(one, Tensor)]
    rows = encoder.embed_images(pixels) if pixels else torch.empty(0, encoder.width)
    return rows, [None if isinstance(one, Tensor) else one for one in lot]
