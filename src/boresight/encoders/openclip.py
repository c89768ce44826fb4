"""Dual encoders of open_clip, the extra `[open-clip]`; nothing else in boresight imports that library."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.device import pick_dtype
from boresight.encoders.base import LibraryEncoder
from boresight.encoders.protocol import Picture, check_image, check_texts
from boresight.encoders.tokens import Token, aligned_tokens, fast_tokens
from boresight.encoders.towers.openclip import openclip_towers
from boresight.encoders.towers.tower import Towers
from boresight.errors import InputError, first_line

_LOCAL, _HUB = "local-dir:", "hf-hub:"


class OpenClipEncoder(LibraryEncoder):
    """A dual encoder of open_clip; see `Encoder` for what every encoder promises."""

    masked = False

    def _read_model(self) -> None:
        self.token_limit = self.tokenizer.context_length
        self._library = getattr(self.tokenizer, "tokenizer", None)  # of transformers, inside open_clip's
        if self._library is not None:
            self._library.split_special_tokens = True  # the name of an end token in a caption is text

    def preprocess(self, image: Picture) -> Tensor:
        """The model's own evaluation transform: (C, H, W) float32. Raises InputError for what is no usable picture."""
        return self.image_processor(check_image(image)).float()

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each caption before it is cut to `token_limit`, start and end included."""
        captions = self._spelt(texts)
        if self._library is None:  # open_clip's own byte-pair tokenizer
            return [len(self.tokenizer.encode(caption)) + 2 for caption in captions]
        return [len(ids) for ids in self._library([self._clean(one) for one in captions])["input_ids"]]

    def towers(self) -> Towers:
        """The model layer by layer, for attribution. Raises InputError for one that cannot be opened so."""
        return openclip_towers(self.model)

    def _tokenize(self, texts: Sequence[str]) -> tuple[dict[str, Tensor], int]:
        """Cut and padded to the context by open_clip itself."""
        whole = torch.tensor(self.token_counts(texts))
        ids = self.tokenizer(self._spelt(texts))
        columns = torch.arange(ids.shape[1])
        if self._library is not None and self._library.padding_side == "left":
            columns = columns.flip(0)
        return {"input_ids": ids, "attention_mask": (columns < whole[:, None]).long()}, int(
            (whole > self.token_limit).sum()
        )

    def _spelt(self, texts: Sequence[str]) -> list[str]:
        """Captions in which open_clip's own tokenizer takes no word for its start or end token.

        A space in its name gives the tokens of the signs and words that it is spelt with.
        """
        captions = check_texts(texts)
        if self._library is not None:
            return captions
        names = "|".join(re.escape(self.tokenizer.decoder[number][1:]) for number in self.tokenizer.all_special_ids)
        return [re.sub(f"<(?={names})", "< ", caption, flags=re.IGNORECASE) for caption in captions]

    def _clean(self, caption: str) -> str:
        return getattr(self.tokenizer, "clean_fn", str)(caption)

    def _tokens(self, caption: str, ids: list[int]) -> list[Token]:
        if self._library is None:
            special = set(self.tokenizer.all_special_ids)
            return aligned_tokens(caption, [None if number in special else self._bytes(number) for number in ids])
        cleaned = self._clean(caption)
        tokens = fast_tokens(self._library, cleaned, ids)
        if cleaned == caption:
            return tokens
        pieces = [None if token.special else cleaned[token.start : token.end].encode() for token in tokens]
        placed = aligned_tokens(caption, pieces, without="".join(set(string.punctuation) - set(cleaned)))
        return [replace(token, text=named.text) for token, named in zip(placed, tokens, strict=True)]

    def _bytes(self, number: int) -> bytes:
        piece = self.tokenizer.decoder[number].removesuffix("</w>")
        return bytes(self.tokenizer.byte_decoder[sign] for sign in piece)

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model.encode_image(inputs["pixel_values"])

    def _text_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model.encode_text(inputs["input_ids"])


def load_open_clip(name: str, device: torch.device, dtype: str | torch.dtype) -> OpenClipEncoder:
    """An encoder from MODEL/TAG, hf-hub:OWNER/MODEL or local-dir:FOLDER. Raises InputError as `load_encoder` says."""
    try:
        import open_clip
    except ImportError as error:
        raise InputError(
            f"'{name}' needs the package open_clip ({error}); run: pip install 'boresight[open-clip]'."
        ) from error
    except RuntimeError as error:  # a torchvision built for another torch
        raise InputError(
            f"open_clip is installed but cannot be imported ({error}); install the torchvision that fits this torch."
        ) from error
    schema = name.startswith((_LOCAL, _HUB))
    model_name, tag = (name, None) if schema else _model_and_tag(name, open_clip)
    try:
        weights = _weights(model_name, tag, open_clip)
        config = open_clip.get_model_config(model_name)
        model, _, transform = open_clip.create_model_and_transforms(model_name, pretrained=tag, pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(model_name)
        chosen = pick_dtype(dtype, device)
        encoder = OpenClipEncoder(
            model,
            tokenizer,
            transform,
            name=Path(name.removeprefix(_LOCAL)).resolve().name if name.startswith(_LOCAL) else name,
            fingerprint=_fingerprint(config, weights),
            device=device,
            dtype=chosen,
        )
    except InputError:
        raise
    except Exception as error:  # open_clip raises many kinds for a missing, torn or unreachable model
        raise InputError(
            f"open_clip cannot load '{name}' ({first_line(error)}); check the name, the network and the files."
        ) from error
    return encoder


def _model_and_tag(name: str, open_clip: Any) -> tuple[str, str]:
    model, _, tag = name.partition("/")
    if model not in open_clip.list_models():
        raise InputError(f"open_clip has no model '{model}'; open_clip.list_models() names those it has.")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise InputError(
            f"open_clip has no weights '{tag}' for {model}; write open_clip:{model}/TAG with one of "
            f"{', '.join(tags) or 'none: this model has no published weights'}."
        )
    return model, tag


def _weights(model_name: str, tag: str | None, open_clip: Any) -> Path:
    """The weight file that open_clip is about to read. Raises InputError unless it is safetensors."""
    if model_name.startswith(_LOCAL):
        folder = Path(model_name.removeprefix(_LOCAL))
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; check the path after '{_LOCAL}'.")
        safe = sorted(folder.glob("*.safetensors"))
        # open_clip prefers a .bin of its own name over a safetensors file of another.
        file = safe[0] if safe and not any(folder.glob("*.bin")) and not any(folder.glob("*.pth")) else None
    elif model_name.startswith(_HUB):
        file = Path(open_clip.pretrained.download_pretrained_from_hf(model_name.removeprefix(_HUB)))
    else:
        file = Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model_name, tag)))
    if file is None or file.suffix != ".safetensors":
        raise InputError(
            f"The weights of '{model_name}' are not (only) safetensors, and pickled ones are not read; "
            "convert them with safetensors.torch.save_file and keep that file alone."
        )
    return file


def _fingerprint(config: dict[str, Any], weights: Path) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    with open(weights, "rb") as handle:
        digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
