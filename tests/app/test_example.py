"""`boresight demo --open`: the index of what comes with boresight, made once, and the page that opens on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from boresight.app.example import cache_folder, example_index
from boresight.cli.main import main


def test_the_page_opens_on_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path))
    made = example_index("scenes", cache_folder(), learnt=12, new=4)
    assert len(made) == 12 + 2 * 4
    assert {"objects", "background", "split"} <= set(made.columns)
    reasons = made.search("a red circle", where="objects >= 2").reasons(0)
    latents = reasons.terms[0].explanation.latents
    assert any(one.name for one in latents)
    strongest = max(latents, key=lambda one: abs(one.kept))
    assert abs(made.search("a red circle", latents={strongest.index: 0.0}).reasons(0).score - reasons.score) > 1e-4
    stamp = made.folder.stat().st_mtime_ns

    command = [sys.executable, "-m", "boresight", "demo", "--open", "--no-browser"]
    environment = {**os.environ, "BORESIGHT_QUIET": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stdout is not None
        address = re.search(r"20 pictures at (http://127.0.0.1:\d+);", started.stdout.readline())[1]
        with urlopen(f"{address}/api/info") as answer:
            info = json.load(answer)
        with urlopen(address) as answer:
            assert b"Say in words" in answer.read()
        started.terminate()
        started.wait(60)
    assert (info["name"], info["images"], info["edited"]) == ("scenes", 20, True)
    assert info["editor"]["named"] > 20
    assert made.folder.stat().st_mtime_ns == stamp, "what is there is used"


def test_one_s_own_pictures_are_sent_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "photos", "--open"])
    assert "for photos run boresight embed, boresight index and boresight serve" in capsys.readouterr().err
