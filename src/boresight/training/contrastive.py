"""Contrastive losses between images and captions, exact over all processes.

Every function takes the unit-length embeddings of *this* process and contrasts them with those of all: local rows
against gathered columns, with gradients through the gathering. The global loss, over the whole batch of all
processes, is the mean over processes of what is returned (`collectives.average`). A process's gradient is `world_size`
times its share of the global one, since other processes' losses reach its embeddings too; `DistributedDataParallel`
and `fully_shard` average gradients, and that average is exactly the gradient of the global loss. No further factor is
needed. With one process nothing is gathered.

`chunk` computes the same in blocks of so many columns, each anew in the backward, so that no matrix of all images by
all captions exists: memory falls from B x B to B x chunk for a third more work.

`words` says which captions are word for word the same. A caption that is also one of another image's is no evidence
against that image: the pair counts neither for nor against, in either direction. Without it, a batch with two pictures
of 'a red cup' has a loss that no model can bring to zero.

In all of them `images` is (B, d) and captions are (B, d) or (M, d), float and of unit length; `log_scale`, (), is the
logarithm of the inverse temperature; `chunk` is None for all columns at once; `words` is (M,) int64, of each caption,
as `same_words` gives it; None says that all captions differ. What comes back is (), float, in nats.
InputError: shapes that do not fit, or processes with unequal B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from boresight.errors import InputError
from boresight.training.collectives import gather_rows, rank, row_counts, world_size

MAX_LOG_SCALE = math.log(100.0)


def same_words(ids: Tensor) -> Tensor:
    """(M,) int64: equal numbers for equal rows of `ids`, (M, T) token numbers, here and on all other processes.

    Every process passes as many rows.
    """
    numbers = torch.unique(gather_rows(ids), dim=0, return_inverse=True)[1]
    return numbers[rank() * len(ids) :][: len(ids)]


def infonce_loss(
    images: Tensor, texts: Tensor, log_scale: Tensor, *, words: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Mean of the image-to-text and the text-to-image cross entropies over the batch (InfoNCE; CLIP's loss).

    With logits L = exp(log_scale) * images @ texts', row i of L is a softmax over captions and column j one over
    images; pair (i, i) is the target of both.

    Args:
        images, log_scale, words, chunk: see above.
        texts: (B, d); row i describes image i.

    Relations:
        `clips_loss` for a web and a synthetic caption of each image, `multi_positive_loss` for any number of captions,
        `sigmoid_loss` where pairs are to be judged one by one, as SigLIP's are.

    Example:
        >>> infonce_loss(F.normalize(images, dim=1), F.normalize(texts, dim=1), model.logit_scale)
    """
    _check_pairs(images, texts=texts)
    _check_words(words, len(texts))
    everywhere, batch = _gather_images(images), _gather_texts(images, texts, None, words)
    return _infonce(images, everywhere, texts, batch, batch.of_images(len(everywhere)), log_scale, chunk)


