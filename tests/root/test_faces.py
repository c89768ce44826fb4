"""What is imported before it is asked for: nothing that is slow and not needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SLOW = ("datasets", "pyarrow", "pandas", "transformers", "matplotlib", "jinja2", "captum", "accelerate", "open_clip")
HEAVY = ("torch", "numpy", *SLOW)


def loaded(statement: str, modules: tuple[str, ...]) -> list[str]:
    """Those of `modules` that a fresh Python has imported after `statement`."""
    script = f"{statement}\nimport sys\nprint(*[name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_package_and_its_help_import_no_science() -> None:
    assert loaded("import boresight", HEAVY) == []
    assert loaded("import boresight.cli.main", HEAVY) == []


NAMES = ("SparseAutoencoder", "CaptionEditor", "Embeddings", "embed", "load_encoder", "evaluate_retrieval")


@pytest.fixture(scope="module")
def after() -> dict[str, list[str]]:
    """What is loaded after each of `NAMES`, one after the other: what is not there after all is there after none."""
    script = (
        "import sys, json, boresight\n"
        f"after = {{}}\nfor name in {NAMES!r}:\n    getattr(boresight, name)\n"
        f"    after[name] = [each for each in {SLOW!r} if each in sys.modules]\n"
        "print(json.dumps(after))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_imports_what_it_needs(after: dict[str, list[str]], name: str) -> None:
    assert after[name] == []
