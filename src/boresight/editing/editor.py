"""The caption editor as it is used: fitted, kept in a folder, explained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from boresight.brief import spelled
from boresight.device import pick_device
from boresight.editing import attributes, training
from boresight.editing.attributes import Values, Words
from boresight.editing.config import EditorConfig, EditorFit, MaskKind
from boresight.editing.explanation import Explanation, explain_edit
from boresight.editing.masks import HardMask, OnesMask, RandomMask, log_odds, make_mask
from boresight.editing.memory import Memory
from boresight.editing.model import EditModel
from boresight.editing.presence import taught_presence
from boresight.embeddings.embeddings import Embeddings, require_embeddings
from boresight.errors import InputError
from boresight.indexing import as_row
from boresight.sae import LatentNames, SparseAutoencoder
from boresight.sae.autoencoder import encoder_of
from boresight.sae.config import with_options
from boresight.storage import as_said, fingerprint, load_artefact, save_artefact

if TYPE_CHECKING:
    from boresight.encoders.protocol import Encoder

_KEPT = ("encoder", "encoder_fingerprint", "options", "history", "tried", "fitted_on")


class CaptionEditor(EditModel):
    """Edits image embeddings by captions, and scores every image against every caption by its edit.

    Attributes:
        manifest: what it was fitted on and how: `encoder`, `encoder_fingerprint`, `options`, `history` and
            `tried`, the sum of recalls on validation of each form, length exponent and memory tried; `fitted_on`, the
            splits of the images that it was fitted and chosen on.
        words: of captions, so that an attribute can be named by a phrase (`boresight.editing.attributes`); None until
            they are given, and not kept in a folder.

    Beside these it has the attributes and methods of `boresight.editing.model.EditModel`.

    Example:
        editor = CaptionEditor.fit(sae, embeddings.train, embeddings.validation)
        scores = editor.score(embeddings.test.images, embeddings.test.texts)  # (N, M)
        print(editor.explain_edit(embeddings.test.images[0], embeddings.test.texts[0], names=names))

    Relations: `PlainScorer` is the score without an edit; `evaluate_retrieval` takes either.
    """

    sae: SparseAutoencoder

    def __init__(
        self,
        sae: SparseAutoencoder,
        config: EditorConfig,
        manifest: Mapping[str, Any] | None = None,
        *,
        mask: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """An untrained editor: open masks, or a `mask` of your own, and a head that is the identity."""
        super().__init__(sae, config, mask=mask)
        self.manifest = dict(manifest or {})
        self.words: Words | None = None

    @classmethod
    def fit(
        cls,
        sae: SparseAutoencoder,
        train: Embeddings,
        validation: Embeddings | None = None,
        *,
        config: EditorFit | None = None,
        device: str | torch.device | None = None,
        mask: MaskKind | Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> CaptionEditor:
        """An editor trained by InfoNCE over the whole B x B matrix of exact scores, chosen on validation.

        Before the first step and ten times after it the sum of the six recalls (T2I and I2T R@1, R@5, R@10) is taken
        on validation, and the best state is returned. So no form but 'reconstruct' is ever below the unedited
        model there. Then hubness is taken off, where that raises the recalls.

        Args:
            sae: fitted on images of the same encoder; copied, and frozen.
            train: images and captions that the encoder was not fitted on, or the effect is lost.
            validation: other images with captions; left out, `train` holds the splits 'train' and 'validation'.
            config: how to fit; left out, the defaults of `EditorFit`.
            device: where to train and stay; the best one present if left out.
            mask: the kind of mask, or a callable of yours: texts (T, d) float32 of unit length -> (T, n_latents) in
                [0, 1]. Of a module, parameters that ask for gradients are trained with the rest, in a copy.
            options: fields of `EditorFit` by name, in place of those of `config`.

        Example:
            CaptionEditor.fit(sae, train, validation, form="reconstruct", seed=1)  # the paper's form

        What is returned asks for no gradients; call `requires_grad_(True)` to train it on in a loop of your own.

        Raises:
            InputError: fewer than 2 images with captions, an empty validation set or one that shares images with
                training, options that do not fit or that there are not.
            ArtefactError: embeddings of another encoder or width than the autoencoder's.
        """
        own = None if mask is None or isinstance(mask, str) else mask
        if mask is not None:
            options["mask"] = "own" if own is not None else mask
        config = with_options(config or EditorFit(), options)
        if isinstance(sae, Embeddings):
            raise InputError("fit takes the autoencoder first, then the embeddings; the first argument is embeddings.")
        require_embeddings(train=train, **({} if validation is None else {"validation": validation}))
        if validation is None:
            train, validation = train.train, train.validation
        sae.require_same_encoder(train)
        sae.require_same_encoder(validation)
        training.check_sets(train, validation)
        frozen = copy.deepcopy(sae).to(pick_device(device))
        editors: list[CaptionEditor] = []
        taught = taught_presence(frozen, train, config) if config.shows else None
        reached = []
        candidates = config.candidates()
        for number, candidate in enumerate(candidates, start=1):
            copied = copy.deepcopy(own) if isinstance(own, torch.nn.Module) else own
            editor = cls(frozen, candidate, encoder_of(train), mask=copied)
            editor.manifest["options"] = config.of_training()
            if taught is not None:
                editor._learnt_before(*taught)
            what = f"editor {number} of {len(candidates)} ({candidate.form})"
            editor.manifest["history"], recalls = training.train_editor(editor, train, validation, config, what)
            reached.append(recalls)
            editors.append(editor)
        best = editors[reached.index(max(reached))]
        best.manifest["tried"] = {
            f"{editor.config.form} {editor.config.length_exponent:g} {editor.config.memory}": recalls
            for editor, recalls in zip(editors, reached, strict=True)
        }
        best.manifest["fitted_on"] = sorted({*train.splits, *validation.splits})
        return best.requires_grad_(False)

    def __repr__(self) -> str:
        remembered = 0 if self.memory is None else len(self.memory.images)
        of_config = {"form": repr(self.config.form), "mask": repr(self.config.mask), "text": repr(self.config.text)}
        return spelled(self, {**of_config, "memory": f"{remembered:,} pairs", "sae": repr(self.sae)})

    @property
    def fitted_on(self) -> frozenset[str]:
        """Names of the splits of the images that it was fitted and chosen on."""
        return frozenset(self.manifest.get("fitted_on", ("train", "validation")))

    @property
    def fingerprint(self) -> str:
        """Changes with any weight, those of the autoencoder included."""
        return fingerprint(self.state_dict())

    def require_same_encoder(self, source: Embeddings | Encoder) -> None:
        """Raises ArtefactError for embeddings, or an encoder that makes them, of another width or encoder than this."""
        self.sae.require_same_encoder(source)

    @torch.no_grad()
    def explain_edit(
        self,
        image: Tensor | np.ndarray,
        text: Tensor | np.ndarray,
        *,
        names: Sequence[str] | LatentNames | None = None,
        remembered: Embeddings | None = None,
        top: int = 10,
    ) -> Explanation:
        """Why one image scores as it does under one caption: parts that sum to the score.

        Args:
            image, text: (d,) or (1, d).
            names: of the n latents.
            remembered: the training set with its captions, to show the words of remembered pairs, which the editor
                does not keep; left out, they go by the ids of their images.
            top: how many latents and pairs are printed.

        Raises InputError for NaN, zero, or another number of names than latents, and ArtefactError for the names of
        another autoencoder.
        """
        if isinstance(names, LatentNames):
            names.require_same_autoencoder(self.sae)
        return explain_edit(
            self, as_row(image, "image"), as_row(text, "text"), names=names, remembered=remembered, top=top
        )

    def edit(self, images: Tensor | np.ndarray, texts: Tensor | np.ndarray | str | Sequence[str]) -> Tensor:
        """(N, d) float32: image i edited by caption i, or all images by one attribute that words name.

        Args:
            images: (N, d).
            texts: (N, d), a caption for each image; or a phrase that names an attribute, 'the colour of the
                background'; or two or more words or phrases that are its values, ['red', 'blue'].

        Raises:
            InputError: words without `words`, one value alone, values that the mask does not tell apart, and as
                `EditModel.edit` does.
        """
        if isinstance(texts, (Tensor, np.ndarray)):
            return super().edit(images, texts)
        return attributes.edit_by(self, images, self._values(texts))

    def similarity(
        self, images: Tensor | np.ndarray, others: Tensor | np.ndarray, *, by: str | Sequence[str] | Tensor | np.ndarray
    ) -> Tensor:
        """(N, M) float32 cosines, on the CPU, of images and others both edited by one attribute; blocked.

        Args:
            images, others: (N, d), (M, d).
            by: a phrase or two or more values, as for `edit`; or (V, d) embeddings of texts that tell a value each.

        Example:
            editor.words = Words.of(embeddings.train, encoder)
            editor.similarity(images, others, by="the colour of the background")
            editor.similarity(images, others, by=encoder.embed_texts(["a red star", "a blue star"]))

        Relations: use `score` to compare images with captions. Raises InputError as `edit` does.
        """
        values = Values.of(self.checked(by, "by")) if isinstance(by, (Tensor, np.ndarray)) else self._values(by)
        added = attributes.telling(self, values)
        return attributes.similarity(*(attributes.added_up(self, rows, added) for rows in (images, others)))

    def _values(self, by: str | Sequence[str]) -> Values:
        if self.words is None:
            raise InputError(
                "This editor knows no words; set editor.words = Words.of(embeddings.train, encoder), or pass "
                "embeddings of texts to similarity()."
            )
        return self.words.values(by)

    def control(self, kind: Literal["random", "ones"], seed: int = 0) -> CaptionEditor:
        """This editor with another mask, for controls: 'random' permutes each caption's mask, 'ones' keeps everything.

        A random mask has the density of the mask it permutes, caption by caption, over all latents of the dictionary,
        dead ones too. Shares weights with this editor. Raises InputError for another kind.
        """
        if kind not in ("random", "ones"):
            raise InputError(f"There is no control '{kind}'; choose 'random' or 'ones'.")
        twin = self._twin(self.config)
        latents = self.sae.n_latents
        for name, size in (("mask_network", latents), ("taught_network", latents), ("gate_network", self.width)):
            if (network := getattr(self, name)) is not None:
                setattr(twin, name, RandomMask(network, seed) if kind == "random" else OnesMask(size))
        if kind == "ones" and self.config.taught:  # a level would count what it keeps
            twin._dial(float(self.strength_and_level[0].detach()), 0.0)
        return twin

    @property
    def shown(self) -> CaptionEditor:
        """The form that shows, beside the form that scores: what the caption tells stays whole, the rest goes whole.

        Validation may choose a faint edit, since that is what scores best. This is the full one, in the paper's form:
        D(m * z) + b with the same mask decided at a half, so the latents that are told stay as they are, and all else
        goes, also what the autoencoder does not explain. It has the text head of this editor but no gate, no memory
        and no correction. Shares weights with this editor; what its scores cost is a row of every comparison.

        Example:
            editor.shown.edit(images, texts)  # image i less all that caption i does not tell

        Raises InputError where no mask was taught what a caption tells.
        """
        if self.taught_mask is None:
            raise InputError(
                "This editor has no mask that was taught what a caption tells, so no form that shows; leave out "
                "`teacher` and `sparsity`, and take the form 'gated' or 'residual'."
            )
        config = EditorConfig(form="reconstruct", teacher="contrast", mask=self.config.mask, text=self.config.text)
        twin = self._twin(config)
        twin.mask_network, twin.gate_network, twin.memory = HardMask(self.taught_mask), None, None
        return twin

    def uncorrected(self) -> CaptionEditor:
        """This editor without its correction of hubness. Shares weights with this editor."""
        return self._twin(replace(self.config, image_correction=None, text_correction=None))

    def with_strength(self, strength: float, level: float | None = None) -> CaptionEditor:
        """This editor with another strength of the edit, and another level where one is given; both in [0, 1].

        Validation may have chosen a faint edit, which scores best; 1 shows what the caption tells and what it leaves
        out. Shares weights with this editor. Raises InputError where the mask was not taught, or beyond [0, 1].
        """
        if not self.config.taught:
            raise InputError(
                "This editor scores by a mask that learnt by contrast, which has no strength; fit one with "
                "teacher='presence', or take `shown`."
            )
        chosen = [float(self.strength_and_level[1].detach()) if level is None else level]
        if not all(0 <= value <= 1 for value in (strength, *chosen)):
            raise InputError(f"strength is {strength} and level {chosen[0]}; choose between 0 and 1.")
        twin = self._twin(self.config)
        twin._dial(strength, *chosen)
        return twin

    def _dial(self, strength: float, level: float) -> None:
        self.dials = torch.nn.Parameter(log_odds([strength, level]).to(self.device), requires_grad=False)

    def _learnt_before(self, mask: Any, usual: Tensor) -> None:
        setattr(self, "mask_network" if self.config.taught else "taught_network", mask)
        self.usual = usual

    def _twin(self, config: EditorConfig) -> CaptionEditor:
        """Has the weights of this editor, and tables of its own: to set a part of the twin leaves this one as it is."""
        twin = copy.copy(self)
        for table in ("_parameters", "_buffers", "_modules"):
            twin.__dict__[table] = dict(self.__dict__[table])
        twin.config, twin.manifest, twin._bank = config, dict(self.manifest), None
        return twin

    def save(self, folder: str | Path) -> None:
        """Write a self-contained folder, autoencoder included. Raises ArtefactError when it cannot be written."""
        controlled = any(isinstance(network, RandomMask) for network in (self.mask_network, self.gate_network))
        opened = isinstance(self.mask_network, OnesMask) and self.config.mask != "ones"
        if isinstance(self.mask_network, HardMask):
            raise InputError("The form that shows is not saved; save the editor and take `shown` of it again.")
        if controlled or opened or isinstance(self.gate_network, OnesMask):
            raise InputError("A control is not saved; save the editor and call control() again.")
        parts: dict[str, Any] = {"config": asdict(self.config), "sae": self.sae.described()}
        if self.memory is not None:
            parts["remembered"] = self.memory.ids
        save_artefact(folder, "editor", self.state_dict(), {**self.manifest, **parts})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device | None = "cpu",
        *,
        mask: Callable[[Tensor], Tensor] | None = None,
    ) -> CaptionEditor:
        """Read a folder written by `save`. mask: the callable, of an editor that was made with one of your own.

        Raises ArtefactError when it is none, torn, altered or of an old format, and InputError without its mask.
        """
        tensors, manifest = load_artefact(folder, "editor")
        if mask is None and manifest.get("config", {}).get("mask") == "own":
            raise InputError(f"{folder} was saved without its mask, one of your own; pass the callable as `mask`.")
        with as_said(folder):
            sae = SparseAutoencoder.of_manifest(manifest["sae"])
            kept = {key: manifest[key] for key in _KEPT if key in manifest}
            editor = cls(sae, EditorConfig(**manifest["config"]), kept, mask=mask)
            if editor.memory is not None:
                ids = manifest.get("remembered", ())
                editor.memory = Memory(tensors["memory.images"], tensors["memory.texts"], ids)
            if any(name.startswith("taught_network.") for name in tensors):
                editor.taught_network = make_mask(editor.config.mask, sae.directions, taught=True)
            editor.load_state_dict(tensors)
        return editor.requires_grad_(False).to(pick_device(device))
