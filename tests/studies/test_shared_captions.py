"""The loss of the studies whose captions belong to several images of a batch."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.training.contrastive import infonce_loss
from shared_captions import infonce_of_shared


def slow_shared(images, texts, log_scale, shared):
    """The definition, one pair at a time."""
    scale, terms = math.exp(float(log_scale)), []
    count = len(images)
    for i in range(count):
        over_texts = over_images = 0.0
        for j in range(count):
            if i == j or not shared[i, j]:
                over_texts = over_texts + torch.exp(scale * images[i] @ texts[j])
            if i == j or not shared[j, i]:
                over_images = over_images + torch.exp(scale * images[j] @ texts[i])
        own = scale * images[i] @ texts[i]
        terms.append((torch.log(over_texts) - own + torch.log(over_images) - own) / 2)
    return sum(terms) / count


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 7), seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_loss_and_gradients_are_those_of_the_definition(count, seed, share):
    random = torch.Generator().manual_seed(seed)
    sides = [F.normalize(torch.randn(count, 5, generator=random, dtype=torch.float64), dim=1) for _ in range(2)]
    shared = torch.rand(count, count, generator=random) < share
    log_scale = torch.tensor(1.3, dtype=torch.float64)
    results = []
    for function in (infonce_of_shared, slow_shared):
        images, texts = (side.clone().requires_grad_() for side in sides)
        loss = function(images, texts, log_scale, shared)
        results.append((loss.detach(), *torch.autograd.grad(loss, [images, texts])))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_a_repeated_caption_is_no_negative():
    images = F.normalize(torch.tensor([[1.0, 0.2], [0.9, 0.4], [-1.0, 0.3]]), dim=1)
    texts = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), dim=1)
    shared = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    scale = torch.tensor(math.log(100.0))
    assert infonce_of_shared(images, texts, scale, shared) < 1e-4
    assert infonce_loss(images, texts, scale) > 0.3
