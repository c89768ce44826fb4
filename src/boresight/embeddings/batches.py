"""Pictures and captions through an encoder, a batch at a time: what an embedding run and every measure are made of."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from boresight.encoders.long_text import LongText, embed_texts_in_windows, warn_of_truncation
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.prefetch import ahead
from boresight.progress import progress

Open = Callable[[int], Image.Image]
"""The picture of a row; called from several threads."""


def pixels_ahead(
    encoder: Encoder,
    open_row: Open,
    rows: Iterable[int],
    *,
    workers: int,
    depth: int,
    name_of: Callable[[int], str] | None = None,
) -> Generator[Tensor | InputError, None, None]:
    """What the encoder's preprocessing makes of each picture, in order, or what is wrong with it.

    `workers` threads are at most `depth` pictures ahead; 0 reads when asked. `name_of` a row names a picture that
    cannot be preprocessed. Close it when you stop before its end.
    """

    def read(row: int) -> Tensor | InputError:
        try:
            return encoder.preprocess(open_row(row))
        except InputError as error:
            return error
        except (ValueError, OSError, RuntimeError) as error:
            what = "A picture" if name_of is None else f"The picture of image '{name_of(row)}'"
            return InputError(f"{what} cannot be preprocessed ({error}); drop or replace it.")

    return ahead(read, rows, workers, depth)


def picture_batches(
    encoder: Encoder, open_row: Open, count: int, *, batch_size: int = 64, workers: int = 2
) -> Iterator[tuple[Tensor, list[InputError | None]]]:
    """Batch by batch the embeddings (K, d) of the K pictures that can be read, and of every one what is wrong or None.

    `workers` threads read and preprocess one batch while the encoder has the one before, so two are in memory.
    """
    with closing(pixels_ahead(encoder, open_row, range(count), workers=workers, depth=batch_size + 1)) as pictures:
        while batch := list(islice(pictures, batch_size)):
            pixels = [one for one in batch if isinstance(one, Tensor)]
            rows = encoder.embed_images(pixels) if pixels else torch.empty(0, encoder.width)
            yield rows, [None if isinstance(one, Tensor) else one for one in batch]


def embed_pictures(
    encoder: Encoder,
    open_row: Open,
    count: int,
    *,
    batch_size: int = 64,
    workers: int = 2,
    refuse: bool = False,
    what: str = "embedding",
) -> tuple[Tensor, list[InputError | None]]:
    """The embeddings (K, d) of the K pictures that can be read, and of all `count` what is wrong or None.

    With `refuse` the first that cannot be read is raised. A progress bar says `what`, once it takes longer than a
    second.
    """
    parts: list[Tensor] = []
    problems: list[InputError | None] = []
    with progress(total=count, what=what, unit="image", delay=1.0) as bar:
        for rows, wrong in picture_batches(encoder, open_row, count, batch_size=batch_size, workers=workers):
            for error in filter(None, wrong if refuse else ()):
                raise error
            parts.append(rows)
            problems += wrong
            bar.update(len(wrong))
    return torch.cat(parts), problems


def caption_batches(
    encoder: Encoder, texts: Sequence[str], *, batch_size: int = 64, long_text: LongText = "truncate"
) -> Iterator[tuple[slice, Tensor, int]]:
    """Batch by batch the rows of `texts`, their embeddings (B, d), and how many were longer than the model reads.

    Of these no warning is given.
    """
    for start in range(0, len(texts), batch_size):
        rows = slice(start, start + batch_size)
        if long_text == "windows":
            yield rows, *embed_texts_in_windows(encoder, texts[rows], batch_size)
        else:
            yield rows, *encoder.embed_texts_counted(texts[rows])


def embed_captions(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    long_text: LongText = "truncate",
    batch_size: int = 64,
    what: str = "altered captions",
) -> tuple[Tensor, int]:
    """(S, d) float32 of captions, and how many were longer than the model reads.

    Altered ones are read as `boresight.embeddings.embed` read the true ones: another reading would tell the two apart.
    A progress bar says `what`, once it takes longer than a second.
    Raises InputError for no caption or a batch size below 1.
    """
    if not len(texts) or batch_size < 1:
        raise InputError(f"There are {len(texts)} captions to embed by {batch_size}; both must be at least 1.")
    batches = caption_batches(encoder, texts, batch_size=batch_size, long_text=long_text)
    total = -(-len(texts) // batch_size)
    shown = progress(batches, total=total, what=what, unit="batch", delay=1.0)
    parts = [(rows, cut) for _, rows, cut in shown]
    long = sum(cut for _, cut in parts)
    if long and long_text == "truncate":
        warn_of_truncation(encoder, long)
    return torch.cat([rows for rows, _ in parts]), long
