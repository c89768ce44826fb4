"""What --help says: words for every option, and what happens where one is left out."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from boresight.attribution.methods.registry import METHODS
from boresight.benchmarks.registry import BENCHMARKS
from boresight.cli.main import COMMANDS, main


def help_of(command: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "800")  # an option a line
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_words(command: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.sub("[│|]", " ", help_of(command, capsys, monkeypatch)).splitlines()
    entries: list[str] = []
    for line in lines[next(i for i, line in enumerate(lines) if "options" in line and "usage" not in line) + 1 :]:
        if line.strip().startswith("-") and line.strip("- ─"):
            entries.append(line.strip())
        elif entries and line.strip("-─╰╯ "):
            entries[-1] += ("  " if "  " not in entries[-1] else " ") + line.strip()
    assert entries
    for entry in entries:
        words = re.sub(r"\((default: .*|required)\)$", "", entry.partition("  ")[2]).strip()
        assert re.search(r"[a-z]{2}", words), entry
        assert "{None" not in entry, entry
        assert "(default: None" not in entry, entry
        assert "(default: )" not in entry, entry
        if not re.search(r"\((default: .+|required)\)$", entry) and not entry.startswith("-h"):
            assert "left out" in entry.lower(), entry


def test_names_are_all_there(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    said = help_of("explain", capsys, monkeypatch)
    assert all(re.search(rf"\b{name}\b", said) for name in METHODS)
    said = help_of("evaluate", capsys, monkeypatch)
    assert all(name.removesuffix("-sentences") in said for name in BENCHMARKS)


def test_version(capsys: pytest.CaptureFixture) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"boresight {version('boresight')}\n"
