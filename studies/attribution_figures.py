"""What the study of attribution adds to the product's figures: true and false phrases, tables over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution_measures.comparison import Rows, checked_rows, maps_of
from attribution_measures.distractors import target_vs_distractor
from attribution_measures.figures import FAITHFUL, GROUNDED, TEXTUAL
from boresight.encoders.tokens import Token, grouped_words
from boresight.errors import InputError
from boresight.tables import Spread
from markdown_tables import markdown
from worlds.phrases import GroundedTexts, Span

PHRASES = {
    "phrase_auc": ("true against false phrase ↑", 3),
    "top_word": ("top word true ↑", 3),
    "top_word_chance": ("chance of that", 3),
}
TEXTUAL_AND_PHRASES = {**PHRASES, **TEXTUAL}
MEASURES: Mapping[str, tuple[str, int]] = {**GROUNDED, **FAITHFUL, **TEXTUAL_AND_PHRASES}

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""Row -> measure -> a value a pair."""


def phrase_figures(
    encoder, texts: GroundedTexts, methods: Rows, *, seed: int = 0, batch_size: int = 16
) -> dict[str, dict[str, Tensor]]:
    """Row -> measure -> (P,) float64: of text maps, whether they part a true phrase from a false one.

    phrase_auc is the chance that a token of the true phrase has more weight than one of the false phrase; top_word is 1
    where the word of the largest sum of weights is in the true phrase, and top_word_chance the share of words that are.

    Raises InputError for a caption that is cut before both of its phrases are told, an unknown method or option.
    """
    tokens = encoder.tokenized(texts.captions).tokens
    true, false = (_inside(tokens, texts, spans) for spans in (texts.true, texts.false))
    figures = {}
    for row, method in checked_rows(methods, batch_size).items():
        maps = maps_of(encoder, method, texts.images, texts.captions, "text", seed)
        top = [_top_word(*parts) for parts in zip(texts.captions, tokens, maps.double(), true, strict=True)]
        right, chance = (torch.stack(column).double() for column in zip(*top, strict=True))
        # A caption is a picture of one row here; tokens of neither phrase never count, whatever stands there.
        sides = (part[:, None] for part in (maps.nan_to_num(), true, false))
        figures[row] = {"phrase_auc": target_vs_distractor(*sides), "top_word": right, "top_word_chance": chance}
    return figures


def _top_word(caption: str, tokens: Sequence[Token], weights: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    members = [list(numbers) for _, numbers in grouped_words(caption, tokens)]
    sums = torch.stack([weights[numbers].sum() for numbers in members])
    right = torch.stack([true[numbers].any() for numbers in members])
    top = sums == sums.max()
    return (top & right).sum() / top.sum(), right.double().mean()


def _inside(tokens: Sequence[Sequence[Token]], texts: GroundedTexts, spans: Sequence[Span]) -> Tensor:
    """(P, T) bool, the tokens that reach into each caption's span."""
    out = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.bool)
    for row, (of_row, (start, end)) in enumerate(zip(tokens, spans, strict=True)):
        inside = [not token.special and token.start < end and start < token.end for token in of_row]
        if not any(inside):
            raise InputError(
                f"Caption {row} of {texts.name} is cut before its phrase '{texts.captions[row][start:end]}'; "
                "use shorter captions."
            )
        out[row, : len(inside)] = torch.tensor(inside)
    return out


@dataclass(frozen=True, eq=False)
class AttributionRuns:
    """The same rows and measures, one `Values` a seed."""

    runs: Sequence[Values]

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("There are no runs to join; pass the figures of at least one seed.")

    def measures(self) -> list[str]:
        """All that was measured, in the order of MEASURES."""
        return [measure for measure in MEASURES if any(measure in by for by in self.runs[0].values())]

    def spread(self, row: str, measure: str) -> Spread:
        """Over the seeds, of the means over pairs."""
        return Spread.of([sum(run[row][measure]) / len(run[row][measure]) for run in self.runs])

    def table(self, measures: Sequence[str]) -> str:
        """Markdown, a row a method: mean ± sample standard deviation over the seeds."""
        rows = [[row, *(self.spread(row, name).text(MEASURES[name][1]) for name in measures)] for row in self.runs[0]]
        return markdown(["method", *(MEASURES[name][0] for name in measures)], rows)
