"""Contrastive losses between images and captions, exact over all processes.

Every function takes the unit-length embeddings of *this* process and contrasts them with those of all: local rows
against gathered columns, with gradients through the gathering. The global loss, over the whole batch of all
processes, is the mean over processes of what is returned (`collectives.average`). A process's gradient is `world_size`
times its share of the global one, since other processes' losses reach its embeddings too; `DistributedDataParallel`
and `fully_shard` average gradients, and that average is exactly the gradient of the global loss. No further factor is
needed. With one process nothing is gathered.

`chunk` computes the same in blocks of so many columns, each anew in the backward, so that no matrix of all images by
all captions exists: memory falls from B x B to B x chunk for a third more work.

In all of them `images` is (B, d) and captions are (B, d) or (M, d), float and of unit length; `log_scale`, (), is the
logarithm of the inverse temperature; `chunk` is None for all columns at once. What comes back is (), float, in nats.
InputError: shapes that do not fit, or processes with unequal B.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from boresight.errors import InputError
from boresight.training.collectives import gather_rows, rank, row_counts, world_size

MAX_LOG_SCALE = math.log(100.0)


def infonce_loss(images: Tensor, texts: Tensor, log_scale: Tensor, *, chunk: int | None = None) -> Tensor:
    """Mean of the image-to-text and the text-to-image cross entropies over the batch (InfoNCE; CLIP's loss).

    With logits L = exp(log_scale) * images @ texts', row i of L is a softmax over captions and column j one over
    images; pair (i, i) is the target of both.

    Args:
        images, log_scale, chunk: see above.
        texts: (B, d); row i describes image i.

    Relations:
        `clips_loss` for a web and a synthetic caption of each image, `multi_positive_loss` for any number of captions,
        `sigmoid_loss` where pairs are to be judged one by one, as SigLIP's are.

    Example:
        >>> infonce_loss(F.normalize(images, dim=1), F.normalize(texts, dim=1), model.logit_scale)
    """
    _check_pairs(images, texts=texts)
    return _infonce(images, _gather_images(images), texts, None, log_scale, chunk)


def clips_loss(
    images: Tensor, web: Tensor, synthetic: Tensor, log_scale: Tensor, *, chunk: int | None = None
) -> Tensor:
    """Half the sum of two InfoNCE, images with web captions and images with synthetic ones (CLIPS's loss).

    L = 1/2 [InfoNCE(images, web) + InfoNCE(images, synthetic)]. Each has its own softmax: the two positives of an image
    never share a denominator.

    Args:
        images, log_scale, chunk: see above.
        web: (B, d); row i is the caption found with image i.
        synthetic: (B, d); row i is the part drawn of the caption generated for image i.

    Relations:
        `multi_positive_loss` puts both captions into one softmax.
    """
    _check_pairs(images, web=web, synthetic=synthetic)
    everywhere = _gather_images(images)
    from_web = _infonce(images, everywhere, web, None, log_scale, chunk)
    return (from_web + _infonce(images, everywhere, synthetic, None, log_scale, chunk)) / 2


def multi_positive_loss(
    images: Tensor, texts: Tensor, owners: Tensor, log_scale: Tensor, *, chunk: int | None = None
) -> Tensor:
    """InfoNCE where an image has one caption or more, their number free to differ between images.

    Image to text: the mean over an image's captions of the cross entropy of each against the captions of all *other*
    images, then the mean over images. An image's other captions leave the denominator (our choice): they are as right
    as the one asked for, and a softmax over all of them could never reach zero. Text to image: for each caption the
    cross entropy over images, then the mean over captions. With one caption each this is `infonce_loss`.

    Args:
        images, log_scale, chunk: see above.
        texts: (M, d), in any order; M may differ between processes.
        owners: (M,) int64, row in `images` of each caption's image; each image owns at least one, else InputError.
    """
    _check_owners(images, texts, owners)
    return _infonce(images, _gather_images(images), texts, owners, log_scale, chunk)


def sigmoid_loss(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    owners: Tensor | None = None,
    *,
    chunk: int | None = None,
) -> Tensor:
    """Each pair judged by itself (SigLIP, section 3.2).

    -log sigmoid(z * (exp(log_scale) * image . text + bias)), z = 1 for an image's own caption and -1 for another's,
    summed over all pairs and divided by the number of images.

    Args:
        images, log_scale, chunk: see above.
        texts: (M, d); M = B and row i describes image i unless `owners` says otherwise.
        bias: () float, added to every logit; published start -10.
        owners: as of `multi_positive_loss`.
    """
    if owners is None:
        _check_pairs(images, texts=texts)
    else:
        _check_owners(images, texts, owners)
    _check_even(images)
    numbers, all_texts, all_owners = _gather_texts(images, texts, owners)

    def penalties(logits: Tensor, own: Tensor) -> Tensor:
        logits = logits + _full(bias).reshape(())
        return -F.logsigmoid(torch.where(own, logits, -logits)).sum(1)

    rows = _scale(log_scale) * _full(images)
    return _over_blocks(penalties, rows, all_texts, numbers, all_owners, chunk).sum() / len(images)


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


def _infonce(
    images: Tensor,
    all_images: Tensor,
    texts: Tensor,
    owners: Tensor | None,
    log_scale: Tensor,
    chunk: int | None,
) -> Tensor:
    """The one softmax loss. A caption's cross entropy needs no more than its own logit and its rivals' log-sum-exp."""
    numbers, all_texts, all_owners = _gather_texts(images, texts, owners)
    owners = numbers - numbers[0] if owners is None else owners
    scaled, scaled_texts = _scale(log_scale) * _full(images), _scale(log_scale) * _full(texts)
    own = (scaled[owners] * _full(texts)).sum(1)
    all_numbers = torch.arange(len(all_images), device=images.device)

    def rivals(logits: Tensor, own: Tensor) -> Tensor:
        return logits.masked_fill(own, -torch.inf).logsumexp(1)

    texts_against = _over_blocks(rivals, scaled, all_texts, numbers, all_owners, chunk).logsumexp(0)
    owned = numbers[owners]
    images_against = _over_blocks(rivals, scaled_texts, all_images, owned, all_numbers, chunk).logsumexp(0)
    captions = torch.bincount(owners, minlength=len(images))
    image_to_text = (-F.logsigmoid(own - texts_against[owners]) / captions[owners]).sum() / len(images)
    text_to_image = -F.logsigmoid(own - images_against).sum() * world_size() / len(all_texts)
    return (image_to_text + text_to_image) / 2


def _gather_texts(images: Tensor, texts: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers in the whole batch of this process's images; the captions of all processes; their images' numbers."""
    numbers = rank() * len(images) + torch.arange(len(images), device=images.device)
    if owners is None:
        return numbers, gather_rows(_full(texts)), torch.arange(world_size() * len(images), device=images.device)
    counts = row_counts(len(texts), texts.device)
    return numbers, gather_rows(_full(texts), counts), gather_rows(numbers[owners], counts)


def _over_blocks(
    reduce: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    columns: Tensor,
    row_numbers: Tensor,
    column_numbers: Tensor,
    chunk: int | None,
) -> Tensor:
    """(blocks, R) float: `reduce(logits, own)` of each block of columns; `own`, (R, C): their numbers are equal."""
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk is {chunk}; give the number of columns at a time, 1 or more.")

    def block(rows: Tensor, columns: Tensor, numbers: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):  # at a scale of 100 half precision errs by 0.1 and more
            logits = rows @ columns.T
        return reduce(logits, row_numbers[:, None] == numbers)

    if chunk is None:
        return block(rows, columns, column_numbers)[None]
    return torch.stack(
        [
            checkpoint(block, rows, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(columns.split(chunk), column_numbers.split(chunk), strict=True)
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
