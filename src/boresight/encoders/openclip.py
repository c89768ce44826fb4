"""Dual encoders of open_clip, the extra `[open-clip]`; nothing else in boresight imports that library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from boresight.device import pick_dtype
from boresight.encoders.long_text import warn_of_truncation
from boresight.encoders.protocol import check_batch, check_image, check_texts, unit_rows
from boresight.encoders.tokens import Token, TokenizedTexts, aligned_tokens, fast_tokens
from boresight.encoders.towers.openclip import openclip_towers
from boresight.encoders.towers.tower import Towers
from boresight.errors import InputError, first_line

_LOCAL, _HUB = "local-dir:", "hf-hub:"


class OpenClipEncoder:
    """A dual encoder of open_clip; see `Encoder` for what every encoder promises."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        transform: Any,
        *,
        name: str,
        fingerprint: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self.model = model.to(device=device, dtype=dtype).eval()
        self.tokenizer = tokenizer
        self.transform = transform
        self.name = name
        self.fingerprint = fingerprint
        self.device = device
        self.dtype = dtype
        self.token_limit: int = tokenizer.context_length
        self._warned = False
        self.width = self.embed_texts(["a"]).shape[1]

    def preprocess(self, image: Image.Image) -> Tensor:
        """The model's own evaluation transform: (C, H, W) float32. Raises InputError for what is no usable picture."""
        return self.transform(check_image(image)).float()

    def collate(self, images: Sequence[Image.Image] | Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """The vision tower's inputs for a batch of pictures, or of what `preprocess` made of them."""
        tensors = [image if isinstance(image, Tensor) else self.preprocess(image) for image in check_batch(images)]
        return {"pixel_values": torch.stack(tensors)}

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each caption before it is cut to `token_limit`, start and end included."""
        return _lengths(self.tokenizer, check_texts(texts))

    def tokenized(self, texts: Sequence[str]) -> TokenizedTexts:
        """The text tower's inputs, padded to the context as open_clip does."""
        ids, lengths, cut = self._tokenize(texts)
        self._warn(cut, len(texts))
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        rows = [row[:length].tolist() for row, length in zip(ids.cpu(), lengths.tolist(), strict=True)]
        tokens = [_tokens(self.tokenizer, caption, row) for caption, row in zip(texts, rows, strict=True)]
        return TokenizedTexts({"input_ids": ids}, real, tokens)

    def towers(self) -> Towers:
        """The model layer by layer, for attribution. Raises InputError for one that cannot be opened so."""
        return openclip_towers(self.model)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image] | Sequence[Tensor] | Tensor) -> Tensor:
        """(B, d) float32 on the CPU, unit length. Raises InputError as `Encoder` says."""
        pixels = self.collate(images)["pixel_values"].to(device=self.device, dtype=self.dtype)
        return unit_rows(self.model.encode_image(pixels), self.name, "image")

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, d) float32 on the CPU, unit length. Raises InputError as `Encoder` says."""
        rows, cut = self.embed_texts_counted(texts)
        self._warn(cut, len(texts))
        return rows

    @torch.inference_mode()
    def embed_texts_counted(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """What `embed_texts` gives, and how many captions were cut, of which no warning is given."""
        ids, _, cut = self._tokenize(texts)
        return unit_rows(self.model.encode_text(ids), self.name, "caption"), cut

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, int]:
        """Token ids (B, context) on the device, cut and padded by open_clip; real lengths (B,); how many were cut."""
        captions = check_texts(texts)
        whole = torch.tensor(_lengths(self.tokenizer, captions))
        cut = int((whole > self.token_limit).sum())
        return self.tokenizer(captions).to(self.device), whole.clamp(max=self.token_limit), cut

    def _warn(self, cut: int, total: int) -> None:
        if cut and not self._warned:
            self._warned = True
            warn_of_truncation(self, cut, total)


def _lengths(tokenizer: Any, captions: list[str]) -> list[int]:
    """Tokens of each caption before it is cut, start and end token included."""
    if hasattr(tokenizer, "encode"):  # open_clip's own byte-pair tokenizer
        return [len(tokenizer.encode(caption)) + 2 for caption in captions]
    clean = getattr(tokenizer, "clean_fn", str)
    return [len(ids) for ids in tokenizer.tokenizer([clean(caption) for caption in captions])["input_ids"]]


def _tokens(tokenizer: Any, caption: str, ids: list[int]) -> list[Token]:
    """The real tokens of a caption and where they stand in it."""
    if not hasattr(tokenizer, "encode"):
        return fast_tokens(tokenizer.tokenizer, getattr(tokenizer, "clean_fn", str)(caption), ids)
    special = set(tokenizer.all_special_ids)
    return aligned_tokens(caption, [None if number in special else tokenizer.decode([number]) for number in ids])


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
