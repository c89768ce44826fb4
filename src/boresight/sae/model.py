"""The mathematics of a sparse autoencoder: an embedding x as a sum of a few of n directions.

    z = act(W_e (x - b) + b_e)       the code, not negative, few of n active
    x^ = z D + b                     the reconstruction, |D_l| = 1

`act` is what the architectures differ in; all begin with a ReLU:

    topk         the k largest of each row             Gao et al. 2024, arXiv 2406.04093, section 2.3
    batchtopk    the B k largest of a batch of B rows, then one threshold    Bussmann et al. 2024, arXiv 2412.06410
    jumprelu     what exceeds a learnt threshold of its latent    Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 3
    matryoshka   as topk, while prefixes of the dictionary reconstruct alone    Bussmann et al. 2025,
                 arXiv 2503.17547

`reference_code` says this of embeddings at inference as it would be written down; `SaeModel` finds the same codes
without a dense matrix of them. What training minimises stands in `boresight.sae.objective`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from boresight.errors import InputError
from boresight.sae import activations
from boresight.sae.codes import SparseCodes, concatenate, pack
from boresight.sae.config import SaeConfig
from boresight.sae.matmul import pre_activations
from boresight.sae.rows import as_rows
from boresight.sae.sparse_ops import weighted_sums


def reference_code(model: SaeModel, x: Tensor) -> Tensor:
    """Codes (N, n) of embeddings (N, d), dense and plain."""
    pre = (x - model.bias) @ model.encoder_weight.T + model.encoder_bias
    positive = pre.relu()
    most = model.config.max_active if model.config.thresholded else model.k
    if model.config.thresholded:
        positive = positive * (pre > model.threshold.clamp_min(0))
    largest = positive.topk(min(most, positive.shape[1]), dim=1)
    return torch.zeros_like(positive).scatter(1, largest.indices, largest.values)


class SaeModel(nn.Module):
    """Weights of a sparse autoencoder, at the scale of the embeddings it was fitted on.

    Attributes:
        encoder_weight: W_e, (n, d).
        encoder_bias: b_e, (n,).
        directions: D, (n, d), unit rows: what one unit of each latent adds to an embedding.
        bias: b, (d,), the pre-bias.
        threshold: (n,), a latent is active above it; zero and unused for the rules that take the k largest of a row.
        config: shape and rule of activation; `n_latents`, `width` and `k` are taken from it.
    """

    threshold: Tensor

    def __init__(self, config: SaeConfig) -> None:
        super().__init__()
        self.config = config
        self.n_latents, self.width, self.k = config.n_latents, config.width, config.k
        n, d = self.n_latents, self.width
        self.encoder_weight = nn.Parameter(torch.zeros(n, d), requires_grad=False)
        self.encoder_bias = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.directions = nn.Parameter(torch.zeros(n, d), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(d), requires_grad=False)
        self.register_buffer("threshold", torch.zeros(n))

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
