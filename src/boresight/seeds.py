"""Seeded randomness: every random draw goes through a generator made here, never through global state."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, stream: str = "") -> torch.Generator:
    """A torch generator that depends on `seed` and on the name of what it is for.

    Distinct `stream` names give independent draws under one seed, so adding a draw somewhere does not
    shift the draws elsewhere.
    """
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
