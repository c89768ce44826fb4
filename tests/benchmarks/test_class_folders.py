"""A folder of pictures for each class, and lists of names and templates."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from boresight.benchmarks.class_folders import read_class_folders, read_lines
from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import run_benchmark
from boresight.data import Problem
from boresight.errors import InputError
from collection_files import put_pictures


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    names = ["zebra/1.png", "tabby_cat/b/2.jpg", "tabby_cat/a.png", ".cache/x.png", "loose.png"]
    put_pictures(tmp_path, names)
    (tmp_path / "tabby_cat" / "notes.txt").write_text("none")
    (tmp_path / "tabby_cat" / "phone.HEIC").write_bytes(b"")
    (tmp_path / "Empty").mkdir()
    found = read_class_folders(tmp_path)
    assert found.classes == ["Empty", "tabby cat", "zebra"]
    assert dict(zip(found.pictures.ids, found.labels.tolist(), strict=True)) == {
        "tabby_cat/a.png": 1,
        "tabby_cat/b/2.jpg": 1,
        "zebra/1.png": 2,
    }
    reds = {row_id: found.pictures.image(row).getpixel((0, 0))[0] for row, row_id in enumerate(found.pictures.ids)}
    assert reds == {"zebra/1.png": 0, "tabby_cat/b/2.jpg": 1, "tabby_cat/a.png": 2}
    assert list(found.pictures.problems) == [
        Problem("picture outside of the class folders", "loose.png"),
        Problem("class without pictures", "Empty"),
        Problem("other file", "tabby_cat/notes.txt"),
        Problem("picture of a format that is not read", "tabby_cat/phone.HEIC"),
    ]
    assert len(found.labels) == 3
    (tmp_path / "names.txt").write_text("\ufeffnothing\n a cat, striped \nzebra\n\n", encoding="utf-8")
    assert read_class_folders(tmp_path, tmp_path / "names.txt").classes == ["nothing", "a cat, striped", "zebra"]
    with pytest.raises(InputError, match="There are 2 names for the 3 class folders"):
        read_class_folders(tmp_path, ["one", "two"])


def test_numbered_folders_meet_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pictures(tmp_path, [f"{number}/a.png" for number in range(12)])
    words = [f"word {number}" for number in range(12)]
    found = read_class_folders(tmp_path, words)
    own = [f"word {Path(key).parent}" for key in found.pictures.ids]
    assert [found.classes[label] for label in found.labels] == own
    assert "class folder '0' is 'word 0', '1' is 'word 1', '2' is 'word 2', ..." in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("\n".join(["one", "", *words[2:]]))
    with pytest.raises(InputError, match=r"Name 2 in .*names.txt is empty; every class needs one"):
        read_class_folders(tmp_path, tmp_path / "names.txt")
    with pytest.raises(InputError, match=r"Name 1 in the list of classes is empty"):
        read_class_folders(tmp_path, ["", *words])
    keyed = [f"{number} word {number}" for number in reversed(range(20))]
    assert read_class_folders(tmp_path, keyed).classes == words


def test_folders_with_numbers_in_their_names(tmp_path: Path) -> None:
    put_pictures(tmp_path / "c", ["c1/a.png", "c2/a.png", "c10/a.png"])
    with pytest.raises(InputError, match=r"not clear, 'c1', 'c10', 'c2' or 'c1', 'c2', 'c10'; .* as in 'c1 a'"):
        read_class_folders(tmp_path / "c", ["a", "b", "c"])
    assert read_class_folders(tmp_path / "c", ["c1 a", "c2 b", "c10: c"]).classes == ["a", "c", "b"]

    put_pictures(tmp_path / "w", ["n01440764/a.png", "n01443537/a.png"])
    with pytest.raises(InputError, match=r"2 of the 2 class folders .* WordNet \('n01440764', 'n01443537'\)"):
        read_class_folders(tmp_path / "w")
    (tmp_path / "list.txt").write_text("n01443537 goldfish\nn01440764 tench, Tinca tinca\nn01484850 shark\n")
    assert read_class_folders(tmp_path / "w", tmp_path / "list.txt").classes == ["tench, Tinca tinca", "goldfish"]

    put_pictures(tmp_path / "t", ["cat/a.png", "dog/a.png"])
    names = ["cat in a box", "dog with a box"]
    assert read_class_folders(tmp_path / "t", names).classes == names

    put_pictures(tmp_path / "o", ["n02085620-Chihuahua/a.png", "001.Black_footed_Albatross/a.png", "7/a.png"])
    assert read_class_folders(tmp_path / "o").classes == ["Black footed Albatross", "7", "Chihuahua"]
    for place, names in (("f", ["707-320", "737-200", "A300B4"]), ("g", ["747-100", "747-200"])):
        put_pictures(tmp_path / place, [f"{name}/a.png" for name in names])
        assert read_class_folders(tmp_path / place).classes == names


def test_bad_class_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no folder .*nowhere"):
        read_class_folders(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no folder with pictures"):
        read_class_folders(tmp_path)
    put_pictures(tmp_path, ["train/cat/1.png", "val/cat/2.png"])
    with pytest.raises(InputError, match="are splits, 'train', 'val'; pass one of them"):
        read_class_folders(tmp_path)
    assert read_class_folders(tmp_path / "val").classes == ["cat"]
    os.link(tmp_path / "val/cat/2.png", os.fsencode(tmp_path / "val" / "cat") + b"/caf\xe9.png")
    found = read_class_folders(tmp_path / "val")
    assert (found.pictures.ids, len(found.labels)) == (["cat/2.png"], 1)
    assert [problem.what for problem in found.pictures.problems] == ["file name that is not Unicode"]
    with pytest.raises(InputError, match=r"names.txt cannot be read"):
        read_lines(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"names.txt is empty"):
        read_lines(tmp_path / "names.txt")


def test_lists_in_json(tmp_path: Path) -> None:
    file = tmp_path / "en_zeroshot_classification_templates.json"
    file.write_text(json.dumps(["a bad photo of a {c}.", "{c}"]))
    assert read_lines(file) == ["a bad photo of a {c}.", "{c}"]
    file.write_text(json.dumps({"imagenet1k": ["{c}"], "cars": ["a {c}"]}))
    with pytest.raises(InputError, match=r"is no list of strings but an object with 'cars', 'imagenet1k'; write those"):
        read_lines(file)


def test_zero_shot_counts_what_it_read(encoder, scenes, tmp_path: Path) -> None:
    for name in ("ring", "star", "none at all"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for row in range(4):
        scenes.image(row).save(tmp_path / "data" / ("ring", "star")[row % 2] / f"{row}.png")
    (tmp_path / "data" / "ring" / "0.png").write_bytes(b"torn")
    job = BenchmarkJob(encoder=encoder, data=tmp_path / "data", out=tmp_path / "run", workers=0)
    run = run_benchmark("zero-shot", job)
    assert run.facts["images"] == "3"
    assert run.facts["classes"] == "3, without pictures: 'none at all'"
    assert run.facts["left out"] == "1 x unreadable picture"
    assert run.data
