"""Retrieval while a model is trained: which pictures it is measured on."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from PIL import Image

from boresight import load_encoder
from boresight.data import Collection
from boresight.errors import InputError
from boresight.evaluation import watch as in_training
from boresight.evaluation.watch import retrieval_watch
from tiny_encoders import save_tiny


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory):
    return load_encoder(str(save_tiny("clip", tmp_path_factory.mktemp("model"))), device="cpu", dtype="float32")


def collection(count: int, corrupt: tuple[int, ...] = ()) -> Collection:
    cells: dict[str, list] = {"id": [], "image": [], "captions": [], "split": ["validation"] * count}
    for row in range(count):
        data = io.BytesIO()
        Image.new("RGB", (9, 9), (20 * row, 0, 255 - 20 * row)).save(data, "PNG")
        cells["id"].append(str(row))
        cells["image"].append({"bytes": b"none" if row in corrupt else data.getvalue(), "path": None})
        cells["captions"].append([f"picture {row}", f"{row}"][: 1 + row % 2])
    return Collection(Dataset(pa.Table.from_pydict(cells)), "toys")


def test_so_many_pictures_are_drawn_and_unreadable_ones_left_out(
    encoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)
    measured: list[torch.Tensor] = []
    of_arrays = in_training.Embeddings.from_arrays
    monkeypatch.setattr(
        in_training.Embeddings, "from_arrays", lambda *sides: (measured.extend(sides), of_arrays(*sides))[1]
    )
    watch = retrieval_watch(collection(12, corrupt=tuple(range(0, 12, 3))), encoder, most=8, seed=1)
    told = capsys.readouterr().err
    assert "8 of the 12 pictures, drawn by seed 1." in told
    left_out = told.count("Left out of retrieval as training goes on: The picture of image")
    assert 0 < left_out <= 4
    found = watch(encoder.model)
    assert set(found) == {"T2I R@1", "T2I R@5", "I2T R@1", "I2T R@5"}
    images, texts, owners = measured
    assert len(images) == 8 - left_out == max(owners) + 1
    assert len(texts) == len(owners)


def test_all_pictures_of_a_small_split_are_measured(encoder) -> None:
    whole = retrieval_watch(collection(6), encoder)(encoder.model)
    assert retrieval_watch(collection(6), encoder, most=6)(encoder.model) == whole
    with pytest.raises(InputError, match="No picture of toys can be read; name another split"):
        retrieval_watch(collection(3, corrupt=(0, 1, 2)), encoder)
