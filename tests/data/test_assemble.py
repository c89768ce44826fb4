"""The table that collections are built in."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.data.assemble import CHUNK, CaptionLists, Table


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.lists(st.text("ab", max_size=3), max_size=3)), max_size=30))
def test_ragged_captions_against_lists_of_lists(rows: list[tuple[int, list[str]]]) -> None:
    builder, plain = CaptionLists(), defaultdict(list)
    for row, texts in rows:
        builder.add(row, texts)
        plain[row] += texts
    assert builder.finish(7).to_pylist() == [plain[row] for row in range(7)]


def test_the_table_is_the_same_over_the_bounds_of_its_chunks() -> None:
    table, n = Table(), 2 * CHUNK + 3
    for row in range(n):
        extras: dict[str, object] = {"late": row} if row > CHUNK else {}
        mixed = {"mixed": row if row < CHUNK else "x", "wide": 0.5 if row < CHUNK else 2**53 + 1}
        at = table.add_image(f"id{row}", {"path": f"{row}.png"}, "all", {**extras, **mixed})
        assert at == row
        table.add_captions(row, [f"first of {row}"])
    for row in range(0, n, 1000):
        table.add_captions(row, [f"second of {row}"])
    dataset = table.finish()
    assert dataset["id"][:] == [f"id{row}" for row in range(n)]
    for row in (0, 1, 1000, CHUNK - 1, CHUNK, n - 1, 2 * CHUNK):
        second = [f"second of {row}"] if row % 1000 == 0 else []
        assert dataset[row]["captions"] == [f"first of {row}", *second]
        assert dataset[row]["image"]["path"] == f"{row}.png"
        assert dataset[row]["late"] == (row if row > CHUNK else None)
        assert dataset[row]["mixed"] == (str(row) if row < CHUNK else "x")
        assert dataset[row]["wide"] == ("0.5" if row < CHUNK else str(2**53 + 1))
