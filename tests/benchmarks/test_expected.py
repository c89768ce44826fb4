"""Files of published benchmarks: what is found, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight.benchmarks.expected import expected, read_published_json
from boresight.errors import InputError

OF = {"of": "Toy", "source": "https://example.org/toy"}


def test_the_first_that_exists(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "toy.json").write_text('\ufeff{"a": 1}')
    found = expected(tmp_path, ["toy.json", "b/toy.json"], **OF)
    assert read_published_json(found, **OF) == {"a": 1}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"Toy needs toy.json \(nor b/toy.json\).*published at https://example.org/toy"
    ):
        expected(tmp_path, ["toy.json", "b/toy.json"], **OF)
    with pytest.raises(InputError, match=r"There is no folder .*nowhere"):
        expected(tmp_path / "nowhere", ["toy.json"], **OF)
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"torn.json cannot be read as json .* get it anew for Toy"):
        read_published_json(tmp_path / "torn.json", **OF)
