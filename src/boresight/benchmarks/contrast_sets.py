"""What SugarCrepe, ARO and their like share: how items are gathered from files, and the figures they end in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult, count_facts
from boresight.benchmarks.record import PLAIN
from boresight.data.files import Find
from boresight.data.problems import Problem, is_unicode, summary
from boresight.errors import InputError
from boresight.evaluation.composition import evaluate_contrasts
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture
from boresight.evaluation.word_order import shuffles_of, words_of
from boresight.progress import say


def gather_items(
    rows: Iterable[Contrast | Problem],
    name: str,
    hint: str,
    *,
    outside_macro: frozenset[str] = frozenset(),
    fewest: int = 1,
    published: int | None = None,
) -> Contrasts:
    """The items of a benchmark, and what was left out, which is said. Raises InputError, with `hint`, for no item."""
    items: list[Contrast] = []
    problems: list[Problem] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
        else:
            items.append(row)
    if not items:
        raise InputError(f"Nothing of {name} can be used: {summary(problems) or 'it holds no rows'}; {hint}.")
    if problems:
        say(f"{name}: left out {summary(problems)}")
    return Contrasts(items, name, tuple(problems), outside_macro, fewest, published)


def item_of(
    picture: str,
    find: Find,
    captions: tuple[str, ...],
    group: str,
    box: tuple[float, float, float, float] | None = None,
    true: int | tuple[int, ...] = 0,
) -> Contrast | Problem:
    """An item, whose first caption is the true one unless `true` says else; a problem where its picture is missing."""
    path = find(picture)
    if path is None:
        return Problem("missing file", picture)
    return Contrast(Picture(picture, path, box), captions, true, group)


def required_text(row: Any, key: str, where: str) -> str:
    """The text under `key`, without the space around it. Raises InputError when there is none, or an empty one."""
    value = row.get(key) if isinstance(row, Mapping) else None
    if not isinstance(value, str) or not value.strip() or not is_unicode(value):
        raise InputError(f"{where} has no '{key}' that is a text of Unicode; get the file anew.")
    return value.strip()


def against_orders(picture: Picture, caption: str, group: str, seed: int) -> Contrast | None:
    """A caption among other orders of its words (`boresight.evaluation.word_order`); None where it has none."""
    words = words_of(caption)
    others = shuffles_of(words, seed)
    return Contrast(picture, (" ".join(words), *others), 0, group) if others else None


def run_contrasts(job: BenchmarkJob, items: Contrasts, *, macro_only: bool) -> BenchmarkResult:
    """Accuracy by group, unless `macro_only` (for groups that are many), and means over groups and items."""
    results = evaluate_contrasts(job.encoder, items, job.editor, workers=job.workers)
    scores = {way: {**({} if macro_only else result.groups), **result.values} for way, result in results.items()}
    plain = results[PLAIN]
    facts = count_facts(plain, "items", items.published, f"{plain.chance['micro accuracy']:.1f}")
    return BenchmarkResult(scores=scores, charts=("macro accuracy",), facts=facts)
