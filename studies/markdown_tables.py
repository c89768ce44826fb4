"""Tables as the docs show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown: headings of all columns, and as many cells a row."""
    rule = "|---" * len(headings) + "|"
    heading, *body = (f"| {' | '.join(cells)} |" for cells in (headings, *rows))
    return "\n".join([heading, rule, *body])
