"""What a user would do instead of an edit where nothing is trained, beside an editor that is fitted, and the verdict.

The alternatives are the plain cosine, and that less its hubness. Hubness is measured with a bank of pairs, and how much
of it is taken off is chosen on other pairs; never on what is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from boresight.brief import Brief
from boresight.device import pick_device
from boresight.editing import CaptionEditor, CorrectedScorer, PlainScorer, Scorer
from boresight.editing.config import Correction, CorrectionMethod
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import require_embeddings
from boresight.errors import InputError
from boresight.evaluation.comparison_rows import EDITED, PLAIN, PLAIN_NNN, PLAIN_SINKHORN
from boresight.evaluation.retrieval import RetrievalScores, evaluate_retrieval
from boresight.evaluation.verdict import Verdict, hits_by_image, verdict, warn_of_known, warn_of_missing
from boresight.seeds import generator

CHOSEN_SHARE = 0.25
"""Of the remembered pairs, on which is chosen where there is no validation set; the others are the bank."""
FEWEST_REMEMBERED = 40
UNTRAINED = (
    "Fine-tuning of the text side, often the best alternative, is not among these; 'boresight compare' trains it."
)
_METHODS: dict[str, CorrectionMethod] = {PLAIN_NNN.name: "nnn", PLAIN_SINKHORN.name: "sinkhorn"}


@dataclass(frozen=True, repr=False)
class Alternatives(Brief):
    """What needs no training.

    Attributes:
        scorers: by the names of the rows of `compare`, 'plain' first.
        chosen: what each takes off, what its bank was and where it was chosen, in words; empty for 'plain' alone.
        notes: why some are missing, a sentence each.
    """

    scorers: Mapping[str, Scorer]
    chosen: Mapping[str, str]
    notes: Sequence[str] = ()


def untrained_alternatives(
    editor: CaptionEditor, known: Embeddings | None = None, *, device: str | torch.device | None = None
) -> Alternatives:
    """Plain, and plain less its hubness where there are pairs to measure it with and others to choose on.

    The bank is what the editor remembers, else the split 'train' of `known`. It is chosen on the split 'validation' of
    `known`; where there is none, on a quarter of what the editor remembers, which then is not in the bank. Plain was
    fitted on neither.

    Args:
        known: embeddings of the editor's encoder; no image of theirs in these splits may be in the test set.
        device: where plain scores are taken.

    Raises ArtefactError for `known` of another encoder.
    """
    plain = PlainScorer(pick_device(device))
    if known is not None:
        editor.require_same_encoder(known)
    try:
        bank, its_name, choosing, where = _bank_and_choice(editor, known)
        rivals = {name: CorrectedScorer.fit(plain, bank, choosing, method) for name, method in _METHODS.items()}
    except InputError as error:
        return Alternatives(
            {PLAIN.name: plain}, {}, [f"'{PLAIN.name}' stands without a correction of hubness: {error}"]
        )
    chosen = {
        name: f"{_in_words(rival.image_rule)} off images, {_in_words(rival.text_rule)} off captions"
        for name, rival in rivals.items()
    }
    size = len(next(iter(rivals.values())).bank.images)
    return Alternatives({PLAIN.name: plain, **rivals}, {**chosen, "bank": f"{size:,} {its_name}", "chosen on": where})


def _bank_and_choice(editor: CaptionEditor, known: Embeddings | None) -> tuple[Embeddings, str, Embeddings, str]:
    """Pairs for the bank and what they are, pairs to choose on and where they are from. Raises InputError for none."""
    remembered, splits = _remembered_pairs(editor), set() if known is None else set(known.splits)
    size = 0 if remembered is None else len(remembered)
    if known is not None and "validation" in splits and (size or "train" in splits):
        where = f"the split 'validation' of {known.name or 'the embeddings'}, {len(known.validation):,} images"
        if remembered is not None:
            return remembered, "pairs that the editor remembers", known.validation, where
        return known.train, f"pairs of the split 'train' of {known.name or 'the embeddings'}", known.validation, where
    if remembered is None or size < FEWEST_REMEMBERED:
        raise InputError(
            f"the editor remembers {size} pairs, of which {FEWEST_REMEMBERED} would do, and there are no embeddings "
            "with the splits 'train' and 'validation'; pass some as `bank`."
        )
    order = torch.randperm(size, generator=generator(0, "remembered pairs to choose on"))
    held, rest = order[: round(CHOSEN_SHARE * size)].sort().values, order[round(CHOSEN_SHARE * size) :].sort().values
    where = f"{len(held):,} other pairs that the editor remembers, for want of a validation set"
    return remembered.select(rest), "pairs that the editor remembers", remembered.select(held), where


def _remembered_pairs(editor: CaptionEditor) -> Embeddings | None:
    """What the editor remembers, as embeddings with one caption an image; None where that is nothing."""
    memory = editor.memory
    if memory is None or len(memory.images) == 0:
        return None
    images, texts = memory.images.cpu().float(), memory.texts.cpu().float()
    return Embeddings.from_arrays(images, texts, range(len(images)))


def _in_words(rule: Correction) -> str:
    if rule.share == 0:
        return "nothing"
    if rule.method == "nnn":
        return f"{rule.share:g} of the mean over the {rule.reach:g} nearest"
    return f"the potential at temperature {rule.reach:g}"


def judge_editor(
    galleries: Sequence[Embeddings], editor: CaptionEditor, alternatives: Alternatives, *, fitted: Sequence[Embeddings]
) -> tuple[dict[str, list[RetrievalScores]], Verdict]:
    """Retrieval in each gallery by every alternative and by the editor, 'edited', and the verdict over all of them.

    fitted: what was fitted or chosen on, beside what the editor remembers; images of it in a gallery are warned of.
    """
    scorers = {**alternatives.scorers, EDITED.name: editor}
    scores = {name: [evaluate_retrieval(part, scorer) for part in galleries] for name, scorer in scorers.items()}
    hits = {
        name: [np.concatenate([hits_by_image(one, part.owners) for one, part in zip(each, galleries, strict=True)])]
        for name, each in scores.items()
    }
    notes = [*warn_of_missing(galleries), *warn_of_known(galleries, fitted, editor), *alternatives.notes, UNTRAINED]
    return scores, replace(verdict(galleries, hits.pop(EDITED.name), hits, notes=notes), chosen=alternatives.chosen)


def evaluate_editor(
    embeddings: Embeddings,
    editor: CaptionEditor,
    split: str = "test",
    *,
    bank: Embeddings | None = None,
    device: str | torch.device | None = None,
) -> tuple[dict[str, RetrievalScores], Verdict]:
    """Retrieval with an editor that is fitted already, beside what needs no training, and the verdict.

    Plain scores less their hubness (`CorrectedScorer`) are among the rivals: their bank is what the editor remembers,
    else the split 'train', and they are chosen on the split 'validation', else on a part of what the editor remembers.
    `verdict.chosen` says which.

    Args:
        embeddings: with the split that is scored.
        bank: embeddings that have 'train' and 'validation', where the others do not.
        device: where plain scores are taken; an editor scores in its own place.

    Returns:
        Scores by the names of the rows of `compare`, and the verdict.

    Example:
        scores, said = evaluate_editor(embeddings, editor)
        print(said)

    Relations: `compare` trains the rivals that need it too, over seeds.

    Raises:
        InputError: a split that is empty or has no captions, a bank without a split 'validation'.
        ArtefactError: an editor of another encoder or width.
    """
    require_embeddings(embeddings=embeddings)
    test, known = embeddings.split(split), [embeddings] if bank is None else [embeddings, checked_bank(bank)]
    editor.require_same_encoder(test)
    alternatives = untrained_alternatives(editor, known[-1], device=device)
    scores, said = judge_editor([test], editor, alternatives, fitted=fitted_parts(editor, *known))
    return {name: of_one for name, (of_one,) in scores.items()}, said


def checked_bank(bank: Embeddings) -> Embeddings:
    """The bank. Raises InputError where it has no split 'validation' to choose on."""
    if "validation" not in bank.splits:
        raise InputError(
            f"The bank {bank.name or ''} has no split 'validation' to choose on; present: ".replace("  ", " ")
            + f"{', '.join(sorted(set(bank.splits)))}. Name the splits 'train' and 'validation'."
        )
    return bank


def fitted_parts(editor: CaptionEditor, *known: Embeddings) -> list[Embeddings]:
    """The splits that are for fitting and choosing, and those that the editor says were."""
    names = sorted({"train", "validation"} | editor.fitted_on)
    return [part.split(name) for part in known for name in names if name in part.splits]
