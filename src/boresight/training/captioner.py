"""The captioner of CLIPS: a small decoder that reads image tokens and a web caption and writes the full caption.

Its input is the sequence [image tokens | web caption's tokens | N learnt queries], both kinds of token states projected
to its width; prefix P below is the first two. `prefix_mask` says which row may read which column (x):

            P1 .. Pn | Q1 Q2 .. QN
    P        x     x |                all of the prefix, no query
    Qi       x     x |  x .. Qi       the prefix, and the queries up to its own

Query i has to say token i of the whole synthetic caption; no token of it is ever an input. The loss of a training is
contrastive + 2 x `captioning_loss`, as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from boresight.brief import spelled
from boresight.device import pick_device
from boresight.encoders.tokens import special_ids, tokenizer_fingerprint
from boresight.errors import ArtefactError, InputError
from boresight.seeds import generator
from boresight.storage import as_said, load_artefact, save_artefact
from boresight.training.config import CaptionerShape

KIND = "captioner"
FAMILIES = ("clip", "siglip")
IGNORED = -100  # fills targets behind a caption's end; no token has this number, while CLIP pads with its end token


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig(CaptionerShape):
    """Shape of a captioner and of what it reads.

    Attributes:
        image_width, text_width: widths of the token states of the two towers.
        vocabulary: size of the tokenizer's vocabulary.
        tokenizer: `tokenizer_fingerprint` of the tokenizer whose numbers it writes; '' is never checked.
    """

    image_width: int
    text_width: int
    vocabulary: int
    tokenizer: str = ""

    @classmethod
    def fitting(cls, model: Any, tokenizer: Any, **shape: Any) -> CaptionerConfig:
        """The configuration for a `CLIPModel` or `SiglipModel` and its tokenizer; `shape` are the other settings.

        Raises InputError for a model of another family.
        """
        if model.config.model_type not in FAMILIES:
            raise InputError(f"A captioner reads CLIP and SigLIP models, not '{model.config.model_type}'; pass one.")
        return cls(
            image_width=model.config.vision_config.hidden_size,
            text_width=model.config.text_config.hidden_size,
            vocabulary=len(tokenizer),
            tokenizer=tokenizer_fingerprint(tokenizer),
            **shape,
        )


class PrefixStates(NamedTuple):
    """What one forward of each tower gives.

    Attributes:
        images: (B, d) pooled and projected, of the towers' own length.
        texts: (M, d) likewise.
        image_states: (B, P, image_width), the class token first where the tower has one.
        text_states: (M, T, text_width).
    """

    images: Tensor
    texts: Tensor
    image_states: Tensor
    text_states: Tensor


def prefix_states(model: Any, pixel_values: Tensor, web_ids: Tensor, *, any_size: bool = False) -> PrefixStates:
    """Pooled embeddings and token states of a `CLIPModel` or `SiglipModel`, each tower run once.

    No attention mask is needed: CLIP reads up to the end token and padding comes after it, SigLIP was trained to
    read its padding.

    Args:
        pixel_values: (B, 3, S, S) float.
        web_ids: (M, T) int64, tokenized as the model was trained. M may be more than B, as with a second caption of
            each image behind the first; the captioner then takes the first B of `text_states`.
        any_size: interpolate position embeddings for pictures that are not of the model's own size.
    """
    image = model.get_image_features(pixel_values=pixel_values, interpolate_pos_encoding=any_size)
    text = model.get_text_features(input_ids=web_ids)
    return PrefixStates(image.pooler_output, text.pooler_output, image.last_hidden_state, text.last_hidden_state)


def prefix_mask(prefix: int, queries: int) -> Tensor:
    """(P + Q, P + Q) bool, True where a row reads a column: the prefix itself, query i the prefix and queries <= i."""
    mask = torch.ones(prefix + queries, prefix + queries, dtype=torch.bool).tril()
    mask[:prefix, :prefix] = True
    return mask


def special_ends(tokenizer: Any) -> tuple[int | None, int]:
    """Numbers of the tokens that a tokenizer puts before a caption (None if it puts none) and behind it.

    Raises InputError when it puts none behind: a captioner could not tell where to stop.
    """
    before, behind = special_ids(tokenizer)
    if not behind:
        raise InputError("The tokenizer ends captions with no end token; use one that does.")
    return (before[0] if before else None), behind[-1]


def real_tokens(tokens: Tensor, end: int) -> Tensor:
    """(B, T) bool, True up to and including the first `end` of each row of (B, T) tokens."""
    ended = tokens == end
    return ended.cumsum(1) - ended.long() == 0


def caption_targets(tokens: Tensor, *, start: int | None, end: int, queries: int) -> Tensor:
    """What query i has to say: the full captions without their start token, cut or filled with `IGNORED` to N.

    Args:
        tokens: (B, T) int64, [start] w1 .. wn end and any padding.
        start, end: as `special_ends` gives them.
        queries: N.

    Returns:
        (B, N) int64; a caption cut has no end token.
    """
    said = tokens if start is None else tokens[:, 1:]
    said = torch.where(real_tokens(said, end), said, IGNORED)[:, :queries]
    return F.pad(said, (0, queries - said.shape[1]), value=IGNORED)


def captioning_loss(logits: Tensor, targets: Tensor, pad: int = IGNORED, *, reduction: str = "mean") -> Tensor:
    """Mean, or 'sum', of the cross entropy of all `targets` (B, N) but `pad`, under `logits` (B, N, V): (), nats.

    0 where there is no such token. `pad` must be no token that has to be learnt, as the end token has, with which
    CLIP pads; `caption_targets` sees to it.
    """
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=pad, reduction="sum")
    return total if reduction == "sum" else total / (targets != pad).sum().clamp(min=1)


class CaptionerBlock(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width) of as many; mask: bool, broadcast to (B, heads, L, L)."""
        parts = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class Captioner(nn.Module):
    """A transformer over [image tokens | web-caption tokens | N queries] that writes token i of the caption at query i.

    The projections of token states have no bias. The queries are drawn from N(0, 1) and have no positions.

    Attributes:
        recompute: compute the activations of a layer anew in the backward of `forward`, to spare memory.
        model: fingerprint of the encoder that it was trained with; '' is never checked.
    """

    def __init__(self, config: CaptionerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.model = ""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(seed, "captioner").initial_seed())
            self.image_in = nn.Linear(config.image_width, config.width, bias=False)
            self.text_in = nn.Linear(config.text_width, config.width, bias=False)
            self.blocks = nn.ModuleList(CaptionerBlock(config.width, config.heads) for _ in range(config.layers))
            self.norm = nn.LayerNorm(config.width)
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
            self.queries = nn.Parameter(torch.randn(config.queries, config.width))

    def __repr__(self) -> str:
        return spelled(self, {"config": repr(self.config), "model": repr(self.model)})

    def forward(self, image_states: Tensor, text_states: Tensor, *, real: Tensor | None = None) -> Tensor:
        """Logits (B, N, vocabulary) float32 of every token of the caption, in one pass.

        Float32 whatever the rest computes in: half precision is too coarse for a softmax over a vocabulary.

        Args:
            image_states: (B, P, image_width) float, of `prefix_states`.
            text_states: (B, T, text_width) float, of the web captions.
            real: (B, T) bool, False on the padding of the web captions, which is hidden (ours: the published one reads
                it, so that what it writes depends on the longest caption of the batch); None: there is none.

        Raises InputError when states do not fit the configuration.
        """
        for label, states, width in (
            ("Image", image_states, self.config.image_width),
            ("Text", text_states, self.config.text_width),
        ):
            if states.ndim != 3 or states.shape[2] != width or len(states) != len(image_states):
                shape = f"({len(image_states)}, tokens, {width})"
                raise InputError(f"{label} states are {tuple(states.shape)}, not {shape}; see the captioner's config.")
        dtype = self.image_in.weight.dtype
        prefix = torch.cat([self.image_in(image_states.to(dtype)), self.text_in(text_states.to(dtype))], dim=1)
        count = prefix.shape[1]
        x = torch.cat([prefix, self.queries.expand(len(prefix), -1, -1).to(prefix.dtype)], dim=1)
        mask = prefix_mask(count, self.config.queries).to(x.device)
        if real is not None:
            seen = F.pad(real, (image_states.shape[1], self.config.queries), value=True)
            mask = mask & seen[:, None, None, :]
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        x = x[:, count:]
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(self.norm(x.to(self.norm.weight.dtype)).float(), self.head.weight.float())

    def check_fits(self, model: Any, tokenizer: Any) -> None:
        """Raises ArtefactError unless this captioner was made for token states and a tokenizer such as these."""
        wanted = CaptionerConfig.fitting(model, tokenizer)
        for what in ("image_width", "text_width", "vocabulary", "tokenizer"):
            own, other = getattr(self.config, what), getattr(wanted, what)
            if own != other and own != "":
                raise ArtefactError(
                    f"The captioner was trained with {what} {own} and this model has {other}; use the model it was "
                    "trained with."
                )

    def save(self, folder: str | Path, made_by: Mapping[str, Any] | None = None) -> None:
        """Write the folder, with `made_by` in its manifest; a 'model' there takes the place of this one's.

        Raises ArtefactError when the folder cannot be written.
        """
        save_artefact(
            folder, KIND, self.state_dict(), {"model": self.model, **(made_by or {}), "config": asdict(self.config)}
        )

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = "cpu") -> Captioner:
        """Read a folder written by `save`. Raises ArtefactError when it is none, torn, altered or of another kind."""
        tensors, manifest = load_artefact(folder, KIND)
        with as_said(folder, "train"):
            captioner = cls(CaptionerConfig(**manifest["config"]))
            captioner.load_state_dict(tensors)
            captioner.model = str(manifest.get("model", ""))
        return captioner.to(pick_device(device)).eval()
