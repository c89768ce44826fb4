"""What the training pairs say of an image or a caption never seen: the memory of an editor.

An image embedding holds more than people write. What people wrote of the images most like it is the part they do
describe; how the images look whose captions are most like a caption is what it leads one to expect:

    c(x) = unit(sum_k w_k (tau_k - mean tau)),   w = softmax over the nearest images xi_k of    s_c cos(x, xi_k)
    v(t) = unit(sum_k w_k (xi_k - mean xi)),     w = softmax over the nearest captions tau_k of s_v cos(t, tau_k)

with xi_k (d,) the remembered images, tau_k (d,) the mean of each one's unit captions, and the cosines taken after the
mean of what is remembered. The editor moves an image embedding towards c(x), read through the text head, and a caption
vector towards v(t). Each is a function of one side alone, so images stay static and a caption stays one vector. Our own
addition: TEVI (arXiv 2606.07451) has nothing alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.brief import Brief
from boresight.embeddings.embeddings import Embeddings
from boresight.errors import InputError
from boresight.seeds import generator

REMEMBERED = 8192
NEIGHBOURS = 64
START = 0.4
SHARPNESS = 15.0
_SIMILARITIES = 2**23
_BLOCK = 65536
_HIDDEN = -1e4  # finite, so that a weight of zero also has a gradient of zero


@dataclass(frozen=True, repr=False)
class Neighbours(Brief):
    """Of N queries, the nearest K of what is remembered: cosines (N, K) float32 and indices (N, K) int64."""

    cosines: Tensor
    indices: Tensor

    def __getitem__(self, rows: slice | Tensor) -> Neighbours:
        return Neighbours(self.cosines[rows], self.indices[rows])


@dataclass(frozen=True, repr=False)
class Recall(Brief):
    """What the memory made of one unit vector, and each recalled pair's share of it.

    Attributes:
        rows: (K,) int64, of the recalled pairs in the memory.
        weights: (K,) w, which sum to 1.
        added: (K, d), what each pair added.
        moved: (d,), how far the vector moved: the sum of `added`, less the room that it took at unit length.
    """

    rows: Tensor
    weights: Tensor
    added: Tensor
    moved: Tensor


class Memory(nn.Module):
    """Remembered pairs, and how much and how sharply they are recalled. Silent (strengths of zero) until trained.

    Attributes:
        images: (R, d) float16, unit.
        texts: (R, d) float16, mean of the unit captions of each image.
        strengths: (2,) of c(x) beside a unit image and of v(t) beside a unit caption vector.
        log_sharpness: (2,) log s_c and log s_v.
        ids: of the remembered images; empty where they are not known.
    """

    images: Tensor
    texts: Tensor

    def __init__(self, images: Tensor, texts: Tensor, ids: Sequence[str] = ()) -> None:
        super().__init__()
        self.ids = list(ids)
        self.register_buffer("images", images.half())
        self.register_buffer("texts", texts.half())
        self.strengths = nn.Parameter(torch.zeros(2))
        self.log_sharpness = nn.Parameter(torch.full((2,), math.log(SHARPNESS)))

    def extra_repr(self) -> str:
        """How much is remembered."""
        return f"{len(self.images):,} pairs"

    def start(self, seed: int) -> None:
        """Where training begins; nothing is drawn."""
        nn.init.constant_(self.strengths, START)

    def near_images(self, images: Tensor, skip: Tensor | None = None) -> Neighbours:
        """Of unit images (N, d). skip: (N,) int64, a remembered row that each does not see, or -1.

        Raises InputError where nothing is remembered.
        """
        return _nearest(images, self.images.float(), skip)

    def near_texts(self, texts: Tensor, skip: Tensor | None = None) -> Neighbours:
        """Of unit captions (T, d). skip: (T,) int64, as for `near_images`."""
        return _nearest(texts, self.texts.float(), skip)

    def written(self, near: Neighbours) -> Tensor:
        """(N, d) unit c(x), of the neighbours of images."""
        return _recall(near, self.texts.float(), self.log_sharpness[0])

    def pictured(self, near: Neighbours) -> Tensor:
        """(T, d) unit v(t), of the neighbours of captions."""
        return _recall(near, self.images.float(), self.log_sharpness[1])

    def recall_images(self, image: Tensor, head_map: Tensor) -> Recall:
        """What moves a unit image (d,) towards c(x), read through the text head (d, d), pair by pair."""
        rows, weights, terms = self._terms(self.near_images(image[None]), self.texts.float(), 0)
        return self._moved(image, rows, weights, terms + terms @ head_map.t(), 0)

    def recall_texts(self, text: Tensor, query: Tensor) -> Recall:
        """What moves the unit caption vector (d,) of a unit caption (d,) towards v(t), pair by pair."""
        rows, weights, terms = self._terms(self.near_texts(text[None]), self.images.float(), 1)
        return self._moved(query, rows, weights, terms, 1)

    def _terms(self, near: Neighbours, values: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
        weights = (near.cosines[0] * self.log_sharpness[side].exp()).softmax(0)
        return near.indices[0], weights, weights.unsqueeze(1) * (values[near.indices[0]] - values.mean(0))

    def _moved(self, start: Tensor, rows: Tensor, weights: Tensor, terms: Tensor, side: int) -> Recall:
        added = self.strengths[side] * terms / terms.sum(0).norm().clamp_min(1e-12)
        reach = (start + added.sum(0)).norm()
        return Recall(rows, weights, added / reach, (start + added.sum(0)) / reach - start)


def joined_neighbours(parts: Sequence[Neighbours]) -> Neighbours:
    """One after another."""
    return Neighbours(torch.cat([part.cosines for part in parts]), torch.cat([part.indices for part in parts]))


def _recall(near: Neighbours, values: Tensor, log_sharpness: Tensor) -> Tensor:
    values = values - values.mean(0)
    weights = (near.cosines * log_sharpness.exp()).softmax(1)
    return F.normalize(F.embedding_bag(near.indices, values, per_sample_weights=weights, mode="sum"), dim=1)


@torch.no_grad()
def _nearest(queries: Tensor, remembered: Tensor, skip: Tensor | None) -> Neighbours:
    """In blocks: no matrix of queries x R is held whole."""
    if len(remembered) == 0:
        raise InputError("This editor's memory is empty; fit it, or set memory='none'.")
    centre = remembered.mean(0)
    keys = F.normalize(remembered - centre, dim=1).t()
    count, block = min(NEIGHBOURS, len(remembered)), max(1, _SIMILARITIES // len(remembered))
    cosines = queries.new_empty(len(queries), count)
    indices = torch.empty(len(queries), count, dtype=torch.int64, device=queries.device)
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        similar = F.normalize(queries[rows] - centre, dim=1) @ keys
        if skip is not None:
            seen = (skip[rows] >= 0).nonzero()[:, 0]
            similar[seen, skip[rows][seen]] = _HIDDEN
        cosines[rows], indices[rows] = similar.topk(count, dim=1)
    return Neighbours(cosines, indices)


def remember(train_set: Embeddings, seed: int) -> tuple[Memory, Tensor]:
    """What of a training set is remembered: at most REMEMBERED captioned images, drawn at random.

    The same picture under several ids (equal embeddings) is one image with all of their captions.

    Returns:
        The memory, and (N,) the slot of each image in it, or -1.
    """
    numbers: dict[bytes, int] = {}
    same = torch.tensor([numbers.setdefault(row.numpy().tobytes(), len(numbers)) for row in train_set.images])
    counts = torch.bincount(same[train_set.owners], minlength=len(numbers))
    captioned = counts.nonzero()[:, 0]
    draw = generator(seed, "editor memory")
    drawn = captioned[torch.randperm(len(captioned), generator=draw)[:REMEMBERED]].sort().values
    slot_of = torch.full((len(numbers),), -1)
    slot_of[drawn] = torch.arange(len(drawn))
    slots = slot_of[same]
    texts = torch.zeros(len(drawn), train_set.texts.shape[1])
    for start in range(0, len(train_set.owners), _BLOCK):
        kept = slots[train_set.owners[start : start + _BLOCK]]
        chosen = F.normalize(train_set.texts[start : start + _BLOCK].float(), dim=1)[kept >= 0]
        texts.index_add_(0, kept[kept >= 0], chosen)
    first = torch.full((len(drawn),), len(same))
    known = (slots >= 0).nonzero()[:, 0]
    first.scatter_reduce_(0, slots[known], known, "amin")
    images = F.normalize(train_set.images[first].float(), dim=1)
    ids = [train_set.ids[row] for row in first.tolist()]
    return Memory(images, texts / counts[drawn].unsqueeze(1), ids), slots
