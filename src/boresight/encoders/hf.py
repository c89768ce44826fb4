"""Dual encoders of Hugging Face transformers: CLIP, SigLIP, SigLIP 2 and VisionTextDualEncoder."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as hf_logging

from boresight.device import pick_dtype
from boresight.encoders.base import LibraryEncoder
from boresight.encoders.hf_tokenizer import FIXED_LENGTH, check_class, fit_tokenizer, reads_at_end, token_limit
from boresight.encoders.long_text import cut_to_limit
from boresight.encoders.model_files import check_folder, file_fingerprint, model_folder
from boresight.encoders.protocol import Picture, check_image, check_texts
from boresight.encoders.tokens import Token, aligned_tokens, fast_tokens, plain_text, special_ids
from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.tower import Towers
from boresight.errors import InputError, first_line

FAMILIES = {
    "clip": "CLIP",
    "siglip": "SigLIP",
    "siglip2": "SigLIP 2",
    "vision-text-dual-encoder": "VisionTextDualEncoder",
}


class TransformersEncoder(LibraryEncoder):
    """A dual encoder of transformers; see `Encoder` for what every encoder promises.

    `lower_case` says that the text tower was trained on text in lower case, which not every tokenizer sees to.
    """

    def _read_model(self) -> None:
        self.family: str = self.model.config.model_type
        fit_tokenizer(self.model, self.tokenizer, self.name)
        self.token_limit = token_limit(self.model, self.tokenizer)
        self.masked = self.family not in FIXED_LENGTH
        self.lower_case = not self.masked

    def preprocess(self, image: Picture) -> Tensor:
        """The model's own preprocessing: (C, H, W) float32. Raises InputError for what is no usable picture."""
        inputs = self.image_processor(images=check_image(image), return_tensors="pt")
        if "spatial_shapes" in inputs:
            return _unpatch(inputs["pixel_values"][0], inputs["spatial_shapes"][0], self.image_processor.patch_size)
        return inputs["pixel_values"][0].float()

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each caption before it is cut to `token_limit`, start and end included."""
        return [len(ids) for ids in self._ids(texts)]

    def towers(self) -> Towers:
        """The model layer by layer, for attribution. Raises InputError for one that cannot be opened so."""
        return hf_towers(self.model)

    def _stacked(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        if self.family == "siglip2":
            return _patch(tensors, self.image_processor.patch_size, self.image_processor.max_num_patches)
        return super()._stacked(tensors)

    def _tokenize(self, texts: Sequence[str]) -> tuple[dict[str, Tensor], int]:
        rows, cut = cut_to_limit(self._ids(texts), self.token_limit, special_ids(self.tokenizer)[1][-1:])
        length = max(map(len, rows)) if self.masked else self.token_limit
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[i, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}, cut

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each caption, uncut. Raises InputError where an end token stands within one."""
        captions = [caption.lower() if self.lower_case else caption for caption in check_texts(texts)]
        rows = plain_text(self.tokenizer, captions)["input_ids"]
        if reads_at_end(self.model):
            for number, row in enumerate(rows):
                if row.index(row[-1]) < len(row) - 1:
                    raise InputError(
                        f"Caption {number} has a character that the tokenizer of {self.name} does not know and writes "
                        "as its end token, behind which the model reads nothing; drop that character."
                    )
        return rows

    def _tokens(self, caption: str, ids: list[int]) -> list[Token]:
        if self.tokenizer.is_fast:
            return fast_tokens(self.tokenizer, caption, ids, lower_case=self.lower_case)
        # SigLIP's own tokenizer knows no offsets, and leaves out punctuation.
        special, pieces = set(self.tokenizer.all_special_ids), self.tokenizer.convert_ids_to_tokens(ids)
        texts = [piece.replace("\u2581", " ").encode() for piece in pieces]
        texts = [None if number in special else text for number, text in zip(ids, texts, strict=True)]
        return aligned_tokens(caption, texts, without=string.punctuation)

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model.get_image_features(**inputs).pooler_output

    def _text_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model.get_text_features(**inputs).pooler_output


