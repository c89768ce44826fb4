"""What is imported before it is asked for: nothing that is slow and not needed."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    "statement",
    [
        "import boresight; boresight.SparseAutoencoder",
        "import boresight; boresight.CaptionEditor",
        "import boresight; boresight.Embeddings",
        "import boresight; boresight.embed",
        "import boresight; boresight.load_encoder",
        "import boresight; boresight.evaluate_retrieval",
    ],
)
def test_a_name_imports_what_it_needs(statement: str) -> None:
    assert loaded(statement, SLOW) == []
