"""The towers of transformers' CLIP, SigLIP, SigLIP 2 and VisionTextDualEncoder models, opened for attribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from boresight.encoders.towers.layers import Attention, AttentionPool, Block
from boresight.encoders.towers.parts import (
    WAY_OUT,
    attention_of,
    checked_ids,
    first_of,
    highest,
    image_start,
    last,
    linear,
    mlp_of,
    norm,
    plain,
    same,
    text_start,
    then,
)
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.errors import InputError

_BERTS = ("bert", "roberta", "xlm-roberta", "camembert")


def towers_of(model: Any) -> Towers:
    """Both towers of an encoder that opens layer by layer, of a transformers dual encoder, or `Towers` themselves.

    The model is only read: its weights are shared where they are float32, else copied to it.
    Raises InputError for a model whose parts are not known.
    """
    if isinstance(model, Towers):
        return model
    return model.towers() if hasattr(model, "towers") else hf_towers(model)


def hf_towers(model: Any) -> Towers:
    """Both towers of a model as it stands; its weights are shared where they are float32, else copied to it.

    Raises InputError for a model whose parts are not known.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    try:
        if kind in ("siglip", "siglip2"):
            return Towers(_vision_tower(model.vision_model, same), _text_tower(model.text_model, same))
        if kind in ("clip", "vision-text-dual-encoder"):
            image, text = linear(model.visual_projection), linear(model.text_projection)
            return Towers(_vision_tower(model.vision_model, image), _text_tower(model.text_model, text))
    except AttributeError as error:
        raise InputError(f"A part of the {kind} model is not where it is expected ({error}); {WAY_OUT}") from error
    raise InputError(f"boresight cannot open a '{kind}' model layer by layer; {WAY_OUT}")


def _vision_tower(model: Any, project: Callable[[Tensor], Tensor]) -> Tower:
    kind = model.config.model_type
    if kind == "clip_vision_model":
        blocks = tuple(map(_clip_block, model.encoder.layers))
        start = image_start(
            model.embeddings.patch_embedding,
            model.embeddings.position_embedding.weight,
            model.embeddings.class_embedding,
            norm(model.pre_layrnorm),
        )
        return Tower("image", start, blocks, norm(model.post_layernorm), "cls", project, prefix=1)
    if kind == "vit":
        start = image_start(
            model.embeddings.patch_embeddings.projection,
            model.embeddings.position_embeddings[0],
            model.embeddings.cls_token.flatten(),
            same,
        )
        blocks = tuple(map(_vit_block, model.layers))
        head = then(linear(model.pooler.dense), model.pooler.activation, project)
        return Tower("image", start, blocks, norm(model.layernorm), "cls", head, prefix=1)
    if kind in ("siglip_vision_model", "siglip2_vision_model") and model.use_head:
        patches, positions = model.embeddings.patch_embedding, model.embeddings.position_embedding.weight
        start = _flexible_patches(model.embeddings) if kind.startswith("siglip2") else image_start(patches, positions)
        blocks = tuple(map(_clip_block, model.encoder.layers))
        return Tower("image", start, blocks, norm(model.post_layernorm), "map", project, probe=_probe(model.head))
    raise InputError(f"boresight cannot open a '{kind}' image tower layer by layer; {WAY_OUT}")


def _text_tower(model: Any, project: Callable[[Tensor], Tensor]) -> Tower:
    kind = model.config.model_type
    if kind in ("clip_text_model", "siglip_text_model", "siglip2_text_model"):
        blocks, after = tuple(map(_clip_block, model.encoder.layers)), norm(model.final_layer_norm)
        words = (model.embeddings.token_embedding.weight, model.embeddings.position_embedding.weight)
        if kind != "clip_text_model":
            return Tower("text", text_start(*words, last), blocks, after, "last", then(linear(model.head), project))
        # Old configurations say 2 and mean the highest number in the row.
        row_of = highest if model.eos_token_id == 2 else first_of(model.eos_token_id)
        start = text_start(*words, row_of, causal=True)
        return Tower("text", start, blocks, after, "eos", project, causal=True)
    if kind in _BERTS and not model.config.is_decoder:
        blocks = tuple(map(_bert_block, model.encoder.layer))
        head = then(linear(model.pooler.dense), model.pooler.activation, project)
        return Tower("text", _bert_words(model.embeddings), blocks, None, "cls", head)
    raise InputError(f"boresight cannot open a '{kind}' text tower layer by layer; {WAY_OUT}")


