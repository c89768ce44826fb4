"""Contrastive losses against slow, obvious ones; blocks of columns against the whole; chunks of a batch against it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from boresight.errors import InputError
from boresight.seeds import generator
from boresight.training.collectives import average, gather_rows, rank, row_counts, world_size
from boresight.training.contrastive import (
    clamp_scale,
    clips_loss,
    infonce_loss,
    multi_positive_loss,
    same_words,
    sigmoid_loss,
)
from boresight.training.gradient_cache import Encoded, cached_backward

CHUNKS = st.sampled_from([1, 2, 3, 5, 50])
SEEDS = st.integers(0, 2**32)


def unit(rows: int, seed: int, name: str, width: int = 4) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=generator(seed, name), dtype=torch.float64), dim=-1)


def draw_owners(images: int, seed: int) -> Tensor:
    """One caption an image and up to twice as many more, shuffled."""
    source = generator(seed, "owners")
    more = torch.randint(images, (int(torch.randint(2 * images + 1, (), generator=source)),), generator=source)
    owners = torch.cat([torch.arange(images), more])
    return owners[torch.randperm(len(owners), generator=source)]


def gradients(loss, *inputs: Tensor) -> list[Tensor]:
    """The value of `loss`, then its gradients."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def slow_infonce(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    logits = log_scale.exp() * images @ texts.T
    return -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2


def slow_multi_positive(images: Tensor, texts: Tensor, owners: Tensor, log_scale: Tensor) -> Tensor:
    """Caption by caption, each with a softmax of its own."""
    logits = log_scale.exp() * images @ texts.T
    per_image: list[list[Tensor]] = [[] for _ in images]
    for caption, owner in enumerate(owners.tolist()):
        kept = [j for j in range(len(texts)) if j == caption or owners[j] != owner]
        per_image[owner].append(-logits[owner, kept].log_softmax(0)[kept.index(caption)])
    to_text = sum(sum(values) / len(values) for values in per_image) / len(images)
    to_image = sum(-logits[:, j].log_softmax(0)[owner] for j, owner in enumerate(owners.tolist())) / len(texts)
    return (to_text + to_image) / 2


def slow_sigmoid(images: Tensor, texts: Tensor, owners: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    total = scalar(0)
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            sign = 1 if owners[j] == i else -1
            total = total - torch.sigmoid(sign * (log_scale.exp() * image @ text + bias)).log()
    return total / len(images)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), SEEDS, st.floats(-1, 4))
def test_clips_is_the_mean_of_two_losses_with_a_softmax_each(count: int, seed: int, scale: float) -> None:
    inputs = [unit(count, seed, name) for name in ("images", "web", "synthetic")] + [scalar(scale)]

    def slow(images: Tensor, web: Tensor, synthetic: Tensor, log_scale: Tensor) -> Tensor:
        return (slow_infonce(images, web, log_scale) + slow_infonce(images, synthetic, log_scale)) / 2

    assert_same(gradients(clips_loss, *inputs), gradients(slow, *inputs))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), SEEDS, st.floats(-1, 4))
def test_multi_positive_against_caption_by_caption(count: int, seed: int, scale: float) -> None:
    owners = draw_owners(count, seed)
    inputs = [unit(count, seed, "images"), unit(len(owners), seed, "texts"), scalar(scale)]
    found = gradients(lambda i, t, s: multi_positive_loss(i, t, owners, s), *inputs)
    assert_same(found, gradients(lambda i, t, s: slow_multi_positive(i, t, owners, s), *inputs))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), SEEDS)
def test_one_caption_each_in_any_order_is_infonce(count: int, seed: int) -> None:
    owners = torch.randperm(count, generator=generator(seed, "order"))
    inputs = [unit(count, seed, "images"), unit(count, seed, "texts"), scalar(2.0)]
    found = gradients(lambda i, t, s: multi_positive_loss(i, t, owners, s), *inputs)
    assert_same(found, gradients(lambda i, t, s: infonce_loss(i, t[owners.argsort()], s), *inputs))


def test_an_image_with_two_captions_can_reach_zero() -> None:
    images = torch.eye(3)
    owners = torch.tensor([0, 0, 1, 1, 2, 2])
    assert multi_positive_loss(images, images[owners], owners, torch.tensor(4.5)) < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), SEEDS, st.floats(-1, 3), st.floats(-5, 1))
