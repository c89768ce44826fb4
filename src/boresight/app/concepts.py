"""What the latents of an index are: how many images have each, which most, what captions say of it, where it points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boresight.editing import CaptionEditor
from boresight.editing.masks import HALF
from boresight.search.snapshot import Snapshot

TOP = 8  # images of each latent
BLOCK = 16384  # images read at once
PAIRS = 1024  # remembered pairs at once


@dataclass(frozen=True)
class LatentCounts:
    """Of the n latents of an index.

    Attributes:
        images: (n,) int64, how many images have each.
        top: (n, 8) int64, rows of those that have most of it for their length, most first; -1 where fewer have it.
    """

    images: np.ndarray
    top: np.ndarray

    @property
    def frequent(self) -> np.ndarray:
        """Latents that some image has, the most frequent first, of equal ones the lower number."""
        order = np.argsort(-self.images, kind="stable")
        return order[self.images[order] > 0]


def count_latents(snapshot: Snapshot) -> LatentCounts:
    """Read the codes of all images once, a block at a time."""
    n = snapshot.layout.n_latents
    images = np.zeros(n, dtype=np.int64)
    top, strength = np.full((n, TOP), -1, dtype=np.int64), np.zeros((n, TOP), dtype=np.float32)
    for segment, first in zip(snapshot.segments, snapshot.starts.tolist(), strict=False):
        indices = segment.rows.indices
        if indices is None:
            continue
        for start in range(0, len(segment), BLOCK):
            block = slice(start, start + BLOCK)
            values = np.asarray(segment.rows.values[0][block], dtype=np.float32)
            active = values > 0
            if segment.live is not None:
                active &= segment.live[block, None]
            latents = np.asarray(indices[block])[active].astype(np.int64)
            images += np.bincount(latents, minlength=n)
            _keep_strongest(top, strength, latents, values[active], first + start + np.nonzero(active)[0])
    return LatentCounts(images, top)


def _keep_strongest(
    top: np.ndarray, strength: np.ndarray, latents: np.ndarray, values: np.ndarray, rows: np.ndarray
) -> None:
    """Put rows among those that are strongest so far, in place; of equal activations the earlier row leads."""
    held = strength > 0
    latents = np.concatenate([np.nonzero(held)[0], latents])
    values, rows = np.concatenate([strength[held], values]), np.concatenate([top[held], rows])
    order = np.lexsort((rows, -values, latents))
    latents, values, rows = latents[order], values[order], rows[order]
    counts = np.bincount(latents, minlength=len(top))
    rank = np.arange(len(latents)) - (np.cumsum(counts) - counts)[latents]
    kept = rank < top.shape[1]
    top[latents[kept], rank[kept]] = rows[kept]
    strength[latents[kept], rank[kept]] = values[kept]


@torch.inference_mode()
def told_shares(editor: CaptionEditor | None) -> np.ndarray | None:
    """(n,) float32: of the remembered images that have a latent, the share whose captions keep it.

    What captions keep is decided at a half, by the mask that was taught what captions tell where there is one. NaN for
    a latent that no remembered image has; None without an editor that remembers pairs and has latents.
    """
    if editor is None or editor.memory is None or not editor.config.has_latents or not len(editor.memory.images):
        return None
    masking, memory = editor.shown if editor.taught_mask is not None else editor, editor.memory
    have, told = (np.zeros(editor.sae.n_latents) for _ in range(2))
    for start in range(0, len(memory.images), PAIRS):
        rows = slice(start, start + PAIRS)
        codes = editor.sae.encode(memory.images[rows].float())
        kept = masking.mask(memory.texts[rows].float()).gather(1, codes.indices) >= HALF
        active = codes.values > 0
        have += np.bincount(codes.indices[active].cpu().numpy(), minlength=len(have))
        told += np.bincount(codes.indices[active & kept].cpu().numpy(), minlength=len(told))
    with np.errstate(invalid="ignore"):
        return (told / have).astype(np.float32)


def positions(directions: np.ndarray) -> tuple[np.ndarray, float]:
    """Directions (n, d) on their first two principal axes, (n, 2) in [-1, 1], and the share of variance these hold.

    The sign of each axis is fixed: the direction furthest out on it lies on its positive side.
    """
    if len(directions) < 2:
        return np.zeros((len(directions), 2)), 0.0
    centred = directions.astype(np.float64) - directions.mean(0)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(directions), 2))
    points[:, : min(2, left.shape[1])] = (left * spread)[:, :2]
    for axis in range(2):
        furthest = int(np.abs(points[:, axis]).argmax())
        points[:, axis] *= -1 if points[furthest, axis] < 0 else 1
    size, total = np.abs(points).max(), (spread**2).sum()
    return points / size if size else points, float((spread[:2] ** 2).sum() / total) if total else 0.0


def named(names: Sequence[str]) -> list[int]:
    """Latents that have a name."""
    return [latent for latent, name in enumerate(names) if name]
