"""timm's vision transformers inside open_clip (its SigLIP models, among others), opened for attribution."""

from __future__ import annotations

from typing import Any

from torch import nn

from boresight.encoders.towers.layers import Attention, AttentionPool, Block, Linear
from boresight.encoders.towers.parts import WAY_OUT, image_start, linear, mlp_of, norm, plain, same, scaled, then
from boresight.encoders.towers.tower import Tower
from boresight.errors import InputError


def timm_tower(visual: Any) -> Tower:
    """The image tower of a `TimmModel`. Raises InputError for what is no plain vision transformer."""
    trunk, prefix = visual.trunk, visual.trunk.num_prefix_tokens
    steps = [_norm_or_same(trunk.fc_norm), *(linear(part) for part in (trunk.head,) if isinstance(part, nn.Linear))]
    for part in visual.head:
        if isinstance(part, nn.Linear):
            steps.append(linear(part))
        elif not isinstance(part, nn.Dropout):
            raise _unknown(f"a {type(part).__name__} on top")
    if type(trunk).__name__ != "VisionTransformer" or trunk.reg_token is not None or trunk.pos_embed is None:
        raise _unknown(f"a {type(trunk).__name__}")
    first = None if trunk.cls_token is None else trunk.cls_token.flatten()
    if trunk.dynamic_img_size or (first is not None and trunk.no_embed_class):
        raise _unknown("positions that are not added to all tokens")
    start = image_start(trunk.patch_embed.proj, trunk.pos_embed[0], first, _norm_or_same(trunk.norm_pre))
    blocks, last = tuple(map(_block, trunk.blocks)), None if _absent(trunk.norm) else norm(trunk.norm)
    if trunk.attn_pool is not None:
        return Tower("image", start, blocks, last, "map", then(*steps), prefix, probe=_probe(trunk.attn_pool, prefix))
    if trunk.global_pool == "token":
        return Tower("image", start, blocks, last, "cls", then(*steps), prefix)
    if trunk.global_pool == "avg" and not trunk.pool_include_prefix:
        return Tower("image", start, blocks, last, "mean", then(*steps), prefix)
    raise _unknown(f"pooling '{trunk.global_pool}'")


def _block(layer: Any) -> Block:
    part = layer.attn
    extras = (part.q_norm, part.k_norm, part.norm, layer.mlp.norm)
    plain_attention = type(part).__name__ == "Attention" and getattr(part, "gate", None) is None
    if type(layer).__name__ != "Block" or not plain_attention or not all(map(_absent, extras)):
        raise _unknown(f"a {type(layer).__name__} with norms or gates of its own")
    out, down = scaled(linear(part.proj), layer.ls1), scaled(linear(layer.mlp.fc2), layer.ls2)
    query, key, value = _split(part.qkv, 3)
    attention = Attention(part.num_heads, query, key, value, out)
    return Block(
        norm(layer.norm1),
        attention,
        norm(layer.norm2),
        mlp_of(layer.mlp.fc1, layer.mlp.act, down),
    )


def _probe(pool: Any, prefix: int) -> AttentionPool:
    strange = pool.pos_embed is not None or pool.latent_len != 1 or pool.mlp is None or prefix
    if type(pool).__name__ != "AttentionPoolLatent" or strange or not _absent(pool.q_norm):
        raise _unknown(f"a {type(pool).__name__} of its kind")
    key, value = _split(pool.kv, 2)
    attention = Attention(pool.num_heads, linear(pool.q), key, value, linear(pool.proj))
    mlp = mlp_of(pool.mlp.fc1, pool.mlp.act, linear(pool.mlp.fc2))
    return AttentionPool(plain(pool.latent).flatten(), attention, _norm_or_same(pool.norm), mlp)


def _split(layer: Any, parts: int) -> list[Linear]:
    weights = plain(layer.weight).chunk(parts)
    biases = [None] * parts if layer.bias is None else plain(layer.bias).chunk(parts)
    return [Linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def _norm_or_same(part: Any) -> Any:
    return same if _absent(part) else norm(part)


def _absent(part: Any) -> bool:
    return part is None or isinstance(part, nn.Identity)


def _unknown(what: str) -> InputError:
    return InputError(f"timm's image tower has {what}, which boresight cannot open layer by layer; {WAY_OUT}")