def test_sigmoid_against_pair_by_pair(count: int, seed: int, scale: float, bias: float) -> None:
    owners = draw_owners(count, seed)
    inputs = [unit(count, seed, "images"), unit(len(owners), seed, "texts"), scalar(scale), scalar(bias)]
    found = gradients(lambda i, t, s, b: sigmoid_loss(i, t, s, b, owners), *inputs)
    assert_same(found, gradients(lambda i, t, s, b: slow_sigmoid(i, t, owners, s, b), *inputs))
    paired = [inputs[0], inputs[1][:count], *inputs[2:]]
    slow = gradients(lambda i, t, s, b: slow_sigmoid(i, t, torch.arange(count), s, b), *paired)
    assert_same(gradients(sigmoid_loss, *paired), slow)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), SEEDS, CHUNKS, st.floats(-1, 4.6))
def test_blocks_of_columns_equal_the_whole(count: int, seed: int, chunk: int, scale: float) -> None:
    owners = draw_owners(count, seed)
    images, texts, web = unit(count, seed, "images"), unit(len(owners), seed, "texts"), unit(count, seed, "web")

    def all_of_them(chunk: int | None):
        def loss(images: Tensor, texts: Tensor, web: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
            return (
                infonce_loss(images, web, log_scale, chunk=chunk)
                + 2 * clips_loss(images, web, texts[:count], log_scale, chunk=chunk)
                + 3 * multi_positive_loss(images, texts, owners, log_scale, chunk=chunk)
                + 4 * sigmoid_loss(images, texts, log_scale, bias, owners, chunk=chunk)
            )

        return gradients(loss, images, texts, web, scalar(scale), scalar(-1.5))

    assert_same(all_of_them(chunk), all_of_them(None))


def told_of(owners: Tensor, words: Tensor) -> set[tuple[int, int]]:
    """(image, words) of all captions."""
    return set(zip(owners.tolist(), words.tolist(), strict=True))


def slow_of_words(images: Tensor, texts: Tensor, owners: Tensor, words: Tensor, log_scale: Tensor) -> Tensor:
    """`slow_multi_positive` without the pairs of an image and a caption that, word for word, it has too."""
    logits, told = log_scale.exp() * images @ texts.T, told_of(owners, words)
    to_text: list[list[Tensor]] = [[] for _ in images]
    to_image = []
    for caption, owner in enumerate(owners.tolist()):
        rivals = [j for j in range(len(texts)) if (owner, int(words[j])) not in told]
        to_text[owner].append(logits[owner, [caption, *rivals]].logsumexp(0) - logits[owner, caption])
        rivals = [i for i in range(len(images)) if (i, int(words[caption])) not in told]
        to_image.append(logits[[owner, *rivals], caption].logsumexp(0) - logits[owner, caption])
    return (sum(sum(one) / len(one) for one in to_text) / len(images) + sum(to_image) / len(texts)) / 2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), SEEDS, st.floats(-1, 4), st.one_of(st.none(), CHUNKS), st.integers(1, 8))
def test_equal_captions_are_no_evidence_against_each_others_images(
    count: int, seed: int, scale: float, chunk: int | None, kinds: int
) -> None:
    owners = draw_owners(count, seed)
    words = torch.randint(kinds, (len(owners),), generator=generator(seed, "words"))
    inputs = [unit(count, seed, "images"), unit(len(owners), seed, "texts"), scalar(scale)]
    found = gradients(lambda i, t, s: multi_positive_loss(i, t, owners, s, words=words, chunk=chunk), *inputs)
    assert_same(found, gradients(lambda i, t, s: slow_of_words(i, t, owners, words, s), *inputs))

    own = torch.arange(count)
    pairs = [inputs[0], inputs[1][:count], inputs[2]]
    found = gradients(lambda i, t, s: infonce_loss(i, t, s, words=words[:count], chunk=chunk), *pairs)
    assert_same(found, gradients(lambda i, t, s: slow_of_words(i, t, own, words[:count], s), *pairs))

    def slow_sigmoid_of_words(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
        told = told_of(owners, words)
        total = scalar(0)
        for i, image in enumerate(images):
            for j, text in enumerate(texts):
                if owners[j] == i or (i, int(words[j])) not in told:
                    sign = 1 if owners[j] == i else -1
                    total = total - torch.sigmoid(sign * (log_scale.exp() * image @ text - 1.5)).log()
        return total / len(images)

    def sigmoid(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
        return sigmoid_loss(images, texts, log_scale, scalar(-1.5), owners, words=words, chunk=chunk)

    assert_same(gradients(sigmoid, *inputs), gradients(slow_sigmoid_of_words, *inputs))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), SEEDS, st.one_of(st.none(), CHUNKS))
