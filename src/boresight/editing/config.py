"""What a caption editor is, and how one is fitted: every option once. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from boresight.errors import InputError, require_choice

Form = Literal["gated", "residual", "reconstruct", "raw", "plain"]
MaskKind = Literal["bilinear", "mlp", "ones", "own"]
TextKind = Literal["finetuned", "frozen"]
MemoryKind = Literal["none", "text", "both"]
Teacher = Literal["presence", "contrast"]
CorrectionMethod = Literal["nnn", "sinkhorn"]
_CHOICES = {"form": Form, "mask": MaskKind, "teacher": Teacher, "text": TextKind, "memory": MemoryKind}
_RATES = ("learning_rate", "mask_learning_rate", "gate_learning_rate", "memory_learning_rate")


@dataclass(frozen=True, kw_only=True)
class Correction:
    """How one side's hubness is taken off, see `boresight.editing.hubness`.

    Attributes:
        method: 'nnn' or 'sinkhorn'.
        reach: of 'nnn' how many neighbours in the bank, of 'sinkhorn' the temperature.
        share: how much of it is taken off; 0 is no correction.
    """

    method: CorrectionMethod = "nnn"
    reach: float
    share: float

    def __post_init__(self) -> None:
        require_choice("method", self.method, get_args(CorrectionMethod))
        if not 0 < self.reach < math.inf or (self.method == "nnn" and (self.reach < 1 or self.reach % 1)):
            wanted = "a whole number of neighbours" if self.method == "nnn" else "a temperature above 0"
            raise InputError(f"reach is {self.reach}; choose {wanted}.")
        if not 0 <= self.share < math.inf:
            raise InputError(f"share is {self.share}; choose 0 or more.")


@dataclass(frozen=True, kw_only=True)
class EditorConfig:
    """What an editor is.

    Attributes:
        form: of the edit x~ of x, which is where a memory has moved the image, with code z, decoder D, pre-bias b, mask
            m in [0, 1]^n and gate r in [0, 1]^d over the dimensions: 'gated' is r * (x - D((1-m)*z)), our choice;
            'residual' is x - D((1-m)*z); 'reconstruct' is D(m*z) + b, TEVI's (arXiv 2606.07451), plus the move if
            there was one; 'raw' is r * x, the opponent without an autoencoder, after SmartCLIP (arXiv
            2507.22264); 'plain' is x, the opponent without an edit.
        mask: network of m, see `boresight.editing.masks`; 'own' is a callable that is passed beside this; 'raw' and
            'plain' have none of these.
        teacher: what the mask learns from. 'presence', ours: which latents of the matching image a caption tells
            (`boresight.editing.presence`); the edit then has a learnt strength s and level v, and x - D((1-m)*z) is
            x - s D z + s D(m * a) with a = (1 - v) z + v min(2 z, z_usual). 'contrast' (TEVI, as we read it): InfoNCE
            together with all else; then s = 1 and v = 0. Only 'contrast' goes with 'reconstruct'; in 'gated' v = 0
            where the score is divided.
        text: 'finetuned' learns a linear head on the caption embedding (TEVI fine-tunes the text tower; a head on its
            output is our choice), 'frozen' uses the embedding as it is.
        length_exponent: p of the score <x~, u> / (|x| l^p) with l = |x~| / |x|: 1 is the cosine, 0 undivided. In the
            form 'gated' l = |r * x| / |x|, the length before latents are dropped, so no pair needs its own Gram form.
        memory: of the training pairs, see `boresight.editing.memory`: 'text' moves the caption vector, 'both' the image
            embedding too, before it is edited; 'none' does neither.
        image_correction, text_correction: of hubness, by the pairs of the memory; None without one.
    """

    form: Form = "gated"
    mask: MaskKind = "bilinear"
    teacher: Teacher = "contrast"
    text: TextKind = "finetuned"
    length_exponent: float = 0.0
    memory: MemoryKind = "none"
    image_correction: Correction | None = None
    text_correction: Correction | None = None

    def __post_init__(self) -> None:
        for name in ("image_correction", "text_correction"):
            if isinstance(given := getattr(self, name), dict):
                object.__setattr__(self, name, Correction(**given))
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise InputError(f"There is no {name} '{getattr(self, name)}'; choose one of {choices}.")
        if not 0 <= self.length_exponent <= 1:
            raise InputError(f"length_exponent is {self.length_exponent}; choose between 0 (undivided) and 1 (cosine).")
        if self.taught and self.mask == "own":
            raise InputError("A mask of your own says itself what it keeps; choose teacher='contrast'.")
        if self.taught and self.form == "reconstruct":
            raise InputError("The form 'reconstruct' has no strength of the edit; choose teacher='contrast'.")

    @property
    def taught(self) -> bool:
        """Whether the mask learns what a caption tells, and the edit has a strength and a level."""
        return self.teacher == "presence" and self.has_latents

    @property
    def has_latents(self) -> bool:
        """Whether the edit reads the autoencoder's code."""
        return self.form in ("gated", "residual", "reconstruct")

    @property
    def has_gate(self) -> bool:
        """Whether the edit has a gate over the dimensions."""
        return self.form in ("gated", "raw")

    @property
    def levels(self) -> bool:
        """Whether the edit has a level: not where its length is taken before latents are dropped."""
        return self.taught and not (self.has_gate and self.divides)

    @property
    def offset(self) -> float:
        """The weight of a latent in the edit is its mask minus this."""
        return 0.0 if self.form == "reconstruct" or self.levels else 1.0

    @property
    def divides(self) -> bool:
        """Whether the length of an edit divides the score."""
        return self.length_exponent > 0 and self.form != "plain"

    @property
    def needs_terms(self) -> bool:
        """Whether the length of an edit depends on the latents that are dropped."""
        return self.has_latents and not self.has_gate and self.divides


