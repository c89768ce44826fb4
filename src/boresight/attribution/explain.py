"""`explain`: why these images match these sentences, for any encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boresight.attribution.black_box import BlackBox
from boresight.attribution.maps import Attribution, Word
from boresight.attribution.methods.base import Maps, Method, Target, attribute_batch, joined, padded
from boresight.attribution.methods.interaction import interaction as interaction_maps
from boresight.attribution.methods.registry import METHODS, SCORES_ONLY
from boresight.data.images import open_picture
from boresight.encoders import Encoder
from boresight.encoders.protocol import check_texts
from boresight.encoders.tokens import Token, TokenizedTexts, words_of
from boresight.encoders.towers.tower import Towers
from boresight.errors import InputError
from boresight.progress import progress

Picture = Image.Image | str | Path


class Editor(Protocol):
    """What `explain` asks of a caption editor."""

    def require_same_encoder(self, source: Encoder) -> None: ...

    def explain_edit(self, image: Tensor, text: Tensor, *, names: Any = None) -> Any: ...


def explain(
    encoder: Encoder,
    images: Picture | Sequence[Picture],
    texts: str | Sequence[str],
    *,
    method: str = "m2ib",
    pairs: Literal["zip", "product"] = "zip",
    target: Target = "both",
    interaction: bool = False,
    editor: Editor | None = None,
    names: Any = None,
    batch_size: int = 8,
    seed: int = 0,
    **options: Any,
) -> Attribution:
    """Which patches of the images and which words of the texts the matches rest on.

    The encoder's model is left as it was, whatever happens: no weight, gradient, hook, training flag or global random
    state changes. Memory grows with `batch_size`; of each pair only its maps are kept.

    Args:
        encoder: any `Encoder`. CLIP, SigLIP, SigLIP 2 and VisionTextDualEncoder models of transformers and the vision
            transformers of open_clip open layer by layer; others can be explained by 'occlusion', 'rise' and
            'kernelshap', which need only scores.
        images: pictures or files, or one.
        texts: captions, or one.
        method: one of `METHODS`.
        pairs: 'zip' explains image i with text i, 'product' every image with every text, texts running fastest.
        target: 'image', 'text' or 'both'.
        interaction: also the second-order token by patch maps, for encoders that open layer by layer.
        editor: a `CaptionEditor` fitted on embeddings of this encoder, for the concepts it keeps and drops; `names`
            are those of its latents.
        options: of the method, the fields of its class: beta, steps, layer and so on.

    Raises:
        InputError: nothing to explain, an empty caption, a picture that cannot be read, an unknown method or option, a
            layer the model does not have, numbers of images and texts that do not pair up.
        ArtefactError: the editor of another encoder, or names of another autoencoder.
    """
    pictures = [images] if isinstance(images, str) or not isinstance(images, Iterable) else list(images)
    captions = _captions(texts)
    chosen = _pairs(len(pictures), len(captions), pairs)
    reader, towers = _open(encoder, method, interaction)
    engine = make_method(method, towers, batch_size=batch_size, **options)
    if editor is not None:
        editor.require_same_encoder(encoder)
    found = []
    with progress(total=len(chosen), what=f"explaining ({method})", unit="pair", delay=2.0) as bar:
        for batch in _batches(reader, encoder, pictures, captions, chosen, engine.batch_size):
            maps = attribute_batch(engine, towers, batch.images, batch.texts.inputs, batch.local, target, seed)
            found.append(
                _Found(
                    replace(maps, text=_real(maps.text, batch)),
                    _real(_interaction(towers, batch), batch) if interaction else None,
                    None if editor is None else _concepts(encoder, editor, names, batch),
                    [batch.texts.tokens[row] for row in batch.local[:, 1].tolist()],
                    batch.boxes[batch.local[:, 0]],
                )
            )
            bar.update(len(batch.local))
    settings = {each.name: getattr(engine, each.name) for each in fields(engine) if each.name != "model"}
    return _assemble(found, pictures, captions, chosen, {"method": method, "seed": seed, **settings})


def make_method(name: str, model: Any, **options: Any) -> Method:
    """The method of this name over a transformers model or its `Towers`. Raises InputError for what is unknown."""
    if name not in METHODS:
        raise InputError(f"There is no method '{name}'; choose from {', '.join(METHODS)}.")
    known = [each.name for each in fields(METHODS[name]) if each.name != "model"]
    for option in options:
        if option not in known:
            raise InputError(f"'{name}' has no option '{option}'; it has {', '.join(known)}.")
    return METHODS[name](model, **options)


@dataclass(frozen=True)
class _Batch:
    """A few pairs: each of their images and captions once, and the pairs by their places among these."""

    pictures: list[Image.Image]
    images: dict[str, Tensor]
    captions: list[str]
    texts: TokenizedTexts
    local: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class _Found:
    """What is kept of a batch, pair by pair."""

    maps: Maps
    interaction: Tensor | None
    concepts: list[Any] | None
    tokens: list[list[Token]]
    boxes: Tensor


def _captions(texts: str | Sequence[str]) -> list[str]:
    captions = check_texts([texts] if isinstance(texts, str) else texts)
    for row, caption in enumerate(captions):
        if not caption.strip():
            raise InputError(f"Caption {row} is empty, and there is nothing in it to explain; drop the pair.")
    return captions


def _pairs(images: int, texts: int, how: str) -> Tensor:
    if images == 0:
        raise InputError("The list of images is empty; pass at least one.")
    if how == "product":
        return torch.cartesian_prod(torch.arange(images), torch.arange(texts))
    if how != "zip":
        raise InputError(f"pairs '{how}' is unknown; choose 'zip' or 'product'.")
    if images != texts:
        raise InputError(
            f"There are {images} images and {texts} captions, and pairs='zip' needs as many of each; "
            "pairs='product' explains every image with every caption."
        )
    return torch.arange(images)[:, None].expand(-1, 2)


def _open(encoder: Any, method: str, interaction: bool) -> tuple[Any, Towers]:
    """What reads inputs for the towers, and the towers: black boxes where the encoder opens no other way."""
    try:
        return encoder, encoder.towers()
    except (AttributeError, InputError) as error:
        if method not in SCORES_ONLY or interaction:
            reason = str(error) if isinstance(error, InputError) else f"{encoder.name} does not open layer by layer."
            raise InputError(f"'{method}' cannot explain this encoder: {reason}") from error
    box = BlackBox(encoder)
    return box, box.towers()


def _batches(
    reader: Any, encoder: Encoder, pictures: Sequence[Picture], captions: Sequence[str], pairs: Tensor, size: int
) -> Iterator[_Batch]:
    boxes: dict[tuple[int, int], Tensor] = {}
    for rows in pairs.split(max(1, size)):
        (images, seen), (texts, told) = (rows[:, side].unique(return_inverse=True) for side in (0, 1))
        opened = [_opened(pictures[row], row) for row in images.tolist()]
        for picture in opened:
            if picture.size not in boxes:
                boxes[picture.size] = seen_box(encoder, picture.size)
        chosen = [captions[row] for row in texts.tolist()]
        yield _Batch(
            opened,
            reader.collate(opened),
            chosen,
            reader.tokenized(chosen),
            torch.stack([seen, told], dim=1),
            torch.stack([boxes[picture.size] for picture in opened]),
        )


def _opened(source: Picture, row: int) -> Image.Image:
    if isinstance(source, (Image.Image, str, Path)):
        return open_picture(source)
    raise InputError(f"Image {row} is of type {type(source).__name__}; pass a PIL picture or the path of a file.")


def seen_box(encoder: Encoder, size: tuple[int, int]) -> Tensor:
    """(4,) left, top, right, bottom in [0, 1]: the part of a picture of `size` (width, height) that the model sees.

    Found by sending ramps through the model's own preprocessing, since each crops in a way of its own.
    """
    width, height = size
    across = np.linspace(0, 255, width).round().astype(np.uint8)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height).round().astype(np.uint8)[:, None].repeat(width, 1)
    ramps = encoder.preprocess(Image.fromarray(np.stack([across, down, across], axis=-1)))
    dark, light = (encoder.preprocess(Image.new("RGB", size, colour)).mean((1, 2)) for colour in ("black", "white"))
    share = (ramps - dark[:, None, None]) / (light - dark)[:, None, None]
    edges = []
    for values, pixels in ((share[0].mean(0), width), (share[1].mean(1), height)):
        if pixels == 1:  # no ramp to find the edges by
            edges.append((0.0, 1.0))
            continue
        step = (values[-1] - values[0]) / max(1, len(values) - 1) / 2  # from the middle of a pixel to its edge
        edges.append((float(values[0] - step), float(values[-1] + step)))
    (left, right), (top, bottom) = edges
    box = torch.tensor([left, top, right, bottom]).clamp(0, 1)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return torch.where((box - whole).abs() < 0.02, whole, box)  # the ramps have 256 steps and blurred ends


def _interaction(towers: Towers, batch: _Batch) -> Tensor:
    images, texts = (
        {name: value[batch.local[:, side]] for name, value in inputs.items()}
        for side, inputs in enumerate((batch.images, batch.texts.inputs))
    )
    return interaction_maps(towers, images, texts, batch_size=len(batch.local))


def _concepts(encoder: Encoder, editor: Editor, names: Any, batch: _Batch) -> list[Any]:
    images, texts = encoder.embed_images(batch.pictures), encoder.embed_texts(batch.captions)
    return [editor.explain_edit(images[image], texts[text], names=names) for image, text in batch.local.tolist()]


def _assemble(
    found: Sequence[_Found],
    pictures: Sequence[Picture],
    captions: Sequence[str],
    pairs: Tensor,
    method: dict[str, Any],
) -> Attribution:
    tokens = [row for one in found for row in one.tokens]
    length = max(map(len, tokens))
    maps = joined([one.maps for one in found], length)
    special = torch.zeros(len(tokens), length, dtype=torch.bool)
    for row, of_row in enumerate(tokens):
        special[row, : len(of_row)] = torch.tensor([token.special for token in of_row])
    told = [captions[text] for text in pairs[:, 1].tolist()]
    together = [one.interaction for one in found if one.interaction is not None]
    size = (length, *(max((part.shape[axis] for part in together), default=0) for axis in (2, 3)))
    return Attribution(
        image=maps.image,
        text=maps.text,
        score=maps.score,
        tokens=[[token.text for token in row] for row in tokens],
        special=special,
        words=[] if maps.text is None else [_words(*row) for row in zip(told, tokens, maps.text, strict=True)],
        captions=told,
        pairs=pairs,
        boxes=torch.cat([one.boxes for one in found]),
        interaction=torch.cat([padded(part, size) for part in together]) if together else None,
        concepts=None if found[0].concepts is None else [each for one in found for each in one.concepts or ()],
        pictures=[pictures[image] for image in pairs[:, 0].tolist()],
        method=method,
    )


def _real(values: Tensor | None, batch: _Batch) -> Tensor | None:
    """(p, T, ...) -> the same: first what stands at real tokens, in their order, then NaN."""
    if values is None:
        return None
    real_length = int(batch.texts.real.sum(1).max())
    out = values.new_full((len(values), real_length, *values.shape[2:]), math.nan)
    for row, real in enumerate(batch.texts.real[batch.local[:, 1]]):
        chosen = values[row, : len(real)][real[: values.shape[1]]]
        out[row, : len(chosen)] = chosen
    return out


def _words(caption: str, tokens: Sequence[Token], weights: Tensor) -> list[Word]:
    return [Word(text, float(weights[list(of)].nansum()), of) for text, of in words_of(caption, tokens)]
