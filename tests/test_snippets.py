"""Every example of the README and the guide is run, in a folder with small files under the names that they use.

An example has the names that `names_given` gives, and those that examples above it on the page have made.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from boresight.cli.main import main
from postgres_server import server as server
from snippet_world import fewer_steps, names_given, put_world

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {
    'bs.load_collection("nlphuji/flickr30k"': "needs the network",
    'bs.load_collection("shards/': "no shards are put there; tests/data/formats/test_tar.py opens them",
    "open_clip:ViT-B-32": "needs the network",
    "--collection emoji": "needs the network once",
    "load_emoji": "needs the network once; tests/data/worlds/emoji has it",
    "emoji.split": "the same",
    "fashion-mnist": "needs the files of Fashion-MNIST; tests/studies/test_mad.py has it",
    'source="mnist/"': "the same for MNIST",
    "--data scenes": "embeds a thousand pictures; tests/benchmarks/test_own.py has it on a dozen",
    'database = "postgresql': "the page is run with a server of its own",
    'qdrant = "http': "the page is run with Qdrant's engine in the process",
    "torchrun": "needs eight processes; tests/training starts two",
    "boresight serve": "serves until it is stopped; tests/app/test_process.py starts it",
    "pip install": "installs what this runs in",
    "demo --open": "serves until it is stopped; tests/app/test_example.py starts it",
    "make ": "makes the environment that this runs in",
}
"""Lines that are not run, by a part of them, and why."""
SMALLER = {
    "n_encoder=4000, n_train=3000, n_validation=500, n_test=1000": "n_encoder=4, n_train=3, n_validation=2, n_test=2",
    "seeds=(0, 1, 2)": "seeds=(0,)",
    "--seeds 0 1 2": "--seeds 0",
    "steps=500, batch_size=128": "steps=2, batch_size=4",
    "captioner=CaptionerShape()": "captioner=CaptionerShape(width=16, layers=1, heads=2, queries=12)",
    "make_scenes(100": "make_scenes(10",
    "make_mad(1000": "make_mad(20",
    'images="/data/docci/images"': 'images="docci_images"',
    "names[17], names.certainty[17]": "names[7], names.certainty[7]",
    'Picture("43", "photos/43.jpg", box=(10, 20, 200, 150))': 'Picture("43", "photos/43.jpg", box=(1, 2, 20, 15))',
}
"""What is run with smaller numbers."""


def examples(page: Path, language: str) -> list[str]:
    """The examples of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def with_code(language: str) -> list[Path]:
    return [page for page in PAGES if examples(page, language)]


def shortening(words: list[str]) -> list[str]:
    """Options that make a command short, where it has not set them itself."""
    if words[1] in ("demo", "compare") and "--seeds" not in words:
        return ["--seeds", "0"]
    if words[1] != "pretrain":
        return []
    return [
        "--steps",
        "2",
        "--batch-size",
        "4",
        *(("--captioner-size", "16", "1", "2") if "--captioner" in words else ()),
    ]


def runnable(code: str) -> str:
    kept = [line for line in code.splitlines() if not any(part in line for part in ELSEWHERE)]
    code = "\n".join(kept)
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    return code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        fewer_steps(patch)
        folder = tmp_path_factory.mktemp("world")
        put_world(folder)
        return folder, names_given(folder)


@pytest.fixture
def given(world: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The names; the current folder is a copy of the world."""
    folder, names = world
    shutil.copytree(folder, tmp_path / "world", copy_function=os.link)
    monkeypatch.setenv("BORESIGHT_QUIET", "1")
    monkeypatch.chdir(tmp_path / "world")
    fewer_steps(monkeypatch)
    return names


@pytest.mark.parametrize("page", with_code("python"), ids=lambda page: page.name)
def test_examples_in_python_run(page: Path, given: dict[str, Any], request: pytest.FixtureRequest) -> None:
    names: dict[str, Any] = {}
    if page.name == "engines.md":
        edge = pytest.importorskip("qdrant_edge_store", reason="needs qdrant-edge-py (extra 'dev')")
        given |= {"database": request.getfixturevalue("server"), "qdrant": edge.EdgeStore(Path("qdrant"))}
    for code in examples(page, "python"):
        names |= given
        exec(compile(runnable(code), str(page), "exec"), names)


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("page", with_code("sh"), ids=lambda page: page.name)
def test_commands_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in runnable("\n".join(examples(page, "sh"))).splitlines():
        if words := shlex.split(line, comments=True):
            assert Path(words[0]).name == "boresight", line
            try:
                main([*words[1:], *shortening(words)])
            except SystemExit as stop:
                pytest.fail(f"{line}\n{stop.code}: {capsys.readouterr().err}")


def test_nothing_is_excused_that_is_not_there() -> None:
    every = "\n".join(code for page in PAGES for language in ("python", "sh") for code in examples(page, language))
    assert [part for part in (*ELSEWHERE, *SMALLER) if part not in every] == []


def test_every_example_says_its_language() -> None:
    """One that named another, or forgot the second half of a fence, would be run by nobody."""
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.MULTILINE)
        assert set(fences) <= {"", "python", "sh"}, page
        assert len(fences) % 2 == 0, page
