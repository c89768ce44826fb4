"""Explanations of a table: what is left on disk, going on after a stop, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from boresight.attribution import explain
from boresight.attribution.batch import explain_csv
from boresight.encoders import load_encoder
from boresight.errors import ArtefactError, InputError
from tiny_encoders import pictures, save_tiny


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory):
    return load_encoder(save_tiny("clip", tmp_path_factory.mktemp("encoder") / "clip"), dtype="float32")


def table(folder: Path, rows: list[tuple[str, str]]) -> Path:
    file = folder / "pairs.csv"
    with open(file, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerows([("caption", "image"), *((caption, image) for image, caption in rows)])
    return file


def test_csv(encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, picture in enumerate(pictures(5)):
        picture.save(tmp_path / f"{place}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [(f"{place}.png", f"star number {place}") for place in range(5)]
    file = table(tmp_path, [*rows, ("broken.png", "a star"), ("0.png", " ")])
    out = tmp_path / "out"
    calls: list[int] = []

    def stopping(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return explain(*arguments, **options)

    monkeypatch.setattr("boresight.attribution.batch.explain", stopping)
    with pytest.raises(KeyboardInterrupt):
        explain_csv(encoder, file, out, batch_size=2)
    assert len(list(out.glob("*.npz"))) == 2
    first = (out / "000000.npz").stat().st_mtime_ns
    monkeypatch.undo()
    assert explain_csv(encoder, file, out, batch_size=2) == 5
    assert (out / "000000.npz").stat().st_mtime_ns == first
    assert len(list(out.glob("*.png"))) == 5
    whole = explain(encoder, tmp_path / "3.png", "star number 3")
    with np.load(out / "000003.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["image"], whole.image[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(arrays["text"], whole.text[0], rtol=1e-3, atol=1e-3)
        assert arrays["words"].tolist() == ["star", "number", "3"]
        assert arrays["tokens"].tolist() == whole.tokens[0]
    with open(out / "explanations.csv", encoding="utf-8", newline="") as handle:
        summary = list(csv.DictReader(handle))
    assert [row["problem"] == "" for row in summary] == [True] * 5 + [False] * 2
    assert "broken.png" in summary[5]["problem"]
    assert "empty" in summary[6]["problem"]
    with pytest.raises(ArtefactError, match=r"was made with the options .* and this run has .*occlusion"):
        explain_csv(encoder, file, out, method="occlusion")
    assert json.loads((out / "journal.jsonl").read_text().splitlines()[0])["encoder"] == "clip"


def test_csv_bad_input(encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.csv cannot be read"):
        explain_csv(encoder, tmp_path / "nowhere.csv", tmp_path / "out")
    with pytest.raises(InputError, match="no rows"):
        explain_csv(encoder, table(tmp_path, []), tmp_path / "out")
    (tmp_path / "other.csv").write_text("picture,caption\n1,2\n")
    with pytest.raises(InputError, match="no column 'image'"):
        explain_csv(encoder, tmp_path / "other.csv", tmp_path / "out")
    with pytest.raises(InputError, match="No row of"):
        explain_csv(encoder, table(tmp_path, [("no.png", "a")]), tmp_path / "out")
    pictures(1)[0].save(tmp_path / "a.png")
    with pytest.raises(InputError, match="no option 'stepz'"):
        explain_csv(encoder, table(tmp_path, [("a.png", "a")]), tmp_path / "out", stepz=3)
    assert explain_csv(encoder, table(tmp_path, [("a.png", "a")]), tmp_path / "out", steps=3) == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="did not write"):
        explain_csv(encoder, table(tmp_path, [("no.png", "a")]), tmp_path / "full")


def test_the_folder_of_pictures_going_away_stops_the_run_and_it_goes_on(
    encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for place, picture in enumerate(pictures(4)):
        picture.save(photos / f"{place}.png")
    file = table(tmp_path, [(f"photos/{place}.png", f"star number {place}") for place in range(4)])
    calls: list[int] = []

    def unmounted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            photos.rename(tmp_path / "elsewhere")
        return explain(*arguments, **options)

    monkeypatch.setattr("boresight.attribution.batch.explain", unmounted)
    with pytest.raises(ArtefactError, match=r"2\.png.* cannot be read now: .*photos is gone or empty"):
        explain_csv(encoder, file, out, batch_size=2, figures=False)
    assert f"Stopped: 2 of 4 rows are safe in {out}; run the same to go on." in capsys.readouterr().err
    assert not (out / "explanations.csv").exists()
    (tmp_path / "elsewhere").rename(photos)
    assert explain_csv(encoder, file, out, batch_size=2, figures=False) == 4
    (photos / "3.png").unlink()  # a file that went alone is its row's fault
    assert explain_csv(encoder, file, tmp_path / "again", batch_size=2, figures=False) == 3
