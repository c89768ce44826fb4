"""What a caption editor is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from boresight.errors import InputError

Form = Literal["gated", "residual", "reconstruct", "raw", "plain"]
MaskKind = Literal["bilinear", "mlp", "ones"]
TextKind = Literal["finetuned", "frozen"]
MemoryKind = Literal["none", "text", "both"]
_CHOICES = {
    "form": get_args(Form),
    "mask": get_args(MaskKind),
    "text": get_args(TextKind),
    "memory": get_args(MemoryKind),
}


@dataclass(frozen=True, kw_only=True)
class EditorConfig:
    """What an editor is.

    Attributes:
        form: of the edit x~ of x, which is where a memory has moved the image, with code z, decoder D, pre-bias b, mask
            m in [0, 1]^n and gate r in [0, 1]^d over the dimensions: 'gated' is r * (x - D((1-m)*z)), our choice;
            'residual' is x - D((1-m)*z); 'reconstruct' is D(m*z) + b, TEVI's (arXiv 2606.07451), plus the move if
            there was one; 'raw' is r * x, the opponent without an autoencoder, after SmartCLIP (arXiv
            2507.22264); 'plain' is x, the opponent without an edit.
        mask: network of m, see `boresight.editing.masks`; 'raw' and 'plain' have none of these.
        text: 'finetuned' learns a linear head on the caption embedding (TEVI fine-tunes the text tower; a head on its
            output is our choice), 'frozen' uses the embedding as it is.
        length_exponent: p of the score <x~, u> / (|x| l^p) with l = |x~| / |x|: 1 is the cosine, 0 undivided. In the
            form 'gated' l = |r * x| / |x|, the length before latents are dropped, so no pair needs its own Gram form.
        memory: of the training pairs, see `boresight.editing.memory`: 'text' moves the caption vector, 'both' the image
            embedding too, before it is edited; 'none' does neither.
    """

    form: Form = "gated"
    mask: MaskKind = "bilinear"
    text: TextKind = "finetuned"
    length_exponent: float = 0.0
    memory: MemoryKind = "none"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"There is no {name} '{getattr(self, name)}'; choose one of {', '.join(choices)}.")
        if not 0 <= self.length_exponent <= 1:
            raise InputError(f"length_exponent is {self.length_exponent}; choose between 0 (undivided) and 1 (cosine).")

    @property
    def has_latents(self) -> bool:
        return self.form in ("gated", "residual", "reconstruct")

    @property
    def has_gate(self) -> bool:
        return self.form in ("gated", "raw")

    @property
    def offset(self) -> float:
        """The weight of a latent in the edit is its mask minus this."""
        return 0.0 if self.form == "reconstruct" else 1.0

    @property
    def divides(self) -> bool:
        """Whether the length of an edit divides the score."""
        return self.length_exponent > 0 and self.form != "plain"

    @property
    def needs_terms(self) -> bool:
        """Whether the length of an edit depends on the latents that are dropped."""
        return self.has_latents and not self.has_gate and self.divides
