"""Captions longer than the text tower: cut into windows that fit, averaged, and never mixed with cut ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.cli.main import main
from boresight.embeddings import Embeddings, embed
from boresight.encoders import load_encoder
from boresight.encoders.long_text import embed_texts_in_windows, windows
from boresight.errors import ArtefactError, InputError
from boresight.runs import JOURNAL
from fake_encoder import FakeEncoder, make_collection, picture
from tiny_encoders import FAMILIES, save_tiny


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request, tmp_path_factory):
    folder = save_tiny(request.param, tmp_path_factory.mktemp(request.param))
    return load_encoder(folder, device="cpu", dtype="float32")


def letters(texts: list[str]) -> list[int]:
    """A token a letter, and start and end."""
    return [2 + sum(not letter.isspace() for letter in text) for text in texts]


def merged(texts: list[str]) -> list[int]:
    """Tokens that do not add up: words cost more together than alone."""
    return [1 + len(text.split()) ** 2 // 2 + sum(map(len, text.split())) for text in texts]


@pytest.mark.parametrize("count", [letters, merged])
@given(
    text=st.lists(st.text("abc,é犬", min_size=1, max_size=30), min_size=1, max_size=20).map(" ".join),
    limit=st.integers(4, 16),
)
@settings(max_examples=100, deadline=None)
def test_windows_fit_and_lose_nothing(count, text: str, limit: int) -> None:
    parts = windows(text, limit, count)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(size <= limit for size in count(parts))
    assert all(part == part.strip() and part in text for part in parts)
    for word in (word for word in text.split() if count([word])[0] <= limit and text.split().count(word) == 1):
        assert count is merged or any(word in part for part in parts)


def test_windows_by_hand() -> None:
    assert windows("aaaa bbbb  cccc\ndd eeeeeeeeeeeeeee f", 14, letters) == [
        "aaaa bbbb  cccc",
        "dd eeeeeee",
        "eeeeeeee f",
    ]
    assert windows("a b c", 5, letters) == ["a b c"]
    assert windows("a b c d", 5, letters) == ["a b c", "d"]
    assert windows("犬が赤い柵を飛ぶ", 6, letters) == ["犬が赤い", "柵を飛ぶ"]
    assert windows("a b", 2, letters) == ["a", "b"]  # not even one token has room: a letter is never cut
    assert windows("  \n", 5, letters) == ["  \n"]


def test_the_average_of_windows_is_weighted_by_tokens(encoder) -> None:
    special = encoder.token_counts([""])[0]
    first, second, rest = "a" * (encoder.token_limit - special - 5), "cd", "e" * 4 + " ff"
    caption = f"{first} {second} {rest}"
    parts = windows(caption, encoder.token_limit, encoder.token_counts)
    assert "".join(parts).replace(" ", "") == caption.replace(" ", "")
    assert len(parts) > 1
    assert max(encoder.token_counts(parts)) <= encoder.token_limit < encoder.token_counts([caption])[0]

    expected = sum((n - special) * encoder.embed_texts([part])[0]
                   for part, n in zip(parts, encoder.token_counts(parts), strict=True))  # fmt: skip
    got, long = embed_texts_in_windows(encoder, ["a dog", caption, "b"], batch_size=2)
    assert long == 1
    torch.testing.assert_close(got[1], expected / expected.norm(), atol=1e-5, rtol=0)
    assert got[1].norm().item() == pytest.approx(1, abs=1e-5)


def test_a_tiny_clip_by_hand(tmp_path: Path) -> None:
    encoder = load_encoder(save_tiny("clip", tmp_path / "clip"), device="cpu", dtype="float32")
    caption = "aaaa bbbb cccc dddd eeee"  # its tokenizer has a token a letter, and reads 14 beside start and end
    one, two = encoder.embed_texts(["aaaa bbbb cccc", "dddd eeee"])
    got, _ = embed_texts_in_windows(encoder, [caption], batch_size=8)
    torch.testing.assert_close(got[0], torch.nn.functional.normalize(12 * one + 8 * two, dim=0), atol=1e-5, rtol=0)


def test_what_fits_is_bitwise_the_same_and_nothing_is_warned_of(encoder) -> None:
    texts = ["a dog", "word " * 30, "b", "two cats", "long " * 20]
    encoder._warned = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got, long = embed_texts_in_windows(encoder, texts, batch_size=4)
        all_long, both = embed_texts_in_windows(encoder, [texts[1], texts[4]], batch_size=4)
        short, none = embed_texts_in_windows(encoder, texts[2:4], batch_size=4)
    assert (long, both, none) == (2, 2, 0)
    with pytest.warns(UserWarning, match="2 of these 5 captions were longer"):
        cut = encoder.embed_texts(texts)
    assert encoder.embed_texts_counted(texts)[1] == 2
    fits = [0, 2, 3]
    assert torch.equal(got[fits], cut[fits])
    assert (got[[1, 4]] - cut[[1, 4]]).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(all_long, got[[1, 4]], atol=1e-5, rtol=0)
    assert torch.equal(short, encoder.embed_texts(texts[2:4]))


def captions(row: int) -> list[str]:
    return [f"picture {row}", f"word {row} " + "and many more words " * row][: 1 + row % 2]


def test_the_embedding_run_says_what_it_did(tmp_path: Path) -> None:
    encoder = load_encoder(save_tiny("clip", tmp_path / "clip"), device="cpu", dtype="float32")
    collection = make_collection(12, captions=captions)
    options = {"dtype": "float32", "batch_size": 4, "part_size": 5}
    with pytest.warns(UserWarning, match="were longer|was longer"):
        cut = embed(encoder, collection, tmp_path / "cut", **options)
    read = embed(encoder, collection, tmp_path / "read", long_text="windows", **options)
    long = torch.tensor([tokens > encoder.token_limit for tokens in encoder.token_counts(collection.texts)])
    assert 0 < long.sum() < len(long)
    assert torch.equal(cut.images, read.images)
    assert torch.equal(cut.texts[~long], read.texts[~long])
    assert (cut.texts[long] - read.texts[long]).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(read.texts.norm(dim=1), torch.ones(len(long)), atol=1e-5, rtol=0)
    said = ("long_text", "truncated_captions", "windowed_captions")
    assert [cut.manifest[key] for key in said] == ["truncate", long.sum(), 0]
    assert [read.manifest[key] for key in said] == ["windows", 0, long.sum()]
    in_memory = embed(encoder, collection, long_text="windows", **options)
    assert torch.equal(in_memory.texts, read.texts)


@pytest.mark.parametrize(("first", "then"), [("truncate", "windows"), ("windows", "truncate")])
def test_a_folder_made_the_other_way_is_refused(first, then, tmp_path: Path, monkeypatch) -> None:
    encoder = load_encoder(save_tiny("clip", tmp_path / "clip"), device="cpu", dtype="float32")
    collection = make_collection(6, captions=lambda row: [f"no {row}"])
    embed(encoder, collection, tmp_path / "done", long_text=first)
    with pytest.raises(ArtefactError, match=f"made with long_text = {first} and this run has {then}"):
        embed(encoder, collection, tmp_path / "done", long_text=then)

    embed_images, calls = encoder.embed_images, iter(range(3))
    monkeypatch.setattr(encoder, "embed_images", lambda batch: (next(calls), embed_images(batch))[1])
    with pytest.raises(StopIteration):  # as a kill would, after one part of two images
        embed(encoder, collection, tmp_path / "begun", long_text=first, part_size=2, batch_size=1, workers=0)
    assert len((tmp_path / "begun" / JOURNAL).read_text().splitlines()) == 2
    with pytest.raises(ArtefactError, match=f"made with long_text = {first} and this run has {then}"):
        embed(encoder, collection, tmp_path / "begun", long_text=then, part_size=2)


def test_what_cannot_be(tmp_path: Path) -> None:
    collection = make_collection(3)
    with pytest.raises(InputError, match="long_text is 'window'"):
        embed(FakeEncoder(), collection, long_text="window")
    with pytest.raises(InputError, match="fake does not tell how many tokens a caption has"):
        embed(FakeEncoder(), collection, long_text="windows")


def test_the_command(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(number))
        (tmp_path / "photos" / f"{number}.txt").write_text("a red dog " * 60)
    place = str(tmp_path / "e")
    main(["embed", str(tmp_path / "photos"), "--out", place, "--device", "cpu", "--long-text", "windows"])
    made = Embeddings.load(place)
    assert (made.manifest["long_text"], made.manifest["windowed_captions"]) == ("windows", 2)


@pytest.mark.open_clip
def test_open_clip(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="open_clip is not installed; see .ci/openclip.sh")
    from open_clip_files import save_open_clip

    encoder = load_encoder(f"open_clip:local-dir:{save_open_clip(tmp_path / 'plain')}", device="cpu", dtype="float32")
    caption = "a photo of a red dog leaping over the red hurdle in a park while two black cats look on from a fence"
    special, total = encoder.token_counts(["", caption])
    assert (special, encoder.token_limit) == (2, 16)
    # 14 tokens beside start and end: 'hurdle' is two, the other words one each.
    first, second = (
        "a photo of a red dog leaping over the red hurdle in a",
        "park while two black cats look on from a fence",
    )
    one, two = encoder.embed_texts([first, second])
    sizes = [count - special for count in encoder.token_counts([first, second])]
    assert sum(sizes) == total - special
    got, long = embed_texts_in_windows(encoder, ["a cat", caption], batch_size=2)
    parts = windows(caption, encoder.token_limit, encoder.token_counts)
    assert (long, parts) == (1, [first, second])
    expected = torch.nn.functional.normalize(sizes[0] * one + sizes[1] * two, dim=0)
    torch.testing.assert_close(got[1], expected, atol=1e-5, rtol=0)
    assert torch.equal(got[0], encoder.embed_texts(["a cat", caption])[0])
