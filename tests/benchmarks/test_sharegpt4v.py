"""ShareGPT4V, read from the front of a long list."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.benchmarks import sharegpt4v
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.registry import open_published
from boresight.errors import InputError
from collection_files import put_pictures
from published_files import content, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def test_sharegpt4v_takes_the_first_entries(tmp_path: Path, capsys) -> None:
    entries = [
        {"image": f"sam/images/sa_{n}.jpg", "conversations": [{"value": "Describe."}, {"value": f"A\n\nb {n}\n"}]}
        for n in range(1003)
    ]
    put(tmp_path / "share-captioner_coco_lcs_sam_1246k_1107.json", json.dumps(entries))
    put_pictures(tmp_path, ["sam/images/sa_3.jpg", "sam/images/sa_999.jpg", "sam/images/sa_1000.jpg"])
    small = open_published("sharegpt4v-1k", tmp_path)
    assert content(small) == {"sa_3.jpg": ["A  b 3"], "sa_999.jpg": ["A  b 999"]}
    said = capsys.readouterr().err
    assert "skipped 998 rows: 998 missing files" in said
    assert "figures over fewer images are not the published ones" in said
    assert len(open_published("sharegpt4v-10k", tmp_path, images=tmp_path / "sam" / "images")) == 3
    put_pictures(tmp_path / "moved" / "sa_000048", ["sa_7.jpg"])
    entries[7]["image"] = "sa_000048/images/sa_7.jpg"  # as the list says, and a folder less on disk
    put(tmp_path / "share4v_sam_10k.json", json.dumps(entries))
    assert content(open_published("sharegpt4v-10k", tmp_path, images=tmp_path / "moved")) == {"sa_7.jpg": ["A  b 7"]}
    put_pictures(tmp_path / "sa_000020" / "images", ["sa_5.jpg"])  # as SA-1B's own archives unpack
    assert content(open_published("sharegpt4v-10k", tmp_path))["sa_5.jpg"] == ["A  b 5"]
    (tmp_path / "share4v_sam_10k.json").unlink()
    put(tmp_path / "share-captioner_coco_lcs_sam_1246k_1107.json", json.dumps([{"image": "a.jpg"}]))
    with pytest.raises(InputError, match=r"entry 0 of .* lacks 'conversations'"):
        open_published("sharegpt4v-1k", tmp_path)


@given(st.lists(st.dictionaries(st.text(), st.text())), st.integers(1, 9), st.sampled_from([None, 2]))
@settings(deadline=None)
def test_entries_are_read_one_after_another(entries: list[Any], size: int, indent: int | None) -> None:
    with TemporaryDirectory() as folder, mock.patch.object(sharegpt4v, "_READ", size):
        file = Path(folder) / "a.json"
        put(file, json.dumps(entries, indent=indent, ensure_ascii=size % 2 == 0) + "\n")
        files = PublishedFiles(folder, "a", "b")
        assert list(sharegpt4v.entries(files, file)) == entries
