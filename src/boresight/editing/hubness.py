"""Hubness: an image that is near to every caption answers none, so what it scores with any caption is taken off.

    s'(i, t) = s(i, t) - b(i) - c(t)

b(i) is read off the scores s(i, tau_j) of the image with a bank of R captions, c(t) off those of the caption with the
R images of the bank; the bank is of training pairs:

    nnn        b(i) = share * mean of the `reach` largest s(i, tau_j)              arXiv 2410.24114
    sinkhorn   b(i) = share * reach * log sum_j exp(s(i, tau_j) / reach + v_j)     arXiv 2508.02538

v are the potentials that give every caption of the bank the same weight among the bank's images, and the other way
round; the temperature is `reach`. Each is one number, of one side alone: images stay static and the undivided score an
inner product. b changes what a caption finds among images, c what an image finds among captions, and neither the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from boresight.brief import Brief, spelled
from boresight.editing.choosing import choosing_sample, recalls
from boresight.editing.config import Correction, CorrectionMethod
from boresight.editing.memory import remember
from boresight.editing.scorer import PairScorer, Prepared, Scorer, less_bias
from boresight.editing.scoring import in_threads
from boresight.errors import InputError
from boresight.recall import Counts, count_image_to_text, count_text_to_image

if TYPE_CHECKING:
    from boresight.embeddings import Embeddings
    from boresight.encoders import Encoder

BANK = 4096
METHODS: tuple[CorrectionMethod, ...] = get_args(CorrectionMethod)
SHARES: dict[CorrectionMethod, Sequence[float]] = {"nnn": (0.25, 0.5, 0.75, 1.0, 1.25), "sinkhorn": (1.0,)}
_NEIGHBOUR_SHARES = (0.005, 0.02, 0.05)  # of the bank
_TEMPERATURES = (0.01, 0.02, 0.05, 0.1)
_ITERATIONS = 20
_TINY = 1e-30
_SCORES = 2**23


def bank_rows(count: int) -> Tensor:
    """Which of `count` remembered pairs are the bank: at most BANK, evenly spread, since memories may be sorted."""
    size = min(count, BANK)
    return torch.arange(size) * count // max(1, size)


@dataclass(frozen=True, eq=False)
class Bank:
    """R pairs, each side as a scorer prepares it, uncorrected. score: (images, texts) -> (N, T), as of a `Scorer`."""

    score: Callable[[Prepared, Prepared], Tensor]
    images: Prepared
    texts: Prepared
    _potentials: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of_images(self, images: Prepared, method: CorrectionMethod, reaches: Sequence[float]) -> Tensor:
        """(N, len(reaches)) b of prepared images, for a share of 1.

        Raises InputError where a reach of 'nnn' is beyond the size of the bank.
        """
        return self._read(lambda rows: self.score(images[rows], self.texts), len(images), method, reaches, 1)

    def of_texts(self, texts: Prepared, method: CorrectionMethod, reaches: Sequence[float]) -> Tensor:
        """(T, len(reaches)) c of prepared captions, for a share of 1. Raises as `of_images` does."""
        return self._read(lambda rows: self.score(self.images, texts[rows]).t(), len(texts), method, reaches, 0)

    def _read(
        self,
        scores_of: Callable[[slice], Tensor],
        count: int,
        method: CorrectionMethod,
        reaches: Sequence[float],
        side: int,
    ) -> Tensor:
        """In blocks: no matrix of `count` x R is held whole."""
        size = len(self.images)
        if method == "nnn" and max(reaches) > size:
            raise InputError(f"The bank has {size} pairs and {max(reaches):g} neighbours are asked for; choose fewer.")
        out = torch.empty(count, len(reaches))
        block = max(1, _SCORES // max(1, size))
        for start in range(0, count, block):
            rows = slice(start, start + block)
            scores = scores_of(rows)
            out = out.to(scores.device)
            if method == "nnn":
                out[rows] = _means_of_largest(scores, [int(reach) for reach in reaches])
            else:
                for column, reach in enumerate(reaches):
                    out[rows, column] = reach * (scores / reach).add_(self._balanced(reach)[side]).logsumexp(1)
        return out

    def _balanced(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Potentials (R,) of the bank's images and captions: Sinkhorn's iterations on the bank's own scores.

        The first is of logarithms, which no temperature overflows; it leaves a matrix that sums to R over its columns,
        and the others are its products with a vector, a tenth of the time.
        """
        if temperature not in self._potentials:
            scores = self.score(self.images, self.texts) / temperature
            size = len(scores)
            images = math.log(size) - scores.logsumexp(1)
            texts = math.log(size) - (scores + images.unsqueeze(1)).logsumexp(0)
            weights = scores.add_(images.unsqueeze(1)).add_(texts).exp_()
            of_images, of_texts = weights.new_ones(size), weights.new_ones(size)
            for _ in range(_ITERATIONS - 1):
                of_images = size / (weights @ of_texts).clamp_min(_TINY)
                of_texts = size / (of_images @ weights).clamp_min(_TINY)
            self._potentials[temperature] = images + of_images.log(), texts + of_texts.log()
        return self._potentials[temperature]


