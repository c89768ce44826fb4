"""`explain`: why these images match these sentences, for any encoder."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from boresight.attribution.grids import joined
from boresight.attribution.inputs import opened, seen_box
from boresight.attribution.maps import Attribution, Word
from boresight.attribution.methods.base import Maps, Target, attribute_batch, joined_maps
from boresight.attribution.methods.interaction import interaction as interaction_maps
from boresight.attribution.methods.registry import SCORES_ONLY, make_method, options_of
from boresight.encoders import Encoder
from boresight.encoders.protocol import Picture, check_batch, check_encoder, check_image, check_texts, no_picture
from boresight.encoders.tokens import Token, TokenizedTexts, grouped_words
from boresight.encoders.towers.tower import Towers
from boresight.errors import InputError, require_choice
from boresight.progress import progress

if TYPE_CHECKING:
    from boresight.editing import CaptionEditor
    from boresight.embeddings import Embeddings
    from boresight.sae import LatentNames

Pairing = Literal["zip", "product"]


def explain(
    encoder: Encoder,
    images: Picture | Sequence[Picture],
    texts: str | Sequence[str],
    *,
    method: str = "m2ib",
    pairs: Pairing = "zip",
    target: Target = "both",
    interaction: bool = False,
    editor: CaptionEditor | None = None,
    names: LatentNames | None = None,
    remembered: Embeddings | None = None,
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
        editor: a `CaptionEditor` fitted on embeddings of this encoder, for the parts of its score and the concepts it
            keeps and drops; `names` are those of its latents, `remembered` the training set whose pairs it remembers,
            for their captions.
        options: of the method, the fields of its class: beta, steps, layer and so on.

    Raises:
        InputError: nothing to explain, an empty caption, a picture that cannot be read, an unknown method or option, a
            layer the model does not have, numbers of images and texts that do not pair up.
        ArtefactError: the editor of another encoder, or names of another autoencoder.

    Example:
        >>> answer = explain(encoder, "photo.jpg", "a dog leaping over a red hurdle", method="legrad")
        >>> answer.plot().savefig("why.png")

    Relations:
        Use `explain_csv` for a whole table that must survive a stop, the class of a method on a bare model's tensors.
    """
    check_encoder(encoder)
    captions = _captions(texts)
    pictures = _pictures(images)
    _refuse_swapped(pictures[:1], captions[0])
    rows = _pairs(len(pictures), len(captions), pairs)
    suffice = method in SCORES_ONLY and not interaction
    reader, towers = opened(encoder, scores_suffice=suffice, what=method)
    engine = make_method(method, towers, batch_size=batch_size, **options)
    if editor is not None:
        editor.require_same_encoder(encoder)
    parts: list[Maps] = []
    crossed: list[Tensor] = []
    concepts: list[Any] = []
    tokens: list[list[Token]] = []
    boxes: list[Tensor] = []
    with progress(total=len(rows), what=f"explaining ({method})", unit="pair", delay=2.0) as bar:
        for batch in _batches(reader, encoder, pictures, captions, rows, engine.batch_size):
            maps = attribute_batch(engine, towers, batch.images, batch.texts.inputs, batch.local, target, seed)
            parts.append(replace(maps, text=None if maps.text is None else batch.real_only(maps.text)))
            if interaction:
                crossed.append(batch.real_only(_interaction(towers, batch)))
            if editor is not None:
                concepts += _concepts(encoder, editor, batch, names=names, remembered=remembered)
            tokens += [batch.texts.tokens[row] for row in batch.local[:, 1].tolist()]
            boxes.append(batch.boxes[batch.local[:, 0]])
            bar.update(len(batch.local))
    length = max(map(len, tokens))
    whole = joined_maps(parts, length)
    said = [captions[text] for text in rows[:, 1].tolist()]
    return Attribution(
        image=whole.image,
        text=whole.text,
        score=whole.score,
        tokens=[[token.text for token in row] for row in tokens],
        special=torch.tensor([[token.special for token in row] + [False] * (length - len(row)) for row in tokens]),
        words=[] if whole.text is None else [_words(*row) for row in zip(said, tokens, whole.text, strict=True)],
        captions=said,
        pairs=rows,
        boxes=torch.cat(boxes),
        interaction=joined(crossed, length) if crossed else None,
        concepts=concepts or None,
        pictures=[pictures[image] for image in rows[:, 0].tolist()],
        method={"method": method, "seed": seed, **options_of(engine)},
    )


