"""The towers of open_clip's vision and text transformers, opened for attribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from boresight.encoders.towers.layers import Block, Linear
from boresight.encoders.towers.parts import (
    WAY_OUT,
    attention_of,
    first,
    first_of,
    highest,
    image_start,
    last,
    linear,
    mlp_of,
    norm,
    plain,
    same,
    scaled,
    text_start,
    then,
)
from boresight.encoders.towers.timm import timm_tower
from boresight.encoders.towers.tower import Pooling, Tower, Towers
from boresight.errors import InputError

_TEXT_POOLING: dict[str, Pooling] = {"argmax": "eos", "eos": "eos", "last": "last", "first": "cls"}


def openclip_towers(model: Any) -> Towers:
    """Both towers of a `CLIP` or `CustomTextCLIP` as it stands; float32 weights are shared, others copied to it.

    Raises InputError for towers of transformers inside open_clip, ResNets, attention poolers of its own and the class
    token of CoCa's text.
    """
    text = getattr(model, "text", None) or model
    try:
        timm = type(model.visual).__name__ == "TimmModel"
        return Towers(timm_tower(model.visual) if timm else _image(model.visual), _text(text))
    except AttributeError as error:
        raise InputError(f"open_clip's model does not open layer by layer ({error}); {WAY_OUT}") from error


def _image(visual: Any) -> Tower:
    dropped = getattr(visual, "attn_pool", None) is not None or visual.pool_type not in ("tok", "avg")
    if dropped or visual.proj is None:
        raise InputError(f"open_clip's model pools its image in a way that boresight cannot open; {WAY_OUT}")
    before = same if isinstance(visual.ln_pre, nn.Identity) else norm(visual.ln_pre)
    start = image_start(visual.conv1, visual.positional_embedding, visual.class_embedding, before)
    project = Linear(plain(visual.proj).t())
    blocks = tuple(map(_block, visual.transformer.resblocks))
    if visual.pool_type == "tok":
        return Tower("image", start, blocks, norm(visual.ln_post), "cls", project, prefix=1)
    if visual.final_ln_after_pool:
        return Tower("image", start, blocks, None, "mean", then(norm(visual.ln_post), project), prefix=1)
    return Tower("image", start, blocks, norm(visual.ln_post), "mean", project, prefix=1)


def _text(text: Any) -> Tower:
    kind = getattr(text, "text_pool_type", None) or text.pool_type
    padded = getattr(text, "use_pad_mask", False)
    if kind not in _TEXT_POOLING or getattr(text, "cls_emb", None) is not None or padded:
        raise InputError(f"open_clip's model reads its text in a way that boresight cannot open; {WAY_OUT}")
    causal = text.attn_mask is not None
    end = getattr(text, "text_eos_id", None) or getattr(text, "eos_id", None)
    rows: dict[str, Callable[[Tensor], Tensor]] = {"argmax": highest, "last": last, "first": first}
    row_of = first_of(int(end)) if kind == "eos" and end is not None else rows[kind]
    start = text_start(
        text.token_embedding.weight, text.positional_embedding, row_of, causal=causal and kind in ("argmax", "eos")
    )
    blocks = tuple(map(_block, text.transformer.resblocks))
    projection = text.text_projection
    project: Callable[[Tensor], Tensor] = same
    if isinstance(projection, nn.Linear):
        project = linear(projection)
    elif projection is not None:
        project = Linear(plain(projection).t())
    return Tower("text", start, blocks, norm(text.ln_final), _TEXT_POOLING[kind], project, causal=causal)


def _block(layer: Any) -> Block:
    if type(layer).__name__ != "ResidualAttentionBlock":
        raise InputError(f"boresight cannot open a '{type(layer).__name__}' of open_clip; {WAY_OUT}")
    attention, mlp = attention_of(layer.attn), layer.mlp
    return Block(
        norm(layer.ln_1),
        replace(attention, out=scaled(attention.out, layer.ls_1)),
        norm(layer.ln_2),
        mlp_of(mlp.c_fc, mlp.gelu, scaled(linear(mlp.c_proj), layer.ls_2)),
    )
