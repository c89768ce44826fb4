"""The peers of M2IB as they are written down: one pair, the model's own forward with hooks, loops."""

from __future__ import annotations

import contextlib

import torch


def features(model, side, inputs):
    return (model.get_image_features if side == "image" else model.get_text_features)(**inputs).pooler_output


def blocks_of(model, side):
    tower = model.vision_model if side == "image" else model.text_model
    for owner in (getattr(tower, "encoder", None), tower):
        for name in ("layers", "layer"):
            if hasattr(owner, name):
                return getattr(owner, name)
    raise AssertionError(f"no layers in {type(tower).__name__}")


@contextlib.contextmanager
def hooked(*handles):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def states_at(model, side, inputs, layer):
    kept = []
    handle = blocks_of(model, side)[layer].register_forward_pre_hook(lambda module, args: kept.append(args[0].detach()))
    with hooked(handle), torch.no_grad():
        features(model, side, inputs)
    return kept[0]


def slope_at(model, side, inputs, layer, states, other):
    """d cos / d states (1, N, D), where `states` take the place of what enters block `layer`."""
    leaf = states.clone().requires_grad_()
    handle = blocks_of(model, side)[layer].register_forward_pre_hook(lambda module, args: (leaf, *args[1:]))
    with hooked(handle):
        fit = torch.cosine_similarity(features(model, side, inputs), other)
    return torch.autograd.grad(fit.sum(), leaf)[0]


def gradient_x_input(model, side, inputs, layer, other):
    x = states_at(model, side, inputs, layer)
    return (x * slope_at(model, side, inputs, layer, x, other)).sum(-1)[0]


def integrated_gradients(model, side, inputs, layer, other, nodes, weights):
    x = states_at(model, side, inputs, layer)
    mean = sum(w * slope_at(model, side, inputs, layer, a * x, other) for a, w in zip(nodes, weights, strict=True))
    return (x * mean).sum(-1)[0]


def grad_cam(model, side, inputs, other, first):
    """Gradient at what the last block's attention reads; tokens from `first` on weigh the channels."""
    kept = []

    def keep(module, args, kwargs):
        x = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_()
        kept.append(x)
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    block = blocks_of(model, side)[-1]
    attention = block.self_attn if hasattr(block, "self_attn") else getattr(block.attention, "self", block.attention)
    with hooked(attention.register_forward_pre_hook(keep, with_kwargs=True)):
        fit = torch.cosine_similarity(features(model, side, inputs), other)
    slope = torch.autograd.grad(fit.sum(), kept[0])[0][0]
    return (kept[0].detach()[0] * slope[first:].mean(0)).sum(-1).relu()


def attention_weights(model, side, inputs, other):
    """(1, heads, N, N) weights of every block of an eager model, and the gradients of the cosine to them."""
    maps = []

    def keep(module, args, output):
        weights = output[1] if isinstance(output, tuple) else None
        if weights is not None and not any(weights is each for each in maps):
            maps.append(weights)

    parts = [module for block in blocks_of(model, side) for module in block.modules()]
    with hooked(*(part.register_forward_hook(keep) for part in parts)):
        fit = torch.cosine_similarity(features(model, side, inputs), other)
    assert len(maps) == len(blocks_of(model, side))
    return maps, torch.autograd.grad(fit.sum(), maps)


def probe_weights(head, x):
    """SigLIP's pooling head written out by head: (embedding (1, d), weights of the heads [(N,)])."""
    part, width = head.attention, x.shape[-1]
    queries, keys, values = (
        torch.nn.functional.linear(rows, weight, bias)
        for rows, weight, bias in zip(
            (head.probe[0], x[0], x[0]), part.in_proj_weight.chunk(3), part.in_proj_bias.chunk(3), strict=True
        )
    )
    size = width // part.num_heads
    weights, gathered = [], []
    for one in range(part.num_heads):
        own = slice(one * size, (one + 1) * size)
        weight = torch.softmax(queries[0, own] @ keys[:, own].T / size**0.5, dim=-1)
        weights.append(weight)
        gathered.append(weight @ values[:, own])
    pooled = part.out_proj(torch.cat(gathered))[None]
    return pooled + head.mlp(head.layernorm(pooled)), weights


def without_patches(pixels, patch, gone):
    """Pixels (1, C, H, W) with the patches (row, column) of `gone` set to zero."""
    pixels = pixels.clone()
    for row, column in gone:
        pixels[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 0
    return pixels


def without_tokens(texts, gone, refill):
    """One caption (1, T) less the columns `gone`: shorter, or filled up with its last token."""
    keep = [column for column in range(texts["input_ids"].shape[1]) if column not in gone]
    out = {name: value[:, keep] for name, value in texts.items()}
    if refill:
        ids = texts["input_ids"]
        out["input_ids"] = torch.cat([out["input_ids"], ids[:, -1:].expand(-1, len(gone))], dim=1)
    return out
