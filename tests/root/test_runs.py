"""Runs that go on: what made them, which parts are finished, one writer, and sentences for what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from boresight.errors import ArtefactError
from boresight.runs import JOURNAL, open_run, refuse_other_run

MADE_FROM = {"model": "m" * 4, "sizes": (1, 2), "seed": 0}


def add_parts(folder, *parts, **options):
    with open_run(folder, MADE_FROM, **options) as run:
        for part in parts:
            run.add({"row": part})
        return [part["row"] for part in run.parts]


def test_parts_are_there_again_and_lone_surrogates_too(tmp_path):
    assert add_parts(tmp_path / "new" / "folder", 0, "\udcff é") == [0, "\udcff é"]
    assert add_parts(tmp_path / "new" / "folder", 2) == [0, "\udcff é", 2]
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == [JOURNAL]


def test_a_torn_line_and_all_behind_it_is_dropped(tmp_path):
    add_parts(tmp_path, 0, 1, 2)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    for size in range(len(whole)):
        journal.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n") - 1
        assert add_parts(tmp_path) == list(range(max(kept, 0)))
        assert journal.read_bytes() == b"".join(whole.splitlines(keepends=True)[: max(kept, 0) + 1])


def test_a_finished_run_leaves_nothing_of_its_own(tmp_path):
    with open_run(tmp_path, MADE_FROM) as run:
        run.add({"row": 0})
        run.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "changes", "sentence"),
    [
        (None, {"seed": 1}, "was made with seed = 0 and this run has 1; choose another folder, or delete this one"),
        ({"model": "a model of fingerprint"}, {"model": "n"}, "made with a model of fingerprint mmmm and this run"),
        ({"model": "a model of fingerprint", "new": "new ="}, {"new": 3}, "made with new = None and this run has 3"),
    ],
)  # fmt: skip
def test_another_run_is_refused_by_what_differs(labels, changes, sentence, tmp_path):
    add_parts(tmp_path, 0)
    with pytest.raises(ArtefactError, match=sentence), open_run(tmp_path, {**MADE_FROM, **changes}, labels):
        pass
    assert add_parts(tmp_path) == [0]
    with pytest.raises(ArtefactError, match=sentence):
        refuse_other_run(tmp_path, {**MADE_FROM}, {**MADE_FROM, **changes}, labels)


def test_what_no_label_names_may_differ(tmp_path):
    add_parts(tmp_path, 0)
    with open_run(tmp_path, {**MADE_FROM, "seed": 1}, {"model": "a model"}) as run:
        assert run.parts == [{"row": 0}]


def test_starting_over_forgets_another_run_and_minds_no_other_files(tmp_path):
    (tmp_path / "photo.png").touch()
    assert add_parts(tmp_path, 0, start_over=True) == [0]
    assert add_parts(tmp_path, 1, start_over=True) == [0, 1]
    with open_run(tmp_path, {"seed": 1}, start_over=True) as run:
        assert run.parts == []
    assert json.loads((tmp_path / JOURNAL).read_text()) == {"seed": 1}


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(ArtefactError, match="holds files that boresight did not write; choose an empty or new folder"):
        add_parts(tmp_path)
    (tmp_path / "captions.jsonl").write_text("{}\n")
    with pytest.raises(ArtefactError, match=r"captions\.jsonl was not written by boresight; choose another file"):
        add_parts(tmp_path / "captions.jsonl", journal=tmp_path / "captions.jsonl.run")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["captions.jsonl", "photo.png"]


def test_a_file_has_its_journal_beside_it(tmp_path):
    file, journal = tmp_path / "captions.jsonl", tmp_path / "captions.jsonl.run"
    add_parts(file, journal=journal)
    file.write_text("{}\n")
    assert add_parts(file, 5, journal=journal) == [5]
    with (
        pytest.raises(ArtefactError, match=r"captions\.jsonl was made with seed = 0 .* choose another file, or delete"),
        open_run(file, {"seed": 2}, journal=journal),
    ):
        pass


def test_one_writer_at_a_time(tmp_path):
    with open_run(tmp_path, MADE_FROM) as run:
        with pytest.raises(ArtefactError, match=r"Another run is writing .*; wait for it to end, or choose another"):
            add_parts(tmp_path, 9)
        run.add({"row": 0})
    assert add_parts(tmp_path, 1) == [0, 1]


SCRIPT = """
import sys, time
from boresight.runs import open_run
with open_run(sys.argv[1], {"seed": 0}) as run:
    run.add({"row": 0})
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_holds_no_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    with pytest.raises(ArtefactError, match="Another run is writing"), open_run(tmp_path, {"seed": 0}):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with open_run(tmp_path, {"seed": 0}) as run:
        assert run.parts == [{"row": 0}]
    assert [file.name for file in tmp_path.iterdir()] == [JOURNAL]


def test_a_full_disk_is_told_and_the_parts_before_stay(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    with open_run(tmp_path, MADE_FROM) as run:
        run.add({"row": 0})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(ArtefactError, match=r"Cannot write .* \(No space left.*\); what was finished is kept"):
                run.add({"row": 1})
        assert run.parts == [{"row": 0}]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match=r"Cannot write .*; what was finished is kept"):
        add_parts(tmp_path / "file" / "folder")
