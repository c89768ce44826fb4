"""Words of a caption in other orders."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from boresight.evaluation.word_order import shuffles_of, words_of


def threes(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + 3]) for start in range(0, len(words), 3)]


@given(st.lists(st.text("abc", min_size=1, max_size=2), min_size=7, max_size=40, unique=True), st.integers(0, 5))
def test_shuffles_are_what_they_are_called(words: list[str], seed: int) -> None:
    found = [text.split() for text in shuffles_of(words, seed)]
    assert len(found) == 4
    assert all(sorted(other) == sorted(words) and other != words for other in found)
    _, _, within, blocks = found
    assert [sorted(three) for three in threes(within)] == [sorted(three) for three in threes(words)]
    remaining = threes(words)
    while blocks:
        first = next(three for three in remaining if tuple(blocks[: len(three)]) == three)
        remaining.remove(first)
        blocks = blocks[len(first) :]


def test_words_that_cannot_be_shuffled() -> None:
    assert shuffles_of(["dog"], 0) == []
    assert shuffles_of(["so", "so", "so", "so"], 0) == []
    assert {tuple(text.split()) for text in shuffles_of(["a", "b"], 0)} == {("b", "a")}
    assert len(shuffles_of(["a", "b", "c"], 0)) == 3  # a single trigram has no order among trigrams


def test_the_words_of_a_caption() -> None:
    assert words_of('A  "Dog" (brown) runs, fast; it\'s 3:30.') == [
        "a",
        "dog",
        "brown",
        "runs,",
        "fast",
        "it's",
        "3",
        "30",
    ]
    assert words_of(" ".join(map(str, range(50)))) == [str(number) for number in range(30)]
