"""What was wrong with a source: one entry a thing, one sentence for all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was wrong with the source: `what` ('missing file', 'empty caption', ...) and `where`."""

    what: str
    where: str


def summary(problems: Sequence[Problem]) -> str:
    """'3 rows: 2 missing files (a.jpg, b.jpg), 1 empty caption (row 17)'; at most three examples of each."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.what].append(problem.where)
    parts = []
    for what, rows in by_kind.items():
        # 'image without captions' has its plural in the middle.
        plural = re.sub(r"^(.*?)(?= without | with | for | to | of | outside |$)", r"\1s", what, count=1)
        examples = ", ".join(rows[:3]) + (", ..." if len(rows) > 3 else "")
        parts.append(f"{len(rows)} {what if len(rows) == 1 else plural} ({examples})")
    return f"{len(problems)} {'row' if len(problems) == 1 else 'rows'}: {', '.join(parts)}" if problems else ""


def counted(number: int, what: str) -> str:
    """'1 image', '1,000 images'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def is_unicode(text: str) -> bool:
    """False for text with lone surrogates, as they come from broken escapes or foreign file names; Arrow refuses it.

    False for text with NUL too, which stands beside every letter where UTF-16 was read as UTF-8.
    """
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """`text` with lone surrogates spelt out, so that it can be printed and stored."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
