"""Operations on strokes against their definitions: measured thickness, counted pieces, what must stay as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from boresight.errors import InputError
from worlds import morphology
from worlds.glyphs import NAMES, draw_glyph

EIGHT = np.ones((3, 3))
seeds = st.integers(0, 500)


def numbers(seed: int):
    return iter(np.random.default_rng(seed).random(50).tolist())


def digit(seed: int) -> np.ndarray:
    return draw_glyph(seed, "test", 0)[0]


def bar(width: int, length: int = 80) -> np.ndarray:
    """An upright stroke of the finer mask."""
    ink = np.zeros((112, 112), bool)
    ink[16 : 16 + length, 50 : 50 + width] = True
    return ink


def pieces(mask: np.ndarray) -> int:
    return ndimage.label(mask, EIGHT)[1]


def holes(mask: np.ndarray) -> int:
    return ndimage.label(~np.pad(mask, 1))[1] - 1


def test_a_picture_becomes_ink_and_back():
    picture = digit(3)
    ink = morphology.ink_of(picture)
    assert (ink.shape, ink.dtype) == ((112, 112), bool)
    again = morphology.perturb(picture)
    assert (again.shape, again.dtype) == ((28, 28), np.uint8)
    np.testing.assert_array_equal(again, morphology.picture_of(ink))
    assert abs(again.astype(float) - picture).mean() < 6
    assert not morphology.perturb(np.full((28, 28), 7, np.uint8)).any()
    for wrong in (picture.astype(float), picture[None], picture[:0]):
        with pytest.raises(InputError, match=r"no \(H, W\) uint8"):
            morphology.perturb(wrong)


@settings(max_examples=60, deadline=None)
@given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_a_skeleton_has_the_topology_of_its_mask(mask):
    line = morphology.skeleton(mask)
    assert not (line & ~mask).any()
    assert pieces(line) == pieces(mask)
    assert holes(line) == holes(mask)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_skeleton_is_one_pixel_wide(seed):
    line = morphology.skeleton(morphology.ink_of(digit(seed)))
    solid = line[:-1, :-1] & line[1:, :-1] & line[:-1, 1:] & line[1:, 1:]
    assert solid.sum() <= 2  # at most where lines cross
    assert 40 < line.sum() < 320


@pytest.mark.parametrize("width", [3, 5, 9, 15])
def test_the_thickness_of_a_bar_is_its_width(width):
    ink = bar(width)
    assert ndimage.distance_transform_edt(ink).max() == (width + 1) / 2
    assert morphology.depth(ink).max() == pytest.approx(width / 2 / 4)
    # Towards its ends the line runs into the corners or stops short of them.
    assert morphology.mean_thickness(ink) == pytest.approx(width / 4, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, amount=st.floats(0.2, 0.9))
def test_thickening_and_thinning_change_the_mean_thickness_by_the_share(seed, amount):
    ink = bar(5 + seed % 9)
    before = morphology.mean_thickness(ink)
    thick, thin = morphology.thicken(ink, amount), morphology.thin(ink, amount)
    assert (thick & ink).sum() == ink.sum()
    assert not (thin & ~ink).any()
    # An edge cannot move by less than a fine pixel, which is a quarter of a pixel on either side.
    assert morphology.mean_thickness(thick) == pytest.approx(before * (1 + amount), abs=0.4)
    assert morphology.mean_thickness(thin) == pytest.approx(before * (1 - amount), abs=0.5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_digits_get_thicker_and_thinner(seed):
    ink = morphology.ink_of(digit(seed))
    before = morphology.mean_thickness(ink)
    # Loops fill up, and what is filled is thicker than asked for; a thin line's width is a few fine pixels.
    assert 1.45 < morphology.mean_thickness(morphology.thicken(ink, 0.7)) / before < 2.6
    assert 0.15 < morphology.mean_thickness(morphology.thin(ink, 0.7)) / before < 0.55
    np.testing.assert_array_equal(morphology.thicken(ink, 0.0), ink)
    np.testing.assert_array_equal(morphology.thin(ink, 0.0), ink)


def test_dilation_and_erosion_are_by_a_disk():
    ink = morphology.ink_of(digit(8))
    reach = 0.7 * morphology.mean_thickness(ink) / 2 * 4
    points, edge = np.argwhere(ink), np.argwhere(~ink)
    rng = np.random.default_rng(0)
    for y, x in rng.choice(edge, 60):
        near = np.hypot(*(points - (y, x)).T).min() - 0.5 <= reach
        assert morphology.thicken(ink, 0.7)[y, x] == near
    for y, x in rng.choice(points, 60):
        far = np.hypot(*(edge - (y, x)).T).min() - 0.5 > reach
        assert morphology.thin(ink, 0.7)[y, x] == far


def test_strokes_do_not_change_by_less_than_nothing():
    for change in (morphology.thicken, morphology.thin):
        with pytest.raises(InputError, match="cannot change by"):
            change(bar(5), -0.5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, strength=st.floats(1.5, 5), radius=st.floats(2, 9))
def test_swelling_magnifies_within_its_radius_and_nothing_else(seed, strength, radius):
    ink = morphology.ink_of(digit(seed))
    swollen = morphology.swell(ink, strength, radius, numbers(seed))
    np.testing.assert_array_equal(swollen, morphology.swell(ink, strength, radius, numbers(seed)))
    line = np.argwhere(morphology.skeleton(ink))
    y, x = line[int(next(numbers(seed)) * len(line))]
    rim = radius / 2 * np.sqrt(morphology.mean_thickness(ink)) * 4
    rows, columns = np.indices(ink.shape)
    distance = np.hypot(rows - y, columns - x)
    outside = distance >= rim
    np.testing.assert_array_equal(swollen[outside], ink[outside])
    assert swollen[y, x]
    # By the definition, point by point, where the nearest pixel and its neighbours agree.
    even = ndimage.minimum_filter(ink.astype(int), 3) == ndimage.maximum_filter(ink.astype(int), 3)
    for row, column in np.argwhere(distance < rim)[::37]:
        weight = (distance[row, column] / rim) ** (strength - 1)
        seen = round(y + weight * (row - y)), round(x + weight * (column - x))
        if even[seen]:
            assert swollen[row, column] == ink[seen]


def test_a_lens_of_strength_one_shows_what_is_there():
    ink = morphology.ink_of(digit(5))
    np.testing.assert_array_equal(morphology.swell(ink, 1.0, 7.0, numbers(0)), ink)
    assert morphology.swell(ink, 3.0, 7.0, numbers(0)).sum() > ink.sum()


@settings(max_examples=30, deadline=None)
@given(seed=seeds, width=st.integers(3, 13))
def test_a_cut_splits_a_bar_across(seed, width):
    ink = bar(width)
    broken = morphology.fracture(ink, 1, numbers(seed))
    assert pieces(broken) == 2
    lost = np.argwhere(ink & ~broken)
    assert np.ptp(lost[:, 1]) == width - 1  # the whole breadth
    assert 6 <= np.ptp(lost[:, 0]) + 1 <= 9  # a pixel and a half, which are six fine ones
    # Not within two pixels of an end.
    assert lost[:, 0].min() > 16 + 8 - 4
    assert lost[:, 0].max() < 16 + 80 - 8 + 4


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_fractures_break_digits(seed):
    ink = morphology.ink_of(digit(seed))
    broken = morphology.fracture(ink, 3, numbers(seed))
    np.testing.assert_array_equal(broken, morphology.fracture(ink, 3, numbers(seed)))
    assert not (broken & ~ink).any()
    # A cut opens a loop or parts a stroke; it never leaves both as they were.
    assert pieces(broken) - holes(broken) > pieces(ink) - holes(ink)
    assert pieces(broken) >= pieces(ink)
    assert 0 < (ink & ~broken).sum() < 0.6 * ink.sum()


def test_strokes_too_short_for_a_cut_away_from_their_ends_are_cut_too():
    tiny = np.zeros((112, 112), bool)
    tiny[50:56, 50:53] = True
    assert morphology.fracture(tiny, 1, numbers(0)).sum() < tiny.sum()
    empty = np.zeros((112, 112), bool)
    for changed in (
        morphology.thicken(empty, 0.7),
        morphology.thin(empty, 0.7),
        morphology.swell(empty, 3, 7, numbers(0)),
        morphology.fracture(empty, 3, numbers(0)),
    ):
        np.testing.assert_array_equal(changed, empty)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, factor=st.floats(0.4, 1.0))
def test_rescaling_shrinks_the_box_by_the_factor(seed, factor):
    picture = digit(seed)
    small = morphology.rescale(picture, factor, numbers(seed))
    assert (small.shape, small.dtype) == ((28, 28), np.uint8)
    boxes = []
    for one in (picture, small):
        found = np.argwhere(one > 96)
        boxes.append((np.ptp(found, axis=0) + 1, (found.max(0) + found.min(0)) / 2))
    assert abs(boxes[1][0] - factor * boxes[0][0]).max() <= 2
    assert abs((boxes[1][1] - 13.5) - factor * (boxes[0][1] - 13.5)).max() <= 1.5


def test_a_small_picture_lies_three_or_four_pixels_from_the_edge():
    white = np.full((28, 28), 255, np.uint8)
    corners = set()
    for seed in range(30):
        found = np.argwhere(morphology.rescale(white, 0.75, numbers(seed)))
        assert (np.ptp(found, axis=0) == 20).all()
        corners.add(tuple(found.min(0).tolist()))
    assert corners == {(3, 3), (3, 4), (4, 3), (4, 4)}
    np.testing.assert_array_equal(morphology.rescale(white, 1.0, numbers(0)), white)
    for factor in (0.0, 1.5):
        with pytest.raises(InputError, match="cannot be shrunk"):
            morphology.rescale(white, factor, numbers(0))


def test_drawn_digits_depend_on_their_arguments_alone():
    picture, name = draw_glyph(1, "train", 5)
    again, same = draw_glyph(1, "train", 5)
    np.testing.assert_array_equal(picture, again)
    assert name == same
    assert (picture.shape, picture.dtype, picture.max()) == ((28, 28), np.uint8, 255)
    for other in (draw_glyph(2, "train", 5), draw_glyph(1, "test", 5), draw_glyph(1, "train", 6)):
        assert (other[0] != picture).any()
    drawn = [draw_glyph(0, "train", index) for index in range(300)]
    counts = {name: sum(mine == name for _, mine in drawn) for name in NAMES}
    assert min(counts.values()) > 10
    border = np.stack([picture for picture, _ in drawn])
    border[:, 1:-1, 1:-1] = 0
    assert (border.max((1, 2)) > 128).mean() < 0.01


def test_drawn_digits_of_a_class_look_alike_and_classes_do_not():
    """Nearest mean picture of the class, fitted on some, names others: far above the 10 % of guessing."""
    train, test = ([draw_glyph(0, split, index) for index in range(400)] for split in ("train", "test"))
    means = np.stack([np.mean([p for p, mine in train if mine == name], axis=0) for name in NAMES])
    right = [NAMES[((means - picture) ** 2).sum((1, 2)).argmin()] == name for picture, name in test]
    assert np.mean(right) > 0.8


def test_holes_of_drawn_digits_are_those_of_the_digits():
    wanted = {
        "zero": 1,
        "one": 0,
        "two": 0,
        "three": 0,
        "five": 0,
        "seven": 0,
        "four": 1,
        "six": 1,
        "nine": 1,
        "eight": 2,
    }
    for index in range(60):
        picture, name = draw_glyph(0, "holes", index)
        ink = morphology.ink_of(picture)
        assert pieces(ink) == 1
        assert holes(ink) == wanted[name], name