def test_either_caption_of_a_picture_is_true_of_it_in_both_halves_of_clips(
    count: int, seed: int, chunk: int | None
) -> None:
    words = torch.randint(4, (2 * count,), generator=generator(seed, "words"))
    images, web, synthetic = (unit(count, seed, name) for name in ("images", "web", "synthetic"))
    told = told_of(torch.arange(count).repeat(2), words)

    def half(texts: Tensor, words: Tensor) -> Tensor:
        logits = math.exp(2) * images @ texts.T
        kept = torch.tensor([[i == j or (i, int(words[j])) not in told for j in range(count)] for i in range(count)])
        logits = logits.masked_fill(~kept, -torch.inf)
        return -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2

    found = clips_loss(images, web, synthetic, scalar(2), words=words, chunk=chunk)
    torch.testing.assert_close(found, (half(web, words[:count]) + half(synthetic, words[count:])) / 2)


def test_a_perfect_fit_has_no_loss_where_captions_repeat() -> None:
    rows, words = torch.eye(4)[torch.tensor([0, 1] * 4)], torch.tensor([0, 1] * 4)
    scale, bias = torch.tensor(100.0).log(), torch.tensor(-50.0)
    assert infonce_loss(rows, rows, scale) > 1.3
    assert infonce_loss(rows, rows, scale, words=words) < 1e-6
    assert clips_loss(rows, rows, rows, scale, words=words.repeat(2)) < 1e-6
    assert sigmoid_loss(rows, rows, scale, bias) > 1
    assert sigmoid_loss(rows, rows, scale, bias, words=words) < 1e-6


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_the_same_words_have_the_same_number(rows: list[list[int]]) -> None:
    numbers = same_words(torch.tensor(rows)).tolist()
    for i, one in enumerate(rows):
        assert [numbers[i] == number for number in numbers] == [one == other for other in rows]


