"""Pairs of images and texts in two dimensions."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from boresight.editing import CaptionEditor
from boresight.editing.config import EditorConfig
from boresight.evaluation.pairs import matched_pairs, pairs_in_plane, principal_plane
from editing_world import quiet, sae_fixture, world  # noqa: F401


def test_principal_components():
    numbers = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 6, generator=numbers, dtype=torch.float64) * torch.tensor([1, 9, 0.1, 4, 1, 1]) + 3
    points = principal_plane(rows)
    values = torch.linalg.svdvals(rows - rows.mean(0))
    assert torch.allclose(points.norm(dim=0), values[:2])
    assert torch.allclose(points.T @ points, torch.diag(values[:2] ** 2), atol=1e-6)
    assert F.cosine_similarity(points[:, 0], rows[:, 1] - rows[:, 1].mean(), dim=0) > 0.99


def test_all_ways_share_one_plane(sae):
    test = world(sae, 20, seed=3)
    editor = CaptionEditor(sae, EditorConfig(form="raw"))
    planes = pairs_in_plane(test, editor, at_most=12, seed=1)
    assert {way: {side: tuple(points.shape) for side, points in sides.items()} for way, sides in planes.items()} == {
        way: {"images": (12, 2), "texts": (12, 2)} for way in ("plain", "edited")
    }
    pairs = [matched_pairs(test, one, at_most=12, seed=1) for one in (None, editor)]
    rows = torch.cat([F.normalize(side, dim=1) for both in pairs for side in (both.images, both.texts)])
    drawn = torch.cat([points for sides in planes.values() for points in sides.values()])
    assert torch.equal(drawn, principal_plane(rows))
    assert list(pairs_in_plane(test)) == ["plain"]
