"""Which picture of which emoji goes into which split; everything is drawn by hashing names, nothing by chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from boresight.data.splits import hashed
from boresight.data.worlds.emoji.concepts import Concept

SEEN_STYLES = ("fluent-3d", "noto")
UNSEEN_STYLE = "fluent-flat"
TEST_SHARE, VALIDATION_SHARE = 0.15, 0.08  # of the cells (family, skin tone)
HELD_SHARE = 0.4  # at most this share of one family's skin tones is held out
NEW_CONCEPT_SHARE = 0.1  # of the emoji whose family has no skin tones
STYLE_TEST_SIZE = 1000

SPLITS: Mapping[str, str] = {
    "encoder": "for fitting the encoder: one seen style of every training concept, drawn by hash",
    "train": "for fitting the SAE and the editor: the other seen style of the same concepts",
    "validation": "for choosing: held-out cells (family, skin tone), and emoji of families held out whole; seen styles",
    "test-combination": "cells (family, skin tone) that no split above holds in any style; seen styles",
    "test-style": "the unseen style, fluent-flat, of concepts of encoder",
}


@dataclass(frozen=True)
class Assignment:
    """A picture in a split. `held_out` says what the split has not seen: 'combination', 'concept', 'style' or ''."""

    concept: Concept
    style: str
    split: str
    held_out: str = ""


def assign_splits(concepts: Sequence[Concept], drawn: Mapping[str, set[str]]) -> list[Assignment]:
    """Every picture that is used, in the order of `concepts`; `drawn[code]` names the styles a concept exists in.

    A concept has at most one picture in a split, so the right answer of a retrieval never depends on the style. A
    cell (`Concept.cell`) is a family with a skin tone, of any gender and hair: with ('firefighter', 'dark') held out,
    no dark-skinned firefighter of any kind is trained on, while other firefighters and other dark-skinned people are.
    """
    seen = [concept for concept in concepts if drawn.get(concept.code, set()) & set(SEEN_STYLES)]
    cells = held_out_cells(seen)
    toned = {concept.family for concept in seen if concept.tones}
    assigned = []
    for concept in seen:
        styles = [style for style in SEEN_STYLES if style in drawn[concept.code]]
        styles.sort(key=lambda style: draw("style", style, concept.code))
        split = cells.get(concept.cell) if concept.tones else None
        if split:
            assigned.append(Assignment(concept, styles[0], split, "combination"))
        elif concept.family not in toned and draw("concept", concept.family) < NEW_CONCEPT_SHARE:
            assigned.append(Assignment(concept, styles[0], "validation", "concept"))
        else:
            assigned += [
                Assignment(concept, style, split) for style, split in zip(styles, ("encoder", "train"), strict=False)
            ]
    known = [row.concept for row in assigned if row.split == "encoder" and UNSEEN_STYLE in drawn[row.concept.code]]
    chosen = style_test(known)
    return assigned + [
        Assignment(concept, UNSEEN_STYLE, "test-style", "style") for concept in known if concept.code in chosen
    ]


def held_out_cells(concepts: Sequence[Concept]) -> dict[tuple[str, str], str]:
    """Split of every held-out cell (family, skin tone): 'test-combination' or 'validation'.

    Cells are taken in the order of their hashes while the family keeps three fifths of its tones and the tone two
    families in training, until the shares are reached.
    """
    cells = sorted({concept.cell for concept in concepts if concept.tones})
    tones, families = Counter(family for family, _ in cells), Counter(tone for _, tone in cells)
    may_lose = {family: int(HELD_SHARE * count) for family, count in tones.items()}
    kept = dict(families)
    wanted = {"test-combination": round(TEST_SHARE * len(cells)), "validation": round(VALIDATION_SHARE * len(cells))}
    order = iter(sorted(cells, key=lambda cell: draw("cell", *cell)))
    held: dict[tuple[str, str], str] = {}
    for split, count in wanted.items():
        taken = 0
        while taken < count and (cell := next(order, None)) is not None:
            family, tone = cell
            if may_lose[family] > 0 and kept[tone] > 2:
                held[cell] = split
                may_lose[family] -= 1
                kept[tone] -= 1
                taken += 1
    return held


def style_test(concepts: Sequence[Concept]) -> set[str]:
    """Codes of at most STYLE_TEST_SIZE concepts, at most half of them with a skin tone, these even over families."""
    toned = _even([concept for concept in concepts if concept.tones])[: STYLE_TEST_SIZE // 2]
    others = _even([concept for concept in concepts if not concept.tones])[: STYLE_TEST_SIZE - len(toned)]
    return {concept.code for concept in (*toned, *others)}


def _even(concepts: Sequence[Concept]) -> list[Concept]:
    """By hash, the first of every family before the second of any."""
    families = defaultdict(list)
    for concept in sorted(concepts, key=lambda concept: draw("test-style", concept.code)):
        families[concept.family].append(concept)
    ranked = [(rank, concept) for family in families.values() for rank, concept in enumerate(family)]
    return [concept for _, concept in sorted(ranked, key=lambda pair: (pair[0], draw("test-style", pair[1].code)))]


def draw(*names: str) -> float:
    """A number in [0, 1) that depends on the names alone, on every machine."""
    return hashed("\0".join(names))
