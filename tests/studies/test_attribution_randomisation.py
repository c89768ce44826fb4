"""Copies scrambled from the top down, and what is left of the maps."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from attribution_measures.randomisation import randomisation, randomised_copies, spearman
from boresight.attribution import explain
from boresight.errors import InputError
from boresight.models import default_model_path
from encoder_fixtures import tiny_fixture  # noqa: F401
from worlds.grounded import scene_pairs


def test_randomisation_is_the_correlation_with_maps_of_scrambled_copies(tiny) -> None:
    encoder, pairs = tiny("clip"), scene_pairs(4, seed=0, size=48)
    kept = copy.deepcopy(encoder.model.state_dict())
    found = randomisation(encoder, pairs, {"legrad": {}, "random": {}, "uniform": {}}, seed=5)
    assert list(found["legrad"]) == ["head", "block -1", "block -2", "embeddings"]
    assert set(found["random"].values()) == {1.0}
    assert set(found["uniform"].values()) == {0.0}
    own = explain(encoder, pairs.images, pairs.captions, method="legrad", target="image").image
    for stage, scrambled in randomised_copies(encoder.model, 5):
        other = copy.copy(encoder)
        other.model = scrambled
        again = explain(other, pairs.images, pairs.captions, method="legrad", target="image").image
        assert found["legrad"][stage] == pytest.approx(float(spearman(own, again).mean()), abs=1e-9)
    assert found["legrad"]["embeddings"] < 0.9
    assert all(torch.equal(value, kept[name]) for name, value in encoder.model.state_dict().items())


@pytest.fixture(scope="module")
def clip() -> hf.CLIPModel:
    return hf.CLIPModel.from_pretrained(default_model_path()).eval()


def tiny_siglip() -> hf.SiglipModel:
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 50, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config={**tower, "image_size": 16, "patch_size": 8}))


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b)


def test_copies_are_scrambled_from_the_top_down_and_the_original_is_not(clip: hf.CLIPModel) -> None:
    before = copy.deepcopy(clip.state_dict())
    stages = list(randomised_copies(clip, 0))
    assert [name for name, _ in stages] == ["head", *(f"block -{i}" for i in range(1, 7)), "embeddings"]
    assert all(same(before[name], values) for name, values in clip.state_dict().items())
    changed = [
        {name for name, values in model.state_dict().items() if not same(values, before[name])} for _, model in stages
    ]
    assert changed[0] == {
        "visual_projection.weight",
        "text_projection.weight",
        *(f"text_model.final_layer_norm.{part}" for part in ("weight", "bias")),
        *(f"vision_model.post_layernorm.{part}" for part in ("weight", "bias")),
    }
    for i, (now, then) in enumerate(itertools.pairwise(changed[1:-1]), start=2):  # 3 text blocks, 6 vision blocks
        assert now < then
        fresh = {name.split("layers.")[0] + name.split("layers.")[1].split(".")[0] for name in then - now}
        assert fresh == {f"vision_model.encoder.{6 - i}"} | ({f"text_model.encoder.{3 - i}"} if i <= 3 else set())
    last = changed[-1] - changed[-2]
    assert all("embedding" in name or "pre_layrnorm" in name for name in last)
    untouched = set(before) - changed[-1]
    assert untouched == {"logit_scale"}
    for name, values in stages[-1][1].state_dict().items():
        assert same(values.flatten().sort().values, before[name].flatten().sort().values)


def test_copies_are_reproducible_and_apart(clip: hf.CLIPModel) -> None:
    def heads(seed: int, spoil: bool = False) -> list[Tensor]:
        found = []
        for _, model in itertools.islice(randomised_copies(clip, seed), 3):
            found.append(model.text_projection.weight.detach().clone())
            if spoil:
                torch.nn.init.zeros_(model.text_projection.weight)
        return found

    plain = heads(0)
    assert all(same(a, b) for a, b in zip(plain, heads(0, spoil=True), strict=True))
    assert same(plain[0], plain[2])
    assert not same(plain[0], heads(1)[0])


def test_siglips_pooling_head_is_of_the_head() -> None:
    model = tiny_siglip()
    stages = dict(randomised_copies(model, 0))
    assert list(stages) == ["head", "block -1", "block -2", "embeddings"]
    before, after = model.state_dict(), stages["head"].state_dict()
    changed = {name for name in before if not same(before[name], after[name])}
    assert {
        "vision_model.head.probe",
        "vision_model.head.attention.in_proj_weight",
        "text_model.head.weight",
    } <= changed
    assert not any("layers" in name or "embeddings" in name for name in changed)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(2, 6), st.booleans(), st.integers(0, 10**6))
def test_spearman_is_scipys(n: int, levels: int, holes: bool, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    a, b = torch.randint(levels, (2, 3, n), generator=numbers) * 0.1
    if holes:
        a[0, 0] = b[1, -1] = torch.nan
    for x, y, found in zip(a, b, spearman(a, b), strict=True):
        both = ~(x.isnan() | y.isnan())
        x, y = x[both].numpy(), y[both].numpy()
        constant = len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2
        assert found.item() == pytest.approx(0 if constant else stats.spearmanr(x, y).statistic, abs=1e-12)
    assert spearman(a, a).tolist() == [float(len(set(row[~row.isnan()].tolist())) > 1) for row in a]


def test_random_maps_do_not_correlate() -> None:
    maps, others = torch.rand(2, 400, 7, 7, generator=torch.Generator().manual_seed(1))
    assert float(spearman(maps, others).mean()) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: spearman(m, m[:1]), "maps of the same pairs"),
        (lambda m: spearman(m, m / 0), "holds infinity"),
        (lambda m: spearman(m, m * torch.nan), "Pair 0 has no entry"),
        (lambda m: randomised_copies(torch.nn.Linear(2, 2), 0), "no numbered blocks"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(torch.ones(3, 7, 7))
