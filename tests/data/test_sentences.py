"""Sentences of a caption, and words as one phrase."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("一只杯子。一只猫！？", ["一只杯子。", "一只猫！？"]),
        ("लाल कप है। बिल्ली है॥", ["लाल कप है।", "बिल्ली है॥"]),
        ("هل هذا كوب؟ نعم. لا؟! نعم", ["هل هذا كوب؟", "نعم.", "لا؟!", "نعم"]),
        ("یہ ایک کپ ہے۔ یہ بلی ہے۔", ["یہ ایک کپ ہے۔", "یہ بلی ہے۔"]),
        ("Սա բաժակ է։ Սա կատու է։", ["Սա բաժակ է։", "Սա կատու է։"]),
        ("ይህ ኩባያ ነው። ይህ ድመት ነው፧", ["ይህ ኩባያ ነው።", "ይህ ድመት ነው፧"]),
        ("ဒါခွက်ပါ။ ဒါကြောင်ပါ။", ["ဒါခွက်ပါ။", "ဒါကြောင်ပါ။"]),
        ("នេះជាពែង។ នេះជាឆ្មា។", ["នេះជាពែង។", "នេះជាឆ្មា។"]),
        ("「はい。」と言う。終わり", ["「はい。」", "と言う。", "終わり"]),
        ("A cup‼ A cat.", ["A cup‼", "A cat."]),
    ],
)
def test_where_sentences_end(text: str, pieces: list[str]) -> None:
    assert sentences(text) == pieces


@given(st.text("aB1 .!?…\"')\n。؟।»」", max_size=40))
@settings(max_examples=200, deadline=None)
def test_sentences_are_the_text(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_an_enumeration_reads_as_a_phrase() -> None:
    assert [enumeration(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
