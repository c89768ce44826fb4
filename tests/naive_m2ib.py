"""M2IB as it is written down, one pair at a time: hooks the layer and runs both towers for every sample and step."""

from __future__ import annotations

import torch


def naive_m2ib(model, image_inputs, text_inputs, side, layer, noise, *, beta=0.1, steps=10, lr=1.0, standardise=False):
    """(N,) nats of every token of one pair. noise(step) -> (S, N, D); `layer` counts as hidden_states do."""
    blocks = _blocks(model.vision_model if side == "image" else model.text_model)
    state = {}

    def remember(module, args):
        state["x"] = args[0].detach()

    def bottleneck(module, args):
        return (state["z"], *args[1:])

    def features():
        image = model.get_image_features(
            **{k: v.expand(state["copies"], *v.shape[1:]) for k, v in image_inputs.items()}
        )
        text = model.get_text_features(**{k: v.expand(state["copies"], *v.shape[1:]) for k, v in text_inputs.items()})
        return image.pooler_output, text.pooler_output

    state["copies"] = 1
    handle = blocks[layer].register_forward_pre_hook(remember)
    with torch.no_grad():
        features()
    handle.remove()
    x = state["x"]
    mean = x.mean(1, keepdim=True) if standardise else torch.zeros(())
    std = x.std(1, keepdim=True, unbiased=False).clamp_min(1e-6) if standardise else torch.ones(())
    alpha = torch.full_like(x, 5.0).requires_grad_()
    optimizer = torch.optim.Adam([alpha], lr=lr)
    handle = blocks[layer].register_forward_pre_hook(bottleneck)
    try:
        for step in range(steps):
            eps = noise(step)
            state["copies"] = len(eps)
            gates = torch.sigmoid(alpha).expand(len(eps), -1, -1)
            mu, variance = gates * (x - mean) / std, (1 - gates) ** 2
            state["z"] = mean + std * (mu + variance.sqrt() * eps)
            capacity = -0.5 * (1 + torch.log(variance) - mu**2 - variance)
            image, text = features()
            loss = beta * capacity.mean() - torch.cosine_similarity(image, text, eps=1e-6).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        handle.remove()
    return capacity.detach().mean(0).sum(-1)


def _blocks(tower):
    for owner in (getattr(tower, "encoder", None), tower):
        for name in ("layers", "layer"):
            if hasattr(owner, name):
                return getattr(owner, name)
    raise AssertionError(f"no layers in {type(tower).__name__}")
