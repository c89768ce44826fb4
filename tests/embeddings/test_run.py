"""The embedding run: right, resumable after any interruption, and clear about what it refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from boresight import storage
from boresight.data import Collection, Problem
from boresight.embeddings import Embeddings, embed, store
from boresight.embeddings.rowfile import RowFile
from boresight.encoders import load_encoder
from boresight.errors import ArtefactError, InputError
from boresight.prefetch import ahead
from boresight.runs import JOURNAL, Run
from boresight.storage import MANIFEST
from fake_encoder import FEATURES, FakeEncoder, make_collection, picture
from tiny_encoders import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.* longer than the")
TESTS = Path(__file__).parents[1] / "support"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "BORESIGHT_QUIET": "1"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


def assert_same(one: Embeddings, other: Embeddings) -> None:
    for name in ("images", "texts", "owners"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert torch.equal(mine, theirs), name
    for name in ("ids", "captions", "splits", "name"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_everything_the_collection_says_survives(workers, tmp_path):
    collection, encoder = make_collection(23), FakeEncoder()
    got = embed(encoder, collection, tmp_path / "e", batch_size=4, workers=workers, dtype="float32", part_size=9)
    assert got.ids == collection.ids
    assert got.captions == collection.texts
    assert got.splits == collection.splits
    assert got.owners.tolist() == collection.owners.tolist()
    assert got.name == "numbers"
    assert encoder.images == list(range(23))
    pixels = [encoder.preprocess(collection.image(row)) for row in range(23)]
    assert torch.equal(got.images, encoder.embed_images(pixels))
    assert torch.equal(got.texts, encoder.embed_texts(collection.texts))
    assert got.test.ids == [f"id-{i} é" for i in (4, 9, 14, 19)]
    said = got.manifest
    assert said["kind"] == "embeddings"
    assert (said["encoder"], said["encoder_fingerprint"], said["unit_length"]) == ("fake", "f" * 16, True)
    assert (said["images"], said["texts"], said["width"], said["dtype"]) == (23, 22, 6, "float32")
    assert said["created_from"] == {"collection": "numbers", "images": 23}
    assert said["problems"] == []
    assert said["computed_in"] == "float32"
    files = {"images.npy", "texts.npy", "meta-images.parquet", "meta-texts.parquet", "manifest.json"}
    assert {file.name for file in (tmp_path / "e").iterdir()} == files


def test_half_precision_is_the_default_and_neither_part_size_nor_workers_matter(tmp_path):
    runs = [
        embed(FakeEncoder(), make_collection(17), tmp_path / str(size), batch_size=3, workers=size % 3, part_size=size)
        for size in (1, 2, 5, 100)
    ]
    assert runs[0].images.dtype == runs[0].texts.dtype == torch.float16
    for other in runs[1:]:
        assert_same(runs[0], other)


def test_without_a_folder_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    got = embed(FakeEncoder(), make_collection(7))
    assert list(tmp_path.iterdir()) == []
    assert_same(got, embed(FakeEncoder(), make_collection(7), tmp_path / "e"))


def test_captions_that_were_cut_are_counted(tmp_path):
    collection, encoder = make_collection(20), FakeEncoder()
    with pytest.warns(UserWarning, match="longer than the"):
        got = embed(encoder, collection, tmp_path / "e", batch_size=2, part_size=8)
    long = sum(len(text) > encoder.token_limit for text in collection.texts)
    assert got.manifest["truncated_captions"] == long > 0


def test_a_real_encoder(tmp_path):
    encoder = load_encoder(save_tiny("clip", tmp_path / "clip"), device="cpu", dtype="float32")
    collection = make_collection(6, captions=lambda i: [f"no {i}", "a picture"][: i % 3])
    got = embed(encoder, collection, tmp_path / "e", dtype="float32", batch_size=2)
    images = [collection.image(row) for row in range(6)]
    torch.testing.assert_close(got.images, encoder.embed_images(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.texts, encoder.embed_texts(collection.texts), atol=1e-5, rtol=0)
    assert got.manifest["encoder_fingerprint"] == encoder.fingerprint


def test_a_caption_that_a_real_encoder_cuts_counts_once(tmp_path):
    encoder = load_encoder(save_tiny("clip", tmp_path / "clip"), device="cpu", dtype="float32")
    with pytest.warns(UserWarning, match="2 of these 4 captions were longer"):
        got = embed(encoder, make_collection(2, captions=lambda i: ["long " * 9, "a"]))
    assert got.manifest["truncated_captions"] == 2


@pytest.mark.parametrize("captions", [lambda i: [], lambda i: ["only one"] if i == 3 else []])
def test_images_without_captions(captions, tmp_path):
    got = embed(FakeEncoder(), make_collection(5, captions=captions), tmp_path / "e")
    assert got.images.shape == (5, 6)
    assert got.texts.shape == (sum(len(captions(i)) for i in range(5)), 6)
    assert len(got.select([1, 2]).texts) == 0


def test_corrupt_images_are_left_out_with_their_captions_and_named(tmp_path):
    collection = make_collection(12, corrupt=[0, 5, 11])
    got = embed(FakeEncoder(), collection, tmp_path / "e", batch_size=2, part_size=4, dtype="float32")
    kept = [i for i in range(12) if i not in (0, 5, 11)]
    whole = embed(FakeEncoder(), make_collection(12), dtype="float32").select(kept)
    assert_same(got, whole)
    problems = got.manifest["problems"]
    assert [problem["id"] for problem in problems] == ["id-0 é", "id-5 é", "id-11 é"]
    assert "image 'id-5 é'" in problems[1]["problem"]


def test_corrupt_images_can_be_refused_and_good_ones_before_them_stay(tmp_path):
    encoder = FakeEncoder()
    with pytest.raises(InputError, match=r"image 'id-5 é' .* drop or replace it"):
        embed(encoder, make_collection(12, corrupt=[5]), tmp_path / "e", on_error="refuse", part_size=4, batch_size=2)
    encoder.images.clear()
    embed(encoder, make_collection(12, corrupt=[5]), tmp_path / "e", on_error="skip", part_size=4, batch_size=2)
    assert encoder.images == [4, 6, 7, 8, 9, 10, 11]


def test_a_begun_run_that_skipped_does_not_go_on_refusing(tmp_path):
    encoder = FakeEncoder()
    encoder.before_images = lambda: 8 in encoder.images and interrupt()
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, make_collection(12, corrupt=[5]), tmp_path / "e", part_size=3, batch_size=1)
    with pytest.raises(InputError, match=r"was made with on_error='skip' and left images out: The picture of image"):
        embed(encoder, make_collection(12, corrupt=[5]), tmp_path / "e", part_size=3, on_error="refuse")
    embed(FakeEncoder(), make_collection(12, corrupt=[5]), tmp_path / "e", part_size=3)
    with pytest.raises(InputError, match=r"was made with on_error='skip' .* Mend the pictures and delete"):
        embed(FakeEncoder(), make_collection(12, corrupt=[5]), tmp_path / "e", on_error="refuse")


def interrupt():
    raise KeyboardInterrupt


def test_no_readable_image_at_all(tmp_path):
    with pytest.raises(InputError, match=r"None of the 3 images could be read, the first because: .* start again\."):
        embed(FakeEncoder(), make_collection(3, corrupt=[0, 1, 2]), tmp_path / "e")


def test_a_picture_that_breaks_preprocessing_is_a_problem_of_that_picture(tmp_path):
    encoder = FakeEncoder()
    usual = encoder.preprocess

    def preprocess(image):
        if (number := usual(image)) == 2:
            raise ValueError("cannot guess the channels")
        return number

    encoder.preprocess = preprocess
    got = embed(encoder, make_collection(4), tmp_path / "e")
    assert got.manifest["problems"] == [
        {
            "id": "id-2 é",
            "problem": "The picture of image 'id-2 é' cannot be preprocessed (cannot guess the channels); "
            "drop or replace it.",
        }
    ]


class Killed(BaseException):
    pass


def test_stopped_before_any_write_it_goes_on_and_computes_no_finished_part_again(tmp_path, monkeypatch):
    """Every step that touches the disk is a place to die; the run is restarted until it ends."""
    collection = make_collection(6, corrupt=[4])
    options = {"part_size": 3, "batch_size": 1, "workers": 0}
    whole = embed(FakeEncoder(), collection, tmp_path / "whole", **options)
    steps, deadly = 0, 0
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # this process's death loses nothing it has written

    def mortal(function):
        def step(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == deadly:
                raise Killed
            return function(*args, **kwargs)

        return step

    for owner, name in (
        (RowFile, "append"), (RowFile, "seal"), (RowFile, "finish"), (Run, "_write"), (Run, "finish"),
        (store, "write_meta"), (store, "write_manifest"), (store, "write_json"), (storage, "sync"), (os, "fsync"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    deaths = 0
    while True:
        deadly += 1
        steps = 0
        folder, encoder = tmp_path / str(deadly), FakeEncoder()
        try:
            embed(encoder, collection, folder, **options)
        except Killed:
            deaths += 1
        else:
            break
        if not (folder / MANIFEST).exists():
            with pytest.raises(ArtefactError, match=r"holds an unfinished embedding run; run the same embed|it has no"):
                Embeddings.load(folder)
        lines = (folder / JOURNAL).read_bytes().splitlines() if (folder / JOURNAL).exists() else []
        finished = json.loads(lines[-1])["stop"] if len(lines) > 1 else 0
        complete = (folder / MANIFEST).exists()
        deadly, kept = 0, deadly
        encoder.images.clear()
        again = embed(encoder, collection, folder, **options)
        deadly = kept
        assert encoder.images == ([] if complete else [i for i in range(finished, 6) if i != 4])
        assert_same(again, whole)
        assert Embeddings.load(folder, verify=True).manifest == again.manifest
        assert sorted(f.name for f in folder.iterdir()) == sorted(f.name for f in (tmp_path / "whole").iterdir())
    assert deaths > 35


def test_a_torn_journal_line_is_dropped(tmp_path):
    encoder = FakeEncoder()
    encoder.before_images = lambda: len(encoder.images) >= 6 and interrupt()
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, make_collection(10), tmp_path / "e", part_size=2, batch_size=2)
    journal = tmp_path / "e" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-9])
    encoder.images.clear()
    encoder.before_images = lambda: None
    got = embed(encoder, make_collection(10), tmp_path / "e", part_size=2, batch_size=2)
    assert encoder.images == list(range(4, 10))
    assert_same(got, embed(FakeEncoder(), make_collection(10)))


def test_rows_lost_from_a_begun_run_are_noticed(tmp_path):
    encoder = FakeEncoder()
    encoder.before_images = lambda: len(encoder.images) >= 6 and interrupt()
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, make_collection(10), tmp_path / "e", part_size=2, batch_size=2)
    os.truncate(tmp_path / "e" / "images.npy", 140)
    with pytest.raises(ArtefactError, match=r"images\.npy has lost rows that were finished; delete its folder"):
        embed(encoder, make_collection(10), tmp_path / "e")


SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from fake_encoder import FakeEncoder, make_collection
from boresight.embeddings import embed
class Slow(FakeEncoder):
    def embed_images(self, images):
        time.sleep(0.02)
        with open({log!r}, "a") as log:
            log.write("".join(f"{{int(image.item())}}\\n" for image in images))
        return super().embed_images(images)
for _ in range(2):  # a process forked from this one, which spares the imports
    if not (child := os.fork()):
        embed(Slow(), make_collection(120), {folder!r}, batch_size=2, part_size=10)
        os._exit(0)
    print(child, flush=True)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended on its own"
    print("killed", flush=True)
    sys.stdin.readline()
"""


