"""Attribution methods side by side on the same pairs: against known truth, and against the model's own scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from boresight.attribution.measures.faithfulness import confidence, deletion_insertion, randomised_copies, soft_mask
from boresight.attribution.measures.grounding import GroundedPairs
from boresight.attribution.measures.localisation import (
    energy_in_mask,
    iou,
    pointing_game,
    roc_auc,
    spearman,
    swap_test,
    target_vs_distractor,
)
from boresight.attribution.measures.pairs import (
    CaptionedImages,
    PairInputs,
    Rows,
    engines_of,
    maps_of,
    read_pairs,
    seen_masks,
)
from boresight.attribution.measures.tables import AttributionFigures
from boresight.attribution.measures.texts import GroundedTexts, Span
from boresight.attribution.measures.withheld import blurred, deletable, embedded, with_patches, with_tokens
from boresight.attribution.methods.base import Method, Target
from boresight.attribution.methods.masking import Words
from boresight.encoders import Encoder
from boresight.encoders.tokens import TokenizedTexts, words_of
from boresight.encoders.towers.hf import hf_towers
from boresight.errors import InputError
from boresight.progress import progress

ONE_MASK = {"pointing_game": pointing_game, "energy_in_mask": energy_in_mask, "iou": iou, "roc_auc": roc_auc}


def evaluate_attribution(
    encoder: Encoder,
    pairs: GroundedPairs | CaptionedImages,
    methods: Rows,
    *,
    texts: GroundedTexts | None = None,
    target: Target = "both",
    seed: int = 0,
    batch_size: int = 16,
) -> AttributionFigures:
    """What is known of the maps of each method, pair by pair.

    Of image maps, against truth (for `GroundedPairs`): pointing_game, energy_in_mask, iou, roc_auc,
    target_vs_distractor and swap_test, as `faithfulness` has them. Against the model: deletion and insertion, patch by
    patch (`perturbation.deletion_insertion`), of which 'mean' leaves the mean colour and 'blur' the picture under a
    Gaussian as wide as a patch; image_drop and image_increase, M2IB's Confidence Drop and Increase, in percent
    (`perturbation.confidence`, pixels times `soft_mask`); mismatch, the chance that a map of the caption has a larger
    sum than one of the next pair's caption on any of the images, so that 0.5 says nothing. Image_seconds is the time of
    its maps, the towers' forward pass included.

    Of text maps, over tokens without the special ones: text_deletion and text_insertion, tokens being deleted so that
    the caption closes up; text_drop and text_increase with the tokens at or below the median weight deleted (all of
    them where weights are equal); text_seconds. With `texts`: phrase_auc, the chance that a token of the true phrase
    has more weight than one of the false phrase; top_word, 1 where the word of the largest sum of weights is in the
    true phrase, and top_word_chance, the share of words that are.

    Values are float64. Ties are shared, so a map that takes no notice of the caption has 0.5 in swap_test. What is
    random in a method is the same for all pairs, so read the spread over seeds beside the standard error; of 'random'
    alone every picture has a draw of its own. Read every measure beside that of 'random' and 'uniform'.

    Args:
        encoder: one that opens layer by layer and reads pictures of one grid.
        pairs: P >= 2 of them. Memory holds their pixels a few times over.
        methods: rows of the figures.
        texts: for the measures with known phrases; pictures and captions of their own.
        target: 'image', 'text' or 'both', the maps to look at.
        seed: of what is random in the methods and of the order among units of equal weight.
        batch_size: inputs that go through the model at once, where a method's options do not say otherwise.

    Raises:
        InputError: fewer than two pairs, an encoder that does not open or whose pictures have grids of their own, an
            unknown method or option, a caption that is cut before both of its phrases are told, a mask that lies
            outside of what the model sees.
    """
    if target not in ("both", "image", "text"):
        raise InputError(f"target '{target}' is unknown; choose 'both', 'image' or 'text'.")
    grounded = isinstance(pairs, GroundedPairs) and target != "text"
    others = pairs.other_captions if isinstance(pairs, GroundedPairs) and grounded else []
    inputs = read_pairs(encoder, pairs.images, [*pairs.captions, *others], batch_size)
    looks: list[Callable[[Method], dict[str, Tensor]]] = []
    if target != "text":
        if len(inputs) < 2:
            raise InputError(f"{pairs.name} has {len(inputs)} pairs, and a mismatch needs 2; pass more.")
        masks = seen_masks(encoder, pairs) if isinstance(pairs, GroundedPairs) else None
        fillings = {"mean": torch.zeros(()), "blur": blurred(inputs.pixels, min(inputs.patch))}
        looks.append(lambda method: _image_figures(method, inputs, masks, fillings, seed))
    if target != "image":
        captions = deletable(inputs.towers.text, inputs.own_texts, inputs.free[: len(inputs)])
        looks.append(lambda method: _text_figures(method, inputs, captions, seed))
        if texts is not None:
            told = read_pairs(encoder, texts.images, texts.captions, batch_size)
            true, false = (_phrases(told.texts, texts, spans) for spans in (texts.true, texts.false))
            looks.append(lambda method: _phrase_figures(method, told, texts.captions, true, false, seed))
    engines = engines_of(methods, inputs.towers, batch_size)
    values: dict[str, dict[str, Tensor]] = {}
    rows = engines.items()
    for row, engine in progress(rows, what="attribution", unit="method", delay=2.0) if len(rows) > 1 else rows:
        values[row] = {key: found for look in looks for key, found in look(engine).items()}
    return AttributionFigures(pairs.name, values)


def randomisation(
    encoder: Encoder, pairs: GroundedPairs | CaptionedImages, methods: Rows, *, seed: int = 0, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """Row -> stage -> mean rank correlation of its raw image maps before and after the model is scrambled so far.

    Cascading randomisation (Adebayo et al. 2018, arXiv 1810.03292), with the stages of `randomised_copies`. What is
    random in a method is the same at all stages, so that all of 'random' survives: a map that does has nothing to do
    with what the model learnt. Constant maps correlate with nothing and have 0.

    Raises InputError as `evaluate_attribution` does, and for a model that is not of transformers.
    """
    inputs = read_pairs(encoder, pairs.images, pairs.captions, batch_size)
    model = getattr(encoder, "model", None)
    engines = engines_of(methods, hf_towers(model), batch_size)
    own = inputs.own_pairs
    before = {row: maps_of(engine, inputs, own, "image", seed)[0] for row, engine in engines.items()}
    found: dict[str, dict[str, float]] = {row: {} for row in engines}
    for stage, scrambled in randomised_copies(cast(Any, model), seed):
        towers = hf_towers(scrambled)
        for row, engine in engines.items():
            after, _ = maps_of(replace(engine, model=towers), inputs, own, "image", seed)
            found[row][stage] = float(spearman(before[row], after).mean())
    return found


def _image_figures(
    method: Method,
    inputs: PairInputs,
    masks: tuple[Tensor, Tensor] | None,
    fillings: Mapping[str, Tensor],
    seed: int,
) -> dict[str, Tensor]:
    maps, seconds = maps_of(method, inputs, inputs.own_pairs, "image", seed)
    own = torch.arange(len(inputs))
    # All captions of a picture in one batch, where perturbed pictures and layers below are computed for them together.
    beside = torch.stack([own, (own + 1) % len(own), *([] if masks is None else [own + len(own)])], dim=1)
    rows = torch.stack([own[:, None].expand_as(beside), beside], dim=2).flatten(0, 1)
    together = replace(method, batch_size=beside.shape[1] * max(1, method.batch_size // beside.shape[1]))
    told, foreign, *others = maps_of(together, inputs, rows, "image", seed)[0].unflatten(0, beside.shape).unbind(1)
    found = {} if masks is None else {name: measure(maps, masks[0]) for name, measure in ONE_MASK.items()}
    if masks is not None:
        found["target_vs_distractor"] = target_vs_distractor(maps, *masks)
        found["swap_test"] = swap_test(told, others[0], *masks)
    found["mismatch"] = _placed_above(*(total.double().sum((1, 2)) for total in (told, foreign)))
    for name, filling in fillings.items():

        def score(keep: Tensor, filling: Tensor = filling) -> Tensor:
            shown = with_patches(inputs.pixels, keep.unflatten(1, inputs.grid), filling)
            return (inputs.embed_images(shown) * inputs.text_embeddings).sum(1)

        curves = deletion_insertion(maps.flatten(1), score, seed=seed)
        found |= {f"deletion_{name}": curves.deletion, f"insertion_{name}": curves.insertion}
    height, width = inputs.pixels.shape[2:]
    masked = inputs.embed_images(inputs.pixels * soft_mask(maps, (height, width))[:, None])
    scores = ((seen * inputs.text_embeddings).sum(1) for seen in (inputs.image_embeddings, masked))
    found["image_drop"], found["image_increase"] = confidence(*scores)
    return {**found, "image_seconds": seconds}


def _text_figures(method: Method, inputs: PairInputs, captions: Sequence[Words], seed: int) -> dict[str, Tensor]:
    maps, seconds = maps_of(method, inputs, inputs.own_pairs, "text", seed)
    weights = maps.masked_fill(~inputs.free[: len(inputs)], torch.nan)

    def score(keep: Tensor) -> Tensor:
        texts = embedded(inputs.towers.text, with_tokens(captions, keep), inputs.batch_size)
        return (texts * inputs.image_embeddings).sum(1)

    curves = deletion_insertion(weights, score, seed=seed)
    kept = weights > weights.nanmedian(1, keepdim=True).values
    drop, increase = confidence(score(torch.ones_like(kept)), score(kept))
    return {
        "text_deletion": curves.deletion,
        "text_insertion": curves.insertion,
        "text_drop": drop,
        "text_increase": increase,
        "text_seconds": seconds,
    }


def _phrase_figures(
    method: Method, inputs: PairInputs, captions: Sequence[str], true: Tensor, false: Tensor, seed: int
) -> dict[str, Tensor]:
    maps, _ = maps_of(method, inputs, inputs.own_pairs, "text", seed)
    words = []
    for caption, tokens, real, weights, told in zip(
        captions, inputs.texts.tokens, inputs.texts.real, maps.double(), true, strict=True
    ):
        members = [list(places) for _, places in words_of(caption, tokens)]
        sums = torch.stack([weights[real][places].sum() for places in members])
        right = torch.stack([told[real][places].any() for places in members])
        top = sums == sums.max()
        words.append(((top & right).sum() / top.sum(), right.double().mean()))
    found, chance = (torch.stack(column).double() for column in zip(*words, strict=True))
    # A caption is a picture of one row here; tokens of neither phrase never count, whatever stands there.
    sides = (part[:, None] for part in (maps.nan_to_num(), true, false))
    return {"phrase_auc": target_vs_distractor(*sides), "top_word": found, "top_word_chance": chance}


def _phrases(texts: TokenizedTexts, told: GroundedTexts, spans: Sequence[Span]) -> Tensor:
    """(P, T) bool, the tokens that reach into each caption's span."""
    out = torch.zeros_like(texts.real)
    for row, (tokens, (start, end)) in enumerate(zip(texts.tokens, spans, strict=True)):
        inside = [not token.special and token.start < end and start < token.end for token in tokens]
        if not any(inside):
            raise InputError(
                f"Caption {row} of {told.name} is cut before its phrase '{told.captions[row][start:end]}'; "
                "use shorter captions."
            )
        out[row, texts.real[row]] = torch.tensor(inside)
    return out


def _placed_above(first: Tensor, second: Tensor) -> Tensor:
    """(P,) float64 whose mean is the chance that one of `first` (P,) is larger than one of `second`, ties half.

    Each is what its pair has to do with the chance, so that their standard error is that of an area under the curve
    from paired samples (DeLong et al. 1988); a single one may lie outside of [0, 1].
    """
    won = (first[:, None] > second).double() + (first[:, None] == second).double() / 2
    return won.mean(1) + won.mean(0) - won.mean()
