"""What is trained: a dual encoder with its captioner in one module, and the loss that its embeddings meet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.errors import InputError
from boresight.training.captioner import (
    FAMILIES,
    Captioner,
    caption_targets,
    captioning_loss,
    prefix_states,
    real_tokens,
    special_ends,
)
from boresight.training.config import Captions, Loss
from boresight.training.contrastive import clips_loss, infonce_loss, multi_positive_loss, sigmoid_loss
from boresight.training.gradient_cache import Encoded


class Trainee(nn.Module):
    """One forward over everything that learns, so that what wraps it to average or shard gradients sees it all.

    Args:
        model: a `CLIPModel` or `SiglipModel`.
        tokenizer: the model's; it says where captions begin and end.
        captions: what images are contrasted with.
        captioner: reads the images and their web captions and has to write the whole synthetic ones.

    Raises:
        InputError: a model of another family, or a captioner where no web captions are embedded.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, captions: Captions = "both", captioner: Captioner | None = None
    ) -> None:
        super().__init__()
        if model.config.model_type not in FAMILIES:
            raise InputError(
                f"A '{model.config.model_type}' model cannot be trained here; pass a CLIP or SigLIP checkpoint."
            )
        if captioner is not None and captions == "synthetic":
            raise InputError("The captioner reads web captions, and captions='synthetic' leaves them out; take 'both'.")
        self.model = model
        self.captioner = captioner
        self.captions = captions
        self._contrasted = [name for name in ("web", "synthetic") if captions in (name, "both")]
        self.start, self.end = special_ends(tokenizer)

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        """Unit-length images, web and synthetic captions (B, d) each, as `captions` says, the temperature and bias.

        `rest` is the captioner's cross entropy, (), summed over the tokens of the whole captions; None without a
        captioner or where gradients are off.

        Args:
            batch: pixel_values (B, 3, S, S), web_ids and syn_ids (B, T), syn_full_ids (B, T').
        """
        states = prefix_states(self.model, batch["pixel_values"], self.caption_ids(batch), any_size=True)
        count = len(states.images)
        images, texts = (F.normalize(features.float(), dim=-1) for features in states[:2])
        bias = getattr(self.model, "logit_bias", None)
        scalars = [self.model.logit_scale.reshape(()), *([] if bias is None else [bias.reshape(())])]
        rest = None
        if self.captioner is not None and torch.is_grad_enabled():
            targets = self.targets(batch)
            real = real_tokens(batch["web_ids"], self.end)
            logits = self.captioner(states.image_states, states.text_states[:count], real=real)
            rest = captioning_loss(logits, targets, reduction="sum")
        return Encoded((images, *texts.split(count), *scalars), rest)

    def trimmed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`batch` without the columns of padding behind its longest caption: CLIP reads none, SigLIP all of it."""
        read = [name for name in ("web_ids", "syn_ids") if name in batch]
        if self.model.config.model_type != "clip":
            return dict(batch)
        width = max(int(real_tokens(batch[name], self.end).sum(1).max()) for name in read)
        return {name: value[:, :width] if name in read else value for name, value in batch.items()}

    def caption_ids(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(M, T) int64: what images are contrasted with, in the order of `forward`'s captions."""
        return torch.cat([batch["web_ids" if name == "web" else "syn_ids"] for name in self._contrasted])

    def targets(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, N) int64, what the captioner has to say of a batch; `IGNORED` behind a caption's end."""
        assert self.captioner is not None
        queries = self.captioner.config.queries
        return caption_targets(batch["syn_full_ids"], start=self.start, end=self.end, queries=queries)


def loss_of(
    kind: Loss, captions: Captions, chunk: int | None = None, words: Tensor | None = None
) -> Callable[..., Tensor]:
    """The loss of what `Trainee` gives, in its order: images, captions, temperature, bias (None where it has none).

    words: of all captions in that order, as `same_words` gives them.
    """

    def loss(images: Tensor, *rest: Tensor) -> Tensor:
        sets = 2 if captions == "both" else 1
        texts, (log_scale, *bias) = rest[:sets], rest[sets:]
        if kind == "softmax":
            if captions == "both":
                return clips_loss(images, texts[0], texts[1], log_scale, words=words, chunk=chunk)
            return infonce_loss(images, texts[0], log_scale, words=words, chunk=chunk)
        pooled, owners = torch.cat(texts), torch.arange(len(images), device=images.device).repeat(sets)
        if kind == "multi-positive":
            return multi_positive_loss(images, pooled, owners, log_scale, words=words, chunk=chunk)
        if not bias:
            raise InputError("The sigmoid loss needs a model with a bias, as SigLIP has; take loss='softmax'.")
        return sigmoid_loss(images, pooled, log_scale, bias[0], owners, words=words, chunk=chunk)

    return loss


def scalars_as_vectors(module: Trainee) -> None:
    """Temperature and bias as vectors of one, since what has no dimension cannot be sharded."""
    for name in ("logit_scale", "logit_bias"):
        value = getattr(module.model, name, None)
        if value is not None:
            setattr(module.model, name, nn.Parameter(value.detach().reshape(1), value.requires_grad))


def finished(like: Trainee, weights: Mapping[str, Tensor]) -> Trainee:
    """A copy with these weights, whose scalars may be vectors, and its own for the others; all of it free to learn."""
    whole = copy.deepcopy(like).eval()
    own = whole.state_dict()
    whole.load_state_dict({**own, **{name: value.reshape(own[name].shape) for name, value in weights.items()}})
    if getattr(whole.model, "is_activation_checkpointing", False):
        whole.model.activation_checkpointing_disable()
    if whole.captioner is not None:
        whole.captioner.recompute = False
    return whole.requires_grad_(True)
