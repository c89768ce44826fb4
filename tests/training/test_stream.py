"""The stream of training batches: order, exact resume, damaged data, and what a batch holds."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import json
import lzma
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import GemmaTokenizer

from boresight.data import Collection, Problem, load_collection
from boresight.data.formats.tar import AMBIGUOUS, FURTHER
from boresight.errors import ArtefactError, InputError
from boresight.seeds import generator
from boresight.training import download, shards
from boresight.training.config import StreamConfig
from boresight.training.crops import augment, crop_box
from boresight.training.order import Chain
from boresight.training.shards import APART, NO_CAPTION, NO_PICTURE, TRUNCATED, Sample, open_rows, open_shards
from boresight.training.stream import CORRUPT, NO_SYNTHETIC, NO_WEB, PairStream
from boresight.training.subcaptions import sentences
from collection_files import picture, write_tar
from tiny_encoders import bert_tokenizer, clip_tokenizer, gemma_like_tokenizer

TOKENIZER = clip_tokenizer()
CONFIG = StreamConfig(batch_size=3, image_size=6, text_length=24, output_length=60, budget=16, buffer=4, seed=7)
LONG = "A red dog. A blue cat! Is it {}?"


def members(keys: Sequence[str]) -> dict[str, bytes]:
    return {
        f"{key}.{suffix}": data
        for number, key in enumerate(keys)
        for suffix, data in (
            ("png", picture((number, 0, 0))),
            ("txt", f"web {key}".encode()),
            ("syn.txt", LONG.format(key).encode()),
        )
    }


def make_shards(folder: Path, sizes: Sequence[int]) -> list[str]:
    """Shards '0.tar', '1.tar', ... of so many samples; returns the keys of all samples."""
    for shard, size in enumerate(sizes):
        write_tar(folder / f"{shard}.tar", members([f"{number:02d}" for number in range(size)]))
    return [f"{shard}/{number:02d}" for shard, size in enumerate(sizes) for number in range(size)]


def make_collection(count: int, **columns: list[Any]) -> Collection:
    cells = {
        "id": [f"{number:02d}" for number in range(count)],
        "image": [{"bytes": picture((number, 0, 0)), "path": None} for number in range(count)],
        "captions": [[f"web {number}", f"web too {number}"] for number in range(count)],
        "split": ["train"] * count,
        "long": [LONG.format(number) for number in range(count)],
    }
    return Collection(Dataset(pa.Table.from_pydict({**cells, **columns})), "toys")


def make_stream(source: Any, rank: int = 0, world: int = 1, **changes: Any) -> PairStream:
    return PairStream(source, TOKENIZER, replace(CONFIG, **changes), rank=rank, world=world)


def take(stream: PairStream, count: int) -> list[dict[str, Any]]:
    return list(islice(stream, count))


def keys_of(batches: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [batch["keys"] for batch in batches]


def all_same(ones: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> bool:
    return len(ones) == len(others) and all(map(same, ones, others))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["keys"] == other["keys"] and all(
        torch.equal(one[name], other[name]) for name in ("pixel_values", "web_ids", "syn_ids", "syn_full_ids")
    )


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    make_shards(tmp_path, [5, 2, 7, 1, 4, 6])
    broken = members(["00", "01", "02", "03", "04"])
    broken["02.png"], broken["03.png"] = b"no picture", b"neither"
    del broken["01.png"]
    write_tar(tmp_path / "6.tar", broken)
    write_tar(tmp_path / "7.tar", {})
    write_tar(tmp_path / "8.tar", members(["a", "b", "c", "d"]))
    whole = (tmp_path / "8.tar").read_bytes()
    (tmp_path / "8.tar").write_bytes(whole[: len(whole) // 4])
    return {
        "shards": open_shards(f"{tmp_path}/*.tar"),
        "rows": open_rows(make_collection(23), synthetic="long"),
        "one shard": open_shards(f"{tmp_path}/2.tar"),
    }


@pytest.mark.parametrize("which", ["shards", "rows", "one shard"])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_every_batch_equals_the_uninterrupted_run(
    sources: dict[str, Any], which: str, world: int, workers: int
) -> None:
    length = 12 if workers == 0 else 4
    batch_size = 2 if which == "one shard" else 3
    for rank in range(world) if workers == 0 else [world - 1]:
        make = functools.partial(make_stream, sources[which], rank, world, workers=workers, batch_size=batch_size)
        running = make()
        states, whole = [running.state_dict()], []
        for batch in islice(running, length + 3):
            states.append(json.loads(json.dumps(running.state_dict())))
            whole.append(batch)
        for done, state in enumerate(states[: length + 1]):
            resumed, counted = make(), make()
            resumed.load_state_dict(state)
            assert all_same(take(resumed, 2), whole[done : done + 2])
            if workers == 0 or done == 3:
                again = make()
                again.load_state_dict(resumed.state_dict())
                assert keys_of(take(again, 1)) == keys_of(whole[done + 2 : done + 3])
                counted.seek(done)
                assert keys_of(take(counted, 2)) == keys_of(whole[done : done + 2])


def test_iterating_again_goes_on_and_read_ahead_does_not_count(sources: dict[str, Any]) -> None:
    whole = keys_of(take(make_stream(sources["shards"], workers=2), 6))
    stream = make_stream(sources["shards"], workers=2)
    assert [keys_of(take(stream, 1))[0] for _ in range(6)] == whole
    assert stream.state_dict()["batches"] == 6


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    buffer=st.integers(1, 12),
    readers=st.integers(1, 4),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_pass_shows_every_sample_once_and_counting_finds_every_place(
    sizes: list[int], buffer: int, readers: int, seed: int
) -> None:
    """Against a source in memory: all readers together, buffer by buffer."""
    if not sum(sizes):
        return
    source: Any = Memory(sizes)
    shown: Counter[tuple[int, str]] = Counter()
    for reader in range(readers):
        chain = Chain(source, buffer=buffer, seed=seed, reader=reader, readers=readers)
        first = []
        for slot in chain.slots((reader, 0, 0)):
            if slot.position[0] >= 3 * chain.length + readers * chain.length:
                break
            assert isinstance(slot.item, Sample)
            shown[slot.epoch, slot.item.key] += 1
            first.append(slot)
        for done in range(0, len(first), 3):
            place = chain.seek(done)
            assert next(chain.slots(place)).item == first[done].item
            if done:
                assert next(chain.slots(first[done - 1].position)).item == first[done].item
    every = {f"{shard}/{number}" for shard, size in enumerate(sizes) for number in range(size)}
    for epoch in range(3):
        assert {key: shown[epoch, key] for key in every} == dict.fromkeys(every, 1)


class Forgetful(Chain):
    """Opens a unit anew for every buffer."""

    def _fill(self, items: Any, chain: int, into: int) -> Any:
        items.close()
        with contextlib.closing(self._items(chain, into)) as items:
            return super()._fill(items, chain, into)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    buffer=st.integers(1, 12),
    readers=st.integers(1, 3),
    resumed=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_unit_of_many_buffers_is_read_once_in_the_same_order(
    sizes: list[int], buffer: int, readers: int, resumed: int
) -> None:
    if not sum(sizes):
        return
    source: Any = Memory(sizes)
    for reader in range(readers):
        options = {"buffer": buffer, "seed": 3, "reader": reader, "readers": readers}
        expected = list(islice(Forgetful(source, **options).slots((reader, 0, 0)), 60))
        for start in (0, resumed):
            place = expected[start - 1].position if start else (reader, 0, 0)
            source.reads.clear()
            assert list(islice(Chain(source, **options).slots(place), 60 - start)) == expected[start:]
            assert all(skipped == 0 for *_, skipped in source.reads[1:])
            assert source.open == 0


class Memory:
    streamed, name, synthetic = True, "memory", None

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.open = sizes, 0
        self.reads: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, unit: int, part: int, parts: int, skip: int) -> Iterator[Sample]:
        self.reads.append((unit, part, skip))
        self.open += 1
        try:
            for number in list(range(self.sizes[unit]))[part::parts][skip:]:
                yield Sample(f"{unit}/{number}", {}, ("web",), ())
        finally:
            self.open -= 1

    def count(self, unit: int) -> int:
        return self.sizes[unit]


def test_passes_differ_and_seeds_differ(tmp_path: Path) -> None:
    every = make_shards(tmp_path, [6, 6])
    shards = open_shards(f"{tmp_path}/*.tar")
    order = [key for batch in keys_of(take(make_stream(shards, buffer=6), 8)) for key in batch]
    assert sorted(order[:12]) == sorted(order[12:]) == every
    assert order[:12] != order[12:]
    assert order != every * 2
    assert order[:3] != keys_of(take(make_stream(shards, buffer=6, seed=8), 1))[0]


def test_pictures_and_captions_do_not_depend_on_the_number_of_processes(sources: dict[str, Any]) -> None:
    shown: dict[str, set[tuple[Any, ...]]] = {}
    for world, workers in ((1, 0), (3, 0), (1, 2)):
        for rank in range(world):
            batches = take(make_stream(sources["rows"], rank, world, workers=workers), 2)
            for batch in batches:
                for row, key in enumerate(batch["keys"]):
                    cells = (batch[name][row].numpy().tobytes() for name in batch if name != "keys")
                    shown.setdefault(key, set()).add(tuple(cells))
    assert len(shown) > 12
    assert all(len(versions) == 1 for versions in shown.values())


def test_a_batch_holds_what_it_says(sources: dict[str, Any]) -> None:
    batch = take(make_stream(sources["shards"], minimum_area=1, flip=False), 1)[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items() if name != "keys"} == {
        "pixel_values": ((3, 3, 6, 6), torch.float32),
        "web_ids": ((3, 24), torch.int64),
        "syn_ids": ((3, 24), torch.int64),
        "syn_full_ids": ((3, 60), torch.int64),
    }
    for row, key in enumerate(batch["keys"]):
        number = key.split("/")[1]
        assert batch["pixel_values"][row, 0].unique().tolist() == pytest.approx([int(number) / 255 * 2 - 1])
        assert batch["web_ids"][row].tolist() == padded(f"web {number}", 24)
        assert batch["syn_full_ids"][row].tolist() == padded(LONG.format(number), 60)
        pieces = [TOKENIZER(piece, add_special_tokens=False)["input_ids"] for piece in sentences(LONG.format(number))]
        content = [token for token in batch["syn_ids"][row].tolist() if token not in TOKENIZER.all_special_ids]
        assert content in [piece[:16] for piece in pieces]


def test_captions_that_nothing_reads_are_left_out(sources: dict[str, Any]) -> None:
    whole = take(make_stream(sources["rows"]), 1)[0]
    for captions, read in (("web", "web_ids"), ("synthetic", "syn_ids")):
        batch = take(make_stream(sources["rows"], captions=captions, output_length=0), 1)[0]
        assert set(batch) == {"pixel_values", read, "keys"}
        assert torch.equal(batch[read], whole[read])
        assert batch["keys"] == whole["keys"]


def padded(text: str, length: int) -> list[int]:
    return TOKENIZER(text, max_length=length, padding="max_length", truncation=True)["input_ids"]


def test_every_web_caption_of_a_picture_is_drawn(sources: dict[str, Any]) -> None:
    seen = {
        TOKENIZER.decode(row, skip_special_tokens=True).replace(" ", "")
        for batch in take(make_stream(sources["rows"], batch_size=20), 30)
        for row in batch["web_ids"]
    }
    assert seen == {f"web{too}{number}" for too in ("", "too") for number in range(23)}


def test_truncated_shard_and_corrupt_images_are_named_and_counted(
    sources: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = make_stream(sources["shards"], buffer=100)
    batches = take(stream, 11)
    keys = {key for batch in keys_of(batches) for key in batch}
    every = {f"{shard}/{number:02d}" for shard, size in enumerate([5, 2, 7, 1, 4, 6]) for number in range(size)}
    assert keys == {*every, "6/00", "6/04", "8/a"}
    assert set(stream.problems) == {CORRUPT, NO_PICTURE, TRUNCATED}
    said = capsys.readouterr().err.splitlines()
    assert any("6/02" in line and CORRUPT in line for line in said)
    assert any(f"{tmp_path}/8.tar after 8/" in line and TRUNCATED in line for line in said)
    assert all(len(line) < 300 for line in said)


def test_a_tar_cut_anywhere_keeps_its_whole_samples(tmp_path: Path) -> None:
    write_tar(tmp_path / "whole.tar", members(["a", "b", "c"]))
    data = (tmp_path / "whole.tar").read_bytes()
    for size in range(512, 512 * 21, 200):
        file = tmp_path / "cut.tar"
        file.write_bytes(data[:size])
        items = list(open_shards(str(file)).read(0))
        samples = [item.key for item in items if isinstance(item, Sample)]
        assert samples == ["cut/a", "cut/b", "cut/c"][: len(samples)]
        assert len(samples) >= min(3, size // (512 * 6)) - 1
        assert open_shards(str(file)).count(0) == len(samples)
        cut_off = size < 512 * 19  # three samples of three members in two blocks each, then zeros
        assert [item.what for item in items if isinstance(item, Problem)] == [TRUNCATED] * cut_off
    file.write_bytes(data[: 512 * 10] + b"x" * 512 + data[512 * 11 :])  # the header of b.syn.txt
    found = list(open_shards(str(file)).read(0))
    assert [item.key if isinstance(item, Sample) else item.what for item in found] == ["cut/a", TRUNCATED]


def test_json_keys_lists_and_missing_captions(tmp_path: Path) -> None:
    info = {"alt": ["one", " two "], "recaption": "Long. Text."}
    write_tar(
        tmp_path / "s.tar",
        {
            "a.jpg": picture(format="JPEG"),
            "a.json": json.dumps(info).encode(),
            "b.json": b"{broken",
            "b.png": picture(),
            "b.recaption": b"\xef\xbb\xbfonly\nthis",
            "c.json": b'{"alt": "web", "recaption": " "}',
            "c.mask.png": picture((9, 9, 9)),
            "c.png": picture(),
            "d.png": picture(),
            "e.txt": b"no picture",
        },
    )
    found = list(open_shards(tmp_path / "s.tar", "alt", "recaption").read(0))
    assert [(one.key, one.web, one.synthetic) for one in found if isinstance(one, Sample)] == [
        ("s/a", ("one", "two"), ("Long. Text.",)),
        ("s/b", (), ("only\nthis",)),
        ("s/c", ("web",), ()),
    ]
    assert found[2].image["bytes"] == picture()  # type: ignore[union-attr]
    assert found[3:] == [Problem(NO_CAPTION, "s/d"), Problem(NO_PICTURE, "s/e")]


def test_further_pictures_and_samples_in_two_places_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reds = {name: picture((red, 0, 0)) for red, name in enumerate(["cat.png", "cat.1.png", "dog.v2.png", "dog.v3.png"])}
    members = {"cat.txt": b"a cat", "dog.txt": b"a dog", "b.png": picture(), "b.txt": b"b", "c.txt": b"c"}
    order = ["cat.png", "cat.txt", "cat.1.png", "dog.v2.png", "dog.txt", "dog.v3.png", "b.png", "c.txt", "b.txt"]
    write_tar(tmp_path / "s.tar", {name: (reds | members)[name] for name in order})
    cat, *others = open_shards(tmp_path / "s.tar", synthetic=None).read(0)
    assert isinstance(cat, Sample)
    assert (cat.web, cat.image["bytes"]) == (("a cat",), reds["cat.png"])
    assert cat.left_out == (Problem(FURTHER, "s/cat.1.png"),)
    assert others == [Problem(AMBIGUOUS, "s/dog.{v2.png,v3.png}"), Problem(NO_CAPTION, "s/b"),
                      Problem(NO_PICTURE, "s/c"), Problem(APART, "s/b")]  # fmt: skip
    stream = make_stream(open_shards(tmp_path / "s.tar", synthetic=None), batch_size=1, captions="web")
    take(stream, 1)
    assert stream.problems[FURTHER] == 1
    assert "further picture of a sample (its name ends at the first dot): s/cat.1.png" in capsys.readouterr().err


def test_a_shard_written_on_macos(tmp_path: Path) -> None:
    members = [(f"{key}.{suffix}", data) for key in "ab" for suffix, data in (("png", picture()), ("txt", b"a cup"))]
    shadowed = {name: data for whole, content in members for name, data in ((f"._{whole}", b"\0"), (whole, content))}
    write_tar(tmp_path / "s.tar", shadowed)
    samples = list(open_shards(tmp_path / "s.tar", synthetic=None).read(0))
    assert [isinstance(sample, Sample) and sample.web for sample in samples] == [("a cup",)] * 2
    assert load_collection(tmp_path / "s.tar", on_error="refuse").texts == ["a cup"] * 2


def test_a_missing_caption_is_stood_in_for_and_counted() -> None:
    long = [LONG.format(0), None, " ", LONG.format(3)]
    rows = open_rows(make_collection(4, captions=[["web 0"], ["web 1"], ["web 2"], []], long=long), synthetic="long")
    stream = make_stream(rows, batch_size=4, strategy="none")
    batch = take(stream, 1)[0]
    web, whole = ({key: row.tolist() for key, row in zip(batch["keys"], batch[name], strict=True)}
                  for name in ("web_ids", "syn_full_ids"))  # fmt: skip
    assert web["03"] == padded(LONG.format(3), 24)
    assert whole["01"] == padded("web 1", 60)
    assert whole["00"] == padded(LONG.format(0), 60)
    assert stream.problems == {NO_SYNTHETIC: 2, NO_WEB: 1}
    plain = make_stream(open_rows(make_collection(4)), batch_size=4)
    take(plain, 1)
    assert not plain.problems


def test_a_synthetic_caption_without_tokens_is_stood_in_for() -> None:
    rows = open_rows(make_collection(2, long=["\u200b"] * 2), synthetic="long")
    tokenizer = bert_tokenizer()
    batch = take(PairStream(rows, tokenizer, replace(CONFIG, batch_size=2)), 1)[0]
    assert torch.equal(batch["syn_ids"], batch["web_ids"])
    assert torch.equal(batch["syn_full_ids"][:, :24], batch["web_ids"])
    assert len(batch["web_ids"][0].unique()) > 4


@pytest.mark.parametrize("strategy", ["sub-caption", "truncate"])
def test_lower_case_is_for_the_text_tower_alone(strategy: str) -> None:
    tokenizer = gemma_like_tokenizer(GemmaTokenizer)
    rows = open_rows(make_collection(4, captions=[["A Web"]] * 4), synthetic="long")
    config = replace(CONFIG, batch_size=4, strategy=strategy)
    plain, lower = (
        take(PairStream(rows, tokenizer, replace(config, lower_case=lower)), 1)[0] for lower in (False, True)
    )
    cased, small = (tokenizer.batch_decode(batch["syn_ids"], skip_special_tokens=True) for batch in (plain, lower))
    assert small == [text.lower() for text in cased]
    assert small != cased
    assert tokenizer.batch_decode(lower["web_ids"], skip_special_tokens=True) == ["a web"] * 4
    assert torch.equal(lower["syn_full_ids"], plain["syn_full_ids"])


def test_what_stands_in_for_unusable_samples_is_cropped_otherwise_than_at_its_turn(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(data, "PNG")
    pictures = {f"{number:02d}.png": data.getvalue() for number in range(20)}
    captioned = {f"{number:02d}.txt": b"web" for number in range(1, 20, 2)}
    write_tar(tmp_path / "a.tar", dict(sorted((pictures | captioned).items())))
    batches = take(make_stream(open_shards(tmp_path / "a.tar", "txt", None), buffer=20, batch_size=4), 5)
    shown = [key for batch in keys_of(batches) for key in batch]
    assert max(Counter(shown).values()) > 1
    assert len(torch.cat([batch["pixel_values"] for batch in batches]).unique(dim=0)) == len(shown)


def test_other_captions_are_other_data(tmp_path: Path) -> None:
    make_shards(tmp_path, [2])
    shards = [open_shards(tmp_path / "0.tar", "txt", synthetic).fingerprint for synthetic in (None, "syn.txt", "json")]
    rows = [open_rows(make_collection(4), synthetic=synthetic).fingerprint for synthetic in (None, "long")]
    assert len({*shards, *rows}) == 5
    edited = [LONG.format(number if number else "else") for number in range(4)]
    assert open_rows(make_collection(4, long=edited), synthetic="long").fingerprint not in rows
    assert open_rows(make_collection(4), synthetic="long").fingerprint in rows


def test_signed_addresses_are_those_they_sign() -> None:
    signed = [open_shards(f"https://h/c//{{0000..0003}}.tar?sv=1&sig={sig}") for sig in ("a/b[", "c")]
    assert signed[0].shards == tuple(f"https://h/c//{number:04d}.tar?sv=1&sig=a/b[" for number in range(4))
    assert signed[0].labels == signed[1].labels == ["0000", "0001", "0002", "0003"]
    plain = open_shards("https://h/c//{0000..0003}.tar")
    assert signed[0].fingerprint == signed[1].fingerprint == plain.fingerprint
    assert open_shards("https://h/c/7.tar?to=https://x/y").labels == ["7"]


def test_a_misspelt_name_of_synthetic_captions_is_refused(tmp_path: Path) -> None:
    make_shards(tmp_path, [5])
    sentence = r"0\.tar has synthetic captions in 'syn'; it has 'png', 'syn\.txt', 'txt': name one of these"
    for workers in (0, 2):
        with pytest.raises(InputError, match=sentence):
            take(make_stream(open_shards(tmp_path / "0.tar", "txt", "syn"), workers=workers), 1)
    few = members(["0", "1", "2", "3", "4"])
    for number in range(4):
        few[f"{number}.json"] = json.dumps({"long": LONG} if number == 2 else {}).encode()
    write_tar(tmp_path / "few.tar", dict(sorted(few.items())))
    shards = open_shards(tmp_path / "few.tar", "txt", "long")
    assert len(take(make_stream(shards, buffer=2), 4)) == 4  # rare is not misspelt


def test_local_shards_with_less_than_a_batch_of_all_processes_are_refused(tmp_path: Path) -> None:
    make_shards(tmp_path, [3, 2])
    shards = open_shards(f"{tmp_path}/*.tar")
    shards.check_batch(5)
    with pytest.raises(InputError, match=r"A batch of 6 over all processes is more than the 5 samples of .*0\.tar"):
        shards.check_batch(6)
    shards.check_batch(2, 2)
    with pytest.raises(InputError, match=r"With 3 workers the processes read 6 samples .*has 5, .*lower workers"):
        shards.check_batch(2, 3)
    open_shards("http://localhost:1/{0..1}.tar").check_batch(100)


def test_every_picture_and_pass_has_its_own_crop() -> None:
    data = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(data, "PNG")
    images = [{"bytes": data.getvalue(), "path": None}] * 4
    batches = take(make_stream(open_rows(make_collection(4, image=images)), batch_size=4), 3)
    assert len(torch.cat([batch["pixel_values"] for batch in batches]).unique(dim=0)) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_all_empty_and_too_small_data_are_refused(tmp_path: Path, workers: int) -> None:
    nothing: list[Any] = [None] * 4
    with pytest.raises(InputError, match="No image of toys has a caption in 'captions', 'long'"):
        open_rows(make_collection(4, captions=[[]] * 4, long=nothing), synthetic="long")
    with pytest.raises(InputError, match=r"no column 'recaption'; it has 'captions', 'long'\."):
        open_rows(make_collection(4), synthetic="recaption")
    with pytest.raises(InputError, match="3 on each of 2 ranks is more than the 4 captioned images of toys"):
        make_stream(open_rows(make_collection(4)), 0, 2)
    make_stream(open_rows(make_collection(6)), 0, 2, workers=1)
    make_stream(open_rows(make_collection(6)), workers=8)
    with pytest.raises(InputError, match=r"2 workers the processes read 8 samples .* toys has 6, .*lower workers or"):
        make_stream(open_rows(make_collection(6)), 0, 2, workers=2, batch_size=2)
    make_shards(tmp_path, [2])
    write_tar(tmp_path / "void.tar", {})
    small = make_stream(open_shards(f"{tmp_path}/0.tar"), workers=workers)
    with pytest.raises(InputError, match=r"^A batch of 3 needs more than the 2 usable samples .*0\.tar; lower"):
        take(small, 1)
    mute = make_stream(open_shards(f"{tmp_path}/0.tar", "alt", None), workers=workers)
    with pytest.raises(InputError, match=r"the 0 usable samples found in .*0\.tar \(\d+ x no caption, sample skipped"):
        take(mute, 1)
    with pytest.raises(InputError, match=r"There are no samples in .*void\.tar"):
        take(make_stream(open_shards(f"{tmp_path}/void.tar"), workers=workers), 1)


def test_lengths_without_room_are_refused_before_a_picture_is_read() -> None:
    rows = open_rows(make_collection(4), synthetic="long")
    for lengths in ({"text_length": 2}, {"output_length": 2}):
        with pytest.raises(InputError, match="A length of 2 leaves no room"):
            make_stream(rows, **lengths)


def test_where_no_picture_can_be_read_the_first_is_named() -> None:
    rows = open_rows(make_collection(4, image=[{"bytes": b"none", "path": None}] * 4))
    with pytest.raises(
        InputError, match=r"\(\d+ x corrupt image skipped; the first: .*image '0\d' is .*check the pictures\."
    ):
        take(make_stream(rows), 1)


def test_damage_in_any_compression_ends_a_shard(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", members(["a", "b", "c"]))
    whole = (tmp_path / "a.tar").read_bytes()
    for name, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        data = compress(whole)
        file = tmp_path / f"a.tar.{name}"
        for place in range(0, len(data), 7):
            file.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
            for read in (lambda shards: list(shards.read(0)), lambda shards: shards.count(0)):
                with contextlib.suppress(InputError):
                    read(open_shards(file))
    for size in (0o77777777777, 2**62, 2**70, -512):
        header = tarfile.TarInfo("b.syn.txt")
        header.size = size
        file = tmp_path / "forged.tar"
        file.write_bytes(whole[: 512 * 10] + header.tobuf(tarfile.GNU_FORMAT) + whole[512 * 11 :])
        found = list(open_shards(file).read(0))
        assert [item.key if isinstance(item, Sample) else item.what for item in found] == ["forged/a", TRUNCATED]
        assert open_shards(file).count(0) == 1
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"^The shard .*empty\.tar is no tar file \(.*\); restore it, then resume\.$"):
        list(open_shards(tmp_path / "empty.tar").read(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_cannot_be_opened_is_named(tmp_path: Path, workers: int) -> None:
    make_shards(tmp_path, [3, 3])
    shards = open_shards(f"{tmp_path}/*.tar")
    (tmp_path / "1.tar").write_text("<html>no tar</html>")
    with pytest.raises(InputError, match=r"^The shard .*1\.tar is no tar file"):
        take(make_stream(shards, workers=workers), 6)
    (tmp_path / "1.tar").unlink()
    with pytest.raises(InputError, match=r"^The shard .*1\.tar cannot be opened \(.*No such file"):
        take(make_stream(shards, workers=workers), 6)
    with pytest.raises(InputError, match=r"1\.tar cannot be opened \(no such file"):
        open_shards(f"{tmp_path}/{{0..1}}.tar")
    with pytest.raises(InputError, match="No shard matches"):
        open_shards(f"{tmp_path}/x*.tar")
    with pytest.raises(InputError, match="neither a file nor an http address"):
        open_shards("s3://bucket/0.tar")
    with pytest.raises(InputError, match="no shards to read"):
        open_shards([])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path, Quiet) as found:
        yield found


def test_shards_over_http_are_those_on_disk(sources: dict[str, Any], tmp_path: Path, address: str) -> None:
    remote = open_shards(f"{address}/{{0..8}}.tar")
    local = sources["shards"]
    assert remote.labels == local.labels == list("012345678")
    assert remote.fingerprint == local.fingerprint
    here = take(make_stream(local), 8)
    there = make_stream(remote)
    assert all_same(take(there, 4), here[:4])
    again = make_stream(remote, workers=2)
    with pytest.raises(InputError, match="workers=1 and here it is 2"):
        again.load_state_dict(there.state_dict())
    again = make_stream(remote)
    again.load_state_dict(there.state_dict())
    assert all_same(take(again, 4), here[4:])
    assert [remote.count(unit) for unit in range(9)] == [local.count(unit) for unit in range(9)]
    with pytest.raises(InputError, match=r"The shard http://.*/9\.tar cannot be opened \(HTTP Error 404"):
        take(make_stream(open_shards(f"{address}/9.tar")), 1)


def test_an_address_that_does_not_answer_is_asked_again(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", members(["a", "b", "c"]))
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    answers = [URLError("refused"), HTTPError(address, 429, "busy", None, None), None]

    def busy(*arguments: Any, **options: Any) -> Any:
        if wrong := answers.pop(0):
            raise wrong
        return urlopen(*arguments, **options)

    monkeypatch.setattr(download, "urlopen", busy)
    found = [item.key for item in open_shards(f"{address}/a.tar").read(0) if isinstance(item, Sample)]
    assert found == ["a/a", "a/b", "a/c"]
    assert slept == [1, 4]
    answers[:] = [HTTPError(address, 403, "forbidden", None, None)]  # no answer but a refusal: at once
    with pytest.raises(InputError, match="cannot be opened"):
        list(open_shards(f"{address}/a.tar").read(0))
    answers[:] = [URLError("refused")] * 4
    with pytest.raises(InputError, match="cannot be opened"):
        list(open_shards(f"{address}/a.tar").read(0))
    assert slept == [1, 4, 1, 4, 16]


class Breaking(Quiet):
    """Hangs up in the middle of what is asked for, the first `breaks` times; knows ranges if it is told to."""

    breaks, ranges, asked = 0, True, list[str | None]()

    def do_GET(self) -> None:
        kind = type(self)
        whole = Path(self.translate_path(self.path)).read_bytes()
        kind.asked.append(self.headers["Range"])
        start = int(self.headers["Range"][6:-1]) if self.headers["Range"] and kind.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        kind.breaks -= 1
        self.wfile.write(whole[start : start + (700 if kind.breaks >= 0 else len(whole))])


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_goes_on_at_the_same_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    write_tar(tmp_path / "a.tar", members([f"{number:02d}" for number in range(20)]))
    local = list(open_shards(f"{tmp_path}/a.tar").read(0))
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    monkeypatch.setattr(Breaking, "asked", [])
    monkeypatch.setattr(Breaking, "ranges", ranges)
    monkeypatch.setattr(Breaking, "breaks", 3 if ranges else 1)
    with serving(tmp_path, Breaking) as address:
        remote = open_shards(f"{address}/a.tar")
        assert list(remote.read(0)) == local
        breaks = [None, "bytes=700-", "bytes=1400-", "bytes=2100-"] if ranges else [None, "bytes=700-"]
        assert Breaking.asked == breaks
        assert slept == [1] * len(breaks[1:])
        Breaking.breaks = 10**6
        if not ranges:  # then it never comes beyond the first 700 bytes
            with pytest.raises(InputError, match=r"http://.*/a\.tar cannot be opened \(the transfer ends after 700"):
                list(remote.read(0))


def test_a_shard_of_many_buffers_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", members([f"{number:02d}" for number in range(20)]))
    monkeypatch.setattr(Breaking, "asked", [])
    monkeypatch.setattr(Breaking, "breaks", 0)
    with serving(tmp_path, Breaking) as address:
        slots = Chain(open_shards(f"{address}/a.tar"), buffer=4, seed=0, reader=0, readers=1).slots((0, 0, 0))
        assert len({slot.item.key for slot in islice(slots, 20) if isinstance(slot.item, Sample)}) == 20
        slots.close()
        assert Breaking.asked == [None]


def test_a_file_that_changes_while_it_is_read_is_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", members(["a", "b", "c"]))
    monkeypatch.setattr(download.time, "sleep", lambda _: write_tar(tmp_path / "a.tar", members([*"abcdefghij"])))
    monkeypatch.setattr(Breaking, "breaks", 1)
    with (
        serving(tmp_path, Breaking) as address,
        pytest.raises(InputError, match=r"a\.tar cannot be opened \(it changed while it was read\)"),
    ):
        list(open_shards(f"{address}/a.tar").read(0))


def test_other_data_or_settings_do_not_take_a_state(tmp_path: Path, sources: dict[str, Any]) -> None:
    state = make_stream(sources["shards"]).state_dict()
    for changes in ({"seed": 8}, {"batch_size": 4}, {"buffer": 5}):
        with pytest.raises(InputError, match=f"saved with {next(iter(changes))}="):
            make_stream(sources["shards"], **changes).load_state_dict(state)
    with pytest.raises(InputError, match="saved with data="):
        make_stream(sources["rows"]).load_state_dict(state)
    with pytest.raises(InputError, match="saved with world=1 and here it is 2"):
        make_stream(sources["shards"], 0, 2).load_state_dict(state)
    make_stream(sources["shards"], workers=1).load_state_dict(state)  # as in the training process, so in one beside it
    with pytest.raises(InputError, match="saved with data=None"):
        make_stream(sources["shards"]).load_state_dict({"batches": 3})
    with pytest.raises(InputError, match="rank=2 is none of 2"):
        make_stream(sources["shards"], 2, 2)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.05, 1), st.integers(0, 99))
def test_crops_lie_within_and_keep_their_area(width: int, height: int, minimum: float, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, minimum, generator(seed))
    assert 0 <= left < right <= width + 1e-9
    assert 0 <= top < bottom <= height + 1e-9
    assert (right - left) * (bottom - top) >= minimum * width * height * (1 - 1e-9)
    whole = (left, top, right, bottom) == (0, 0, width, height)
    assert whole or 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


def test_augmentation_mirrors_colours_and_normalises() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 0, 255), (4, 0, 8, 8))
    plain = StreamConfig(image_size=8, minimum_area=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0), flip=False)
    pixels = augment(image, generator(0), plain)
    assert pixels[:, 0, 0].tolist() == pytest.approx([0.9 / 0.5, -0.2 / 0.25, -0.3 / 2])
    mirrored = [torch.equal(augment(image, generator(i), replace(plain, flip=True)), pixels.flip(2)) for i in range(60)]
    assert 15 < sum(mirrored) < 45
    strong = replace(plain, jitter=0.4)
    jittered = augment(image, generator(0), strong)
    assert not torch.allclose(jittered, pixels)
    assert torch.equal(jittered, augment(image, generator(0), strong))
    faded = StreamConfig(image_size=8, minimum_area=1, flip=False, grey=0.25)
    grey = [augment(image, generator(i), faded) for i in range(80)]
    colourless = [pixels for pixels in grey if torch.equal(pixels[0], pixels[2])]
    assert 8 < len(colourless) < 36
    assert colourless[0][:, 0, 0].tolist() == pytest.approx([76 / 127.5 - 1] * 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"minimum_area": 0.0},
        {"jitter": 1.0},
        {"grey": 2},
        {"buffer": 0},
        {"budget": 0},
        {"n_sentences": 0},
        {"strategy": "half"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


def test_a_file_system_that_fails_in_a_shard_is_no_truncated_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", {f"{row}.{end}": b"x" * 4000 for row in range(9) for end in ("png", "txt")})

    class Dropping(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            if self.tell() > 20_000:
                raise OSError(116, "Stale file handle")
            return super().read(size)

    monkeypatch.setattr(shards, "open_shard", lambda shard: Dropping(Path(shard).read_bytes()))
    with pytest.raises(
        ArtefactError, match=r"a\.tar cannot be read now \(Stale file handle\); bring it back, then resume"
    ):
        list(open_shards(tmp_path / "a.tar", synthetic=None).read(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_go_away_stop_training(tmp_path: Path, workers: int) -> None:
    (tmp_path / "photos").mkdir()
    cells = []
    for row in range(6):
        file = tmp_path / "photos" / f"{row}.png"
        file.write_bytes(picture((row, 0, 0)))
        cells.append({"bytes": None, "path": str(file)})
    ids = [str(row) for row in range(6)]
    rows = {"id": ids, "image": cells, "captions": [["a dog"]] * 6, "split": ["train"] * 6}
    config = StreamConfig(batch_size=2, captions="web", workers=workers)
    stream = PairStream(open_rows(Collection(Dataset.from_dict(rows), "photos")), clip_tokenizer(), config)
    (tmp_path / "photos").rename(tmp_path / "gone")
    with pytest.raises(InputError, match=r"photos is gone or empty\); bring it back"):
        next(iter(stream))
