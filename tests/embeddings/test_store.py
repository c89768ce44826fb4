"""Embeddings in a folder: what is saved comes back, from a memory map, and nothing torn is ever read."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.embeddings import Embeddings, embed, store
from boresight.embeddings.rowfile import RowFile, header
from boresight.errors import ArtefactError
from boresight.storage import MANIFEST
from fake_encoder import FakeEncoder, make_collection


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BORESIGHT_QUIET", "1")
    embed(FakeEncoder(limit=99), make_collection(8), tmp_path / "e", part_size=3)
    return tmp_path / "e"


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_saved_comes_back(tmp_path_factory, data):
    n, d = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    owners = data.draw(st.lists(st.integers(0, n - 1), max_size=8))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    dtype = data.draw(st.sampled_from([torch.float16, torch.float32]))
    embeddings = Embeddings.from_arrays(
        torch.randn(n, d, generator=seed).to(dtype),
        torch.randn(len(owners), d, generator=seed),
        owners,
        ids=data.draw(st.lists(words, min_size=n, max_size=n)),
        captions=data.draw(st.none() | st.lists(words, min_size=len(owners), max_size=len(owners))),
        splits=data.draw(st.lists(words, min_size=n, max_size=n)),
        name=data.draw(words),
        encoder="mine",
    )
    folder = tmp_path_factory.mktemp("saved") / "e"
    embeddings.save(folder)
    loaded = Embeddings.load(folder, verify=True)
    for name in ("images", "texts", "owners"):
        mine, theirs = getattr(embeddings, name), getattr(loaded, name)
        assert theirs.dtype == mine.dtype
        assert torch.equal(mine, theirs)
    for name in ("ids", "captions", "splits", "name"):
        assert getattr(embeddings, name) == getattr(loaded, name)
    assert loaded.manifest["encoder"] == "mine"
    assert loaded.manifest["unit_length"] == embeddings.manifest["unit_length"]


def test_a_selection_of_a_run_can_be_saved(folder, tmp_path):
    some = Embeddings.load(folder).test
    some.save(tmp_path / "test")
    loaded = Embeddings.load(tmp_path / "test", verify=True)
    assert torch.equal(loaded.images, some.images)
    assert torch.equal(loaded.texts, some.texts)
    assert loaded.manifest["encoder_fingerprint"] == "f" * 16
    assert loaded.manifest["images"] == len(some) == 1


def test_a_part_saved_by_hand_does_not_pass_for_the_whole(folder, tmp_path):
    Embeddings.load(folder).select([1, 0]).save(tmp_path / "part")
    with pytest.raises(ArtefactError, match="a collection whose ids, splits and captions hash to None and this run"):
        embed(FakeEncoder(limit=99), make_collection(8), tmp_path / "part")
    Embeddings.load(folder).save(tmp_path / "whole")
    encoder = FakeEncoder(limit=99)
    assert len(embed(encoder, make_collection(8), tmp_path / "whole")) == 8
    assert encoder.images == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_vectors_stay_on_disk_also_after_a_split(folder):
    embeddings = Embeddings.load(folder)

    def mapped(tensor):
        address = tensor.data_ptr()
        for line in Path("/proc/self/maps").read_text().splitlines():
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if first <= address < last:
                return line.endswith(".npy")
        return False

    assert mapped(embeddings.images)
    assert mapped(embeddings.texts)
    front = embeddings.select(range(4))
    assert mapped(front.images)
    assert mapped(front.texts)
    assert not mapped(embeddings.select([3, 1]).images)


def test_writing_to_loaded_vectors_does_not_touch_the_file(folder):
    before = (folder / "images.npy").read_bytes()
    Embeddings.load(folder).images.zero_()
    assert (folder / "images.npy").read_bytes() == before


def cut(name, count):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - count)


def lengthen(folder):
    with open(folder / "texts.npy", "ab") as handle:
        handle.write(b"12")


def change_manifest(**changes):
    def change(folder):
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return change


def another_table(folder):
    Embeddings.from_arrays(torch.ones(2, 2), torch.ones(1, 2), [0]).save(folder.parent / "other")
    shutil.copy(folder.parent / "other" / "meta-images.parquet", folder)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut("images.npy", 1), r"images\.npy is torn or of another shape than its manifest says; make the embeddings"),
        (cut("texts.npy", 4), r"texts\.npy is torn or of another shape than its manifest says; make the embeddings"),
        (lengthen, r"texts\.npy is torn or of another shape than its manifest says; make the embeddings again\."),
        (lambda f: (f / "texts.npy").unlink(), r"texts\.npy cannot be read \(No such file or directory\); make the"),
        (cut("meta-texts.parquet", 9), r"meta-texts\.parquet is missing or torn \(.*\); make the embeddings again\."),
        (lambda f: (f / "meta-images.parquet").unlink(), r"meta-images\.parquet is missing or torn"),
        (cut("manifest.json", 20), r"manifest\.json cannot be read \(.*\); make the embeddings again\."),
        (lambda f: (f / MANIFEST).unlink(), r"is no boresight embeddings: it has no manifest\.json; check the path\."),
        (change_manifest(kind="sae"), r"kind 'sae', not 'embeddings'; give another folder\."),
        (
            change_manifest(format=99),
            r"written in format 99 and this version reads 2; make it again by the command that wrote it\.",
        ),
        (change_manifest(files={}), r"manifest\.json lacks 'images\.npy'; make the embeddings again\."),
        (another_table, r"The files of .* do not belong together; make the embeddings again\."),
    ],
)
def test_nothing_torn_is_read(damage, sentence, folder):
    damage(folder)
    with pytest.raises(ArtefactError, match=sentence):
        Embeddings.load(folder)


@pytest.mark.parametrize("name", ["images.npy", "texts.npy"])
def test_verify_names_the_altered_rows(name, folder):
    with open(folder / name, "r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        last = handle.read(1)
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([last[0] ^ 1]))
    Embeddings.load(folder)
    with pytest.raises(ArtefactError, match=rf"Rows \d+ to \d+ of .*{name} were altered; make the embeddings again\."):
        Embeddings.load(folder, verify=True)


def test_a_save_that_fails_leaves_what_was_there(folder, monkeypatch):
    before = Embeddings.load(folder)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "write_meta", full)
    with pytest.raises(ArtefactError, match=r"Cannot write .* \(No space left on device\); free space or choose"):
        before.test.save(folder)
    assert torch.equal(Embeddings.load(folder, verify=True).images, before.images)
    assert [file.name for file in folder.parent.iterdir()] == ["e"]


def test_saving_over_the_folder_one_reads_from(folder):
    loaded = Embeddings.load(folder)
    copy = loaded.images.clone()
    loaded.save(folder)
    assert torch.equal(Embeddings.load(folder, verify=True).images, copy)
    assert torch.equal(loaded.images, copy)


def test_an_embed_into_a_folder_that_was_saved_by_hand_is_refused(tmp_path):
    Embeddings.from_arrays(torch.ones(2, 2), torch.ones(1, 2), [0]).save(tmp_path / "e")
    with pytest.raises(ArtefactError, match="was made with an encoder of fingerprint None and this run has ffff"):
        embed(FakeEncoder(), make_collection(3), tmp_path / "e")


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(1, 4096), st.sampled_from(["float16", "int32"]))
def test_the_header_can_be_filled_in_later(some, more, width, dtype):
    assert len(header(some, width, dtype)) == len(header(more, width, dtype))


def test_row_files_are_plain_npy(tmp_path):
    import numpy as np

    rows = torch.randn(7, 3)
    with RowFile(tmp_path / "x.npy", 3, "float32") as file:
        file.append(rows[:4])
        file.append(rows[4:4])
        file.append(rows[4:])
        assert np.load(tmp_path / "x.npy").shape == (0, 3)
        file.seal()
        file.finish()
    assert np.array_equal(np.load(tmp_path / "x.npy", mmap_mode="r"), rows.numpy())
