"""Whether two captions that say the same are nearer to each other than to one that says something else."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from boresight.embeddings.batches import embed_captions
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.evaluation.composition import CompositionScores, composition_scores
from boresight.evaluation.contrasts import Contrasts
from boresight.recall import limits


def evaluate_paraphrases(encoder: Encoder, contrasts: Contrasts, *, batch_size: int = 64) -> CompositionScores:
    """How often the two true captions of an item are nearer to each other than either is to a false one.

    No picture is read: this is the text-only task of SugarCrepe++ (arXiv 2406.11171, section 3). Near is the cosine;
    ties, within 1e-6, are misses.

    Args:
        contrasts: items with two true captions.
        batch_size: captions that the encoder sees at once. Each is embedded once, however many items have it.

    Relations: `evaluate_contrasts` asks the same of a picture and its captions.

    Raises InputError for no items, for an item that has not two true captions, and for a batch size below 1.
    """
    name = contrasts.name or "this benchmark"
    if not len(contrasts):
        raise InputError(f"There are no items in {name}; there is nothing to score.")
    for item in contrasts.items:
        if len(item.right) != 2:
            raise InputError(f"'{item.picture.name}' of {name} has {len(item.right)} true captions; two are needed.")
    captions = list(dict.fromkeys(caption for item in contrasts.items for caption in item.captions))
    row_of = {caption: row for row, caption in enumerate(captions)}
    rows, cut = embed_captions(encoder, captions, batch_size=batch_size, what="captions")
    rows = F.normalize(rows.float(), dim=1)
    right = []
    for item in contrasts.items:
        own = rows[[row_of[item.captions[number]] for number in item.right]]
        others = rows[[row_of[item.captions[number]] for number in item.wrong]]
        right.append(bool((own @ others.T).max() < limits(torch.dot(*own))[0]))
    return composition_scores(contrasts, right, contrasts.problems, cut)