def _means_of_largest(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """(N, len(counts)) means of the `count` largest of each row of scores (N, R), for each of the counts."""
    if scores.device.type != "cpu" or scores.requires_grad:
        sums = scores.topk(max(counts), dim=1).values.cumsum(1)
        return torch.stack([sums[:, count - 1] / count for count in counts], dim=1)
    out = torch.empty(len(scores), len(counts))
    size = scores.shape[1]

    def fill(share: tuple[Tensor, Tensor]) -> None:
        # The order among the largest is not needed: NumPy's partition takes a quarter of the time of torch's topk.
        mine, means = share[0].to(torch.float32, copy=True, memory_format=torch.contiguous_format), share[1]
        mine.numpy().partition([size - count for count in counts], axis=1)
        for column, count in enumerate(counts):
            torch.mean(mine[:, size - count :], 1, out=means[:, column])

    threads = max(1, min(torch.get_num_threads(), len(scores)))
    in_threads(fill, list(zip(scores.tensor_split(threads), out.tensor_split(threads), strict=True)))
    return out


@dataclass(frozen=True)
class Corrections:
    """The rules of images and of captions, and the `boresight.editing.choosing.recall_sum` that they reach together."""

    images: Correction
    texts: Correction
    recall_sum: float


@torch.no_grad()
def choose_corrections(
    scorer: PairScorer, bank: Bank, validation: Embeddings, methods: Sequence[CorrectionMethod] = METHODS
) -> Corrections:
    """The rules of images and of captions that find most on validation: sums of R@1, R@5, R@10 of T2I and of I2T.

    No correction (share 0) is among what is tried and wins where others are level, so neither is ever below it there;
    then the earlier of the methods. Holds the (N, M) scores of validation, so pass a bounded sample.
    """
    owners = validation.owners.to(scorer.device)
    size = len(bank.images)
    reaches = {method: _reaches(method, size) for method in methods}
    images = scorer.prepare_images(validation.images)
    of_images = {method: bank.of_images(images, method, reaches[method]) for method in methods}
    scores, of_texts = [], []
    for block in torch.arange(len(owners)).split(max(64, _SCORES // max(1, size))):
        texts = scorer.prepare_texts(validation.texts[block])
        scores.append(scorer.score_prepared(images, texts))
        of_texts.append({method: bank.of_texts(texts, method, reaches[method]) for method in methods})
    whole = torch.cat(scores, dim=1)
    of_captions = {method: torch.cat([block[method] for block in of_texts]) for method in methods}

    def best(
        count: Callable[[Tensor], Counts], corrections: dict[CorrectionMethod, Tensor], dim: int
    ) -> tuple[Correction, list[float]]:
        plain = Correction(method=methods[0], reach=reaches[methods[0]][0], share=0.0)
        reached = {plain: recalls(count(whole))}
        for method in methods:
            for column, reach in enumerate(reaches[method]):
                for share in SHARES[method]:
                    counts = count(whole - share * corrections[method][:, column].unsqueeze(dim))
                    reached[Correction(method=method, reach=reach, share=share)] = recalls(counts)
        return max(reached.items(), key=lambda found: sum(found[1]))

    image_rule, text_to_image = best(lambda one: count_text_to_image(one, owners), of_images, 1)
    text_rule, image_to_text = best(lambda one: count_image_to_text(one, owners), of_captions, 0)
    # Neither side changes what the other finds, so the recalls of both together are those of each.
    return Corrections(image_rule, text_rule, sum(100 * recall for recall in (*text_to_image, *image_to_text)))


def _reaches(method: CorrectionMethod, size: int) -> list[float]:
    """What is tried with a bank of `size` pairs."""
    if method == "sinkhorn":
        return list(_TEMPERATURES)
    return [float(k) for k in sorted({max(1, round(share * size)) for share in _NEIGHBOUR_SHARES})]


class CorrectedScorer:
    """Any scorer with its hubness taken off: what a user would do without an editor.

    Example:
        rival = CorrectedScorer.fit(PlainScorer(), embeddings.train, embeddings.validation, "nnn")
        evaluate_retrieval(embeddings.test, rival)

    Relations: `CaptionEditor` corrects its own scores by its memory.
    """

    def __init__(self, scorer: Scorer, bank: Bank, images: Correction, texts: Correction) -> None:
        self.scorer, self.bank, self.image_rule, self.text_rule = scorer, bank, images, texts

    def __repr__(self) -> str:
        rules = {name: repr(rule) for name, rule in (("images", self.image_rule), ("texts", self.text_rule))}
        return spelled(self, {"scorer": repr(self.scorer), **rules, "bank": f"{len(self.bank.images):,} pairs"})

    @classmethod
    def fit(
        cls, scorer: Scorer, train: Embeddings, validation: Embeddings, method: CorrectionMethod, seed: int = 0
    ) -> CorrectedScorer:
        """With BANK captioned images of `train` and the means of their captions as the bank, rules as validation chose.

        Raises InputError where no image of `train` has captions, or none of what is drawn of validation.
        """
        pairs, _ = remember(train, seed)
        if len(pairs.images) == 0:
            raise InputError("No training image has captions, and hubness is measured with pairs; check the splits.")
        with torch.inference_mode():
            rows = bank_rows(len(pairs.images))
            bank = Bank(
                scorer.score_prepared,
                scorer.prepare_images(pairs.images[rows].float()),
                scorer.prepare_texts(pairs.texts[rows].float()),
            )
            chosen = choose_corrections(scorer, bank, choosing_sample(validation, seed), [method])
            return cls(scorer, bank, chosen.images, chosen.texts)

    @property
    def device(self) -> torch.device:
        """That of the scorer."""
        return self.scorer.device

    def require_same_encoder(self, source: Embeddings | Encoder) -> None:
        """As the scorer does."""
        self.scorer.require_same_encoder(source)

    def prepare_images(self, images: Tensor) -> Corrected:
        """images: (N, d)."""
        prepared = self.scorer.prepare_images(images)
        return Corrected(prepared, bias_of(prepared, self.bank.of_images, self.image_rule))

    def prepare_texts(self, texts: Tensor) -> Corrected:
        """texts: (T, d)."""
        prepared = self.scorer.prepare_texts(texts)
        return Corrected(prepared, bias_of(prepared, self.bank.of_texts, self.text_rule))

    def score_prepared(self, images: Corrected, texts: Corrected) -> Tensor:
        """(N, T), corrected."""
        return less_bias(self.scorer.score_prepared(images.prepared, texts.prepared), images.bias, texts.bias)


@dataclass(frozen=True, repr=False)
class Corrected(Brief):
    """One side as the scorer prepares it, and (rows,) float32 what is taken off its scores; None where nothing is."""

    prepared: Prepared
    bias: Tensor | None

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, rows: slice | Tensor) -> Corrected:
        return Corrected(self.prepared[rows], None if self.bias is None else self.bias[rows])


def bias_of(
    prepared: Prepared, of_side: Callable[[Prepared, CorrectionMethod, Sequence[float]], Tensor], rule: Correction
) -> Tensor | None:
    """(rows,) what the rule takes off the scores of prepared images or captions; None where that is nothing."""
    return None if rule.share == 0 else rule.share * of_side(prepared, rule.method, [rule.reach])[:, 0]
