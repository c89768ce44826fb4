"""What a text tower of transformers reads is what it was trained on, whatever the settings of its tokenizer say.

`fit_tokenizer` is called once, when an encoder is made. What has one right value is set, on model and tokenizer alike,
so that whoever takes them from the encoder, as training does, reads the same; what has none is refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import tokenizers

from boresight.encoders.tokens import content_ids, plain_text, special_ids
from boresight.errors import InputError

# The SigLIPs read a caption at its last position, padding and all, as they were trained: always padded, never masked.
FIXED_LENGTH = ("siglip", "siglip2")
_NO_LIMIT = 512  # tokens, for a text tower and tokenizer that name none
_PROBE = "photo of 2 red cups, left of a lid"
_CAPITALS = ", A Sign that says STOP; Édouard"
_CONFIG = "tokenizer_config.json"


def fit_tokenizer(model: Any, tokenizer: Any, name: str) -> None:
    """Make `model` and its `tokenizer` agree on sides, padding and the end of a caption.

    Raises InputError where they do not fit: no start or end token around a caption, or padding that a SigLIP was not
    trained on.
    """
    fixed = model.config.model_type in FIXED_LENGTH
    starts, ends = special_ids(tokenizer)
    if not ends and (fixed or reads_at_end(model)):
        raise InputError(
            f"The tokenizer of {name} puts no end token behind a caption, where the model reads it; take the tokenizer "
            f"files of the original model, or set add_eos_token to true in {_CONFIG}."
        )
    if not (fixed or starts):
        raise InputError(
            f"The tokenizer of {name} puts no start token before a caption, with which its text tower was trained; "
            "take the tokenizer files of the original model."
        )
    if reads_at_end(model):
        _read_at(model, ends[-1])
    if fixed:
        _check_fixed(model, tokenizer, name)
    elif tokenizer.pad_token_id is None or tokenizer.pad_token_id >= _vocabulary(model):
        # It is masked, so any token will do that the model knows.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(plain_text(tokenizer, "a")["input_ids"][-1])
    tokenizer.padding_side = "right"  # all of these towers count positions from the left


def reads_at_end(model: Any) -> bool:
    """Whether the text tower is CLIP's, which reads a caption at its first end token."""
    return model.config.text_config.model_type == "clip_text_model"


def token_limit(model: Any, tokenizer: Any) -> int:
    """Tokens that a caption may have: what the text tower has positions for.

    Only where a tower was not trained on captions of its full length may its tokenizer allow fewer.
    """
    config = model.config.text_config
    positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    for name, module in model.text_model.named_modules():
        # RoBERTa-like towers number positions from padding_idx + 1 and so waste the first of them.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1
    whole = model.config.model_type in FIXED_LENGTH or reads_at_end(model)
    return positions if whole else min(positions, tokenizer.model_max_length)


def check_class(model: Any, tokenizer: Any, folder: Path, label: str) -> None:
    """Raises InputError for a tokenizer that reads captions otherwise than its own tokenizer.json does.

    So does one of another class, one that loses that file's rule on capitals, as classes of transformers with a rule of
    their own do, or with another name for its start or end token. Whether there are such tokens is told by settings
    beside that file, and captions for a SigLIP are lower-cased before they come here.
    """
    file = folder / "tokenizer.json"
    if not (file.is_file() and tokenizer.is_fast):
        return
    written = tokenizers.Tokenizer.from_file(str(file))
    written.no_truncation()
    written.no_padding()
    probe = _PROBE if model.config.model_type in FIXED_LENGTH else _PROBE + _CAPITALS
    alone = [written.encode(probe, add_special_tokens=False).ids, content_ids(probe, tokenizer)]
    whole = [written.encode(probe).ids, plain_text(tokenizer, probe)["input_ids"]]
    # The first may follow a setting on the space before it.
    otherwise = alone[0][1:] != alone[1][1:] or any(
        len({ids[at] for ids in whole}) > 1 and all(ids[at] != text[at] for ids, text in zip(whole, alone, strict=True))
        for at in (0, -1)
    )
    if otherwise:
        raise InputError(
            f"As a {type(tokenizer).__name__}, the tokenizer of {label} reads captions otherwise than its own "
            f"tokenizer.json says; set tokenizer_class in {_CONFIG} to the model's own, or to PreTrainedTokenizerFast, "
            "and its special tokens to those of that file."
        )


def _read_at(model: Any, end: int) -> None:
    """Old configurations say 2 and read a caption at its highest number, which an added token may be."""
    for module in model.modules():
        if getattr(module, "eos_token_id", None) is not None:
            module.eos_token_id = end
    model.config.text_config.eos_token_id = end


def _vocabulary(model: Any) -> int:
    return int(model.text_model.get_input_embeddings().num_embeddings)


def _check_fixed(model: Any, tokenizer: Any, name: str) -> None:
    """A SigLIP has padding in view, so its side and its token must be those of its training."""
    if tokenizer.padding_side != "right":
        raise InputError(
            f"The tokenizer of {name} pads on the left, and a SigLIP was trained with its padding on the right; set "
            f"padding_side to right in {_CONFIG}."
        )
    vocabulary, declared = tokenizer.get_vocab(), model.config.text_config.pad_token_id
    gemma = "<bos>" in vocabulary and "<pad>" in vocabulary
    wanted: int | None = None
    if gemma:
        wanted = vocabulary["<pad>"]  # SigLIP 2, whose published configurations leave the 1 of SigLIP
    elif type(tokenizer).__name__.startswith("SiglipTokenizer"):
        wanted = vocabulary.get("</s>")
    elif declared != 1:
        wanted = declared
    elif vocabulary.get("</s>") == 1:  # the vocabulary of SigLIP
        wanted = 1
        if content_ids("a, b.", tokenizer) != content_ids("a b", tokenizer):
            warnings.warn(
                f"The tokenizer of {name} keeps punctuation, which the published SigLIPs were trained without; if this "
                f"is one of them, set tokenizer_class to SiglipTokenizer in {_CONFIG}.",
                UserWarning,
                stacklevel=2,
            )
    given = tokenizer.pad_token_id
    if given is None or wanted not in (None, given):
        right = "" if wanted is None else f" to {tokenizer.convert_ids_to_tokens(wanted)}"
        raise InputError(
            f"The tokenizer of {name} pads with {tokenizer.pad_token}, and a SigLIP reads the padding that it was "
            f"trained on; set pad_token{right} in {_CONFIG}."
        )
    if gemma and tokenizer.bos_token_id in special_ids(tokenizer)[0]:
        raise InputError(
            f"The tokenizer of {name} puts a start token before a caption, which SigLIP 2 was trained without; set "
            f"add_bos_token to false in {_CONFIG}."
        )
