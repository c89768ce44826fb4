"""The sparse autoencoder: one module for every architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boresight.device import pick_device
from boresight.embeddings import Embeddings
from boresight.encoders.protocol import Encoder
from boresight.errors import ArtefactError, InputError
from boresight.sae import activations
from boresight.sae.codes import SparseCodes, concatenate, pack
from boresight.sae.config import Architecture, Prebias, SaeConfig, Selection, make_config, make_options
from boresight.sae.matmul import pre_activations
from boresight.sae.measures import measure_sae
from boresight.sae.sparse_ops import weighted_sums
from boresight.sae.start import SAMPLE, as_rows
from boresight.sae.training import train
from boresight.storage import fingerprint, load_artefact, save_artefact

_KEPT = ("encoder", "encoder_fingerprint", "rows", "options", "measures")


class SparseAutoencoder(nn.Module):
    """z = act(W_e (x - b) + b_e), x^ = z D + b, at the scale of the embeddings it was fitted on.

    Attributes:
        encoder_weight: W_e, (n, d).
        encoder_bias: b_e, (n,).
        directions: D, (n, d), unit rows: what one unit of each latent adds to an embedding.
        bias: b, (d,), the pre-bias.
        threshold: (n,), a latent is active above it; zero and unused for the rules that take the k largest of a row.
        config: shape and rule of activation.
        manifest: what it was fitted on: `encoder`, `encoder_fingerprint`, `rows`, `options`, `measures`.
    """

    threshold: Tensor

    def __init__(self, config: SaeConfig, manifest: dict[str, Any] | None = None) -> None:
        super().__init__()
        n, d = config.n_latents, config.width
        self.config = config
        self.manifest = dict(manifest or {})
        self.encoder_weight = nn.Parameter(torch.zeros(n, d), requires_grad=False)
        self.encoder_bias = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.directions = nn.Parameter(torch.zeros(n, d), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(d), requires_grad=False)
        self.register_buffer("threshold", torch.zeros(n))

    @property
    def n_latents(self) -> int:
        return self.config.n_latents

    @property
    def width(self) -> int:
        """d, of the embeddings."""
        return self.config.width

    @property
    def k(self) -> int:
        """Active latents a row; their mean over rows where the rule is a threshold."""
        return self.config.k

    @property
    def architecture(self) -> Architecture:
        return self.config.architecture

    @property
    def fingerprint(self) -> str:
        """Changes with any weight."""
        return fingerprint(self.state_dict())

    @classmethod
    def fit(
        cls,
        images: Tensor | np.ndarray | Embeddings,
        *,
        n_latents: int = 4096,
        k: int = 32,
        architecture: Architecture = "topk",
        seed: int = 0,
        epochs: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        prebias: Prebias = "geometric_median",
        aux_coefficient: float = 1 / 32,
        aux_k: int | None = None,
        dead_after: int | None = None,
        selection: Selection = "topk",
        matryoshka_sizes: Sequence[int] | None = None,
        l0_coefficient: float = 3.0,
        max_active: int | None = None,
        device: str | torch.device | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
    ) -> SparseAutoencoder:
        """A sparse autoencoder of these embeddings.

        The same seed on the same machine and number of threads gives the same weights bit for bit.

        Args:
            images: (N, d) float16 or float32, torch or numpy, in memory or memory-mapped (read a batch at a time);
                or `Embeddings`, whose images are used, all of them: pass `.train` to keep the rest unseen.
            n_latents, k, architecture, selection, matryoshka_sizes, max_active: see `SaeConfig`.
            epochs, steps: how long, at most one of them. Left out: `default_steps`.
            batch_size: rows a step; left out, `default_batch_size`.
            learning_rate: of Adam at its height; left out, `default_learning_rate`. It rises over the first 5 % of
                the steps and falls to 0 over the last 30 %.
            prebias: where b starts; the geometric median and the mean are taken over at most 16,384 rows.
            aux_coefficient, aux_k: weight of the auxiliary loss, and how many dead latents a row it may use (left
                out: 2 k). The auxiliary loss of Gao et al. 2024 (arXiv 2406.04093); its 1/32 is the default.
            dead_after: rows without activity after which a latent counts as dead; left out, 4 batches or half of
                the rows, whichever is more, at most 1,000,000.
            l0_coefficient: how strongly 'jumprelu' is pulled to k active latents.
            device: where to train and stay; the best one present if left out.
            checkpoint: a folder in which the state of training is kept every `checkpoint_every` steps. A fit that was
                killed continues from it when called again with the same data and options, to the same weights.

        Raises:
            InputError: rows that are NaN or zero, too few of them, or options that do not fit, by name.
        """
        rows = as_rows(images, least=2)
        config = make_config(
            rows.width,
            n_latents,
            k,
            architecture,
            selection=selection,
            matryoshka_sizes=matryoshka_sizes,
            max_active=max_active,
        )
        options = make_options(
            len(rows),
            config,
            seed=seed,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            prebias=prebias,
            aux_coefficient=aux_coefficient,
            aux_k=aux_k,
            dead_after=dead_after,
            l0_coefficient=l0_coefficient,
        )
        source = images.manifest if isinstance(images, Embeddings) else {}
        sae = cls(config, {**encoder_of(source), "rows": len(rows), "options": asdict(options)}).to(pick_device(device))
        if checkpoint_every < 1:
            raise InputError(f"checkpoint_every is {checkpoint_every}; choose at least 1 step.")
        train(sae, rows, options, Path(checkpoint) if checkpoint is not None else None, checkpoint_every)
        sae.manifest["measures"] = measure_sae(sae, rows.sample(SAMPLE, seed)).to_dict()
        return sae

    @torch.no_grad()
    def encode(self, x: Tensor | np.ndarray, *, block: int | None = None) -> SparseCodes:
        """The active latents of embeddings, strongest first.

        Args:
            x: (N, d), any floating dtype, torch or numpy, in memory or memory-mapped.
            block: rows at a time; left out, as many as keep the pre-activations within 64 MB.

        Returns:
            Codes on the device of `x`. (N, k) slots where the rule takes the k largest of a row; where it is a
            threshold, as many slots as the fullest row needs, at most `config.max_active`, of which the largest stay.

        Raises:
            InputError: another width than the autoencoder's, NaN or infinity.
        """
        rows = as_rows(x, least=0)
        if rows.width != self.width:
            raise InputError(
                f"The embeddings are {rows.width} wide and the autoencoder was fitted on width {self.width}; "
                "use embeddings of the encoder it was fitted on."
            )
        block = max(1, 2**24 // self.n_latents) if block is None else max(1, block)
        out = torch.empty(min(block, max(1, len(rows))), self.n_latents, device=self.bias.device)
        home = x.device if isinstance(x, Tensor) else torch.device("cpu")
        parts = []
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            finite = torch.isfinite(part).all(1)
            if not finite.all():
                row = start + int((~finite).nonzero()[0])
                raise InputError(f"Row {row} of the embeddings holds NaN or infinity; drop it or compute it again.")
            parts.append(self._encode_block(part.to(self.bias.device), out[: len(part)]).to(home))
        return concatenate(parts, self.n_latents, least=1 if self.config.thresholded else self.k)

    def _encode_block(self, x: Tensor, out: Tensor) -> SparseCodes:
        pre = pre_activations(x - self.bias, self.encoder_weight, self.encoder_bias, out)
        if self.config.thresholded:
            return pack(activations.above(pre, self.threshold.clamp_min(0)), pre, self.config.max_active)
        return pack(activations.top_of_rows(pre, self.k), pre, self.k)

    def decode(self, codes: SparseCodes) -> Tensor:
        """Embeddings from codes, pre-bias included: (N, d) float32 on the device of the codes.

        Differentiable in the values. Raises InputError when the codes are of a dictionary of another size.
        """
        if codes.n_latents != self.n_latents:
            raise InputError(
                f"The codes are of {codes.n_latents} latents and the autoencoder has {self.n_latents}; "
                "decode with the autoencoder that encoded them."
            )
        there = codes.to(self.bias.device)
        offsets = torch.arange(len(codes) + 1, device=self.bias.device) * codes.k
        summed = weighted_sums(there.indices.reshape(-1), there.values.reshape(-1), offsets, self.directions)
        return (summed + self.bias).to(codes.values.device)

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
        mine, theirs = encoder_of(self.manifest), encoder_of(source)
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
        save_artefact(folder, "sae", self.state_dict(), {**self.manifest, "config": asdict(self.config)})

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = "cpu") -> SparseAutoencoder:
        """Read a folder written by `save`. Raises ArtefactError when it is none, torn or altered."""
        tensors, manifest = load_artefact(folder, "sae")
        try:
            settings = dict(manifest["config"])
            settings["matryoshka_sizes"] = tuple(settings["matryoshka_sizes"])
            sae = cls(SaeConfig(**settings), {key: manifest[key] for key in _KEPT if key in manifest})
            sae.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ArtefactError(f"{folder} does not hold what its manifest says ({reason}); fit it again.") from error
        return sae.to(pick_device(device))


def encoder_of(source: Mapping[str, Any] | Embeddings | Encoder) -> dict[str, str]:
    """What is known of the encoder behind a manifest or embeddings: `encoder`, its name, and `encoder_fingerprint`."""
    if not isinstance(source, Mapping | Embeddings):
        return {"encoder": source.name, "encoder_fingerprint": source.fingerprint}
    manifest = source.manifest if isinstance(source, Embeddings) else source
    return {key: manifest[key] for key in ("encoder", "encoder_fingerprint") if manifest.get(key)}
