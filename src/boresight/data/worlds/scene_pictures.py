"""Drawing a scene: signed distances to outlines, so that edges are smooth and masks are exact."""

from __future__ import annotations

import functools
import math

import numpy as np

from boresight.data.worlds.scene_world import BACKGROUNDS, COLOURS, Scene, Thing

PERIOD = 0.08  # of stripes, dots and checks, in picture sides
RIM = 0.01  # of plain colour around a texture, in picture sides


def render(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size, size, 3) uint8 picture and (size, size) uint8 labels: 0 background, i + 1 the pixels of object i.

    A pixel belongs to an object when at least half of it is covered.
    """
    picture = _background(scene.background, size).copy()
    labels = np.zeros((size, size), np.uint8)
    for number, thing in enumerate(scene.things, start=1):
        left, top = (max(0, math.floor((at - thing.radius) * size) - 1) for at in (thing.x, thing.y))
        right, bottom = (min(size, math.ceil((at + thing.radius) * size) + 1) for at in (thing.x, thing.y))
        u = ((np.arange(left, right, dtype=np.float32) + 0.5) / size - thing.x)[None, :] / thing.radius
        v = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / size - thing.y)[:, None] / thing.radius
        depth = -distance(thing.shape, u, v) * thing.radius
        cover = np.clip(0.5 + depth * size, 0, 1)[..., None]
        patch = picture[top:bottom, left:right]
        patch += cover * (_paint(thing, u, v, depth) - patch)
        labels[top:bottom, left:right][cover[..., 0] >= 0.5] = number
    return np.rint(picture).astype(np.uint8), labels


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline in units of the object's radius, negative inside; exact near edges, not near corners.

    `u` (1, W) and `v` (H, 1) are coordinates from the centre, `v` downwards; the result is (H, W).
    """
    match shape:
        case "circle":
            return np.hypot(u, v) - 1
        case "ring":
            return np.abs(np.hypot(u, v) - 0.75) - 0.25
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) - 0.85
        case "diamond":
            return (np.abs(u) + np.abs(v) - 1) / math.sqrt(2)
        case "triangle":  # corners (0, -1) and (+-0.95, 0.75)
            return np.maximum(v - 0.75, (1.75 * np.abs(u) - 0.95 * (v + 1)) / math.hypot(1.75, 0.95))
        case "cross":
            return np.minimum(np.maximum(np.abs(u) - 1, np.abs(v) - 0.33), np.maximum(np.abs(u) - 0.33, np.abs(v) - 1))
        case "heart":  # a square on its corner with a half disc on either upper side
            side, centre = 1.15, 0.085
            reach = side / math.sqrt(8)
            lobes = np.hypot(np.abs(u) - reach, v - centre + reach) - side / 2
            return np.minimum(lobes, (np.abs(u) + np.abs(v - centre)) / math.sqrt(2) - side / 2)
        case "star":  # five times the edge from (1, 0) to the notch at radius 0.45
            sector = 2 * math.pi / 5
            angle = np.abs(np.mod(np.arctan2(u, -v) + sector / 2, sector) - sector / 2)
            length = np.hypot(u, v)
            notch_x, notch_y = 0.45 * math.cos(sector / 2), 0.45 * math.sin(sector / 2)
            across = notch_y * (length * np.cos(angle) - 1) + (1 - notch_x) * length * np.sin(angle)
            return across / math.hypot(notch_y, 1 - notch_x)
    raise ValueError(f"no shape is called {shape}")


def _paint(thing: Thing, u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Colours of an object's box, broadcastable to (H, W, 3); `depth` inside the outline is in picture sides.

    A texture's second tone is paler, on yellow darker; a rim in the first tone keeps the shape visible.
    """
    first = np.array(COLOURS[thing.colour], np.float32)
    if thing.texture == "solid":
        return first
    second = first * 0.45 if thing.colour == "yellow" else first + 0.85 * (255 - first)
    turn = 2 * math.pi * thing.radius / PERIOD
    if thing.texture == "striped":
        wave = np.sin((u + v) * turn / math.sqrt(2))
    elif thing.texture == "checked":
        wave = 2 * np.sin(u * turn / 1.5) * np.sin(v * turn / 1.5)
    else:
        wave = np.cos(u * turn) + np.cos(v * turn) - 0.6
    inside = np.clip((depth - RIM) / RIM, 0, 1)
    share = (np.clip(0.5 + 1.5 * wave, 0, 1) * inside)[..., None]
    return first + share * (second - first)


@functools.lru_cache(maxsize=64)
def _background(name: str, size: int) -> np.ndarray:
    top, bottom = (np.array(colour, np.float32) for colour in BACKGROUNDS[name])
    share = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None, None]
    return np.broadcast_to(top + share * (bottom - top), (size, size, 3)).copy()
