"""Why one image scores as it does under one caption: its latents, kept and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.editing.model import EditModel
from boresight.errors import InputError
from boresight.sae.names import LatentNames


@dataclass(frozen=True)
class LatentEffect:
    """One active latent of the image under the caption.

    Attributes:
        index: of the latent.
        name: of the latent, '' where names were not given.
        activation: z, at the scale of the embeddings.
        mask: m in [0, 1], how much of it the caption keeps.
        kept: z m <d, r * u> / |x|, what the kept part adds to the undivided score; the gate r is 1 where there is none.
        dropped: -z (1 - m) <d, r * u> / |x|, what dropping the rest adds to it.
    """

    index: int
    name: str
    activation: float
    mask: float
    kept: float
    dropped: float


@dataclass(frozen=True)
class Explanation:
    """What an edit did to one pair.

    The undivided score is the sum over `latents` of `kept`, plus `remainder`.

    Attributes:
        plain_score: cosine of the unedited image with the same caption vector u.
        undivided_score: <x~, u> / |x|.
        edited_score: the editor's score, divided by a length where the editor divides, less `hubness`.
        hubness: what is taken off for the image and for the caption, the same for whatever they are matched with.
        remainder: the part of the undivided score that no latent carries: the pre-bias or, where the edit starts from
            the image, what the autoencoder does not explain, and how far a memory has moved the image.
        latents: every active latent, the largest activation first; empty where the form has no latents.
        top: how many `kept` and `dropped` list.
    """

    plain_score: float
    undivided_score: float
    edited_score: float
    remainder: float
    latents: tuple[LatentEffect, ...]
    top: int = 10
    hubness: float = 0.0

    @property
    def kept(self) -> tuple[LatentEffect, ...]:
        """Latents that the caption keeps by half or more, the largest kept amount z m first."""
        chosen = [latent for latent in self.latents if latent.mask >= 0.5]
        return tuple(sorted(chosen, key=lambda latent: -latent.activation * latent.mask)[: self.top])

    @property
    def dropped(self) -> tuple[LatentEffect, ...]:
        """Latents that the caption drops by more than half, the largest dropped amount z (1 - m) first."""
        chosen = [latent for latent in self.latents if latent.mask < 0.5]
        return tuple(sorted(chosen, key=lambda latent: -latent.activation * (1 - latent.mask))[: self.top])

    def __str__(self) -> str:
        lines = [f"plain {self.plain_score:.3f}, edited {self.edited_score:.3f}"]
        for title, latents in (("kept", self.kept), ("dropped", self.dropped)):
            lines.append(f"{title}:")
            for latent in latents:
                effect = latent.kept if title == "kept" else latent.dropped
                label = latent.name or f"latent {latent.index}"
                lines.append(f"  {label:<32} z {latent.activation:7.3f}  m {latent.mask:.2f}  score {effect:+.4f}")
        return "\n".join(lines)


@torch.no_grad()
def explain_edit(
    editor: EditModel,
    image: Tensor,
    text: Tensor,
    *,
    names: Sequence[str] | LatentNames | None = None,
    top: int = 10,
) -> Explanation:
    """`CaptionEditor.explain_edit`. image, text: (1, d)."""
    image, text = editor.checked(image, "the image"), editor.checked(text, "the text")
    if names is not None and len(names) != editor.sae.n_latents:
        raise InputError(f"There are {len(names)} names for {editor.sae.n_latents} latents; give one for each.")
    query = editor.text(text)[0]
    x = image.to(query)
    length = float(x.norm())
    edited = editor.edit(x, text)[0]
    asked = query * editor.gate(text)[0]
    prepared = editor.prepare_images(x), editor.prepare_texts(text)
    remainder = float(prepared[0].base[0] @ asked)
    latents: list[LatentEffect] = []
    if editor.config.has_latents:
        mask = editor.mask(text)[0]
        codes = editor.sae.encode(x)
        for index, activation in zip(codes.indices[0].tolist(), codes.values[0].tolist(), strict=True):
            if activation > 0:
                effect = activation * float(editor.sae.directions[index] @ asked) / length
                kept = float(mask[index])
                name = str(names[index]) if names is not None else ""
                remainder -= effect * editor.config.offset
                latents.append(LatentEffect(index, name, activation, kept, effect * kept, -effect * (1 - kept)))
    return Explanation(
        plain_score=float(x[0] @ query) / length,
        undivided_score=float(edited @ query) / length,
        edited_score=float(editor.score_prepared(*prepared)),
        remainder=remainder,
        hubness=sum(float(side.bias[0]) for side in prepared if side.bias is not None),
        latents=tuple(sorted(latents, key=lambda latent: -latent.activation)),
        top=top,
    )
