"""The rows of a comparison, and how the options of each differ from those of 'edited'.

A result is only worth something beside what would also explain it, so the table has all of these rows unless fewer are
asked for: what a user would do instead, a correction of hubness on plain scores and on a fine-tuned text side; the same
fine-tuning without a mask, with a memory too, a mask over raw dimensions, the reconstruction alone, the memory and the
masks by themselves, a random mask of equal density, and shuffled images, where a sound editor is at chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table. `role`: 'baseline', 'opponent' (a rival to beat), 'ours' or 'control' (must not win)."""

    name: str
    role: str
    meaning: str


PLAIN = Row("plain", "baseline", "cosine of the embeddings as they are")
PLAIN_NNN = Row("plain, NNN", "opponent", "plain less its hubness by nearest neighbours, with the training pairs")
PLAIN_SINKHORN = Row(
    "plain, Sinkhorn", "opponent", "plain less its hubness by Sinkhorn potentials, with the same pairs"
)
TUNED = Row("text fine-tuning", "opponent", "the same training of the text side, without a mask")
TUNED_NNN = Row("text fine-tuning, NNN", "opponent", "that less its hubness, as 'plain, NNN'")
TUNED_SINKHORN = Row("text fine-tuning, Sinkhorn", "opponent", "that less its hubness, as 'plain, Sinkhorn'")
TUNED_MEMORY = Row("text fine-tuning, memory", "opponent", "the same, with the editor's memory beside the text side")
MEMORY = Row("memory alone", "ours", "the editor's memory on both sides and its correction, without mask and gate")
RAW = Row("raw-dimension mask", "opponent", "the same training, a mask over the dimensions of the embedding")
REBUILT = Row("SAE reconstruction", "opponent", "every latent kept (m = 1), no training of the text side")
EDITED = Row("edited", "ours", "mask over latents, gate over dimensions, memory and its correction of hubness")
EDITED_UNCORRECTED = Row("edited, hubness kept", "ours", "'edited' without the correction of hubness")
EDITED_SHOWN = Row("edited, as shown", "ours", "the form that shows: what the caption tells stays, all else goes")
EDITED_MASKS = Row("edited, no memory", "ours", "mask over latents and gate over dimensions alone")
EDITED_REBUILT = Row("edited, reconstruct", "ours", "the form of the paper, a mask over latents alone: x~ = D(m z) + b")
RANDOM = Row("random mask", "control", "the trained masks of 'edited', their entries exchanged among latents")
SHUFFLED = Row("shuffled images", "control", "the trained 'edited' on images exchanged among ids; must be at chance")
CHANCE = Row("chance", "control", "what a score that knows nothing gets, computed")
ROWS = (
    PLAIN,
    PLAIN_NNN,
    PLAIN_SINKHORN,
    TUNED,
    TUNED_NNN,
    TUNED_SINKHORN,
    TUNED_MEMORY,
    RAW,
    REBUILT,
    EDITED,
    EDITED_UNCORRECTED,
    EDITED_SHOWN,
    MEMORY,
    EDITED_MASKS,
    EDITED_REBUILT,
    RANDOM,
    SHUFFLED,
    CHANCE,
)
CHANGES: dict[Row, dict[str, Any]] = {
    TUNED: {"form": "plain", "memory": "none"},
    TUNED_MEMORY: {"form": "plain", "memory": "text", "correction": "none"},
    MEMORY: {"form": "plain", "memory": "both"},
    RAW: {"form": "raw", "memory": "none"},
    REBUILT: {"form": "reconstruct", "mask": "ones", "text": "frozen", "memory": "none"},
    EDITED_MASKS: {"memory": "none"},
    EDITED_REBUILT: {"form": "reconstruct", "memory": "none"},
}
"""What the rivals change of the options of `edited`."""
ALTERNATIVES = (PLAIN, PLAIN_NNN, PLAIN_SINKHORN, TUNED, TUNED_NNN, TUNED_SINKHORN)
"""What a user could do without an edit of the image; the best of these is what 'edited' has to beat."""
