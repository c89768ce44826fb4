"""The sparse autoencoder as it is used: fitted, kept in a folder, held to its encoder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from boresight.brief import brief, spelled
from boresight.device import pick_device
from boresight.embeddings.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError, require_at_least
from boresight.indexing import as_tensor
from boresight.sae.captioned import captioned_rows
from boresight.sae.config import Architecture, Plan, SaeConfig, SaeFit, with_options
from boresight.sae.measures import measure_sae
from boresight.sae.model import SaeModel
from boresight.sae.rows import SAMPLE, as_rows
from boresight.sae.training import train_sae
from boresight.storage import as_said, fingerprint, load_artefact, save_artefact

if TYPE_CHECKING:
    from boresight.encoders.protocol import Encoder

UNIT = 1e-3  # how far lengths of directions may lie apart, a share, and be taken for one
_KEPT = ("encoder", "encoder_fingerprint", "rows", "options", "measures")


class SparseAutoencoder(SaeModel):
    """Takes embeddings apart into a few latents each, one class for every architecture.

    Attributes:
        manifest: what it was fitted on: `encoder`, `encoder_fingerprint`, `rows`, `options`, `measures`.

    Beside it has the weights, `encode` and `decode` of `boresight.sae.model.SaeModel`.

    Example:
        sae = SparseAutoencoder.fit(embeddings.train)
        codes = sae.encode(embeddings.test.images)  # (N, 32) latents and activations
        print(measure_sae(sae, embeddings.test))

    Relations: `name_latents` names its latents; `CaptionEditor` learns which of them a caption keeps.
    """

    def __init__(self, config: SaeConfig, manifest: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.manifest = dict(manifest or {})

    def __repr__(self) -> str:
        shape = {"width": f"{self.width:,}", "n_latents": f"{self.n_latents:,}", "k": str(self.k)}
        source = {"encoder": brief(self.manifest["encoder"])} if self.manifest.get("encoder") else {}
        return spelled(self, {"architecture": repr(self.config.architecture), **shape, **source})

    @property
    def fingerprint(self) -> str:
        """Changes with any weight."""
        return fingerprint(self.state_dict())

    @classmethod
    def fit(
        cls,
        images: Tensor | np.ndarray | Embeddings,
        *,
        config: SaeFit | None = None,
        device: str | torch.device | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
        **options: Any,
    ) -> SparseAutoencoder:
        """A sparse autoencoder of these embeddings.

        The same seed on the same machine and number of threads gives the same weights bit for bit.

        Args:
            images: (N, d) float16 or float32, torch or numpy, in memory or memory-mapped (read a batch at a time);
                or `Embeddings`, whose images are used, all of them: pass `.train` to keep the rest unseen.
            config: how to fit; left out, the defaults of `SaeFit`.
            device: where to train and stay; the best one present if left out.
            checkpoint: a folder in which the state of training is kept every `checkpoint_every` steps. A fit that was
                killed continues from it when called again with the same data and options, to the same weights.
            options: fields of `SaeFit` by name, in place of those of `config`.

        Example:
            SparseAutoencoder.fit(embeddings.train, architecture="matryoshka", k=16, seed=1)

        Raises:
            InputError: rows that are NaN or zero, too few of them, or options that do not fit, by name.
        """
        config = with_options(config or SaeFit(), options)
        alone = rows = as_rows(images, least=2)
        if config.captions:
            if not isinstance(images, Embeddings):
                raise InputError("Captions can be read off `Embeddings` alone; pass them, or leave `captions` out.")
            rows = captioned_rows(images)
        n_latents, usual = config.latents_for(len(alone)), SaeFit().latents_for(len(alone))
        if n_latents > max(len(alone), usual):
            warnings.warn(
                f"{n_latents:,} latents for {len(alone):,} images: most will never be active. Left out, n_latents is "
                f"{usual:,}.",
                UserWarning,
                stacklevel=2,
            )
        shape = SaeConfig(width=rows.width, n_latents=n_latents, k=config.k, architecture=config.architecture)
        plan = Plan.of(config, len(rows))
        require_at_least("checkpoint_every", checkpoint_every, 1)
        source = encoder_of(images) if isinstance(images, Embeddings) else {}
        options = {**asdict(plan), "captions": config.captions}
        sae = cls(shape, {**source, "rows": len(alone), "options": options}).to(pick_device(device))
        train_sae(sae, rows, plan, Path(checkpoint) if checkpoint is not None else None, checkpoint_every)
        sae.manifest["measures"] = measure_sae(sae, alone.sample(SAMPLE, plan.seed)).to_dict()
        return sae

    @classmethod
    def from_tensors(
        cls,
        *,
        encoder_weight: Tensor | np.ndarray,
        encoder_bias: Tensor | np.ndarray,
        directions: Tensor | np.ndarray,
        bias: Tensor | np.ndarray,
        k: int,
        architecture: Architecture = "topk",
        threshold: Tensor | np.ndarray | None = None,
        encoder: str = "",
    ) -> SparseAutoencoder:
        """An autoencoder that was fitted elsewhere: z = act(W_e (x - b) + b_e), x^ = z D + b.

        Directions of another length than 1 are made unit; z grows by what they lose, and every reconstruction stays.

        Args:
            encoder_weight: W_e, (n, d).
            encoder_bias: b_e, (n,). Where W_e was fitted on x and not on x - b, pass b_e + W_e b.
            directions: D, (n, d), a row a latent.
            bias: b, (d,), zeros where there is none.
            k: active latents a row; where a threshold decides, their mean: at most 4 k are kept.
            architecture: the rule of activation; 'jumprelu' with a threshold of zeros is a plain ReLU.
            threshold: (n,), of 'batchtopk' and 'jumprelu' alone.
            encoder: name of the model whose embeddings it was fitted on; '' is never checked.

        Raises:
            InputError: shapes that do not fit together, values that are not finite, a direction all zero, a threshold
                too many or too few; directions of several lengths where the k largest of a row decide, since at unit
                length others would be the largest.
        """
        tensors = {
            name: as_tensor(value, name).detach().float()
            for name, value in {
                "encoder_weight": encoder_weight,
                "encoder_bias": encoder_bias,
                "directions": directions,
                "bias": bias,
                **({} if threshold is None else {"threshold": threshold}),
            }.items()
        }
        if tensors["directions"].ndim != 2:
            raise InputError(f"directions has shape {tuple(tensors['directions'].shape)}; (n, d) is needed.")
        n, d = tensors["directions"].shape
        config = SaeConfig(width=d, n_latents=n, k=k, architecture=architecture)
        if (threshold is None) == config.thresholded:
            needs = "needs a threshold; pass one" if config.thresholded else "has no threshold; leave it out"
            raise InputError(f"The architecture '{architecture}' {needs}.")
        wanted = {"encoder_weight": (n, d), "encoder_bias": (n,), "bias": (d,), "threshold": (n,)}
        for name, tensor in tensors.items():
            if name in wanted and tensor.shape != wanted[name]:
                raise InputError(
                    f"{name} has shape {tuple(tensor.shape)}; beside {n} directions of width {d} it is {wanted[name]}."
                )
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name} holds NaN or infinity; look at how it was read.")
        lengths = tensors["directions"].norm(dim=1)
        if not bool(lengths.all()):
            raise InputError(f"Direction {int(lengths.argmin())} is all zero, so it has none; drop that latent.")
        if not config.thresholded and float(lengths.max() / lengths.min()) > 1 + UNIT:
            raise InputError(
                f"The directions are {float(lengths.min()):.3g} to {float(lengths.max()):.3g} long, and at unit length "
                f"others would be the k largest of '{architecture}'; pass an autoencoder with directions of one length."
            )
        sae = cls(config, {"encoder": encoder} if encoder else {})
        scaled = {"encoder_weight": lengths[:, None], "encoder_bias": lengths, "threshold": lengths}
        tensors = {name: tensor * scaled[name] if name in scaled else tensor for name, tensor in tensors.items()}
        sae.load_state_dict({**sae.state_dict(), **tensors, "directions": tensors["directions"] / lengths[:, None]})
        return sae

    def require_same_encoder(self, source: Embeddings | Encoder) -> None:
        """Raises ArtefactError when embeddings were made by another encoder than those it was fitted on.

        source: the embeddings, or the encoder that makes them. Compares fingerprints, or names where there is no
        fingerprint; says nothing where either side does not know its encoder. A different width is always refused.
        """
        if source.width != self.width:
            raise ArtefactError(
                f"The autoencoder was fitted on width {self.width} and these embeddings are {source.width} wide; "
                "use embeddings of the encoder it was fitted on."
            )
        mine, theirs = _encoder_in(self.manifest), encoder_of(source)
        for key in ("encoder_fingerprint", "encoder"):
            if mine.get(key) and theirs.get(key):
                if mine[key] != theirs[key]:
                    names = [f"'{side.get('encoder') or side[key]}' ({side[key]})" for side in (mine, theirs)]
                    raise ArtefactError(
                        f"The autoencoder was fitted on embeddings of {names[0]} and these are of {names[1]}; "
                        "fit one on these, or embed with the first."
                    )
                return

    def save(self, folder: str | Path) -> None:
        """Write the folder. Raises ArtefactError when it cannot be written."""
        save_artefact(folder, "sae", self.state_dict(), self.described())

    def described(self) -> dict[str, Any]:
        """Its manifest with its configuration: what `of_manifest` makes an empty one of."""
        return {**self.manifest, "config": asdict(self.config)}

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> SparseAutoencoder:
        """One without weights yet, of what `described` gave."""
        return cls(SaeConfig(**manifest["config"]), {key: manifest[key] for key in _KEPT if key in manifest})

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = "cpu") -> SparseAutoencoder:
        """Read a folder written by `save`. Raises ArtefactError when it is none, torn, altered or of an old format."""
        tensors, manifest = load_artefact(folder, "sae")
        with as_said(folder):
            sae = cls.of_manifest(manifest)
            sae.load_state_dict(tensors)
        return sae.to(pick_device(device))


def encoder_of(source: Embeddings | Encoder) -> dict[str, str]:
    """What is known of the encoder of some embeddings, or of one itself: `encoder`, its name, and its fingerprint."""
    if isinstance(source, Embeddings):
        return _encoder_in(source.manifest)
    return {"encoder": source.name, "encoder_fingerprint": source.fingerprint}


def _encoder_in(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {key: manifest[key] for key in ("encoder", "encoder_fingerprint") if manifest.get(key)}
