"""The planted worlds, and what is read off their edits."""

from __future__ import annotations

import pytest
import torch

import planted_worlds as study

WORLD = study.World(width=64, concepts=48, shown=5, pairs=300)


def test_captions_tell_two_of_the_concepts_of_their_image():
    for part, count in zip(study.planted(WORLD, 0), (300, 1000, 1000), strict=True):
        assert len(part.pairs) == count
        assert ((part.codes > 0).sum(1) == WORLD.shown).all()
        assert (part.told.sum(1) == study.TOLD).all()
        assert (part.codes[part.told] >= 0.5).all()
    again, other = study.planted(WORLD, 0), study.planted(WORLD, 1)
    assert torch.equal(again[2].pairs.images, study.planted(WORLD, 0)[2].pairs.images)
    assert not torch.equal(again[2].pairs.images, other[2].pairs.images)


def test_what_is_kept_is_read_of_any_edit():
    test = study.planted(WORLD, 0)[2]
    assert study.kept_of(test, lambda images, texts: images) == pytest.approx((1, 1))
    assert study.kept_of(test, lambda images, texts: 0.3 * images) == pytest.approx((0.3, 0.3))
    concepts = torch.linalg.lstsq(test.codes, test.pairs.images.float()).solution
    told, untold = study.kept_of(test, lambda images, texts: (test.codes * test.told) @ concepts)
    assert told > 0.9
    assert abs(untold) < 0.05