def test_killed_for_good_twice(tmp_path):
    folder, log = tmp_path / "e", tmp_path / "log"
    script = SCRIPT.format(tests=str(TESTS), log=str(log), folder=str(folder))
    finished = 0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], env=ONE_THREAD, **pipes) as parent:
        for _ in range(2):
            child = int(parent.stdout.readline())
            while stop_of(folder) < finished + 30:
                time.sleep(0.005)
                assert parent.poll() is None
            os.kill(child, signal.SIGKILL)
            assert parent.stdout.readline() == "killed\n"
            with pytest.raises(ArtefactError, match="unfinished embedding run"):
                Embeddings.load(folder)
            finished = stop_of(folder)
            assert finished < 120
            before = log.read_text().split()
            print(file=parent.stdin, flush=True)
    encoder = FakeEncoder()
    got = embed(encoder, make_collection(120), folder, batch_size=2, part_size=10)
    assert encoder.images == list(range(finished, 120))
    assert len(before) - len(set(before)) <= 10  # only the part that was under way was begun twice
    assert_same(got, embed(FakeEncoder(), make_collection(120)))


def stop_of(folder):
    try:
        lines = (folder / JOURNAL).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["stop"] if len(lines) > 1 else 0


MEMORY = """
import resource, sys, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from fake_encoder import FakeEncoder, one_picture_collection
from boresight.embeddings import embed
class Wide(FakeEncoder):
    def _vector(self, number, vector=torch.full((8192,), 2**-6.5)):
        return vector
peaks = []
for count in (200, 1500):
    embed(Wide(8192), one_picture_collection(count, Path({file!r})), {folder!r} + str(count), part_size=100)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_collection(tmp_path):
    (tmp_path / "one.png").write_bytes(picture(1))
    script = MEMORY.format(tests=str(TESTS), file=str(tmp_path / "one.png"), folder=str(tmp_path / "e"))
    done = subprocess.run([sys.executable, "-c", script], env=ONE_THREAD, capture_output=True, text=True, check=True)
    stored = sum(file.stat().st_size for file in (tmp_path / "e1500").iterdir()) / 2**20
    assert stored > 55
    assert float(done.stdout) < 20  # MiB


def test_a_complete_folder_is_not_computed_again(tmp_path):
    embed(FakeEncoder(), make_collection(5), tmp_path / "e")
    encoder = FakeEncoder()
    embed(encoder, make_collection(5), tmp_path / "e")
    assert encoder.images == encoder.texts == []


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("encoder", "collection", "options", "sentence"),
    [
        ({"fingerprint": "0" * 16}, {}, {}, r"made with an encoder of fingerprint ffff\w+ and this run has 0000"),
        ({}, {"captions": lambda i: ["other"]}, {}, r"a collection whose ids, splits and captions hash to \w+ and"),
        ({}, {}, {"dtype": "float32"}, r"made with dtype float16 and this run has float32; choose another folder, or"),
    ],
)  # fmt: skip
def test_a_folder_made_from_something_else_is_refused(finished, encoder, collection, options, sentence, tmp_path):
    first = FakeEncoder()
    if finished:
        embed(first, make_collection(5), tmp_path / "e")
    else:
        first.before_images = lambda: first.images and interrupt()
        with pytest.raises(KeyboardInterrupt):
            embed(first, make_collection(5), tmp_path / "e", part_size=1)
    with pytest.raises(ArtefactError, match=sentence):
        embed(FakeEncoder(**encoder), make_collection(5, **collection), tmp_path / "e", **options)


def test_another_precision_of_the_encoder_is_refused(tmp_path):
    embed(FakeEncoder(), make_collection(3), tmp_path / "e")
    encoder = FakeEncoder()
    encoder.dtype = torch.bfloat16
    with pytest.raises(ArtefactError, match="made with an encoder computing in float32 and this run has bfloat16"):
        embed(encoder, make_collection(3), tmp_path / "e")


def test_two_runs_do_not_write_one_folder(tmp_path):
    encoder = FakeEncoder()
    second = []

    def meanwhile():
        if not second:
            second.append(1)
            with pytest.raises(
                ArtefactError, match=r"Another run is writing .*; wait for it to end, or choose another"
            ):
                embed(FakeEncoder(), make_collection(5), tmp_path / "e")

    encoder.before_images = meanwhile
    embed(encoder, make_collection(5), tmp_path / "e")
    assert second


def test_ctrl_c_says_what_is_safe(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("BORESIGHT_QUIET")
    encoder = FakeEncoder()
    encoder.before_images = lambda: len(encoder.images) >= 4 and interrupt()
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, make_collection(9), tmp_path / "e", part_size=2, batch_size=2)
    assert f"Stopped: 4 of 9 images are safe in {tmp_path / 'e'}; run the same to go on." in capsys.readouterr().err


def test_progress_counts_images_and_the_end_tells_what_was_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("BORESIGHT_QUIET")
    with pytest.warns(UserWarning, match="longer than the"):
        embed(FakeEncoder(limit=3), make_collection(4, corrupt=[3]), tmp_path / "e")
    err = capsys.readouterr().err
    assert "4/4" in err
    assert "images/s" in err
    assert "1 of 4 images could not be read and were left out" in err
    assert "3 of 3 captions were longer than fake reads" in err


@pytest.mark.parametrize("moment", [0, 3, 7])
def test_a_full_disk_keeps_the_finished_parts(moment, tmp_path, monkeypatch):
    whole = embed(FakeEncoder(), make_collection(9))
    usual, left = RowFile.append, [moment]

    def append(self, rows):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        usual(self, rows)

    monkeypatch.setattr(RowFile, "append", append)
    sentence = r"Cannot write .* \(No space left on device\); what was finished is kept: free space"
    with pytest.raises(ArtefactError, match=sentence):
        embed(FakeEncoder(), make_collection(9), tmp_path / "e", part_size=2, batch_size=1)
    monkeypatch.setattr(RowFile, "append", usual)
    encoder = FakeEncoder()
    finished = stop_of(tmp_path / "e")
    assert_same(embed(encoder, make_collection(9), tmp_path / "e", part_size=2, batch_size=1), whole)
    assert encoder.images == list(range(finished, 9))


@pytest.mark.parametrize("size", [100, 700])
def test_a_file_that_may_not_grow_gets_the_same_sentence(size, tmp_path):
    """What could not be written is still in a buffer when the file is closed, and fails there once more."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        with pytest.raises(ArtefactError, match=r"Cannot write .* \(File too large\); what was finished is kept"):
            embed(FakeEncoder(64), make_collection(9), tmp_path / "e")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(embed(FakeEncoder(64), make_collection(9), tmp_path / "e")) == 9


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match=r"Cannot write .*file/e \(Not a directory\)"):
        embed(FakeEncoder(), make_collection(2), tmp_path / "file" / "e")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ArtefactError, match=r"mine holds files that boresight did not write; choose an empty or"):
        embed(FakeEncoder(), make_collection(2), tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1."),
        ({"part_size": 0}, "part_size is 0; it must be at least 1."),
        ({"workers": -1}, "workers is -1; it must be at least 0."),
        ({"on_error": "ignore"}, "on_error must be 'skip' or 'refuse'"),
        ({"dtype": "int8"}, "dtype 'float16' or 'float32'; check the spelling."),
    ],
)
def test_unknown_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        embed(FakeEncoder(), make_collection(2), **options)


