"""The shared pieces at the root: artefacts, errors, seeds, progress, device."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from boresight.device import pick_device
from boresight.errors import ArtefactError, BoresightError, InputError, first_line, one_of
from boresight.progress import progress, say
from boresight.seeds import generator
from boresight.storage import (
    MANIFEST,
    TENSORS,
    fingerprint,
    load_artefact,
    put_back,
    read_manifest,
    replacing_folder,
    save_artefact,
)


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 2), value), "steps": torch.tensor(7)}


def only_child(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_an_artefact_comes_back_as_it_was(tmp_path: Path) -> None:
    given = {
        "half": torch.randn(4, dtype=torch.float16),
        "brain": torch.randn(2, 2).to(torch.bfloat16),
        "none": torch.zeros(0, 5),
        "flag": torch.tensor([True, False]),
        "view": torch.randn(4, 6)[:, ::2],
        "turned": torch.randn(3, 2).T,
    }
    save_artefact(tmp_path / "deep" / "a", "sae", given, {"k": 4, "name": "é"})
    read, manifest = load_artefact(tmp_path / "deep" / "a", "sae")
    assert read.keys() == given.keys()
    assert all(torch.equal(read[name], given[name]) and read[name].dtype == given[name].dtype for name in given)
    assert manifest["k"] == 4
    assert manifest["name"] == "é"
    assert manifest["kind"] == "sae"
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "deep" / "a").iterdir()} == {0o644}


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    weight = torch.randn(3, 2)
    save_artefact(tmp_path / "a", "model", {"one": weight, "two": weight, "part": weight[1:]}, {})
    read, _ = load_artefact(tmp_path / "a", "model")
    assert torch.equal(read["two"], weight)
    assert torch.equal(read["part"], weight[1:])


def test_a_failure_in_the_middle_keeps_the_old_artefact(tmp_path: Path) -> None:
    save_artefact(tmp_path / "a", "sae", tensors(1), {})
    with pytest.raises(TypeError):
        save_artefact(tmp_path / "a", "sae", tensors(2), {"not json": object()})
    assert torch.equal(load_artefact(tmp_path / "a", "sae")[0]["weight"], tensors(1)["weight"])
    assert only_child(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_an_interrupted_write_keeps_the_old_artefact(tmp_path: Path, stop: BaseException) -> None:
    save_artefact(tmp_path / "a", "sae", tensors(1), {})
    expected = KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else ArtefactError

    def write() -> None:
        with replacing_folder(tmp_path / "a", "sae") as staging:
            (staging / TENSORS).write_bytes(b"half")
            raise stop

    with pytest.raises(expected):
        write()
    assert torch.equal(load_artefact(tmp_path / "a", "sae")[0]["weight"], tensors(1)["weight"])
    assert only_child(tmp_path) == ["a"]


def test_what_a_kill_between_two_renames_left_is_put_back(tmp_path: Path) -> None:
    for name, value in ((".a.zyxw4321.old", 1), (".a.abcd_123.old", 2), (".b.abcd1234.old", 3), (".a.ab.old", 4)):
        save_artefact(tmp_path / name, "sae", tensors(value), {})
    now = time.time()
    for file in (tmp_path / ".a.zyxw4321.old").iterdir():
        os.utime(file, (now - 60, now - 60))
    os.utime(tmp_path / ".a.zyxw4321.old", (now - 60, now - 60))
    for name, age in ((".a.writing1", 10), (".a.aborted1", 4000), (".a.b.aborted1", 4000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / TENSORS).write_bytes(b"half")
        os.utime(tmp_path / name / TENSORS, (now - age, now - age))
        os.utime(tmp_path / name, (now - age, now - age))
    put_back(tmp_path / "a")
    assert torch.equal(load_artefact(tmp_path / "a", "sae")[0]["weight"], tensors(2)["weight"])
    assert only_child(tmp_path) == [".a.ab.old", ".a.b.aborted1", ".a.writing1", ".b.abcd1234.old", "a"]
    put_back(tmp_path / "nowhere" / "a")


def test_a_rename_that_fails_brings_the_old_artefact_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_artefact(tmp_path / "a", "sae", tensors(1), {})
    rename, calls = Path.rename, []

    def fails_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_second)
    with pytest.raises(ArtefactError, match="Input/output error"):
        save_artefact(tmp_path / "a", "sae", tensors(2), {})
    assert torch.equal(load_artefact(tmp_path / "a", "sae")[0]["weight"], tensors(1)["weight"])
    assert only_child(tmp_path) == ["a"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    with pytest.raises(ArtefactError, match=r"Cannot write .*file/a .*; free space or choose a folder"):
        save_artefact(tmp_path / "file" / "a", "sae", tensors(), {})
    with pytest.raises(ArtefactError, match="is a file, not a folder"):
        save_artefact(tmp_path / "file", "sae", tensors(), {})
    with pytest.raises(ArtefactError, match="did not write"):
        save_artefact(tmp_path / "photos", "sae", tensors(), {})
    with pytest.raises(ArtefactError, match="name too long"):
        save_artefact(tmp_path / ("n" * 300), "sae", tensors(), {})
    assert (tmp_path / "photos" / "a.jpg").read_text() == "x"


def test_only_an_artefact_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    save_artefact(tmp_path / "a", "editor", tensors(1), {})
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / MANIFEST).write_text('{"name": "a web page", "start_url": "."}')
    for name, sentence in (("a", "kind 'editor', not 'sae'"), ("web", "that boresight did not write")):
        before = (tmp_path / name / MANIFEST).read_bytes()
        with pytest.raises(ArtefactError, match=sentence):
            save_artefact(tmp_path / name, "sae", tensors(2), {})
        assert (tmp_path / name / MANIFEST).read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ArtefactError, match="Cannot write"):
        save_artefact(tmp_path / "a", "sae", tensors(), {})
    tmp_path.chmod(0o755)


def test_a_parent_refused_by_the_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("boresight.storage.tempfile.mkdtemp", refuse)
    with pytest.raises(ArtefactError, match="Permission denied"):
        save_artefact(tmp_path / "a", "sae", tensors(), {})


def test_the_current_folder_and_a_link_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save_artefact(".", "sae", tensors(1), {})
    (tmp_path / "link").symlink_to(tmp_path / "here")
    save_artefact(tmp_path / "link", "sae", tensors(2), {})
    assert (tmp_path / "link").is_symlink()
    assert torch.equal(load_artefact(tmp_path / "here", "sae")[0]["weight"], tensors(2)["weight"])


def test_torn_altered_and_foreign_artefacts_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    save_artefact(folder, "sae", tensors(), {})
    with pytest.raises(ArtefactError, match="kind 'sae', not 'editor'"):
        load_artefact(folder, "editor")
    with pytest.raises(ArtefactError, match=r"it has no manifest\.json"):
        load_artefact(tmp_path / "absent", "sae")

    manifest, data = (folder / MANIFEST).read_text(), (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[:-3])
    with pytest.raises(ArtefactError, match="torn"):
        load_artefact(folder, "sae")
    (folder / TENSORS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtefactError, match="does not match its manifest"):
        load_artefact(folder, "sae")
    (folder / TENSORS).unlink()
    with pytest.raises(ArtefactError, match=f"lacks {TENSORS}"):
        load_artefact(folder, "sae")

    (folder / TENSORS).write_bytes(data)
    for altered, sentence in (
        (manifest[: len(manifest) // 2], "cannot be read"),
        ("[]", "boresight did not write"),
        (json.dumps({**json.loads(manifest), "format": 99}), "written in format 99"),
        (json.dumps({**json.loads(manifest), "fingerprint": "0"}), "does not match its manifest"),
    ):
        (folder / MANIFEST).write_text(altered)
        with pytest.raises(ArtefactError, match=sentence):
            load_artefact(folder, "sae")


def test_the_manifest_alone_can_be_read(tmp_path: Path) -> None:
    save_artefact(tmp_path / "a", "sae", tensors(), {"k": 3})
    assert read_manifest(tmp_path / "a", "sae")["k"] == 3


def test_a_fingerprint_sees_values_names_shapes_and_types_and_not_the_order() -> None:
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(1)}
    assert fingerprint(base) == fingerprint({"b": base["b"].clone(), "a": base["a"].clone()})
    assert fingerprint(base) == fingerprint({**base, "a": base["a"].T.contiguous().T})
    changed = [
        {**base, "a": base["a"] + 1},
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "b": torch.zeros(1, dtype=torch.int32)},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({fingerprint(base), *(fingerprint(one) for one in changed)}) == 5


def test_errors_are_one_family_and_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, BoresightError)
    assert issubclass(InputError, ValueError)
    assert issubclass(ArtefactError, BoresightError)


def test_streams_and_seeds_give_independent_and_repeatable_draws() -> None:
    def draw(seed: int, stream: str) -> list[float]:
        return torch.rand(4, generator=generator(seed, stream)).tolist()

    state = torch.get_rng_state()
    assert draw(0, "a") == draw(0, "a")
    assert len({tuple(draw(seed, stream)) for seed in (0, 1, -1) for stream in ("", "a", "b")}) == 9
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_counts_and_is_silent_when_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)
    assert list(progress([1, 2], what="counting", unit="thing")) == [1, 2]
    say("a line")
    shown = capsys.readouterr()
    assert "counting" in shown.err
    assert "a line" in shown.err
    assert shown.out == ""

    assert list(progress([1, 2], what="short", unit="thing", delay=60)) == [1, 2]
    assert capsys.readouterr().err == ""

    monkeypatch.setenv("BORESIGHT_QUIET", "1")
    with progress(total=3, what="quiet", unit="thing") as bar:
        bar.update(3)
    say("nothing")
    assert capsys.readouterr().err == ""


def test_the_device_is_found_or_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cuda", "mps", "cpu")
    with pytest.raises(InputError, match="Device 'nonsense' cannot be used here"):
        pick_device("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="pass device='cpu'"):
            pick_device("cuda")


def test_the_first_line_of_an_error_says_something_and_ends_with_a_word() -> None:
    assert first_line(ValueError("\n  the file is torn.\nat byte 7")) == "the file is torn"
    assert first_line(ValueError("")) == "ValueError"
    long = first_line(ValueError("word " * 200))
    assert len(long) <= 400
    assert long.endswith("word ...")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("coco", "did you mean coco-5k or coco-1k? If not, choose one of coco-5k, coco-1k, m2ib, grad-cam"),
        ("gradcam", "did you mean grad-cam? If not, choose one of coco-5k, coco-1k, m2ib, grad-cam"),
        ("GRAD_CAM", "did you mean grad-cam? If not, choose one of coco-5k, coco-1k, m2ib, grad-cam"),
        ("mib2", "did you mean m2ib? If not, choose one of coco-5k, coco-1k, m2ib, grad-cam"),
        ("magic", "choose one of coco-5k, coco-1k, m2ib, grad-cam"),
        ("", "choose one of coco-5k, coco-1k, m2ib, grad-cam"),
    ],
)
def test_what_may_have_been_meant(value: str, meant: str) -> None:
    assert one_of(value, ["coco-5k", "coco-1k", "m2ib", "grad-cam"]) == meant
