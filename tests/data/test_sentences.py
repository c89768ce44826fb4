"""Sentences of a caption, and words as one phrase."""

from __future__ import annotations

import pytest

from boresight.data.sentences import enumeration, sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("A dog runs. It is brown!", ["A dog runs.", "It is brown!"]),
        ("Dr. Lee sits at no. 5. The sky.The sea.", ["Dr. Lee sits at no. 5.", "The sky.", "The sea."]),
        ("in the U.S. The flag waves", ["in the U.S.", "The flag waves"]),
        ("It is 3.5 m; well... no", ["It is 3.5 m; well... no"]),
        ("1. A dog\nA cat", ["1. A dog", "A cat"]),
        ("...", ["..."]),
        ("  ", []),
    ],
)
def test_where_sentences_end(text: str, pieces: list[str]) -> None:
    assert sentences(text) == pieces


def test_an_enumeration_reads_as_a_phrase() -> None:
    assert [enumeration(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
