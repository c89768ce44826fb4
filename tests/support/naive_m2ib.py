"""M2IB as it is written down, one pair at a time: hooks the layer and runs both towers for every sample and step."""

from __future__ import annotations

import torch


def naive_m2ib(model, image_inputs, text_inputs, side, layer, noise, *, beta=0.1, steps=10, lr=1.0, standardise=False):
    """(N,) nats of every token of one pair. noise(step) -> (S, N, D); `layer` counts as hidden_states do.

    As in the published code the noise joins the states that come up from below, so that each step's gradients go down
    through both towers to all their weights, where nobody reads them.
    """
    blocks = _blocks(model.vision_model if side == "image" else model.text_model)
    alpha = torch.full_like(noise(0)[:1], 5.0).requires_grad_()
    optimizer = torch.optim.Adam([alpha], lr=lr)
    state = {}

    def bottleneck(module, args):
        x, eps = args[0], state["noise"]
        mean = x.mean(1, keepdim=True) if standardise else torch.zeros(())
        std = x.std(1, keepdim=True, unbiased=False).clamp_min(1e-6) if standardise else torch.ones(())
        gates = torch.sigmoid(alpha).expand(len(eps), -1, -1)
        mu, variance = gates * (x - mean) / std, (1 - gates) ** 2
        state["capacity"] = -0.5 * (1 + torch.log(variance) - mu**2 - variance)
        return (mean + std * (mu + variance.sqrt() * eps), *args[1:])

    handle = blocks[layer].register_forward_pre_hook(bottleneck)
    try:
        for step in range(steps):
            state["noise"] = noise(step)
            copies = len(state["noise"])
            image, text = (
                features(
                    **{name: value.expand(copies, *value.shape[1:]) for name, value in inputs.items()}
                ).pooler_output
                for features, inputs in (
                    (model.get_image_features, image_inputs),
                    (model.get_text_features, text_inputs),
                )
            )
            loss = beta * state["capacity"].mean() - torch.cosine_similarity(image, text, eps=1e-6).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        handle.remove()
    return state["capacity"].detach().mean(0).sum(-1)


def _blocks(tower):
    for owner in (getattr(tower, "encoder", None), tower):
        for name in ("layers", "layer"):
            if hasattr(owner, name):
                return getattr(owner, name)
    raise AssertionError(f"no layers in {type(tower).__name__}")
