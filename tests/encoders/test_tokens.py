"""Token ids of a caption, without the special tokens and with them, as the tokenizer itself gives them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.encoders.tokens import content_ids, padded_ids, special_ids
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


def test_padding_on_the_left_and_without_a_padding_token() -> None:
    tokenizer = bert_tokenizer()
    tokenizer.padding_side = "left"
    ids = content_ids("ab", tokenizer)
    assert padded_ids(ids, tokenizer, 6) == tokenizer("ab", max_length=6, padding="max_length")["input_ids"]
    tokenizer = bert_tokenizer()
    tokenizer.pad_token = None
    assert padded_ids(ids, tokenizer, 6) == [*tokenizer("ab")["input_ids"], 3, 3]


def test_special_tokens_alone_need_room() -> None:
    with pytest.raises(InputError, match="A length of 2"):
        padded_ids([1], TOKENIZERS["clip"], 2)
