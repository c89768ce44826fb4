"""The sentences of a caption, and words as one phrase."""

from __future__ import annotations

import re
from collections.abc import Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A full stop after these, or after initials and numbers of pages and houses, seldom ends a sentence.
_BEFORE_WORDS = _words(
    "mr mrs ms dr prof st mt ft rev hon gen col sgt capt lt gov sen rep jr sr inc ltd co corp bros dept est vs etc"
    " approx ca cf al e.g i.e viz incl oz lb lbs sq tel ext"
)
_BEFORE_NUMBERS = _words("no nos nr fig figs vol p pp ch sec art eq jan feb mar apr jun jul aug sep sept oct nov dec")
_OPENERS = _words(
    "the a an it its he she they we you i his her their this that these those there here in on at to by from with"
    " above below behind beside beneath near next over under between around while although overall one two several"
    " some many each both another other no all additionally also however"
)
# Signs that do nothing but end sentences: of Chinese and Japanese; Arabic and Urdu; the scripts of India; Armenian;
# Ethiopic; Burmese; Khmer; Tibetan; Mongolian; Cree; and double marks.
_ALWAYS = "。｡！？؟۔।॥։።፧။។៕།༎᠃᠉᙮‼⁇⁈⁉‽"
_CLOSERS = r"\"'”’»)\]}*_」』）"
_MARKS = re.compile(
    rf"[.!?…]+(?:[ \t]+[.!?…]+(?=\s|$))*[\"'”’»)\]}}*_]*|[{_ALWAYS}][{_ALWAYS}.!?…]*[{_CLOSERS}]*|[\r\n]+"
)
_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘«]+$")
_NEXT_WORD = re.compile(r"[\s\"'“‘«(\[{*_]*(\w+)")


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its mark; but for white space between them, joined they are the text.

    A sentence ends at a run of . ! ? … with the quotes and brackets that close behind it, at a new line, and at the
    marks of other scripts, such as 。 and ؟ and the danda of Hindi. It does not end

    - inside a word or number: "3.5", "example.com", "U.S."; only "sky.The", a small letter before the mark and a
      capital behind it, is taken for a forgotten space;
    - after an abbreviation ("Dr. Lee", "e.g. this", "J. Smith", "the U.S. flag", "No. 5", "Oct. 3"), unless a word
      follows that mostly opens a sentence: "in the U.S. The flag" is two;
    - after an ellipsis, or a mark within quotes or brackets, that a small letter follows: "well... no", '"Stop!" he
      said';
    - before there is a letter or digit, or behind a lone number: "1. A dog" is one sentence, and "..." joins one.

    A text without words ("...") is one sentence, white space is none. What it cannot know: a line broken in
    mid-sentence is two, "made by Acme Inc. Blue paint" is one.
    """
    pieces, start = [], 0
    for mark in _MARKS.finditer(text):
        if mark.start() >= start and _ends(text, start, mark):
            pieces.append(text[start : mark.end()].strip())
            start = mark.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece]


def _ends(text: str, start: int, mark: re.Match[str]) -> bool:
    # A word or two on each side decide; whole texts would make this quadratic.
    before, after = text[max(start, mark.start() - 80) : mark.start()], text[mark.end() : mark.end() + 40]
    sign = mark[0]
    if sign[0] in "\r\n" + _ALWAYS:
        return bool(before.strip())
    words = before.strip()
    if not re.search(r"\w", words) or (words.isdecimal() and sign == "." and after[:1].isspace()):
        return not after.strip()
    following = after.lstrip(" \t\"'“‘«([{*_")
    if after and not after[0].isspace():
        return len(sign) == 1 and before[-1:].islower() and before[-2:-1].islower() and after[0].isupper()
    if following[:1].islower() and (sign[-1] not in ".!?…" or sign.count(".") > 1 or "…" in sign):
        return False
    return sign != "." or not _abbreviated(before, after)


def _abbreviated(before: str, after: str) -> bool:
    """Whether the full stop between the two belongs to an abbreviation and the sentence goes on."""
    last, following = _LAST_WORD.search(before), _NEXT_WORD.match(after)
    if last is None or following is None:
        return False
    word = last[0].lower()
    if word in _BEFORE_NUMBERS:
        return following[1][0].isdigit()
    initials = re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", last[0]) and last[0] not in ("I", "a")
    if word not in _BEFORE_WORDS and not initials:
        return False
    return not (following[1][0].isupper() and following[1].lower() in _OPENERS)


def enumeration(words: Sequence[str]) -> str:
    """'red', 'red and blue', 'red, green and blue'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
