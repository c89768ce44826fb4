"""Writing captions with a captioner, for a list of pictures or into a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from boresight.data.images import open_picture
from boresight.embeddings.batches import pixels_ahead
from boresight.encoders import Encoder
from boresight.encoders.hf import TransformersEncoder
from boresight.encoders.protocol import check_texts
from boresight.errors import ArtefactError, InputError, require_at_least
from boresight.progress import progress, say
from boresight.runs import GO_ON, json_line, open_run, parsed_line
from boresight.storage import fingerprint, replace_file, writing
from boresight.training.captioner import Captioner, prefix_states, real_tokens, special_ends

_LABELS = {
    "model": "a model of fingerprint",
    "captioner": "a captioner of fingerprint",
    "web captions": "web captions =",
    "max_tokens": "max_tokens =",
}


@torch.inference_mode()
def write_captions(
    encoder: Encoder,
    captioner: Captioner,
    images: Sequence[Image.Image | str | Path] | Sequence[Tensor],
    web_captions: Sequence[str] | None = None,
    *,
    batch_size: int = 16,
    max_tokens: int | None = None,
) -> list[str]:
    """A caption for every image: all tokens in one pass, each the likeliest at its place.

    Args:
        encoder: as `load_encoder` gives it, a CLIP or SigLIP model of transformers, the one of the captioner.
        images: pictures, files, or what `encoder.preprocess` made of them.
        web_captions: one for each image, read as part of the prefix; None: an empty caption for all.
        max_tokens: at most so many tokens, the end token included; None: as many as the captioner has queries.

    Raises:
        InputError: a picture that cannot be used, other than one web caption an image, an option out of range.
        ArtefactError: the captioner belongs to another model.
    """
    _check_options(captioner, batch_size, max_tokens)
    model = check_pair(encoder, captioner)
    web_captions = None if web_captions is None else check_texts(web_captions)
    if web_captions is not None and len(web_captions) != len(images):
        raise InputError(f"There are {len(web_captions)} web captions for {len(images)} images; pass one for each.")
    _, end = special_ends(model.tokenizer)
    device = captioner.head.weight.device
    written = []
    for begin in range(0, len(images), batch_size):
        batch = [
            image if isinstance(image, Tensor) else model.preprocess(open_picture(image))
            for image in images[begin : begin + batch_size]
        ]
        # The same empty caption for all goes through the text tower once.
        webs = [""] if web_captions is None else list(web_captions[begin : begin + batch_size])
        tokenized = model.tokenize(webs)
        pixels = model.collate(batch)["pixel_values"].to(model.device, model.dtype)
        states = prefix_states(model.model, pixels, tokenized["input_ids"].to(model.device))
        logits = captioner(
            states.image_states.to(device),
            states.text_states.to(device).expand(len(batch), -1, -1),
            real=tokenized["attention_mask"].bool().to(device).expand(len(batch), -1),
        )
        tokens = logits.argmax(-1)[:, :max_tokens]
        kept = real_tokens(tokens, end) & (tokens != end)
        written += [_text(model.tokenizer, row[mask].tolist()) for row, mask in zip(tokens, kept, strict=True)]
    return written


def _text(tokenizer: Any, tokens: list[int]) -> str:
    """The caption of `tokens`. CLIP's tokenizer forgets which signs stood apart; they are joined as English is."""
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    if type(tokenizer).__name__.startswith("CLIPTokenizer"):
        for pattern, joined in _JOINED:
            text = pattern.sub(joined, text)
    return text


_JOINED = [
    (re.compile(pattern), joined)
    for pattern, joined in (
        (r"(?<=\d) (?=\d)", ""),  # every digit is a token of its own
        (r"(?<=\d) \. (?=\d)", "."),
        (r" ([,.;:!?%)\]]+)", r"\1"),
        (r"([(\[]) ", r"\1"),
        (r"(?<=\w) (['’]) ?(s|t|d|m|re|ve|ll)\b", r"\1\2"),
        (r"(?<=\w) - (?=\w)", "-"),
    )
]


def _check_options(captioner: Captioner, batch_size: int, max_tokens: int | None) -> None:
    queries = captioner.config.queries
    require_at_least("batch_size", batch_size, 1)
    if max_tokens is not None and not 1 <= max_tokens <= queries:
        raise InputError(f"max_tokens is {max_tokens}; this captioner writes 1 to {queries} tokens.")