def test_an_empty_collection():
    with pytest.raises(InputError, match="The collection numbers is empty; there is nothing to embed"):
        embed(FakeEncoder(), make_collection(0))


def test_reading_ahead_keeps_the_order_and_stays_bounded():
    begun = []

    def slow(row):
        begun.append(row)
        time.sleep(0.002 * (row % 3))
        return torch.tensor(row)

    for row, value in enumerate(ahead(slow, range(50), workers=3, depth=8)):
        assert value == row
        assert len(begun) <= row + 8


@pytest.mark.parametrize("workers", [0, 3])
def test_pictures_that_go_away_stop_the_run_which_goes_on_when_they_are_back(workers, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET")
    (tmp_path / "photos").mkdir()
    for number in range(40):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(number))
    rows = {
        "id": [str(number) for number in range(40)],
        "image": [{"bytes": None, "path": str(tmp_path / "photos" / f"{number}.png")} for number in range(40)],
        "captions": [[f"picture {number}"] for number in range(40)],
        "split": ["train"] * 40,
    }
    collection, encoder = Collection(Dataset.from_dict(rows, features=FEATURES), "photos"), FakeEncoder()
    whole = embed(FakeEncoder(), collection, dtype="float32")

    def drop():
        if len(encoder.images) == 6 and (tmp_path / "photos").is_dir():
            (tmp_path / "photos").rename(tmp_path / "elsewhere")

    encoder.before_images = drop
    options = {"batch_size": 2, "part_size": 3, "workers": workers, "dtype": "float32"}
    with pytest.raises(ArtefactError, match=r"photos is gone or empty\); bring it back, then run the same again"):
        embed(encoder, collection, tmp_path / "e", **options)
    safe = re.search(r"Stopped: (\d+) of 40 images are safe", capsys.readouterr().err)
    assert 0 < int(safe[1]) < 40
    (tmp_path / "elsewhere").rename(tmp_path / "photos")
    got = embed(FakeEncoder(), collection, tmp_path / "e", **options)
    assert_same(got, whole)
    assert got.left_out == {}