def load_transformers(name_or_path: str, device: torch.device, dtype: str | torch.dtype) -> TransformersEncoder:
    """An encoder from a folder or the hub. Raises InputError as `load_encoder` says."""
    folder = model_folder(name_or_path)
    local = Path(name_or_path).expanduser().is_dir()
    label = str(folder) if local else f"'{name_or_path}'"
    check_folder(folder, label)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError, TypeError or the library's own, for a malformed file
        raise InputError(f"The config.json of {label} cannot be used ({first_line(error)}); {_KNOWN}.") from error
    if config.model_type not in FAMILIES:
        raise InputError(f"{label} is a '{config.model_type}' model, not a dual encoder; {_KNOWN}.")
    chosen = pick_dtype(dtype, device)
    model = _load_model(folder, config, label)
    tokenizer = _load_part(AutoTokenizer, folder, label, "tokenizer")
    check_class(model, tokenizer, folder, label)
    image_processor = _load_part(AutoImageProcessor, folder, label, "image processor", backend="pil")
    name = folder.resolve().name if local else name_or_path
    try:
        encoder = TransformersEncoder(
            model,
            tokenizer,
            image_processor,
            name=name,
            fingerprint=file_fingerprint(folder),
            device=device,
            dtype=chosen,
        )
        image_width = encoder.embed_images([Image.new("RGB", (32, 32), "gray")]).shape[1]
    except (RuntimeError, ValueError, IndexError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The parts of {label} do not fit together ({first_line(error)}); "
            "check that its tokenizer and preprocessor files belong to its weights."
        ) from error
    shapes = {tuple(encoder.preprocess(Image.new("RGB", size)).shape[1:]) for size in ((32, 32), (48, 32), (32, 48))}
    if len(shapes) > 1 and encoder.family != "siglip2":
        made = ", ".join(f"{width} x {height}" for height, width in sorted(shapes))
        raise InputError(
            f"The preprocessor of {label} makes pictures of several shapes ({made} pixels) and its model reads one; "
            "set do_center_crop to true in its preprocessor_config.json, or take that of the original model."
        )
    if image_width != encoder.width:
        raise InputError(
            f"{label} gives image embeddings {image_width} wide and text embeddings {encoder.width} wide, "
            "which share no space; use a model trained as a dual encoder."
        )
    return encoder


_KNOWN = f"boresight reads {', '.join(FAMILIES.values())} models, and others through 'open_clip:'"


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of transformers' own style for a second's work: progress is told in one style, or not at all."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _load_model(folder: Path, config: Any, label: str) -> Any:
    try:
        with without_bars():
            model, report = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype="auto",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The weights of {label} are torn or do not fit its config.json ({first_line(error)}); "
            "copy or download the folder again."
        ) from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise InputError(
            f"The weights of {label} lack {len(lacking)} tensors that its config.json needs, {lacking[0]} among them; "
            "copy or download the folder again."
        )
    return model


def _load_part(kind: Any, folder: Path, label: str, what: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except ImportError as error:
        raise InputError(
            f"The {what} of {label} needs a package that is not here ({first_line(error)}); install it and try again."
        ) from error
    except Exception as error:  # the libraries raise anything from OSError to bare Exception for a damaged file
        raise InputError(
            f"The {what} of {label} is missing or cannot be read ({first_line(error)}); "
            "copy its files from the original model into the folder."
        ) from error


def _unpatch(patches: Tensor, shape: Tensor, size: int) -> Tensor:
    """(C, H, W) picture from the padded patches (P, size * size * C) that a NaFlex processor gives; shape = (h, w)."""
    rows, columns = shape.tolist()
    grid = patches[: rows * columns].float().reshape(rows, columns, size, size, -1)
    return grid.permute(4, 0, 2, 1, 3).reshape(-1, rows * size, columns * size)


def _patch(images: Sequence[Tensor], size: int, limit: int) -> dict[str, Tensor]:
    """NaFlex inputs from pictures (C, H, W), sides multiples of `size`: `_unpatch` undone, padded to `limit`."""
    channels = images[0].shape[0]
    values = torch.zeros(len(images), limit, size * size * channels)
    mask = torch.zeros(len(images), limit, dtype=torch.int64)
    shapes = torch.zeros(len(images), 2, dtype=torch.int64)
    for i, image in enumerate(images):
        rows, columns = image.shape[1] // size, image.shape[2] // size
        grid = image.reshape(channels, rows, size, columns, size).permute(1, 3, 2, 4, 0)
        values[i, : rows * columns] = grid.reshape(rows * columns, -1)
        mask[i, : rows * columns] = 1
        shapes[i] = torch.tensor([rows, columns])
    return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": shapes}