def check_pair(encoder: Encoder, captioner: Captioner) -> TransformersEncoder:
    """The encoder, if it is of the kind a captioner reads. Raises InputError or ArtefactError where it does not fit."""
    if not isinstance(encoder, TransformersEncoder):
        raise InputError(f"A captioner reads models of transformers, and '{encoder.name}' is none; pass a CLIP folder.")
    captioner.check_fits(encoder.model, encoder.tokenizer)
    if captioner.model not in ("", encoder.fingerprint):
        raise ArtefactError(
            f"The captioner was trained with a model of fingerprint {captioner.model} and '{encoder.name}' has "
            f"{encoder.fingerprint}; use the model that was written with it."
        )
    return encoder


def caption_file(
    encoder: Encoder,
    captioner: Captioner,
    names: Sequence[str],
    read: Callable[[int], Image.Image],
    file: str | Path,
    *,
    key: str = "id",
    web_captions: Sequence[str] | None = None,
    batch_size: int = 16,
    workers: int = 2,
    max_tokens: int | None = None,
) -> tuple[int, int]:
    """Write `{key: name, "caption": ...}` for every picture into a jsonl file; how many have a caption, and have none.

    Stopped at any moment, a kill included, the same call goes on: names that have a caption are left alone, a torn
    line is written again. Pictures that cannot be used come last, as `{key: name, "problem": ...}`, and are tried
    again. Beside the file, `<its name>.settings.json` says what the captions were made with.

    Args:
        names: of the pictures, each its own.
        read: called as read(row), from several threads; may raise InputError.
        workers: threads, one or more, that read and preprocess a batch while the one before is captioned.
        max_tokens: as of `write_captions`.

    Raises:
        InputError: as `write_captions`, or no picture can be used.
        ArtefactError: the file was made with another model, captioner or other options, or not by boresight, another
            run is writing it, or it cannot be written.
    """
    file = Path(file)
    _check_options(captioner, batch_size, max_tokens)
    if workers < 1:
        raise InputError(f"workers is {workers}; pass 1 or more.")
    if not names:
        raise InputError("There are no pictures to caption; check the folder or the split.")
    if file.is_dir():
        raise ArtefactError(f"{file} is a folder; name the file to write, as in {file / 'captions.jsonl'}.")
    made_from = {
        "model": check_pair(encoder, captioner).fingerprint,
        "captioner": fingerprint(captioner.state_dict()),
        "web captions": web_captions is not None,
        "max_tokens": max_tokens,
    }
    note = file.with_name(f"{file.name}.settings.json")
    empty = not file.exists() or not file.stat().st_size
    with open_run(file, made_from, _LABELS, journal=note, start_over=empty), writing(file, GO_ON):
        there = _kept(file, key)
        todo = [row for row, name in enumerate(names) if name not in there]
        if len(todo) < len(names):
            say(f"{len(names) - len(todo)} of {len(names)} pictures have their caption already.")

        problems: dict[int, str] = {}
        reading = pixels_ahead(
            encoder, read, todo, workers=workers, depth=2 * batch_size, name_of=lambda row: names[row]
        )
        with (
            open(file, "ab") as out,
            closing(reading) as pictures,
            progress(total=len(names), initial=len(names) - len(todo), what="captioning", unit="image") as bar,
        ):
            for begin in range(0, len(todo), batch_size):
                batch = dict(zip(todo[begin : begin + batch_size], pictures, strict=False))
                refused = {row: str(error) for row, error in batch.items() if isinstance(error, InputError)}
                for problem in refused.values():
                    say(f"Left out: {problem}")
                problems |= refused
                ready = {row: picture for row, picture in batch.items() if isinstance(picture, Tensor)}
                if ready:
                    webs = None if web_captions is None else [web_captions[row] for row in ready]
                    tensors = list(ready.values())
                    captions = write_captions(
                        encoder, captioner, tensors, webs, batch_size=batch_size, max_tokens=max_tokens
                    )
                    named = zip(ready, captions, strict=True)
                    out.writelines(json_line({key: names[row], "caption": caption}) for row, caption in named)
                    out.flush()
                bar.update(len(batch))
            if len(problems) == len(names):
                raise InputError(f"No picture can be captioned, the first because: {next(iter(problems.values()))}")
            out.writelines(json_line({key: names[row], "problem": problem}) for row, problem in problems.items())
    return len(names) - len(problems), len(problems)


def _kept(file: Path, key: str) -> set[str]:
    """Names that have a caption in the file, which then holds nothing else: no torn line, no problem of old."""
    if not file.exists():
        return set()
    lines = file.read_bytes().splitlines(keepends=True)
    whole: dict[str, bytes] = {}
    for line in lines:
        entry = parsed_line(line) or {}
        if isinstance(entry.get("caption"), str) and isinstance(entry.get(key), str):
            whole.setdefault(entry[key], line)
    if len(whole) < len(lines):
        replace_file(file, b"".join(whole.values()))
    return set(whole)