def _flexible_patches(embeddings: Any) -> Callable[[Mapping[str, Tensor]], Hidden]:
    """NaFlex: patches cut beforehand, each picture with a grid of its own, padded to one length."""
    project, positions = linear(embeddings.patch_embedding), plain(embeddings.position_embedding.weight)
    side = embeddings.position_embedding_size

    def start(inputs: Mapping[str, Tensor]) -> Hidden:
        pixels, shapes = inputs["pixel_values"].to(positions.device).float(), inputs["spatial_shapes"]
        grid = positions.reshape(side, side, -1)
        offsets = embeddings.resize_positional_embeddings(grid, shapes, max_length=pixels.shape[1])
        keep = inputs["pixel_attention_mask"].to(positions.device).bool()
        grids = tuple((int(rows), int(columns)) for rows, columns in shapes.tolist())
        return Hidden(project(pixels) + offsets, 0, keep, None, inputs, grids)

    return start


def _bert_words(embeddings: Any) -> Callable[[Mapping[str, Tensor]], Hidden]:
    """BERT's tokens; RoBERTa counts its positions over real tokens, from behind the padding number."""
    tokens, positions = plain(embeddings.word_embeddings.weight), plain(embeddings.position_embeddings.weight)
    types, normed = plain(embeddings.token_type_embeddings.weight), norm(embeddings.LayerNorm)
    padding = embeddings.position_embeddings.padding_idx

    def start(inputs: Mapping[str, Tensor]) -> Hidden:
        ids = checked_ids(inputs, tokens, len(positions) - (0 if padding is None else padding + 1))
        indices = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if padding is not None:
            real = (ids != padding).long()
            indices = real.cumsum(1) * real + padding
        mask, kinds = inputs.get("attention_mask"), inputs.get("token_type_ids")
        kind = types[torch.zeros_like(ids) if kinds is None else kinds.to(ids.device)]
        keep = None if mask is None else mask.to(ids.device).bool()
        row = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        return Hidden(normed(tokens[ids] + positions[indices] + kind), 0, keep, row, inputs)

    return start


def _clip_block(layer: Any) -> Block:
    attention = _attention(layer.self_attn, layer.self_attn.num_heads, "q_proj", "k_proj", "v_proj", "out_proj")
    mlp = mlp_of(layer.mlp.fc1, layer.mlp.activation_fn, linear(layer.mlp.fc2))
    return Block(norm(layer.layer_norm1), attention, norm(layer.layer_norm2), mlp)


def _vit_block(layer: Any) -> Block:
    part = layer.attention
    attention = _attention(part, part.num_attention_heads, "q_proj", "k_proj", "v_proj", "o_proj")
    mlp = mlp_of(layer.mlp.fc1, layer.mlp.activation_fn, linear(layer.mlp.fc2))
    return Block(norm(layer.layernorm_before), attention, norm(layer.layernorm_after), mlp)


def _bert_block(layer: Any) -> Block:
    part = layer.attention.self
    parts = (linear(part.query), linear(part.key), linear(part.value), linear(layer.attention.output.dense))
    mlp = mlp_of(layer.intermediate.dense, layer.intermediate.intermediate_act_fn, linear(layer.output.dense))
    attention = Attention(part.num_attention_heads, *parts)
    return Block(norm(layer.attention.output.LayerNorm), attention, norm(layer.output.LayerNorm), mlp, norm_first=False)


def _attention(part: Any, heads: int, *names: str) -> Attention:
    query, key, value, out = (linear(getattr(part, name)) for name in names)
    return Attention(heads, query, key, value, out)


def _probe(head: Any) -> AttentionPool:
    mlp = mlp_of(head.mlp.fc1, head.mlp.activation_fn, linear(head.mlp.fc2))
    return AttentionPool(plain(head.probe).flatten(), attention_of(head.attention), norm(head.layernorm), mlp)
