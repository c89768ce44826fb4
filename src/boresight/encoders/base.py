"""What the encoders of all libraries have in common: batches in, unit rows out, one word on captions that are cut."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.brief import brief, spelled
from boresight.encoders.long_text import warn_of_truncation
from boresight.encoders.protocol import Encoder, Pictures, check_batch, check_texts, unit_rows
from boresight.encoders.tokens import Token, TokenizedTexts
from boresight.errors import InputError

_SAME = 0.98  # cosine that half precision leaves of 1, with room


class LibraryEncoder(Encoder):
    """A dual encoder around a model of some library; see `Encoder` for what every encoder promises.

    Beyond the protocol: `model`, `tokenizer` and `image_processor` are the library's own objects, `tokenize` and
    `collate` give the model's inputs.
    """

    masked = True  # the text tower is told which tokens are padding

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        *,
        name: str,
        fingerprint: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self.model = model.to(device=device, dtype=dtype).eval()
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.name = name
        self.fingerprint = fingerprint
        self.device = device
        self.dtype = dtype
        self._warned = False
        self._read_model()
        alone, together = (self.embed_texts_counted(texts)[0] for texts in (["a"], ["a", "a b c d e"]))
        if float(alone[0] @ together[0]) < _SAME:
            raise InputError(
                f"{name} gives a caption another embedding beside a longer one than alone, so its padding is read; "
                "check the padding settings of its tokenizer and the attention mask of its text tower."
            )
        self.width = alone.shape[1]

    def __repr__(self) -> str:
        facts = {"name": brief(self.name), "width": str(self.width), "fingerprint": repr(self.fingerprint)}
        return spelled(self, {**facts, "device": repr(str(self.device)), "dtype": str(self.dtype).split(".")[-1]})

    def collate(self, images: Pictures) -> dict[str, Tensor]:
        """The vision tower's inputs for a batch of pictures, or of what `preprocess` made of them."""
        tensors = [image if isinstance(image, Tensor) else self.preprocess(image) for image in check_batch(images)]
        return self._stacked(tensors)

    def tokenize(self, texts: str | Sequence[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (B, T) int64 as the model was trained on; the mask is 1 on real tokens."""
        inputs, cut = self._tokenize(check_texts(texts))
        self._warn(cut, len(inputs["input_ids"]))
        return inputs

    def tokenized(self, texts: str | Sequence[str]) -> TokenizedTexts:
        """The text tower's inputs as the model was trained, and where their tokens stand in the captions."""
        inputs = self.tokenize(texts := check_texts(texts))
        real = inputs["attention_mask"].bool()
        rows = [ids[mask].tolist() for ids, mask in zip(inputs["input_ids"], real, strict=True)]
        tokens = [self._tokens(caption, row) for caption, row in zip(texts, rows, strict=True)]
        return TokenizedTexts(self._as_trained(inputs), real, tokens)

    @torch.inference_mode()
    def embed_images(self, images: Pictures) -> Tensor:
        """(B, d) float32 on the CPU, unit length. Raises InputError as `Encoder` says."""
        inputs = self.collate(images)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        features = self._image_features({key: value.to(self.device) for key, value in inputs.items()})
        return unit_rows(features, self.name, "image")

    @torch.inference_mode()
    def embed_texts(self, texts: str | Sequence[str]) -> Tensor:
        """(B, d) float32 on the CPU, unit length. Raises InputError as `Encoder` says."""
        rows, cut = self.embed_texts_counted(texts)
        self._warn(cut, len(rows))
        return rows

    @torch.inference_mode()
    def embed_texts_counted(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """What `embed_texts` gives, and how many captions were cut, of which no warning is given."""
        inputs, cut = self._tokenize(check_texts(texts))
        features = self._text_features({key: value.to(self.device) for key, value in self._as_trained(inputs).items()})
        return unit_rows(features, self.name, "caption"), cut

    def _as_trained(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return inputs if self.masked else {"input_ids": inputs["input_ids"]}

    def _warn(self, cut: int, total: int) -> None:
        if cut and not self._warned:
            self._warned = True
            warn_of_truncation(self, cut, total)

    def _stacked(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """The vision tower's inputs for what `preprocess` made. Raises InputError for pictures of several shapes."""
        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        if len(shapes) > 1:
            raise InputError(f"The batch holds images of shapes {shapes}; pass them through this encoder's preprocess.")
        return {"pixel_values": torch.stack(tensors)}

    @abstractmethod
    def _read_model(self) -> None:
        """Set `token_limit`, and what else a library's models differ in."""

    @abstractmethod
    def _tokenize(self, texts: Sequence[str]) -> tuple[dict[str, Tensor], int]:
        """What `tokenize` gives, and how many captions were cut."""

    @abstractmethod
    def _tokens(self, caption: str, ids: list[int]) -> list[Token]:
        """The real tokens of a caption and where they stand in it."""

    @abstractmethod
    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, d), of inputs on the device."""

    @abstractmethod
    def _text_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, d), of inputs on the device."""
