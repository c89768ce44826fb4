"""Sub-captions: reductions of token ids, and sentences."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.encoders.tokens import content_ids
from boresight.errors import InputError
from boresight.seeds import generator
from boresight.training.subcaptions import (
    block_mask,
    random_mask,
    reduce,
    sentences,
    sub_caption,
    truncate,
)
from tiny_encoders import tiny_tokenizers

TOKENIZERS = tiny_tokenizers()
CAPTION = "A dog leaps. A cat sleeps on a mat! Is it day? The sky is blue."
ids_and_budgets = st.tuples(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 14), st.integers(0, 99))


def is_subsequence(short: list[int], long: list[int]) -> bool:
    rest = iter(long)
    return all(token in rest for token in short)


@given(ids_and_budgets)
def test_masks_keep_the_budget_in_order(case: tuple[list[int], int, int]) -> None:
    ids, budget, seed = case
    kept = {
        "truncate": truncate(ids, budget),
        "random": random_mask(ids, budget, generator(seed)),
        "block": block_mask(ids, budget, generator(seed)),
    }
    for row in kept.values():
        assert len(row) == min(len(ids), budget)
        assert is_subsequence(row, ids)
        assert len(ids) > budget or row == ids
    assert kept["truncate"] == ids[:budget]
    assert kept["block"] in [ids[start : start + budget] for start in range(max(1, len(ids) - budget + 1))]


def test_every_start_of_a_block_and_every_set_is_equally_likely() -> None:
    random, draws, n, budget = generator(1), 6000, 6, 4
    starts = [block_mask(range(n), budget, random)[0] for _ in range(draws)]
    blocks = [starts.count(start) for start in range(n)]
    assert blocks[3:] == [0, 0, 0]  # the last block is 2..5: token 5 is reached, no block is short
    assert all(abs(count - draws / 3) < 5 * (draws * 2 / 9) ** 0.5 for count in blocks[:3])
    sets = [tuple(random_mask(range(n), budget, random)) for _ in range(draws)]
    assert len(set(sets)) == 15
    assert all(abs(sets.count(one) - draws / 15) < 5 * (draws / 15) ** 0.5 for one in set(sets))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CAPTION, ["A dog leaps.", "A cat sleeps on a mat!", "Is it day?", "The sky is blue."]),
        ("It is 3.5 m tall. Yes", ["It is 3.5 m tall.", "Yes"]),
        ("The U.S. flag waves in the U.S. The sky is grey.", ["The U.S. flag waves in the U.S.", "The sky is grey."]),
        ("Dr. Lee met J. R. Smith, e.g. here.", ["Dr. Lee met J. R. Smith, e.g. here."]),
        ("Bus No. 5 stops. Is it late? No. He waits.", ["Bus No. 5 stops.", "Is it late?", "No.", "He waits."]),
        ("At 5 p.m. The sun sets on Oct. 3 here.", ["At 5 p.m.", "The sun sets on Oct. 3 here."]),
        ('"Stop!" he said. "Go on." Then rain.', ['"Stop!" he said.', '"Go on."', "Then rain."]),
        ("(A sign.) It says “stop.” Next", ["(A sign.)", "It says “stop.”", "Next"]),
        ("A box (red!) stands here.", ["A box (red!) stands here."]),
        ("Well... no. Wait… What?! ...", ["Well... no.", "Wait…", "What?! ..."]),
        ("... so it goes. . . . On", ["... so it goes. . . .", "On"]),
        ("A red\nball\r\n\r\n  \n", ["A red", "ball"]),
        ("1. A dog\n2. A bird in 1995. A man", ["1. A dog", "2. A bird in 1995.", "A man"]),
        ("blue sky.The man at example.com. end", ["blue sky.", "The man at example.com.", "end"]),
        ("狗跑了。猫坐着！好", ["狗跑了。", "猫坐着！", "好"]),
        ("...", ["..."]),
        (" \n\t ", []),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="ab AB.!?…\"')(\n3,。ʼé", max_size=60))
@settings(max_examples=300)
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    pieces = sentences(text)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece and piece == piece.strip() and "\n" not in piece for piece in pieces)


def test_sentences_of_a_long_run_take_no_time() -> None:
    for text in (
        ". " * 20_000,
        "." * 50_000,
        '"' * 50_000,
        " " * 50_000 + ".",
        "a.b" * 20_000,
        "a. " * 20_000,
        "\n" * 50_000,
    ):
        assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def published_sentences(text: str) -> list[str]:
    """The pieces between runs of . and !, as the published code splits: for comparison only.

    It cuts "3.5" and "U.S.", knows neither ? nor new lines, drops the marks and keeps pieces of white space.
    """
    return [piece for piece in re.split(r"[.!]+", text) if piece]


def test_the_published_split_cuts_numbers_and_keeps_blanks() -> None:
    assert published_sentences("It is 3.5 m... Why? Yes!! ") == ["It is 3", "5 m", " Why? Yes", " "]
    assert published_sentences("...") == []


def test_one_sentence_each_equally_likely() -> None:
    random, draws = generator(0), 4000
    drawn = [sub_caption(CAPTION, random) for _ in range(draws)]
    counts = [drawn.count(piece) for piece in sentences(CAPTION)]
    assert sum(counts) == draws
    assert all(abs(count - draws / 4) < 5 * (draws * 3 / 16) ** 0.5 for count in counts)


@given(st.integers(1, 6), st.integers(0, 200))
def test_several_sentences_keep_their_order(number: int, seed: int) -> None:
    pieces = sentences(CAPTION)
    drawn = sentences(sub_caption(CAPTION, generator(seed), n_sentences=number))
    assert len(drawn) == min(number, 4)
    assert [pieces.index(piece) for piece in drawn] == sorted(pieces.index(piece) for piece in drawn)


@given(st.integers(1, 30), st.integers(0, 200))
def test_filling_takes_sentences_until_it_is_full(budget: int, seed: int) -> None:
    words = lambda texts: [len(text.split()) for text in texts]  # noqa: E731
    pieces = sentences(CAPTION)
    drawn = sentences(sub_caption(CAPTION, generator(seed), fill_to=budget, count=words))
    first = pieces.index(drawn[0])
    assert drawn == pieces[first : first + len(drawn)]
    assert sum(words(drawn)) >= budget or drawn[-1] == pieces[-1]
    assert sum(words(drawn[:-1])) < budget


def test_short_captions_and_refusals() -> None:
    assert sub_caption("  just this ", generator(0), n_sentences=3) == "just this"
    assert sub_caption(" ", generator(0)) == ""
    assert sub_caption(" ", generator(0), fill_to=3, count=lambda texts: [1]) == ""
    clip = TOKENIZERS["clip"]
    assert reduce(" ", "sub-caption", 5, clip, generator(0)) == []
    with pytest.raises(InputError, match="pass count"):
        sub_caption(CAPTION, generator(0), fill_to=3)
    with pytest.raises(InputError, match="n_sentences=0"):
        sub_caption(CAPTION, generator(0), n_sentences=0)
    with pytest.raises(InputError, match="'cut' is unknown; choose one of none, truncate"):
        reduce(CAPTION, "cut", 5, clip, generator(0))
    with pytest.raises(InputError, match="budget of 0"):
        reduce(CAPTION, "block", 0, clip, generator(0))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_none_leaves_the_text_as_it_is(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    text = data.draw(st.text(alphabet="abC ,.!'9", max_size=30))
    assert reduce(text, "none", 1, tokenizer, generator(0)) == content_ids(text, tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_strategies_agree_with_their_parts(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    full = content_ids(CAPTION, tokenizer)
    assert reduce(CAPTION, "truncate", 7, tokenizer, generator(2)) == full[:7]
    assert reduce(CAPTION, "random", 7, tokenizer, generator(2)) == random_mask(full, 7, generator(2))
    assert reduce(CAPTION, "block", 7, tokenizer, generator(2)) == block_mask(full, 7, generator(2))
    one = sub_caption(CAPTION, generator(2))
    assert reduce(CAPTION, "sub-caption", 7, tokenizer, generator(2)) == content_ids(one, tokenizer)[:7]
    filled = {len(reduce(CAPTION, "sub-caption", 20, tokenizer, generator(i), fill=True)) for i in range(30)}
    assert max(filled) == 20


def test_one_seed_one_result_in_any_process() -> None:
    code = (
        "from boresight.training.subcaptions import sub_caption, random_mask\n"
        "from boresight.seeds import generator\n"
        f"print(sub_caption({CAPTION!r}, generator(5, 'x')), random_mask(range(40), 9, generator(5, 'y')))"
    )
    here = f"{sub_caption(CAPTION, generator(5, 'x'))} {random_mask(range(40), 9, generator(5, 'y'))}"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here
