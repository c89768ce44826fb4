"""Operations on the strokes of a small grey picture: thicker, thinner, swollen, broken, smaller.

They are those of Morpho-MNIST (Castro et al., arXiv 1809.10780), written from their definitions for numpy
and scipy. All but `rescale` work on *ink*, a boolean mask four times as fine as the picture, so that one follows the
other without loss; `perturb` leads a picture through them. Lengths that a caller gives or gets are in pixels of the
picture.

Terms: the *depth* of an inked point is its distance to what is not inked, the *skeleton* a line one fine pixel wide
that runs in the middle of the strokes and has their topology, the *mean thickness* twice the mean depth on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from boresight.data.worlds.scene_world import pick
from boresight.errors import InputError

UPSCALE = 4
CUT_WIDTH, CUT_BEYOND = 1.5, 0.5  # of a fracture: its width, and how far it goes beyond the edges of the stroke
CLEAR_OF_ENDS = 2.0  # no fracture is nearer to an end or a fork of the skeleton
DIRECTION_WINDOW = 2.0  # the skeleton so near to a point tells the direction of the stroke there

Operation = Callable[[np.ndarray], np.ndarray]


def perturb(picture: np.ndarray, *operations: Operation) -> np.ndarray:
    """(H, W) uint8, light strokes on black -> the same after `operations` on its ink, one after the other.

    Without operations this still makes the picture black and white at the finer size, as it does to all others: what
    was perturbed cannot be told by its edges. Raises InputError for another shape or dtype.
    """
    ink = ink_of(picture)
    for operation in operations:
        ink = operation(ink)
    return picture_of(ink)


def ink_of(picture: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (4H, 4W) bool: cubic splines, a Gaussian as wide as the step, cut half way from dark to light.

    A picture of one grey has no ink. Raises InputError for another shape or dtype.
    """
    if picture.ndim != 2 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise InputError(f"A picture of shape {picture.shape} and dtype {picture.dtype} is no (H, W) uint8 one.")
    fine = ndimage.zoom(picture.astype(np.float32), UPSCALE, order=3, mode="nearest", grid_mode=True)
    fine = ndimage.gaussian_filter(fine, UPSCALE / 3)
    dark, light = float(fine.min()), float(fine.max())
    if light - dark < 1:
        return np.zeros(fine.shape, bool)
    return fine >= (dark + light) / 2


