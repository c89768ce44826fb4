"""Attribution methods side by side on the same pairs: against known pixels, and against the model's own scores.

Maps are those of `explain`; the model is asked for embeddings of what is left of a picture or a caption.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import torch
from PIL import Image
from torch import Tensor

from attribution_measures.distractors import swap_test, target_vs_distractor
from attribution_measures.faithfulness import confidence, deletion_insertion, soft_mask
from attribution_measures.figures import AttributionFigures
from attribution_measures.scores import ScoredPairs, blurred, read_pairs
from boresight.attribution.explain import explain
from boresight.attribution.grids import joined
from boresight.attribution.inputs import seen_box
from boresight.attribution.localisation import energy_in_mask, iou, pointing_game, roc_auc
from boresight.attribution.methods.base import Target
from boresight.attribution.methods.registry import make_method
from boresight.encoders import Encoder
from boresight.errors import InputError, require_choice
from boresight.progress import progress
from boresight.seeds import generator
from worlds.grounded import CaptionedImages, GroundedPairs

Rows = Mapping[str, Mapping[str, Any] | tuple[str, Mapping[str, Any]]]
"""Name of a row -> options of the method of that name, or (name of a method, its options)."""
Configured = tuple[str, dict[str, Any]]
"""Name of a method, its options."""
ONE_MASK = {"pointing_game": pointing_game, "energy_in_mask": energy_in_mask, "iou": iou, "roc_auc": roc_auc}


def evaluate_attribution(
    encoder: Encoder,
    pairs: GroundedPairs | CaptionedImages,
    methods: Rows,
    *,
    target: Target = "both",
    seed: int = 0,
    batch_size: int = 16,
) -> AttributionFigures:
    """What is known of the maps of each method, pair by pair.

    Of image maps, against truth (for `GroundedPairs`): pointing_game, energy_in_mask, iou, roc_auc,
    target_vs_distractor and swap_test, as `localisation` and `distractors` have them. Against the model: deletion and
    insertion, patch by patch (`faithfulness.deletion_insertion`), of which 'mean' leaves the mean colour and 'blur' the
    picture under a Gaussian as wide as a patch; image_drop and image_increase, M2IB's Confidence Drop and Increase, in
    percent (`faithfulness.confidence`, pixels times `soft_mask`); mismatch, the chance that a map of the caption has a
    larger sum than one of the next pair's caption on any of the images, so that 0.5 says nothing. Image_seconds is the
    time of its maps, reading the picture and the towers' forward pass included.

    Of text maps, over tokens without the special ones: text_deletion and text_insertion, tokens being deleted so that
    the caption closes up; text_drop and text_increase with the tokens at or below the median weight deleted (all of
    them where weights are equal); text_seconds.

    Values are float64. Ties are shared, so a map that takes no notice of the caption has 0.5 in swap_test. What is
    random in a method is the same for all pairs, so read the spread over seeds beside the standard error; of 'random'
    alone every picture has a draw of its own. Read every measure beside that of 'random' and 'uniform'.

    Args:
        encoder: one that opens layer by layer and reads pictures of one grid.
        pairs: P >= 2 of them. Memory holds their pixels a few times over.
        methods: rows of the figures.
        target: 'image', 'text' or 'both', the maps to look at.
        seed: of what is random in the methods and of the order among units of equal weight.
        batch_size: inputs that go through the model at once, where a method's options do not say otherwise.

    Raises:
        InputError: fewer than two pairs, an encoder that does not open or whose pictures have grids of their own, an
            unknown method or option, a mask that lies outside of what the model sees.

    Example:
        >>> pairs = scene_pairs(100, seed=0)
        >>> print(evaluate_attribution(encoder, pairs, {"m2ib": {}, "legrad": {}, "random": {}}).table())

    Relations:
        For maps that were made elsewhere call the measures of `localisation` and `faithfulness` themselves.
    """
    require_choice("target", target, get_args(Target))
    rows = checked_rows(methods, batch_size)
    scored = read_pairs(encoder, pairs.images, pairs.captions, batch_size)
    if target != "text" and len(pairs.images) < 2:
        raise InputError(f"{pairs.name} has {len(pairs.images)} pairs, and a mismatch needs 2; pass more.")
    values: dict[str, dict[str, Tensor]] = {}
    items = rows.items()
    for row, method in progress(items, what="attribution", unit="method", delay=2.0) if len(rows) > 1 else items:
        values[row] = {} if target == "text" else _image_figures(encoder, pairs, method, scored, seed)
        if target != "image":
            values[row] |= _text_figures(encoder, pairs, method, scored, seed)
    return AttributionFigures(pairs.name, values)


def checked_rows(methods: Rows, batch_size: int) -> dict[str, Configured]:
    """Row -> (method, options, `batch_size` among them). Raises InputError for no rows, an unknown method or option."""
    if not methods:
        raise InputError("There are no methods to evaluate; name at least one.")
    rows = {}
    for row, method in methods.items():
        name, options = method if isinstance(method, tuple) else (row, method)
        rows[row] = (name, {"batch_size": batch_size, **options})
        make_method(name, None, **options)
    return rows


def maps_of(
    encoder: Encoder,
    method: Configured,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    target: Target,
    seed: int,
    pairs: Tensor | None = None,
) -> Tensor:
    """Raw maps of one side of `pairs` (Q, 2), rows of images and captions: (Q, gh, gw), or (Q, T) real tokens first.

    Without `pairs`, image i is explained with caption i.
    A random map is drawn anew for every picture: one that is the same for all would be no chance level but one guess.
    """
    name, options = method
    pairs = torch.arange(len(images))[:, None].expand(-1, 2) if pairs is None else pairs
    groups = [(pairs, seed)]
    if name == "random":
        numbers = pairs[:, 0].unique_consecutive().tolist()
        groups = [(pairs[pairs[:, 0] == number], _seed_of(number, seed)) for number in numbers]
    parts: list[Tensor] = []
    for rows, drawn in groups:
        shown, said = [images[row] for row in rows[:, 0].tolist()], [captions[row] for row in rows[:, 1].tolist()]
        answer = explain(encoder, shown, said, method=name, target=target, seed=drawn, **options)
        parts.append(cast(Tensor, answer.image if target == "image" else answer.text))
    return joined(parts)


def _image_figures(
    encoder: Encoder, pairs: GroundedPairs | CaptionedImages, method: Configured, scored: ScoredPairs, seed: int
) -> dict[str, Tensor]:
    own, captions, masks = torch.arange(len(pairs.images)), list(pairs.captions), None
    start = time.perf_counter()
    maps = maps_of(encoder, method, pairs.images, captions, "image", seed)
    seconds = (time.perf_counter() - start) / len(own)
    # All captions of a picture in one batch, where perturbed pictures are run through the model for them together.
    beside = [own, (own + 1) % len(own)]
    if isinstance(pairs, GroundedPairs):
        masks = _seen_masks(encoder, pairs)
        captions += pairs.other_captions
        beside.append(own + len(own))
    rows = torch.stack([own.repeat_interleave(len(beside)), torch.stack(beside, 1).flatten()], 1)
    name, options = method
    together = (name, {**options, "batch_size": len(beside) * max(1, options["batch_size"] // len(beside))})
    by_caption = maps_of(encoder, together, pairs.images, captions, "image", seed, rows)
    of_own, of_next, *of_other = by_caption.unflatten(0, (-1, len(beside))).unbind(1)
    figures = {}
    if masks is not None:
        figures = {measure: compute(maps, masks[0]) for measure, compute in ONE_MASK.items()}
        figures["target_vs_distractor"] = target_vs_distractor(maps, *masks)
        figures["swap_test"] = swap_test(of_own, of_other[0], *masks)
    figures["mismatch"] = _placed_above(*(total.double().sum((1, 2)) for total in (of_own, of_next)))
    size, grid = (scored.pixels.shape[2], scored.pixels.shape[3]), maps.shape[1:]
    patch = min(side // count for side, count in zip(size, grid, strict=True))
    for label, filling in (("mean", torch.zeros(())), ("blur", blurred(scored.pixels, patch))):

        def score(keep: Tensor, filling: Tensor = filling) -> Tensor:
            return scored.of_patches(keep.unflatten(1, grid), filling)

        curves = deletion_insertion(maps.flatten(1), score, seed=seed)
        figures |= {f"deletion_{label}": curves.deletion, f"insertion_{label}": curves.insertion}
    masked = scored.of_images(scored.pixels * soft_mask(maps, size)[:, None])
    figures["image_drop"], figures["image_increase"] = confidence(scored.of_images(scored.pixels), masked)
    return {**figures, "image_seconds": torch.full_like(figures["mismatch"], seconds)}


def _text_figures(
    encoder: Encoder, pairs: GroundedPairs | CaptionedImages, method: Configured, scored: ScoredPairs, seed: int
) -> dict[str, Tensor]:
    start = time.perf_counter()
    maps = maps_of(encoder, method, pairs.images, pairs.captions, "text", seed)
    seconds = (time.perf_counter() - start) / len(maps)
    weights = scored.by_column(list(maps), torch.nan).masked_fill(~scored.free, torch.nan)
    curves = deletion_insertion(weights, scored.of_tokens, seed=seed)
    kept = weights > weights.nanmedian(1, keepdim=True).values
    figures = {"text_deletion": curves.deletion, "text_insertion": curves.insertion}
    full = scored.of_tokens(torch.ones_like(kept))
    figures["text_drop"], figures["text_increase"] = confidence(full, scored.of_tokens(kept))
    return {**figures, "text_seconds": torch.full_like(curves.deletion, seconds)}


def _seen_masks(encoder: Encoder, pairs: GroundedPairs) -> tuple[Tensor, Tensor]:
    """The targets and the distractors within the part of the pictures that the model sees."""
    width, height = pairs.images[0].size
    left, top, right, bottom = seen_box(encoder, (width, height)).tolist()
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    return pairs.targets[:, rows, columns], pairs.distractors[:, rows, columns]


def _placed_above(first: Tensor, second: Tensor) -> Tensor:
    """(P,) float64 whose mean is the chance that one of `first` (P,) is larger than one of `second`, ties half.

    Each is what its pair has to do with the chance, so that their standard error is that of an area under the curve
    from paired samples (DeLong et al. 1988); a single one may lie outside of [0, 1].
    """
    won = (first[:, None] > second).double() + (first[:, None] == second).double() / 2
    return won.mean(1) + won.mean(0) - won.mean()


def _seed_of(picture: int, seed: int) -> int:
    return int(torch.randint(2**31, (), generator=generator(seed, f"picture {picture}")))
