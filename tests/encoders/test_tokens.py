"""Token ids of a caption, without the special tokens and with them, as the tokenizer itself gives them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.encoders.tokens import (
    Token,
    aligned_tokens,
    content_ids,
    fast_tokens,
    grouped_words,
    lowered,
    padded_ids,
    special_ids,
)
from boresight.errors import InputError
from tiny_encoders import bert_tokenizer, tiny_tokenizers

TOKENIZERS = tiny_tokenizers()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_text_is_encoded_as_the_tokenizer_does(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    text = data.draw(st.text(alphabet="abC ,.!'9", max_size=30))
    length = data.draw(st.integers(4, 40))
    expected = tokenizer(text, max_length=length, truncation=True, padding="max_length")["input_ids"]
    assert padded_ids(content_ids(text, tokenizer), tokenizer, length) == expected


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_that_is_cut_keeps_its_special_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    start, end = special_ids(tokenizer)
    row = padded_ids(content_ids("A dog leaps. A cat sleeps on a mat! Is it day?", tokenizer), tokenizer, 12)
    assert row[:1] == list(start) or not start
    assert row[-1] == end[-1]


def test_padding_stands_on_the_right_and_needs_no_padding_token() -> None:
    tokenizer = bert_tokenizer()
    ids = content_ids("ab", tokenizer)
    expected = tokenizer("ab", max_length=6, padding="max_length")["input_ids"]
    tokenizer.padding_side = "left"
    assert padded_ids(ids, tokenizer, 6) == expected
    tokenizer.pad_token = None
    assert padded_ids(ids, tokenizer, 6) == [*tokenizer("ab")["input_ids"], 3, 3]


def test_special_tokens_alone_need_room() -> None:
    with pytest.raises(InputError, match="A length of 2"):
        padded_ids([1], TOKENIZERS["clip"], 2)


def words_by_letter(text: str) -> list[str]:
    """The words of a caption whose every character is a token of its own."""
    return [word for word, _ in grouped_words(text, [Token("", i, i + 1, False) for i in range(len(text))])]


@pytest.mark.parametrize(
    "words",
    [
        ["एक", "लाल", "कप"], ["ถ้วยสีแดง"], ["كوبٌ", "أحمرُ"], ["e\u0301tude"], ["می\u200cخواهم"],
        ["👩\u200d🍳", "☕\ufe0f"],
        ["क्\u200dष"], ["dog's", "red-brown", "a_b", "9"], ["Żółć"], ["ли\u0301сий"], ["한국어"], ["𝒳"],
    ],
)  # fmt: skip
def test_words_keep_their_marks_in_every_script(words: list[str]) -> None:
    assert words_by_letter("  ".join(words)) == words


def test_scripts_without_spaces_give_a_word_a_character() -> None:
    assert words_by_letter("赤い犬か\u3099𠀀。") == ["赤", "い", "犬", "か\u3099", "𠀀", "。"]


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_every_sign_of_a_caption_is_in_one_word(text: str) -> None:
    words = grouped_words(text, [Token("", i, i + 1, False) for i in range(len(text))])
    assert "".join("".join(word.split()) for word, _ in words) == "".join(text.split())
    members = [i for _, tokens in words for i in tokens]
    assert sorted(members) == (list(range(len(text))) if words else [])


@given(st.text("aİIß犬🙂 Σ\u0301", max_size=20))
@settings(max_examples=100, deadline=None)
def test_lower_case_knows_where_it_came_from(text: str) -> None:
    lower, places = lowered(text)
    assert lower == text.lower()
    assert len(places) == len(lower) + 1
    assert all(text[place].lower().replace("σ", "ς")[0] in (sign.replace("σ", "ς"), "i") or sign == "\u0307"
               for sign, place in zip(lower, places, strict=False))  # fmt: skip


def test_a_word_the_tokenizer_does_not_know_is_there() -> None:
    tokenizer = bert_tokenizer()
    tokens = fast_tokens(tokenizer, "a 🙂 cup", tokenizer("a 🙂 cup")["input_ids"])
    assert [word for word, _ in grouped_words("a 🙂 cup", tokens)] == ["a", "🙂", "cup"]


def test_white_space_that_is_a_token_joins_a_word() -> None:
    tokenizer, text = TOKENIZERS["gemma"], " red  cup "
    tokens = fast_tokens(tokenizer, text, tokenizer(text)["input_ids"])
    assert grouped_words(text, tokens) == [("red", (0, 1, 2, 3)), ("cup", (4, 5, 6, 7, 8, 9))]


def test_lower_case_of_another_length_shifts_no_word() -> None:
    tokenizer, text = TOKENIZERS["gemma"], "İİİ red"
    tokens = fast_tokens(tokenizer, text, tokenizer(text.lower())["input_ids"], lower_case=True)
    assert [word for word, _ in grouped_words(text, tokens)] == ["İİİ", "red"]


def test_pieces_of_characters_and_left_out_signs_are_found() -> None:
    cup = "🙂".encode()
    tokens = aligned_tokens("A 🙂 cup", [b"a", cup[:2], cup[2:], b"cup"])
    assert [(token.start, token.end) for token in tokens] == [(0, 1), (2, 3), (2, 3), (4, 7)]
    tokens = aligned_tokens("İİ: it's", ["i̇i̇".encode(), b"its"], without=".:'")
    assert [(token.start, token.end) for token in tokens] == [(0, 2), (4, 8)]
