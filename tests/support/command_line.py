"""The command line in this process, and what its tests share."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from unittest import mock

from boresight.cli.main import main
from worlds.small_clip import SmallClipConfig

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "BORESIGHT_QUIET": "1", "OMP_NUM_THREADS": "1"}
COLOURS = ("red", "green", "blue", "orange", "purple", "white", "black", "gray")
SHAPE = SmallClipConfig(
    image_size=24,
    patch_size=12,
    image_width=16,
    image_layers=1,
    image_heads=2,
    text_width=16,
    text_layers=1,
    text_heads=2,
    projection=8,
    vocabulary=600,
)


def boresight(*words: object, cwd: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, ENVIRONMENT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def refused(*words: object, cwd: Path) -> str:
    """The sentence of a command that must refuse."""
    code, _, err = boresight(*words, cwd=cwd)
    assert code == 2, err
    assert err.startswith("boresight: ")
    assert err.count("\n") == 1
    return err


def lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
