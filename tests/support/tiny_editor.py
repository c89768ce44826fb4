"""A caption editor of the shipped model: what `boresight demo --seeds 0` fitted for it on emoji."""

from __future__ import annotations

from pathlib import Path

TINY_EDITOR = Path(__file__).parent / "tiny-editor"
