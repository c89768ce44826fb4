"""Measures of attribution maps against slow, obvious references, exact chance values, and pairs of known truth."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.measures.faithfulness import confidence, deletion_insertion, randomised_copies, soft_mask
from boresight.attribution.measures.grounding import GroundedPairs, emoji_pairs, scene_pairs
from boresight.attribution.measures.localisation import (
    energy_in_mask,
    iou,
    own_grids,
    patch_cover,
    pointing_game,
    roc_auc,
    spearman,
    swap_test,
    target_vs_distractor,
)
from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.worlds.scene_world import ATTRIBUTES, COLOURS, draw_scene
from boresight.errors import InputError
from boresight.models import default_model_path

ONE_MASK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing_game": pointing_game,
    "energy_in_mask": energy_in_mask,
    "iou": iou,
    "roc_auc": roc_auc,
}


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cover_by_loops(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every pixel split into gh x gw equal parts, every part given to the patch that it lies in."""
    fine = mask.repeat_interleave(grid[0], 0).repeat_interleave(grid[1], 1).double()
    height, width = mask.shape
    cells = [
        [fine[r * height : (r + 1) * height, c * width : (c + 1) * width].mean() for c in range(grid[1])]
        for r in range(grid[0])
    ]
    return torch.tensor(cells, dtype=torch.float64)


def cells_of(grid: Tensor, cover: Tensor) -> list[tuple[float, float]]:
    """(weight, cover) of each patch that there is."""
    return [(w, c) for w, c in zip(grid.flatten().tolist(), cover.flatten().tolist(), strict=True) if not math.isnan(w)]


def covered(cells: list[tuple[float, float]]) -> list[int]:
    least = min(0.5, max(c for _, c in cells))
    return [i for i, (_, c) in enumerate(cells) if c >= least]


def auc(first: list[float], second: list[float]) -> float:
    return float(np.mean([(a > b) + (a == b) / 2 for a in first for b in second]))


