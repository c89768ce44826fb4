"""Competitors of a right answer, ties counted apart, and what they say of recall. Every recall here comes from this."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.brief import Brief

TOLERANCE = 1e-6


@dataclass(frozen=True, repr=False)
class Counts(Brief):
    """What each of Q queries met in its gallery.

    Where the answer ties with others, the order among the tied is taken to be random, and the methods give
    expectations over it. So a scorer that returns a constant gets exactly the recall of chance.

    Attributes:
        greater: (Q,) int64, competitors whose score is above the best answer's.
        tied: (Q,) int64, competitors whose score is within the tolerance of it.
        answers: (Q,) int64, right answers within the tolerance of the best one, at least 1; 0 where the query has
            no right answer, which makes it no query: every method gives NaN there.
    """

    greater: np.ndarray
    tied: np.ndarray
    answers: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        """(Q,) bool, which queries have an answer."""
        return self.answers > 0

    def __getitem__(self, rows: np.ndarray) -> Counts:
        return Counts(self.greater[rows], self.tied[rows], self.answers[rows])

    def recall(self, k: int) -> np.ndarray:
        """(Q,) probability that a right answer stands among the first k."""
        room = k - self.greater
        miss = np.ones(len(self.greater))
        for drawn in range(k):
            foreign = np.maximum(self.tied - drawn, 0)
            miss = np.where(drawn < room, miss * foreign / np.maximum(foreign + self.answers, 1), miss)
        return np.where(self.asked, np.where(room > 0, 1 - miss, 0.0), np.nan)

    def rank(self) -> np.ndarray:
        """(Q,) expected rank of the first right answer, counted from 1; the mid-rank when one answer ties."""
        return np.where(self.asked, 1 + self.greater + self.tied / (self.answers + 1), np.nan)

    def reciprocal_rank(self) -> np.ndarray:
        """(Q,) expected 1 / rank of the first right answer."""
        from scipy.special import digamma  # half a second, which whoever only asks for recalls need not wait

        value = 1 / (1.0 + self.greater)
        single = (self.answers == 1) & (self.tied > 0)
        greater, tied = self.greater[single], self.tied[single]
        value[single] = (digamma(greater + tied + 2.0) - digamma(greater + 1.0)) / (tied + 1.0)
        several = (self.answers > 1) & (self.tied > 0)
        if several.any():
            cases = np.stack([self.greater, self.tied, self.answers], 1)[several]
            distinct, case_of = np.unique(cases, axis=0, return_inverse=True)
            value[several] = np.array([_expected_reciprocal(*case) for case in distinct.tolist()])[case_of.reshape(-1)]
        return np.where(self.asked, value, np.nan)


def _expected_reciprocal(greater: int, tied: int, answers: int) -> float:
    """E[1 / (1 + greater + X)], X = how many of `tied` stand before the first of `answers` in a random order."""
    before = np.arange(tied)
    at_least = np.cumprod((tied - before) / (tied + answers - before))  # P(X > x) for x = 0, 1, ...
    probability = -np.diff(np.concatenate([[1.0], at_least, [0.0]]))
    return float((probability / (1 + greater + np.arange(tied + 1))).sum())


def limits(own: Tensor) -> tuple[Tensor, Tensor]:
    """Scores from the first to the second tie with `own`: 1e-6 * max(1, |own|) below and above."""
    slack = TOLERANCE * own.abs().clamp(min=1)
    return own - slack, own + slack


def count_text_to_image(scores: Tensor, owners: Tensor) -> Counts:
    """Competitors of each caption's image in a matrix held in memory. scores: (N, M), owners: (M,)."""
    columns = torch.arange(len(owners), device=scores.device)
    low, high = limits(scores[owners, columns])
    above, at_least = (scores > high).sum(0), (scores >= low).sum(0)
    return Counts(above.cpu().numpy(), (at_least - above - 1).cpu().numpy(), np.ones(len(owners), np.int64))


def count_image_to_text(scores: Tensor, owners: Tensor) -> Counts:
    """Competitors of each image's best caption in a matrix held in memory. scores: (N, M), owners: (M,)."""
    own_pair = owners.unsqueeze(0) == torch.arange(len(scores), device=scores.device).unsqueeze(1)
    own = scores.masked_fill(~own_pair, -torch.inf)
    low, high = limits(own.amax(1, keepdim=True))
    foreign = scores.masked_fill(own_pair, -torch.inf)
    asked = own_pair.any(1)
    above, at_least = (foreign > high).sum(1) * asked, (foreign >= low).sum(1) * asked
    answers = ((own >= low) & own_pair).sum(1)
    return Counts(*(part.cpu().numpy() for part in (above, at_least - above, answers)))