def clips_loss(
    images: Tensor,
    web: Tensor,
    synthetic: Tensor,
    log_scale: Tensor,
    *,
    words: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Half the sum of two InfoNCE, images with web captions and images with synthetic ones (CLIPS's loss).

    L = 1/2 [InfoNCE(images, web) + InfoNCE(images, synthetic)]. Each has its own softmax: the two positives of an image
    never share a denominator.

    Args:
        images, log_scale, chunk: see above.
        web: (B, d); row i is the caption found with image i.
        synthetic: (B, d); row i is the part drawn of the caption generated for image i.
        words: (2 B,), of the web captions and behind them of the synthetic ones.

    Relations:
        `multi_positive_loss` puts both captions into one softmax.
    """
    _check_pairs(images, web=web, synthetic=synthetic)
    _check_words(words, 2 * len(images))
    everywhere = _gather_images(images)
    halves = (None, None) if words is None else words.split(len(images))
    batches = [_gather_texts(images, texts, None, half) for texts, half in zip((web, synthetic), halves, strict=True)]
    each = [told for batch in batches if (told := batch.of_images(len(everywhere))) is not None]
    told = torch.cat(each, dim=1) if each else None
    losses = [
        _infonce(images, everywhere, texts, batch, told, log_scale, chunk)
        for texts, batch in zip((web, synthetic), batches, strict=True)
    ]
    return (losses[0] + losses[1]) / 2


def multi_positive_loss(
    images: Tensor,
    texts: Tensor,
    owners: Tensor,
    log_scale: Tensor,
    *,
    words: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """InfoNCE where an image has one caption or more, their number free to differ between images.

    Image to text: the mean over an image's captions of the cross entropy of each against the captions of all *other*
    images, then the mean over images. An image's other captions leave the denominator (our choice): they are as right
    as the one asked for, and a softmax over all of them could never reach zero. Text to image: for each caption the
    cross entropy over images, then the mean over captions. With one caption each this is `infonce_loss`.

    Args:
        images, log_scale, words, chunk: see above.
        texts: (M, d), in any order; M may differ between processes.
        owners: (M,) int64, row in `images` of each caption's image; each image owns at least one, else InputError.
    """
    _check_owners(images, texts, owners)
    _check_words(words, len(texts))
    everywhere, batch = _gather_images(images), _gather_texts(images, texts, owners, words)
    return _infonce(images, everywhere, texts, batch, batch.of_images(len(everywhere)), log_scale, chunk)


def sigmoid_loss(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    owners: Tensor | None = None,
    *,
    words: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Each pair judged by itself (SigLIP, section 3.2).

    -log sigmoid(z * (exp(log_scale) * image . text + bias)), z = 1 for an image's own caption and -1 for another's,
    summed over all pairs and divided by the number of images.

    Args:
        images, log_scale, words, chunk: see above.
        texts: (M, d); M = B and row i describes image i unless `owners` says otherwise.
        bias: () float, added to every logit; published start -10.
        owners: as of `multi_positive_loss`.
    """
    if owners is None:
        _check_pairs(images, texts=texts)
    else:
        _check_owners(images, texts, owners)
    _check_words(words, len(texts))
    _check_even(images)
    batch = _gather_texts(images, texts, owners, words)
    told = batch.of_images(world_size() * len(images))

    def penalties(logits: Tensor, own: Tensor, true: Tensor) -> Tensor:
        logits = logits + _full(bias).reshape(())
        judged = -F.logsigmoid(torch.where(own, logits, -logits))
        return judged.masked_fill(true & ~own, 0).sum(1)

    rows = _Side(_scale(log_scale) * _full(images), batch.numbers, None if told is None else told[batch.numbers])
    return _over_blocks(penalties, rows, batch.captions, chunk).sum() / len(images)


def clamp_scale(log_scale: Tensor, most: float = MAX_LOG_SCALE) -> None:
    """Hold log_scale at `most` or below, in place: exp(log_scale) at 100, as CLIP was trained.

    The parameter is clamped after the optimiser's step, not inside the loss: there a clamp would cut the gradient
    that lets the temperature come back.
    """
    with torch.no_grad():
        log_scale.clamp_(max=most)


def _gather_images(images: Tensor) -> Tensor:
    _check_even(images)
    return gather_rows(_full(images))


@dataclass(frozen=True)
class _Side:
    """Rows or columns of a score matrix.

    Attributes:
        embeddings: (R, d).
        numbers: (R,), in the whole batch, of their images.
        words: (R, K), those that are true of them; negative ones are none.
    """

    embeddings: Tensor
    numbers: Tensor
    words: Tensor | None


@dataclass(frozen=True)
class _Batch:
    """What a loss knows of the whole batch.

    Attributes:
        numbers: (B,), in the whole batch, of this process's images.
        owners: (M,), rows of this process's images, of its captions.
        words: (M, 1), of its captions.
        captions: those of all processes.
    """

    numbers: Tensor
    owners: Tensor
    words: Tensor | None
    captions: _Side

    def of_images(self, count: int) -> Tensor | None:
        """(count, K) int64: the words of the captions of each image of the whole batch, filled with -1."""
        if self.captions.words is None:
            return None
        order = self.captions.numbers.argsort(stable=True)
        owners, each = self.captions.numbers[order], torch.bincount(self.captions.numbers, minlength=count)
        nth = torch.arange(len(owners), device=owners.device) - (each.cumsum(0) - each)[owners]
        table = owners.new_full((count, int(each.max())), -1)
        table[owners, nth] = self.captions.words[order, 0]
        return table


def _infonce(
    images: Tensor,
    all_images: Tensor,
    texts: Tensor,
    batch: _Batch,
    told: Tensor | None,
    log_scale: Tensor,
    chunk: int | None,
) -> Tensor:
    """The one softmax loss. A caption's cross entropy needs no more than its own logit and its rivals' log-sum-exp.

    told: (all images, K), the words that are true of each image.
    """
    numbers, owners = batch.numbers, batch.owners
    scaled, scaled_texts = _scale(log_scale) * _full(images), _scale(log_scale) * _full(texts)
    own = (scaled[owners] * _full(texts)).sum(1)
    everything = _Side(all_images, torch.arange(len(all_images), device=images.device), told)

    def rivals(logits: Tensor, own: Tensor, true: Tensor) -> Tensor:
        return logits.masked_fill(true, -torch.inf).logsumexp(1)

    rows = _Side(scaled, numbers, None if told is None else told[numbers])
    texts_against = _over_blocks(rivals, rows, batch.captions, chunk).logsumexp(0)
    rows = _Side(scaled_texts, numbers[owners], batch.words)
    images_against = _over_blocks(rivals, rows, everything, chunk).logsumexp(0)
    captions = torch.bincount(owners, minlength=len(images))
    image_to_text = (-F.logsigmoid(own - texts_against[owners]) / captions[owners]).sum() / len(images)
    text_to_image = -F.logsigmoid(own - images_against).sum() * world_size() / len(batch.captions.numbers)
    return (image_to_text + text_to_image) / 2


def _gather_texts(images: Tensor, texts: Tensor, owners: Tensor | None, words: Tensor | None) -> _Batch:
    numbers = rank() * len(images) + torch.arange(len(images), device=images.device)
    counts = None if owners is None else row_counts(len(texts), texts.device)
    owners = numbers - numbers[0] if owners is None else owners
    words = None if words is None else words[:, None]
    all_words = None if words is None else gather_rows(words, counts)
    captions = _Side(gather_rows(_full(texts), counts), gather_rows(numbers[owners], counts), all_words)
    return _Batch(numbers, owners, words, captions)


def _over_blocks(
    reduce: Callable[[Tensor, Tensor, Tensor], Tensor], rows: _Side, columns: _Side, chunk: int | None
) -> Tensor:
    """(blocks, R) float: `reduce(logits, own, true)` of each block of columns.

    own, (R, C): caption and image belong together; true: they do, or the caption is word for word one that does.
    """
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk is {chunk}; give the number of columns at a time, 1 or more.")

    def block(embeddings: Tensor, others: Tensor, numbers: Tensor, words: Tensor | None) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):  # at a scale of 100 half precision errs by 0.1
            logits = embeddings @ others.T
        own = rows.numbers[:, None] == numbers
        true = own.clone()
        if rows.words is not None and words is not None:
            for told in rows.words.T:
                for said in words.T:
                    true |= (told[:, None] == said) & (said >= 0)
        return reduce(logits, own, true)

    if chunk is None:
        return block(rows.embeddings, columns.embeddings, columns.numbers, columns.words)[None]
    parts = zip(columns.embeddings.split(chunk), columns.numbers.split(chunk), strict=True)
    words = iter([]) if columns.words is None else iter(columns.words.split(chunk))
    return torch.stack(
        [
            checkpoint(block, rows.embeddings, *part, next(words, None), use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    )


def _scale(log_scale: Tensor) -> Tensor:
    return _full(log_scale).reshape(()).exp()


def _full(embeddings: Tensor) -> Tensor:
    return embeddings.float() if embeddings.dtype in (torch.float16, torch.bfloat16) else embeddings


def _check_pairs(images: Tensor, **texts: Tensor) -> None:
    for name, value in texts.items():
        if images.ndim != 2 or value.shape != images.shape:
            raise InputError(
                f"images {tuple(images.shape)} and {name} {tuple(value.shape)} must both be (images, width)."
            )


def _check_words(words: Tensor | None, captions: int) -> None:
    if words is not None and words.shape != (captions,):
        raise InputError(f"words {tuple(words.shape)} must hold a number for each of the {captions} captions.")


def _check_owners(images: Tensor, texts: Tensor, owners: Tensor) -> None:
    if images.ndim != 2 or texts.ndim != 2 or texts.shape[1] != images.shape[1] or owners.shape != texts.shape[:1]:
        raise InputError(
            f"images {tuple(images.shape)}, texts {tuple(texts.shape)} and owners {tuple(owners.shape)} must be "
            "(images, width), (captions, width) and (captions,)."
        )
    if len(owners) and not 0 <= int(owners.min()) <= int(owners.max()) < len(images):
        raise InputError(
            f"owners run from {int(owners.min())} to {int(owners.max())}, images from 0 to {len(images) - 1}."
        )
    bare = torch.bincount(owners, minlength=len(images)).eq(0).nonzero()
    if len(bare):
        raise InputError(f"Image {int(bare[0])} of the batch owns no caption; drop it or caption it.")


def _check_even(images: Tensor) -> None:
    counts = row_counts(len(images), images.device)
    if len(set(counts)) > 1:
        raise InputError(f"The processes hold {counts} images; give each the same number, or drop the last batch.")
    if counts[0] == 0:
        raise InputError("The batch holds no image; give one or more.")