def rank(values: list[float]) -> list[float]:
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def slow(name: str, cells: list[tuple[float, float]]) -> float:
    weights, covers = zip(*cells, strict=True)
    truth = covered(cells)
    if name == "pointing_game":
        tops = [i for i, w in enumerate(weights) if w == max(weights)]
        return float(np.mean([covers[i] >= max(covers) / 2 for i in tops]))
    if name == "energy_in_mask":
        mass = [max(w, 0) for w in weights]
        mass = mass if any(mass) else [1.0] * len(mass)
        return sum(m * c for m, c in zip(mass, covers, strict=True)) / sum(mass)
    if name == "iou":  # over all orders that agree with the weights
        chosen = {
            frozenset(pick)
            for pick in itertools.combinations(range(len(cells)), len(truth))
            if min(weights[i] for i in pick) >= max((weights[i] for i in set(range(len(cells))) - {*pick}), default=-9)
        }
        return float(np.mean([len(pick & {*truth}) / len(pick | {*truth}) for pick in chosen]))
    return auc([weights[i] for i in truth], [w for w, c in cells if c == 0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    """Up to 3 maps of few distinct weights, some with a smaller grid of their own and holes, and two kinds of masks."""
    seed, pairs = draw(st.integers(0, 10**6)), draw(st.integers(1, 3))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    numbers = random(seed)
    maps = torch.randint(-2, 4, (pairs, rows, columns), generator=numbers) * 0.3
    grids = []
    for grid in maps:
        own = (draw(st.integers(1, rows)), draw(st.integers(2, columns)))
        grid[own[0] :] = torch.nan
        grid[:, own[1] :] = torch.nan
        if own[0] * own[1] > 3 and draw(st.booleans()):
            grid[0, 0] = torch.nan
        grids.append(own)
    masks = torch.zeros(2, pairs, height, width, dtype=torch.bool)
    for kind, pair in itertools.product(range(2), range(pairs)):  # boxes at the lower right: on patches that there are
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        masks[kind, pair, top:, left : left + draw(st.integers(1, width))] = True
        masks[kind, pair, -1, -1] = True
    return maps, grids, masks[0], masks[1]


def slow_cells(maps: Tensor, grids: list[tuple[int, int]], masks: Tensor) -> list[list[tuple[float, float]]]:
    return [
        cells_of(grid[: own[0], : own[1]], cover_by_loops(mask, own))
        for grid, own, mask in zip(maps, grids, masks, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_measures_with_one_mask_are_those_of_plain_loops(case: tuple) -> None:
    maps, grids, masks, _ = case
    assert own_grids(maps).tolist() == [list(own) for own in grids]
    pairs = slow_cells(maps, grids, masks)
    for name, measure in ONE_MASK.items():
        if name == "roc_auc" and any(all(c > 0 for _, c in cells) for cells in pairs):
            with pytest.raises(InputError, match="no patch uncovered"):
                measure(maps, masks)
            continue
        expected = [slow(name, cells) for cells in pairs]
        assert measure(maps, masks).tolist() == pytest.approx(expected, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 10**6))
def test_measures_with_a_distractor_are_those_of_plain_loops(case: tuple, seed: int) -> None:
    maps, grids, targets, distractors = case
    swapped = torch.where(maps.isnan(), maps, torch.randint(-1, 3, maps.shape, generator=random(seed)) * 0.7)
    here, there, after = (
        slow_cells(grid, grids, masks) for grid, masks in ((maps, targets), (maps, distractors), (swapped, targets))
    )
    expected_auc, expected_swap = [], []
    for of_target, of_distractor, of_swapped in zip(here, there, after, strict=True):
        chosen, rejected = covered(of_target), covered(of_distractor)
        weights, others = [w for w, _ in of_target], [w for w, _ in of_swapped]
        expected_auc.append(auc([weights[i] for i in chosen], [weights[i] for i in rejected]))
        leads = []
        for values in (weights, others):
            ranks = rank(values)
            leads.append(np.mean([ranks[i] for i in chosen]) - np.mean([ranks[i] for i in rejected]))
        same = abs(leads[0] - leads[1]) < 1e-9
        expected_swap.append(0.5 if same else float(leads[0] > leads[1]))
    assert target_vs_distractor(maps, targets, distractors).tolist() == pytest.approx(expected_auc)
    assert swap_test(maps, swapped, targets, distractors).tolist() == expected_swap
    assert swap_test(maps, maps, targets, distractors).tolist() == [0.5] * len(maps)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_cover_is_the_share_of_every_patch(height: int, rows: int, width: int, columns: int, seed: int) -> None:
    masks = torch.rand(2, height, width, generator=random(seed)) < 0.4
    cover = patch_cover(masks, (rows, columns))
    assert cover.shape == (2, rows, columns)
    for mask, found in zip(masks, cover, strict=True):
        assert torch.allclose(found, cover_by_loops(mask, (rows, columns)), atol=1e-12)
    assert torch.allclose(cover.mean((1, 2)), masks.double().mean((1, 2)), atol=1e-12)
    assert patch_cover(masks[:0].numpy(), (rows, columns)).shape == (0, rows, columns)


def boxes(pairs: int, grid: int = 7, patch: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Targets of 2 x 2 patches and distractors of 1 x 2, on whole patches, apart."""
    targets, distractors = torch.zeros(2, pairs, grid * patch, grid * patch, dtype=torch.bool)
    for pair in range(pairs):
        row, column = torch.randint(grid - 1, (2,), generator=random(seed + pair)).tolist()
        targets[pair, row * patch : (row + 2) * patch, column * patch : (column + 2) * patch] = True
        row = (row + 3) % grid
        distractors[pair, row * patch : (row + 1) * patch, column * patch : (column + 2) * patch] = True
    return targets, distractors & ~targets


def test_perfect_maps_score_one_and_uniform_maps_what_chance_gives() -> None:
    targets, distractors = boxes(6)
    perfect, uniform = patch_cover(targets, (7, 7)), torch.full((6, 7, 7), -3.0)
    wrong = patch_cover(distractors, (7, 7))
    for measure in ONE_MASK.values():
        assert measure(perfect, targets).tolist() == [1] * 6
    assert target_vs_distractor(perfect, targets, distractors).tolist() == [1] * 6
    assert target_vs_distractor(wrong, targets, distractors).tolist() == [0] * 6
    assert swap_test(perfect, wrong, targets, distractors).tolist() == [1] * 6
    assert swap_test(wrong, perfect, targets, distractors).tolist() == [0] * 6
    assert pointing_game(uniform, targets).tolist() == pytest.approx([4 / 49] * 6)
    assert energy_in_mask(uniform, targets).tolist() == pytest.approx([4 / 49] * 6)
    ways = [math.comb(4, j) * math.comb(45, 4 - j) / math.comb(49, 4) * j / (8 - j) for j in range(5)]
    assert iou(uniform, targets).tolist() == pytest.approx([sum(ways)] * 6)
    for chance in (roc_auc(uniform, targets), target_vs_distractor(uniform, targets, distractors)):
        assert chance.tolist() == [0.5] * 6
    assert swap_test(uniform, uniform - 1, targets, distractors).tolist() == [0.5] * 6


def test_random_maps_are_near_chance() -> None:
    targets, distractors = boxes(400)
    maps, others = torch.rand(2, 400, 7, 7, generator=random(1))
    assert float(pointing_game(maps, targets).mean()) == pytest.approx(4 / 49, abs=0.04)
    assert float(energy_in_mask(maps, targets).mean()) == pytest.approx(4 / 49, abs=0.01)
    assert float(iou(maps, targets).mean()) == pytest.approx(float(iou(torch.ones(1, 7, 7), targets[:1])), abs=0.02)
    assert float(roc_auc(maps, targets).mean()) == pytest.approx(0.5, abs=0.03)
    assert float(target_vs_distractor(maps, targets, distractors).mean()) == pytest.approx(0.5, abs=0.05)
    assert float(swap_test(maps, others, targets, distractors).mean()) == pytest.approx(0.5, abs=0.08)
    assert float(spearman(maps, others).mean()) == pytest.approx(0, abs=0.03)


def test_an_object_smaller_than_a_patch_can_be_found() -> None:
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 2:5, 2:5] = True
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0] = 1
    for name in ("pointing_game", "iou", "roc_auc"):
        assert ONE_MASK[name](maps, masks).tolist() == [1], name
    assert energy_in_mask(maps, masks).item() == pytest.approx(9 / 64)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(2, 6), st.booleans(), st.integers(0, 10**6))
def test_spearman_is_scipys(n: int, levels: int, holes: bool, seed: int) -> None:
    numbers = random(seed)
    a, b = torch.randint(levels, (2, 3, n), generator=numbers) * 0.1
    if holes:
        a[0, 0] = b[1, -1] = torch.nan
    for x, y, found in zip(a, b, spearman(a, b), strict=True):
        both = ~(x.isnan() | y.isnan())
        x, y = x[both].numpy(), y[both].numpy()
        constant = len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2
        assert found.item() == pytest.approx(0 if constant else stats.spearmanr(x, y).statistic, abs=1e-12)
    assert spearman(a, a).tolist() == [float(len(set(row[~row.isnan()].tolist())) > 1) for row in a]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: pointing_game(m[0], t), "one map a pair"),
        (lambda m, t: pointing_game(m.long(), t), "pass floats"),
        (lambda m, t: pointing_game(m / 0, t), "Map 0 of maps holds infinity"),
        (lambda m, t: pointing_game(m * torch.nan, t), "Map 0 of maps holds no number"),
        (lambda m, t: pointing_game(m, t[:1]), "3 maps and 1 masks"),
        (lambda m, t: pointing_game(m, t.float()), "pass booleans"),
        (lambda m, t: iou(m, t & False), "mask of pair 0 touches no patch"),
        (lambda m, t: roc_auc(m, t | True), "mask of pair 0 leaves no patch uncovered"),
        (lambda m, t: swap_test(m, m[:, :2], t, t), "not of the same patches"),
        (lambda m, t: spearman(m, m[:1]), "maps of the same pairs"),
        (lambda m, t: patch_cover(t, (0, 2)), "0 x 2"),
        (lambda m, t: soft_mask(m, (0, 2)), "0 x 2"),
        (lambda m, t: confidence(m[0, 0], m[0, 0, :1]), "one score a pair"),
        (lambda m, t: confidence(m[0, 0] / 0, m[0, 0]), "NaN or infinity"),
        (lambda m, t: deletion_insertion(m, lambda keep: keep.sum(1)), "weights has shape"),
        (lambda m, t: deletion_insertion(m[0], lambda keep: keep.sum(1), 0), "0 steps"),
        (lambda m, t: deletion_insertion(m[0], lambda keep: keep.double()), "one a pair"),
        (lambda m, t: deletion_insertion(m[0], lambda keep: keep.sum(1) / 0), "not finite"),
        (lambda m, t: randomised_copies(torch.nn.Linear(2, 2), 0), "no numbered blocks"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable, message: str) -> None:
    targets, _ = boxes(3)
    with pytest.raises(InputError, match=message):
        call(torch.ones(3, 7, 7), targets)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from([None, 1, 2, 3, 20]), st.integers(0, 10**6))
def test_deletion_and_insertion_of_a_linear_score_have_their_closed_form(
    pairs: int, n: int, steps: int | None, seed: int
) -> None:
    numbers = random(seed)
    weights = torch.rand(pairs, n, generator=numbers).argsort(1).float()
    gains, bias = torch.randn(pairs, n, generator=numbers).double(), torch.randn(pairs, generator=numbers).double()
    absent = torch.rand(pairs, n, generator=numbers) < 0.3
    absent[:, 0] = False
    weights = weights.masked_fill(absent, torch.nan)
    asked = []

    def score(keep: Tensor) -> Tensor:
        assert keep.shape == (pairs, n)
        assert keep.dtype == torch.bool
        assert keep[absent].all()
        asked.append(keep)
        return bias + (keep * gains).sum(1)

    curves = deletion_insertion(weights, score, steps)
    for pair in range(pairs):
        units = sorted((~absent[pair]).nonzero()[:, 0].tolist(), key=lambda i: -float(weights[pair, i]))
        count, groups = len(units), min(len(units), steps or 50)
        always = float(bias[pair] + gains[pair][absent[pair]].sum())
        ends = [k * count // groups for k in range(groups + 1)]
        gone = [always + sum(float(gains[pair, i]) for i in units[end:]) for end in ends]
        come = [always + sum(float(gains[pair, i]) for i in units[:end]) for end in ends]
        for curve, area, expected in (
            (curves.deletion_curve, curves.deletion, gone),
            (curves.insertion_curve, curves.insertion, come),
        ):
            assert curve[pair, : groups + 1].tolist() == pytest.approx(expected, abs=1e-9)
            assert curve[pair, groups + 1 :].isnan().all()
            assert area[pair].item() == pytest.approx(np.trapezoid(expected, np.array(ends) / count), abs=1e-9)
        if steps is None:  # unit k of n is there for a share (k + 1/2) / n of the deletion
            closed = always + sum(float(gains[pair, i]) * (k + 0.5) / count for k, i in enumerate(units))
            assert curves.deletion[pair].item() == pytest.approx(closed, abs=1e-9)
    assert len(asked) == 2 * (curves.deletion_curve.shape[1] - 1)
    alone = deletion_insertion(weights[:1, ~absent[0]], lambda keep: score_of_first(keep, gains, bias, absent), steps)
    assert alone.deletion.item() == pytest.approx(curves.deletion[0].item(), abs=1e-9)


def score_of_first(keep: Tensor, gains: Tensor, bias: Tensor, absent: Tensor) -> Tensor:
    full = torch.ones(1, gains.shape[1], dtype=torch.bool)
    full[:, ~absent[0]] = keep
    return bias[:1] + (full * gains[:1]).sum(1)


def test_more_than_fifty_units_go_in_fifty_groups_and_ties_in_a_seeded_random_order() -> None:
    weights = torch.zeros(40, 120, dtype=torch.float16)
    weights[:, 7] = 1
    gains = torch.arange(120).double()

    def run(rows: slice, seed: int) -> Tensor:
        return deletion_insertion(weights[rows], lambda keep: (keep * gains).sum(1), seed=seed).deletion

    curves = deletion_insertion(weights.numpy(), lambda keep: (keep * gains).sum(1), seed=3)
    assert curves.deletion_curve.shape == (40, 51)
    assert curves.deletion.std() > 0
    assert curves.deletion.mean().item() == pytest.approx(gains.sum().item() / 2, rel=0.02)
    assert torch.equal(run(slice(0, 40), 3), curves.deletion)
    assert torch.equal(run(slice(0, 10), 3), curves.deletion[:10])
    assert not torch.equal(run(slice(0, 40), 4), curves.deletion)
    first = deletion_insertion(weights, lambda keep: keep[:, 7].double(), steps=120)
    assert first.deletion_curve[:, 1].tolist() == [0] * 40


def test_confidence_is_what_is_published() -> None:
    drop, increase = confidence(torch.tensor([0.3, 0.2, 0.25]), torch.tensor([0.1, 0.5, 0.25]))
    assert drop.tolist() == pytest.approx([20, 0, 0], abs=1e-5)
    assert increase.tolist() == [0, 100, 0]


def test_soft_masks_are_resized_and_reach_from_zero_to_one() -> None:
    maps = torch.rand(3, 3, 4, generator=random(0)) - 5
    maps[1] = 2.5
    maps[2, 2:] = maps[2, :, 3:] = torch.nan
    masks = soft_mask(maps, (24, 20))
    assert masks.shape == (3, 24, 20)
    assert masks[1].eq(1).all()
    for row, own in ((0, maps[0]), (2, maps[2, :2, :3])):
        assert masks[row].aminmax() == (0, 1)
        large = F.interpolate(own[None, None], (24, 20), mode="bilinear")[0, 0]
        assert torch.allclose(masks[row], (large - large.min()) / (large.max() - large.min()), atol=1e-5)


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


@pytest.fixture(scope="module")
def scenes() -> GroundedPairs:
    return scene_pairs(25, seed=0, size=48)


def true_of(caption: str, objects: list, attributes: tuple[str, ...]) -> list[int]:
    """The objects that a caption is true of, read from its words."""
    found = []
    for row, thing in enumerate(objects):
        told = [thing.shape, *(getattr(thing, attribute) for attribute in attributes)]
        if all(f" {word} " in f" {caption} " for word in told):
            found.append(row)
    return found


@pytest.mark.parametrize("attributes", [("colour",), (), ("texture", "size"), ATTRIBUTES[:3]])
def test_captions_of_scenes_are_true_of_one_object_and_masks_are_its_pixels(attributes: tuple[str, ...]) -> None:
    pairs = scene_pairs(12, seed=5, size=96, attributes=attributes, objects=(3, 4))
    drawn = (draw_scene(5, "test", index, (3, 4))[0] for index in itertools.count())
    for row in range(len(pairs)):
        sides = ((pairs.captions, pairs.targets), (pairs.other_captions, pairs.distractors))
        for scene in drawn:
            found = [true_of(texts[row], list(scene.things), attributes) for texts, _ in sides]
            looks = [(t.shape, *(getattr(t, a) for a in attributes)) for t in scene.things]
            if sum(looks.count(look) == 1 for look in looks) >= 2:
                break
        assert [len(objects) for objects in found] == [1, 1]
        assert found[0] != found[1]
        for (_, masks), (number,) in zip(sides, found, strict=True):
            thing = scene.things[number]
            ys, xs = masks[row].nonzero(as_tuple=True)
            assert abs(ys - thing.y * 96).max() <= thing.radius * 96 + 1
            assert abs(xs - thing.x * 96).max() <= thing.radius * 96 + 1
            if "colour" in attributes:
                pixels = torch.from_numpy(np.array(pairs.images[row]))[masks[row]].int()
                near = (pixels - torch.tensor(COLOURS[thing.colour])).abs().amax(1) < 12
                assert near.double().mean() > 0.2


def test_scene_pairs_are_reproducible_and_grow_at_the_end(scenes: GroundedPairs) -> None:
    fewer = scene_pairs(10, seed=0, size=48)
    assert len(scenes) == 25
    assert scenes.captions[:10] == fewer.captions
    assert torch.equal(scenes.distractors[:10], fewer.distractors)
    assert scenes.captions != scene_pairs(25, seed=1, size=48).captions
    assert not (scenes.targets & scenes.distractors).any()
    assert {image.size for image in scenes.images} == {(48, 48)}


def world(captions: list[list[str]], kinds: list[str] | None = None) -> Collection:
    """Plain pictures of 6 x 8 pixels, red and green telling the number."""
    pictures = []
    for row in range(len(captions)):
        out = io.BytesIO()
        Image.new("RGB", (8, 6), (10 * row, 250 - 10 * row, 0)).save(out, "PNG")
        pictures.append({"bytes": out.getvalue(), "path": None})
    columns = {
        "id": [str(row) for row in range(len(captions))],
        "image": pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "captions": pa.array(captions, pa.list_(pa.string())),
        "split": ["test"] * len(captions),
    }
    if kinds is not None:
        columns["caption_kinds"] = [kinds[: len(texts)] for texts in captions]
    return Collection(dataset_of(pa.table(columns)), "world")


def test_collages_show_four_strangers_and_their_masks_the_told_one() -> None:
    told = [[f"kind {row // 2}", f"picture {row}", f"picture {row}, at length"] for row in range(14)]
    told[3] = ["Picture  2"]  # as good as shared with its neighbour
    told[13] = []
    pairs = emoji_pairs(40, seed=0, collection=world(told, ["short", "medium", "long"]), size=32)
    assert len(pairs) == 40
    for row in range(40):
        picture = np.array(pairs.images[row])
        shown = [int(picture[y, x, 0]) // 10 for y in (8, 24) for x in (8, 24)]
        assert len(set(shown)) == 4
        assert 13 not in shown
        assert len({text for image in shown for text in told[image]}) == sum(len(told[image]) for image in shown)
        assert not {2, 3} <= set(shown)
        sides = ((pairs.captions, pairs.targets), (pairs.other_captions, pairs.distractors))
        quarters = []
        for captions, masks in sides:
            cover = patch_cover(masks[row : row + 1], (2, 2)).flatten()
            assert sorted(cover.tolist()) == [0, 0, 0, 1]
            quarters.append(int(cover.argmax()))
            texts = told[shown[quarters[-1]]]
            assert captions[row] in (texts[1:] or texts)
        assert quarters[0] != quarters[1]
    assert len({int(patch_cover(mask[None], (2, 2)).argmax()) for mask in pairs.targets}) == 4
    assert emoji_pairs(8, seed=0, collection=world(told, ["short", "medium", "long"])).captions == pairs.captions[:8]
    assert len(emoji_pairs(3, seed=0, collection=world([["a"], ["b"], ["c"], ["d"]]))) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scene_pairs(0, seed=0), "0 pairs"),
        (lambda: scene_pairs(1, seed=0, size=8), "24 pixels"),
        (lambda: scene_pairs(1, seed=0, objects=(1, 4)), "2 to 9 objects"),
        (lambda: scene_pairs(1, seed=0, split="nowhere"), "no split 'nowhere'"),
        (lambda: scene_pairs(1, seed=0, attributes=("shape",)), "size, texture, colour, place"),
        (lambda: scene_pairs(1, seed=0, attributes="colour"), "pass a list"),
        (lambda: emoji_pairs(0, seed=0, collection=world([["a"]] * 4)), "0 collages"),
        (lambda: emoji_pairs(1, seed=0, collection=world([["a"]] * 4), size=33), "even size"),
        (lambda: emoji_pairs(1, seed=0, collection=world([["a"]] * 9)), r"world \(9 pictures\)"),
        (lambda: emoji_pairs(1, seed=0, collection=world([["a"], ["b"], ["c"]])), "no four pictures"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.update(captions=["a"]), "2 images and 1 captions"),
        (lambda parts: parts.update(targets=parts["targets"].float()), "must be booleans"),
        (lambda parts: parts.update(targets=parts["targets"] & False), "empty"),
        (lambda parts: parts.update(targets=parts["targets"][:, :2]), "several sizes"),
        (lambda parts: parts.update(targets=parts["distractors"]), "share pixels"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(change: Callable, message: str) -> None:
    masks = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    masks[0, :, :2] = masks[1, :, 2:] = True
    parts = {
        "images": [Image.new("RGB", (4, 4))] * 2,
        "captions": ["a", "b"],
        "targets": masks[0],
        "other_captions": ["b", "a"],
        "distractors": masks[1],
        "name": "test",
    }
    assert len(GroundedPairs(**parts)) == 2
    change(parts)
    with pytest.raises(InputError, match=message):
        GroundedPairs(**parts)
