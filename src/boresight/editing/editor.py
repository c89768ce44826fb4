"""The caption editor: what a caption keeps of an image embedding, and the score that follows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.device import pick_device
from boresight.editing import scoring, training
from boresight.editing.config import EditorConfig, Form, MaskKind, MemoryKind, TextKind
from boresight.editing.explanation import Explanation, explain_edit
from boresight.editing.masks import GATE_START, BilinearMask, OnesMask, RandomMask, make_mask
from boresight.editing.memory import Memory, Neighbours
from boresight.editing.scorer import PreparedImages, PreparedTexts
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import check_rows
from boresight.encoders.protocol import Encoder
from boresight.errors import ArtefactError, InputError
from boresight.sae import LatentNames, SparseAutoencoder
from boresight.sae.autoencoder import encoder_of
from boresight.sae.config import SaeConfig
from boresight.storage import fingerprint, load_artefact, save_artefact

_IMAGES_AT_ONCE = 16384
_TEXT_FLOATS = 2**22
_KEPT = ("encoder", "encoder_fingerprint", "options", "history", "tried")


class CaptionEditor(nn.Module):
    """A sparse autoencoder, a mask network and a text head.

    Untrained, its masks are open and its head the identity: all forms but 'reconstruct' give the plain cosine exactly,
    and 'reconstruct' the score of the autoencoder's reconstruction.

    Attributes:
        sae: the frozen autoencoder.
        config: what this editor is.
        mask_network: texts (T, d) -> (T, n_latents) in [0, 1]; None where the form has no latents.
        gate_network: texts (T, d) -> (T, d) in [0, 1], the gate of 'gated' and 'raw'; None in the others.
        head_map, head_bias: (d, d) and (d,), zero at the start; u = unit(t + head_map t + head_bias) for a unit t.
        memory: of training pairs, which moves u and the images; None without one.
        manifest: what it was fitted on and how: `encoder`, `encoder_fingerprint`, `options`, `history` and
            `tried`, the sum of recalls on validation of each form, length exponent and memory tried.
    """

    def __init__(self, sae: SparseAutoencoder, config: EditorConfig, manifest: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.manifest = dict(manifest or {})
        self.sae = sae
        directions = sae.directions.detach()
        self.mask_network: Any = None
        self.gate_network: Any = None
        if config.has_latents:
            self.mask_network = make_mask(config.mask, directions)
        if config.has_gate:
            self.gate_network = BilinearMask(torch.eye(sae.width), GATE_START)
        learns = config.text == "finetuned"
        self.head_map = nn.Parameter(torch.zeros(sae.width, sae.width), requires_grad=learns)
        self.head_bias = nn.Parameter(torch.zeros(sae.width), requires_grad=learns)
        self.memory: Memory | None = None
        if config.memory != "none":
            self.memory = Memory(torch.zeros(0, sae.width), torch.zeros(0, sae.width))
        self.to(directions.device)

    @classmethod
    def fit(
        cls,
        sae: SparseAutoencoder,
        train: Embeddings,
        validation: Embeddings | None = None,
        *,
        form: Form | None = None,
        mask: MaskKind = "bilinear",
        text: TextKind = "finetuned",
        length_exponent: float | None = None,
        memory: MemoryKind | None = None,
        batch_size: int = 256,
        steps: int | None = None,
        learning_rate: float = 5e-4,
        mask_learning_rate: float = 5e-3,
        gate_learning_rate: float = 5e-3,
        memory_learning_rate: float = 1e-2,
        weight_decay: float = 0.1,
        sparsity: float = 0.0,
        captions_per_image: int = 1,
        seed: int = 0,
        device: str | torch.device | None = None,
    ) -> CaptionEditor:
        """An editor trained by InfoNCE over the whole B x B matrix of exact scores, chosen on validation.

        Before the first step and ten times after it the sum of the six recalls (T2I and I2T R@1, R@5, R@10) is taken
        on validation, and the best state is returned. So no form but 'reconstruct' is ever below the unedited
        model there.

        Args:
            sae: fitted on images of the same encoder; copied, and frozen.
            train: images and captions that the encoder was not fitted on, or the effect is lost.
            validation: other images with captions; left out, `train` holds the splits 'train' and 'validation'.
            form: see `EditorConfig`. Left out, it is 'gated'; without a memory 'residual' is trained too, and the
                better on validation is returned: it wins where images hold much that captions leave out and the
                autoencoder has found it. Every form is trained by this same loop.
            memory: see `EditorConfig`. Left out, 'gated' has 'both' and the other forms have 'none'; where `form` is
                left out too, 'gated' is also trained without one, and the better on validation is returned.
            mask, text: see `EditorConfig`.
            length_exponent: see `EditorConfig`. Left out, both 0 and 1 are trained (only 1 of what is tried beside the
                default) and the better on validation is returned: undivided is a reweighting of the caption, and wins
                where images hold little that captions leave out. 'plain' has no length to divide by.
            batch_size: images a step, at most as many as there are.
            steps: left out, 30 epochs, at least 300 and at most 2,000 steps. 0 trains nothing.
            learning_rate, mask_learning_rate, gate_learning_rate, memory_learning_rate: of head, mask, gate and
                memory; AdamW, cosine schedule. Beside a gate the mask learns at a fifth of its rate.
            weight_decay: pulls the head towards the identity and the mask towards one that no caption changes.
            sparsity: weight of the mean mask in the loss.
            captions_per_image: captions drawn for each image and step; all of them are positives.
            device: where to train and stay; the best one present if left out.

        Raises:
            InputError: fewer than 2 images with captions, an empty validation set or one that shares images with
                training, options that do not fit.
            ArtefactError: embeddings of another encoder or width than the autoencoder's.
        """
        if validation is None:
            train, validation = train.train, train.validation
        sae.require_same_encoder(train)
        sae.require_same_encoder(validation)
        training.check_sets(train, validation)
        options = training.TrainingOptions(
            batch_size=batch_size,
            steps=steps,
            learning_rate=learning_rate,
            mask_learning_rate=mask_learning_rate,
            gate_learning_rate=gate_learning_rate,
            memory_learning_rate=memory_learning_rate,
            weight_decay=weight_decay,
            sparsity=sparsity,
            captions_per_image=captions_per_image,
            seed=seed,
        )
        frozen = copy.deepcopy(sae).to(pick_device(device))
        editors: list[CaptionEditor] = []
        for kind, exponent, recall in candidates(form, length_exponent, memory):
            config = EditorConfig(
                form=kind,
                mask=mask,
                text=text,
                length_exponent=exponent,
                memory=recall,
            )
            editor = cls(frozen, config, encoder_of(train.manifest))
            editor.manifest["options"] = asdict(options)
            editor.manifest["history"] = training.train(editor, train, validation, options)
            editors.append(editor)
        reached = [max(entry["recall_sum"] for entry in editor.manifest["history"]) for editor in editors]
        best = editors[reached.index(max(reached))]
        best.manifest["tried"] = {
            f"{editor.config.form} {editor.config.length_exponent:g} {editor.config.memory}": found
            for editor, found in zip(editors, reached, strict=True)
        }
        return best

    @property
    def device(self) -> torch.device:
        return self.head_map.device

    @property
    def width(self) -> int:
        """d, of the embeddings."""
        return self.sae.width

    @property
    def fingerprint(self) -> str:
        """Changes with any weight, those of the autoencoder included."""
        return fingerprint(self.state_dict())

    @torch.no_grad()
    def mask(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, n_latents) in [0, 1], what each caption keeps; ones where the form has no latents. texts: (M, d)."""
        unit = self._unit(self._checked(texts, "the captions"))
        if self.mask_network is None:
            return unit.new_ones(len(unit), self.sae.n_latents)
        return self.mask_network(unit)

    @torch.no_grad()
    def gate(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, d) in [0, 1], what each caption keeps of the dimensions; ones where the form has no gate."""
        unit = self._unit(self._checked(texts, "the captions"))
        return torch.ones_like(unit) if self.gate_network is None else self.gate_network(unit)

    @torch.no_grad()
    def text(self, texts: Tensor | np.ndarray) -> Tensor:
        """(M, d) unit caption vectors u, which edited images are compared with. texts: (M, d)."""
        return self._query(self._unit(self._checked(texts, "the captions")))

    @torch.no_grad()
    def edit(self, images: Tensor | np.ndarray, texts: Tensor | np.ndarray) -> Tensor:
        """(N, d) float32, image i edited by caption i, at the scale of the images. images, texts: (N, d).

        Raises InputError for another width, as many images as captions not given, NaN, infinity or rows all zero.
        """
        images, texts = self._checked(images, "the images"), self._checked(texts, "the captions")
        if len(images) != len(texts):
            raise InputError(f"edit works row by row, and there are {len(images)} images and {len(texts)} captions.")
        block = max(1, _TEXT_FLOATS // self.sae.n_latents)
        edited = [torch.empty(0, self.width, device=self.device)]
        for start in range(0, len(texts), block):
            x, unit = self._rows(images[start : start + block]), self._unit(texts[start : start + block])
            base, indices, values = self._parts(x)
            if self.mask_network is not None:
                kept = self.mask_network(unit).gather(1, indices)
                amount = values * (kept - self.config.offset)
                base = base + F.embedding_bag(indices, self.sae.directions, per_sample_weights=amount, mode="sum")
            edited.append(base if self.gate_network is None else base * self.gate_network(unit))
        return torch.cat(edited)

    @torch.no_grad()
    def score(self, images: Tensor | np.ndarray, texts: Tensor | np.ndarray) -> Tensor:
        """(N, M) float32 exact scores, on the CPU. Blocked: beside the result, memory does not grow with N x M.

        images: (N, d), texts: (M, d), in memory or memory-mapped.
        Raises InputError for another width, NaN, infinity or rows without direction.
        """
        images, texts = self._checked(images, "the images"), self._checked(texts, "the captions")
        out = torch.empty(len(images), len(texts))
        block = max(64, _TEXT_FLOATS // self.sae.n_latents)
        for top in range(0, len(images), _IMAGES_AT_ONCE):
            prepared = self.prepare_images(images[top : top + _IMAGES_AT_ONCE])
            for left in range(0, len(texts), block):
                captions = self.prepare_texts(texts[left : left + block])
                out[top : top + _IMAGES_AT_ONCE, left : left + block] = self.score_prepared(prepared, captions).cpu()
        return out

    def prepare_images(self, images: Tensor, *, near: Neighbours | None = None) -> PreparedImages:
        """The caption-free side of N images (N, d): O(N (d + k)) memory; O(N k^2) more to divide by |x~|.

        Differentiable where gradients are on. near: the images' neighbours in the memory, where they are known or are
        not simply the nearest: in training an image does not see itself.
        """
        x = self._rows(images)
        inverse = 1 / x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        base, indices, values = self._parts(x, near)
        base, values = base * inverse, values * inverse
        terms = scoring.length_terms(base, indices, values, self.sae.directions) if self.config.needs_terms else None
        return PreparedImages(base, indices, values, terms)

    def prepare_texts(self, texts: Tensor, *, near: Neighbours | None = None) -> PreparedTexts:
        """The image-free side of T captions (T, d): O(T n_latents) memory. Differentiable where gradients are on.

        `near` is as for `prepare_images`.
        """
        unit = self._unit(texts)
        gate = None if self.gate_network is None else self.gate_network(unit)
        query = self._query(unit, near) if gate is None else self._query(unit, near) * gate
        weights = latent_query = None
        if self.mask_network is not None:
            weights = self.mask_network(unit).t().contiguous() - self.config.offset
            latent_query = weights * (self.sae.directions @ query.t())
        if not self.config.divides:
            return PreparedTexts(query, latent_query)
        return PreparedTexts(query, latent_query, weights if self.config.needs_terms else None, gate)

    def score_prepared(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        """(N, T) exact scores of prepared images and captions."""
        if texts.latent_query is None:
            scores = images.base @ texts.query.t()
        else:
            scores = scoring.numerators(images.base, images.indices, images.values, texts.query, texts.latent_query)
        if self.config.divides:
            return scores / self._lengths(images, texts) ** self.config.length_exponent
        return scores

    @torch.no_grad()
    def explain_edit(
        self,
        image: Tensor,
        text: Tensor,
        *,
        names: Sequence[str] | LatentNames | None = None,
        top: int = 10,
    ) -> Explanation:
        """What the edit of one image by one caption kept and dropped.

        image, text: (d,) or (1, d); names: of the n latents. Raises InputError for NaN, zero, or another number of
        names than latents, and ArtefactError for the names of another autoencoder.
        """
        image, text = self._checked(image.reshape(1, -1), "the image"), self._checked(text.reshape(1, -1), "the text")
        return explain_edit(self, image, text, names=names, top=top)

    def control(self, kind: Literal["random", "ones"], seed: int = 0) -> CaptionEditor:
        """This editor with another mask, for controls: 'random' permutes each caption's mask, 'ones' keeps everything.

        A random mask has the density of the mask it permutes, caption by caption, over all latents of the dictionary,
        dead ones too. Shares weights with this editor. Raises InputError for another kind.
        """
        if kind not in ("random", "ones"):
            raise InputError(f"There is no control '{kind}'; choose 'random' or 'ones'.")
        twin = CaptionEditor(self.sae, self.config, self.manifest)
        twin.head_map, twin.head_bias = self.head_map, self.head_bias
        twin.memory = self.memory
        for name in ("mask_network", "gate_network"):
            network = getattr(self, name)
            if network is not None:
                size = self.sae.n_latents if name == "mask_network" else self.width
                setattr(twin, name, RandomMask(network, seed) if kind == "random" else OnesMask(size))
        return twin

    def require_same_encoder(self, source: Embeddings | Encoder) -> None:
        """Raises ArtefactError for embeddings, or an encoder that makes them, of another width or encoder than this."""
        self.sae.require_same_encoder(source)

    def save(self, folder: str | Path) -> None:
        """Write a self-contained folder, autoencoder included. Raises ArtefactError when it cannot be written."""
        controlled = any(isinstance(network, RandomMask) for network in (self.mask_network, self.gate_network))
        opened = isinstance(self.mask_network, OnesMask) and self.config.mask != "ones"
        if controlled or opened or isinstance(self.gate_network, OnesMask):
            raise InputError("A control is not saved; save the editor and call control() again.")
        config, sae = asdict(self.config), {**self.sae.manifest, "config": asdict(self.sae.config)}
        save_artefact(folder, "editor", self.state_dict(), {**self.manifest, "config": config, "sae": sae})

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = "cpu") -> CaptionEditor:
        """Read a folder written by `save`. Raises ArtefactError when it is none, torn or altered."""
        tensors, manifest = load_artefact(folder, "editor")
        try:
            sae_manifest = dict(manifest["sae"])
            settings: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in sae_manifest.pop("config").items()
            }
            sae = SparseAutoencoder(SaeConfig(**settings), sae_manifest)
            kept = {key: manifest[key] for key in _KEPT if key in manifest}
            sae.load_state_dict({key[4:]: value for key, value in tensors.items() if key.startswith("sae.")})
            editor = cls(sae, EditorConfig(**manifest["config"]), kept)
            if editor.memory is not None:
                editor.memory = Memory(tensors["memory.images"], tensors["memory.texts"])
            editor.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError, InputError) as error:
            reason = str(error).splitlines()[0]
            raise ArtefactError(f"{folder} does not hold what its manifest says ({reason}); fit it again.") from error
        return editor.to(pick_device(device))

    def _checked(self, rows: Tensor | np.ndarray, label: str) -> Tensor:
        rows = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        self._require_width(rows)
        check_rows(rows, label)
        return rows

    def _rows(self, images: Tensor) -> Tensor:
        self._require_width(images)
        return images.to(self.device).float()

    def _require_width(self, images: Tensor) -> None:
        if images.ndim != 2 or images.shape[1] != self.width:
            raise InputError(
                f"Embeddings of shape {tuple(images.shape)} do not fit an editor of width {self.width}; "
                "use rows of the encoder it was fitted on."
            )

    def _unit(self, texts: Tensor) -> Tensor:
        return F.normalize(self._rows(texts), dim=1)

    def _query(self, unit: Tensor, near: Neighbours | None = None) -> Tensor:
        """(T, d) unit caption vectors u of unit captions."""
        query = F.normalize(unit + F.linear(unit, self.head_map, self.head_bias), dim=1)
        if self.memory is None:
            return query
        pictured = self.memory.pictured(self.memory.near_texts(unit) if near is None else near)
        return F.normalize(query + self.memory.strengths[1] * pictured, dim=1)

    def _moved(self, x: Tensor, near: Neighbours | None) -> Tensor:
        """(N, d) images moved towards what people wrote of the like, at their own length."""
        if self.memory is None or self.config.memory != "both":
            return x
        length = x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        unit = x / length
        written = self.memory.written(self.memory.near_images(unit) if near is None else near)
        written = F.normalize(written + F.linear(written, self.head_map), dim=1)
        return F.normalize(unit + self.memory.strengths[0] * written, dim=1) * length

    def _parts(self, x: Tensor, near: Neighbours | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Base (N, d), indices (N, k) and values (N, k) of the edit; k is 0 where the form has no latents."""
        base = self._moved(x, near)
        if not self.config.has_latents:
            return base, x.new_empty(len(x), 0, dtype=torch.int64), x.new_empty(len(x), 0)
        with torch.no_grad():
            codes = self.sae.encode(x)
        if self.config.form == "reconstruct":
            base = self.sae.bias + (base - x)
        return base, codes.indices, codes.values

    def _lengths(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        if texts.weights is not None and images.terms is not None:
            return scoring.relative_lengths(images.terms, images.indices, texts.weights)
        if texts.gate is None:
            raise InputError("These images or captions were prepared by another editor; prepare them with this one.")
        return scoring.gated_lengths(images.base, texts.gate)


def candidates(
    form: Form | None, exponent: float | None, memory: MemoryKind | None
) -> list[tuple[Form, float, MemoryKind]]:
    """Forms, length exponents and memories that `CaptionEditor.fit` tries, the cheaper first."""
    exponents = (0.0, 1.0) if exponent is None else (exponent,)
    if form is None:
        gated: list[tuple[Form, float, MemoryKind]] = [("gated", p, memory or "both") for p in exponents]
        if memory is None:
            return [*gated, ("gated", exponents[-1], "none")]
        return gated if memory != "none" else [*gated, ("residual", exponents[-1], memory)]
    if form == "plain":
        exponents = exponents[-1:]
    return [(form, p, memory or ("both" if form == "gated" else "none")) for p in exponents]