@dataclass(frozen=True, kw_only=True)
class EditorOptions:
    """The options of a fit that `boresight editor` takes; `EditorFit` has all."""

    form: Form | None = None
    """Form of the edit; 'raw' (no autoencoder) and 'plain' (no edit) are for comparison. Left out: 'gated'; without a
    memory 'residual' is trained too, and the better one on validation is returned."""
    memory: MemoryKind | None = None
    """Whether remembered training pairs move only captions ('text'), captions and images ('both') or nothing ('none').
    Left out: 'both' for the form 'gated' and 'none' for the others."""
    teacher: Teacher | None = None
    """What the mask learns from, see `EditorConfig`. Left out: 'presence' (what the caption says is kept, the rest is
    dropped, with a strength chosen on validation); 'contrast' for 'gated' with a divided score, for 'reconstruct' and
    with `sparsity`."""
    text: TextKind = "finetuned"
    """Whether a linear head on the caption embedding is learnt."""
    correction: Literal["nnn", "sinkhorn", "none"] | None = None
    """How hubness is subtracted from the scores. It uses the pairs of the memory and the best strength on validation;
    without a memory nothing is subtracted. Left out: both methods are tried, for images and for captions."""
    seed: int = 0
    """Seed of the first weights and of the order of the pairs."""


@dataclass(frozen=True, kw_only=True)
class EditorFit(EditorOptions):
    """How a caption editor is fitted. What is left out (None) is chosen on validation or by the data.

    Raises InputError naming the option that does not fit.
    """

    mask: MaskKind = "bilinear"
    """Network of the mask, see `boresight.editing.masks`."""
    length_exponent: float | None = None
    """See `EditorConfig`. Left out, both 0 and 1 are trained (only 1 of what is tried beside the default) and the
    better on validation is returned: undivided is a reweighting of the caption, and wins where images hold little that
    captions leave out. 'plain' has no length to divide by."""
    batch_size: int = 256
    """Images a step, at most as many as there are."""
    steps: int | None = None
    """Left out, 30 epochs, at least 300 and at most 2,000 steps. 0 trains nothing."""
    learning_rate: float = 5e-4
    """Of the head; this and the next three by AdamW, on a cosine schedule."""
    mask_learning_rate: float = 5e-3
    """Of the mask; a fifth of it beside a gate."""
    gate_learning_rate: float = 5e-3
    """Of the gate."""
    memory_learning_rate: float = 1e-2
    """Of the memory's strengths and sharpness."""
    weight_decay: float = 0.1
    """Pulls the head towards the identity and the mask towards one that no caption changes."""
    sparsity: float = 0.0
    """Weight of the mean mask in the loss."""
    captions_per_image: int = 1
    """Captions drawn for each image and step; all of them are positives."""
    evaluations: int = 10
    """Looks at validation after the one before the first step."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 2), ("steps", 0), ("captions_per_image", 1), ("evaluations", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; choose at least {least}.")
        for name in (*_RATES, "weight_decay", "sparsity"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; choose 0 or more.")
        if self.sparsity and self.teacher == "presence":
            raise InputError("sparsity weighs a mask that learns by contrast; choose teacher='contrast' or sparsity=0.")
        self.candidates()

    @property
    def shows(self) -> bool:
        """Whether the editor gets a form that shows: a mask is taught what captions tell, whichever it scores by."""
        of_latents = self.form in (None, "gated", "residual") and self.mask != "own"
        return of_latents and (self.teacher == "presence" or (self.teacher is None and not self.sparsity))

    def candidates(self) -> list[EditorConfig]:
        """What `CaptionEditor.fit` tries, the cheaper first; the best on validation is returned."""
        exponents = (0.0, 1.0) if self.length_exponent is None else (self.length_exponent,)
        tried: list[tuple[Form, float, MemoryKind]]
        if self.form is None:
            tried = [("gated", p, self.memory or "both") for p in exponents]
            if self.memory == "none":
                tried.append(("residual", exponents[-1], "none"))
        else:
            usual: MemoryKind = "both" if self.form == "gated" else "none"
            tried = [
                (self.form, p, self.memory or usual) for p in (exponents[-1:] if self.form == "plain" else exponents)
            ]
        return [
            EditorConfig(
                form=form,
                mask=self.mask,
                teacher=self.teacher or ("presence" if self.shows and not (form == "gated" and p > 0) else "contrast"),
                text=self.text,
                length_exponent=p,
                memory=memory,
            )
            for form, p, memory in tried
        ]

    def of_training(self) -> dict[str, Any]:
        """The options that say how any candidate is trained, by name."""
        of_editor = (*_CHOICES, "length_exponent")
        return {name: value for name, value in asdict(self).items() if name not in of_editor}

    def steps_for(self, images: int) -> int:
        """`steps`, or 30 epochs, at least 300 and at most 2,000 steps."""
        if self.steps is not None:
            return self.steps
        return min(2000, max(300, 30 * images // min(self.batch_size, images)))