def picture_of(ink: np.ndarray) -> np.ndarray:
    """(4H, 4W) bool -> (H, W) uint8: of each pixel the share that is inked."""
    height, width = (side // UPSCALE for side in ink.shape)
    share = ink.reshape(height, UPSCALE, width, UPSCALE).mean((1, 3))
    return np.rint(255 * share).astype(np.uint8)


def depth(ink: np.ndarray) -> np.ndarray:
    """(4H, 4W) float64: from each fine pixel's centre to the edge of the ink, in pixels of the picture; 0 outside.

    What lies beyond the picture counts as outside.
    """
    return _beyond(np.pad(ink, 1))[1:-1, 1:-1]


def mean_thickness(ink: np.ndarray) -> float:
    """Of the strokes, in pixels of the picture; 0 without ink."""
    line = skeleton(ink)
    return 2 * float(depth(ink)[line].mean()) if line.any() else 0.0


def thicken(ink: np.ndarray, amount: float) -> np.ndarray:
    """Dilation by a disk: each edge moves out by `amount` of half the mean thickness, so it grows by that share."""
    return _beyond(~ink) <= _reach(ink, amount) if ink.any() else ink


def thin(ink: np.ndarray, amount: float) -> np.ndarray:
    """Erosion by a disk: each edge moves in by `amount` of half the mean thickness. What is thinner than `amount` of
    the mean is lost."""
    return depth(ink) > _reach(ink, amount)


def swell(ink: np.ndarray, strength: float, radius: float, numbers: Iterator[float]) -> np.ndarray:
    """The picture magnified about a random point c of the skeleton, as through a lens; identity outside its rim.

    The lens has the radius R = `radius` / 2 * sqrt(mean thickness). A point at c + o within it shows what was at
    c + (|o| / R)^(strength - 1) o; 1 is no change. `numbers` are random, in [0, 1).
    """
    centre = _place(skeleton(ink), numbers)
    if centre is None:
        return ink
    rim = radius / 2 * mean_thickness(ink) ** 0.5 * UPSCALE
    offset = np.indices(ink.shape) - centre[:, None, None]
    distance = np.hypot(*offset)
    inside = distance < rim
    weight = (distance[inside] / rim) ** (strength - 1)
    swollen = ink.copy()
    seen = centre[:, None] + weight * offset[:, inside]
    swollen[inside] = ndimage.map_coordinates(ink.astype(np.float32), seen, order=1) >= 0.5
    return swollen


def fracture(ink: np.ndarray, count: int, numbers: Iterator[float]) -> np.ndarray:
    """The strokes cut across at `count` random points of the skeleton, away from its ends and forks where there are
    such points. A cut is 1.5 pixels wide, round at its ends, and goes half a pixel beyond both edges of the stroke."""
    line, deep = skeleton(ink), depth(ink)
    rows, columns = np.indices(ink.shape)
    broken = ink.copy()
    for _ in range(count):
        centre = _place(_middle(line), numbers)
        if centre is None:
            return ink
        along = _direction(line, centre)
        half = (deep[tuple(centre)] + CUT_BEYOND) * UPSCALE
        y, x = rows - centre[0], columns - centre[1]
        across = x * -along[0] + y * along[1]
        beyond = np.maximum(np.abs(across) - half, 0)
        broken &= np.hypot(y * along[0] + x * along[1], beyond) > CUT_WIDTH / 2 * UPSCALE
    return broken


def rescale(picture: np.ndarray, factor: float, numbers: Iterator[float]) -> np.ndarray:
    """(H, W) uint8 shrunk by `factor`, linearly, and laid on black in the middle; where that is between two pixels,
    one of them is drawn. Raises InputError for a factor that is not in (0, 1]."""
    if not 0 < factor <= 1:
        raise InputError(f"A picture cannot be shrunk by {factor:g}; pass a factor above 0 and at most 1.")
    shrunk = ndimage.zoom(picture.astype(np.float32), factor, order=1, mode="nearest", grid_mode=True)
    laid = np.zeros_like(picture)
    top, left = (
        (side - small + pick(2, numbers)) // 2 for side, small in zip(picture.shape, shrunk.shape, strict=True)
    )
    laid[top : top + shrunk.shape[0], left : left + shrunk.shape[1]] = np.rint(shrunk)
    return laid


def skeleton(ink: np.ndarray) -> np.ndarray:
    """(h, w) bool: `ink` thinned to lines one pixel wide, with as many pieces (8-connected) and holes (4-connected).

    Rosenfeld's thinning (1975): from the top, the bottom, the right and the left in turn, all points of that border at
    once are dropped that are simple and no ends of a line, until none is left to drop.
    """
    found = np.zeros_like(ink)
    if not ink.any():
        return found
    box = ndimage.find_objects(ink.astype(np.uint8))[0]
    line = np.pad(ink[box], 1)
    before = -1
    while before != (left := int(line.sum())):
        before = left
        for side in (0, 4, 2, 6):
            around = _neighbourhood(line)
            line &= ~(_DROPPABLE[around] & ((around >> side & 1) == 0))
    found[box] = line[1:-1, 1:-1]
    return found


# The eight neighbours, clockwise from the one above; neighbour b is bit b of a neighbourhood.
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _neighbourhood(padded: np.ndarray) -> np.ndarray:
    """uint8 of the padded mask's shape: which neighbours of each point are set; 0 on the outermost rows and columns."""
    height, width = padded.shape
    found = np.zeros(padded.shape, np.uint8)
    inner = found[1:-1, 1:-1]
    for bit, (down, right) in enumerate(_AROUND):
        part = padded[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        inner |= part.view(np.uint8) << np.uint8(bit)
    return found


_BITS = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)
_AFTER, _NEXT = np.roll(_BITS, -1, axis=1), np.roll(_BITS, -2, axis=1)
# Yokoi's number: in how many pieces the neighbours of a set point hang together without it. At 1 the point is simple.
_PIECES = (~_BITS & ~(~_BITS & ~_AFTER & ~_NEXT))[:, ::2].sum(1)
_DROPPABLE = (_PIECES == 1) & (_BITS.sum(1) > 1)
_ENDS_AND_FORKS = (_BITS.sum(1) == 1) | (_PIECES >= 3)


def _beyond(mask: np.ndarray) -> np.ndarray:
    """Depth in `mask`. Between the centres of two pixels the edge is half way, hence the half."""
    return np.maximum(ndimage.distance_transform_edt(mask) - 0.5, 0) / UPSCALE


def _reach(ink: np.ndarray, amount: float) -> float:
    if amount < 0:
        raise InputError(f"Strokes cannot change by {amount:g} of their thickness; pass a share of at least 0.")
    return amount * mean_thickness(ink) / 2


def _middle(line: np.ndarray) -> np.ndarray:
    """The skeleton away from its ends and forks, or the whole of it where nothing is."""
    special = line & _ENDS_AND_FORKS[_neighbourhood(np.pad(line, 1))[1:-1, 1:-1]]
    if not special.any():
        return line
    clear = line & (ndimage.distance_transform_edt(~special) > CLEAR_OF_ENDS * UPSCALE)
    return clear if clear.any() else line


def _place(where: np.ndarray, numbers: Iterator[float]) -> np.ndarray | None:
    """Row and column of a random set point; None where there is none."""
    points = np.argwhere(where)
    return points[pick(len(points), numbers)] if len(points) else None


def _direction(line: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(row, column) of length 1: the main axis of the skeleton's points near `centre`."""
    points = np.argwhere(line)
    near = points[np.hypot(*(points - centre).T) <= DIRECTION_WINDOW * UPSCALE].astype(np.float64)
    near -= near.mean(0)
    return np.linalg.eigh(near.T @ near)[1][:, 1]
