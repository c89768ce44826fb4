"""The caption editor of the shipped model that tests use: what `boresight demo --seeds 0` fitted for it on emoji."""

from __future__ import annotations

from boresight.models import default_editor_path

TINY_EDITOR = default_editor_path()