class Largest(TorchDispatchMode):
    """The most elements that any operation in it returned in one tensor."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_no_matrix_of_all_pairs_with_chunks() -> None:
    images, texts = unit(100, 0, "images"), unit(100, 0, "texts")
    owners, log_scale = torch.arange(100), scalar(2.0)
    for loss in (
        lambda i, t, chunk: clips_loss(i, t, t, log_scale, chunk=chunk),
        lambda i, t, chunk: multi_positive_loss(i, t, owners, log_scale, chunk=chunk),
        lambda i, t, chunk: sigmoid_loss(i, t, log_scale, scalar(-1.0), chunk=chunk),
        lambda i, t, chunk: infonce_loss(i, t, log_scale, words=owners // 2, chunk=chunk),
    ):
        for chunk, most in ((10, 100 * 10), (None, 100 * 100)):
            with Largest() as largest:
                gradients(lambda i, t, loss=loss, chunk=chunk: loss(i, t, chunk), images, texts)
            assert largest.elements == most


def test_half_precision_is_lifted_before_the_logits() -> None:
    images, texts = unit(8, 1, "images").bfloat16(), unit(8, 1, "texts").bfloat16()
    scale = torch.tensor(math.log(100.0))
    for loss in (infonce_loss, lambda i, t, s: sigmoid_loss(i, t, s, torch.tensor(-10.0))):
        exact = loss(images.double(), texts.double(), scale.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = [loss(images, texts, scale), loss(images.float(), texts.float(), scale)]
        for value in found:
            assert value.item() == pytest.approx(exact.item(), rel=1e-5)


def test_what_does_not_fit_is_said() -> None:
    images, scale = torch.eye(3), torch.tensor(0.0)
    with pytest.raises(InputError, match=r"images \(3, 3\) and synthetic \(2, 3\)"):
        clips_loss(images, images, images[:2], scale)
    with pytest.raises(InputError, match=r"owners \(2,\)"):
        multi_positive_loss(images, images, torch.tensor([0, 1]), scale)
    with pytest.raises(InputError, match="Image 1 of the batch owns no caption"):
        multi_positive_loss(images, images, torch.tensor([0, 2, 2]), scale)
    with pytest.raises(InputError, match="owners run from 0 to 3"):
        sigmoid_loss(images, images, scale, scale, torch.tensor([0, 1, 3]))
    with pytest.raises(InputError, match="no image"):
        infonce_loss(images[:0], images[:0], scale)
    with pytest.raises(InputError, match=r"words \(2,\) must hold a number for each of the 3 captions"):
        infonce_loss(images, images, scale, words=torch.tensor([0, 1]))
    with pytest.raises(InputError, match="chunk is 0"):
        infonce_loss(images, images, scale, chunk=0)


def test_a_world_of_one_needs_no_initialisation() -> None:
    rows = torch.eye(2)
    assert (world_size(), rank(), row_counts(5)) == (1, 0, [5])
    assert gather_rows(rows) is rows
    assert average(torch.tensor(3.0)) == 3.0


class Towers(nn.Module):
    """Two towers with dropout, a temperature, and a head whose loss does not go through the cache."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Dropout(0.4), nn.Linear(8, 4))
            self.text = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Dropout(0.4), nn.Linear(8, 4))
            self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.double()

    def encode(self, chunk: tuple[Tensor, Tensor]) -> Encoded:
        image, text = self.image(chunk[0]), self.text(chunk[1])
        return Encoded((F.normalize(image, dim=-1), F.normalize(text, dim=-1), self.log_scale), image)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_cached_gradients_equal_plain_ones_with_dropout(seed: int, sizes: list[int], with_extra: bool) -> None:
    towers, count = Towers(seed % 1000), sum(sizes)
    pixels, words = unit(count, seed, "pixels", 5), unit(count, seed, "words", 3)
    chunks = list(zip(pixels.split(sizes), words.split(sizes), strict=True))

    def extra(encoded: Encoded) -> Tensor:
        return (towers.head(encoded.rest) ** 2).sum() / count

    torch.manual_seed(seed % 1000)
    encoded = [towers.encode(chunk) for chunk in chunks]
    images, texts = (torch.cat([one.inputs[side] for one in encoded]) for side in (0, 1))
    loss = infonce_loss(images, texts, towers.log_scale)
    beside = sum(extra(one) for one in encoded) if with_extra else torch.zeros_like(loss)
    (loss + beside).backward()
    expected = [value.grad for value in towers.parameters() if value.grad is not None]
    following = torch.rand(3)

    towers.zero_grad()
    torch.manual_seed(seed % 1000)
    found = cached_backward(towers.encode, chunks, infonce_loss, extra=extra if with_extra else None)
    assert_same([*found], [loss.detach(), beside.detach()])
    assert_same([value.grad for value in towers.parameters() if value.grad is not None], expected)
    torch.testing.assert_close(torch.rand(3), following)

    once = [value.clone() for value in expected]
    torch.manual_seed(seed % 1000)
    cached_backward(towers.encode, chunks, infonce_loss, extra=extra if with_extra else None)
    assert_same([value.grad for value in towers.parameters() if value.grad is not None], [2 * value for value in once])


def test_a_frozen_tower_is_left_alone_and_no_chunk_is_refused() -> None:
    towers = Towers(0)
    towers.image.requires_grad_(False)
    chunks = [(unit(2, 0, "pixels", 5), unit(2, 0, "words", 3))]
    cached_backward(towers.encode, chunks, infonce_loss)
    assert all(value.grad is None for value in towers.image.parameters())
    assert all(value.grad is not None for value in towers.text.parameters())
    with pytest.raises(InputError, match="no chunk"):
        cached_backward(towers.encode, [], infonce_loss)


def test_the_temperature_is_clamped_and_can_come_back():
    images = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    texts = images.roll(1, 0)  # wrong pairs: a smaller scale is better
    log_scale = torch.nn.Parameter(torch.tensor(9.0))
    clamp_scale(log_scale)
    assert log_scale.exp().item() == pytest.approx(100.0, rel=1e-5)
    infonce_loss(images, texts, log_scale).backward()
    assert log_scale.grad > 0
    with torch.no_grad():
        log_scale -= 0.1 * log_scale.grad
    clamp_scale(log_scale)
    assert log_scale.exp().item() < 99