@dataclass(frozen=True)
class _Batch:
    """A few pairs: their images and captions, each once, and in `local` (p, 2) the pairs by rows among these."""

    pictures: list[Image.Image]
    images: dict[str, Tensor]
    captions: list[str]
    texts: TokenizedTexts
    local: Tensor
    boxes: Tensor

    def real_only(self, values: Tensor) -> Tensor:
        """(p, T, ...) -> the same: first what stands at real tokens, in their order, then NaN."""
        out = values.new_full((len(values), int(self.texts.real.sum(1).max()), *values.shape[2:]), math.nan)
        for row, real in enumerate(self.texts.real[self.local[:, 1]]):
            chosen = values[row, : len(real)][real[: values.shape[1]]]
            out[row, : len(chosen)] = chosen
        return out


def _pictures(images: Picture | Sequence[Picture]) -> list[Picture]:
    pictures: list[Picture] = []
    for row, image in enumerate(check_batch(images)):
        if isinstance(image, Tensor):
            raise no_picture(f"Image {row}", image)
        pictures.append(image)
    return pictures


def _refuse_swapped(pictures: Sequence[Picture], caption: str) -> None:
    for picture in pictures:
        if isinstance(picture, str) and not os.path.exists(picture) and os.path.isfile(caption):
            raise InputError(f"'{caption}' is a file and '{picture}' is none; pass the images before the texts.")


def _captions(texts: str | Sequence[str]) -> list[str]:
    captions = check_texts(texts)
    for row, caption in enumerate(captions):
        if not caption.strip():
            raise InputError(f"Caption {row} is empty, and there is nothing in it to explain; drop the pair.")
    return captions


def _pairs(images: int, texts: int, how: str) -> Tensor:
    if images == 0:
        raise InputError("The list of images is empty; pass at least one.")
    require_choice("pairs", how, get_args(Pairing))
    if how == "product":
        return torch.cartesian_prod(torch.arange(images), torch.arange(texts))
    if images != texts:
        raise InputError(
            f"There are {images} images and {texts} captions, and pairs='zip' needs as many of each; "
            "pairs='product' explains every image with every caption."
        )
    return torch.arange(images)[:, None].expand(-1, 2)


def _batches(
    reader: Any, encoder: Encoder, pictures: Sequence[Picture], captions: Sequence[str], pairs: Tensor, size: int
) -> Iterator[_Batch]:
    boxes: dict[tuple[int, int], Tensor] = {}
    for rows in pairs.split(max(1, size)):
        (images, image_rows), (texts, text_rows) = (rows[:, side].unique(return_inverse=True) for side in (0, 1))
        open_pictures = [check_image(pictures[row]) for row in images.tolist()]
        for picture in open_pictures:
            if picture.size not in boxes:
                boxes[picture.size] = seen_box(encoder, picture.size)
        chosen = [captions[row] for row in texts.tolist()]
        yield _Batch(
            open_pictures,
            reader.collate(open_pictures),
            chosen,
            reader.tokenized(chosen),
            torch.stack([image_rows, text_rows], dim=1),
            torch.stack([boxes[picture.size] for picture in open_pictures]),
        )


def _interaction(towers: Towers, batch: _Batch) -> Tensor:
    images, texts = (
        {name: value[batch.local[:, side]] for name, value in inputs.items()}
        for side, inputs in enumerate((batch.images, batch.texts.inputs))
    )
    return interaction_maps(towers, images, texts, batch_size=len(batch.local))


def _concepts(encoder: Encoder, editor: CaptionEditor, batch: _Batch, **known: Any) -> list[Any]:
    images, texts = encoder.embed_images(batch.pictures), encoder.embed_texts(batch.captions)
    return [editor.explain_edit(images[image], texts[text], **known) for image, text in batch.local.tolist()]


def _words(caption: str, tokens: Sequence[Token], weights: Tensor) -> list[Word]:
    return [Word(text, float(weights[list(of)].nansum()), of) for text, of in grouped_words(caption, tokens)]