def test_what_is_left_out_is_counted_by_split_and_said_again(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET")
    problems = [Problem("missing file", "a.png"), Problem("missing file", "b.png"), Problem("empty caption", "row 3")]
    collection = replace(make_collection(12, corrupt=[0, 4, 5]), problems=problems)
    got = embed(FakeEncoder(), collection, tmp_path / "e", part_size=5)
    earlier = {"missing file, in all splits": 2, "empty caption, in all splits": 1}
    assert got.left_out == {"unreadable picture": 3, **earlier}
    assert got.test.left_out == {"unreadable picture": 1, **earlier}
    got.test.save(tmp_path / "part")
    assert Embeddings.load(tmp_path / "part").left_out == got.test.left_out
    capsys.readouterr()
    embed(FakeEncoder(), collection, tmp_path / "e", part_size=5)
    assert "nothing was computed. Left out: 3 x unreadable picture; 2 x missing file, in" in capsys.readouterr().err


def test_a_folder_or_a_list_of_pictures_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in (3, 5):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(number))
    encoder = FakeEncoder()
    got = embed(encoder, tmp_path / "photos", tmp_path / "e")
    assert (got.ids, encoder.images) == (["3.png", "5.png"], [3, 5])
    assert (tuple(got.texts.shape), got.captions) == ((0, 6), [])
    assert torch.equal(embed(encoder, [tmp_path / "photos" / "5.png"]).images, got.images[1:])
