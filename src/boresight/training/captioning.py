"""Writing captions with a captioner: token by token or all at once, for a list of pictures or into a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from boresight.data.images import open_picture
from boresight.embeddings.batches import pixels_ahead
from boresight.encoders import Encoder
from boresight.encoders.hf import TransformersEncoder
from boresight.encoders.protocol import check_texts
from boresight.errors import ArtefactError, InputError, require_choice
from boresight.progress import progress, say
from boresight.runs import GO_ON, json_line, open_run, parsed_line
from boresight.storage import fingerprint, replace_file, writing
from boresight.training.captioner import Cache, Captioner, prefix_states, real_tokens, special_ends

Decode = Literal["greedy", "beam"]
_LABELS = {
    "model": "a model of fingerprint",
    "captioner": "a captioner of fingerprint",
    "web captions": "web captions =",
    "decode": "decode =",
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
    decode: Decode = "greedy",
    beams: int = 4,
    max_tokens: int | None = None,
) -> list[str]:
    """A caption for every image.

    A captioner of the variant 'queries' writes all tokens in one pass, each the likeliest at its place. 'teacher'
    writes step by step, over cached keys and values: 'greedy' takes the likeliest token, 'beam' keeps the `beams`
    likeliest beginnings and returns the ended caption with the highest mean log-probability of its tokens, the end
    token included; the greedy one is among those compared.

    Args:
        encoder: as `load_encoder` gives it, a CLIP or SigLIP model of transformers, the one of the captioner.
        images: pictures, files, or what `encoder.preprocess` made of them.
        web_captions: one for each image, read as part of the prefix; None: an empty caption for all.
        max_tokens: at most so many tokens, the end token included; None: as many as the captioner has queries.

    Raises:
        InputError: a picture that cannot be used, other than one web caption an image, an unknown or unfit option.
        ArtefactError: the captioner belongs to another model.
    """
    check_decoding(captioner, batch_size, decode, beams, max_tokens)
    model = check_pair(encoder, captioner)
    if web_captions is not None and len(check_texts(web_captions)) != len(images):
        raise InputError(f"There are {len(web_captions)} web captions for {len(images)} images; pass one for each.")
    start, end = special_ends(model.tokenizer)
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
        rows = decode_states(
            captioner,
            states.image_states.to(device),
            states.text_states.to(device).expand(len(batch), -1, -1),
            real=tokenized["attention_mask"].bool().to(device).expand(len(batch), -1),
            start=start,
            end=end,
            decode=decode,
            beams=beams,
            limit=max_tokens or captioner.config.queries,
        )
        written += [_text(model.tokenizer, row) for row in rows]
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


@torch.inference_mode()
def decode_states(
    captioner: Captioner,
    image_states: Tensor,
    text_states: Tensor,
    *,
    real: Tensor | None = None,
    start: int | None,
    end: int,
    decode: Decode = "greedy",
    beams: int = 4,
    limit: int,
) -> list[list[int]]:
    """Tokens of a caption for each row of states, without start and end; arguments as of `Captioner.forward`.

    What a row gets does not depend on the other rows.
    """
    if captioner.config.variant == "queries":
        return _until_end(captioner(image_states, text_states, real=real).argmax(-1)[:, :limit], end)
    cache = captioner.begin(image_states, text_states, real)
    first = torch.full((len(image_states),), end if start is None else start, device=cache.seen.device)
    tokens, gains = _greedy(captioner, cache, first, end, limit)
    written = _until_end(tokens, end)
    if decode == "beam":
        counted, ended = real_tokens(tokens, end), (tokens == end).any(1)
        means = (gains * counted).sum(1) / counted.sum(1)
        written = _beam(captioner, cache, first, end, beams, limit, means.masked_fill(~ended, -torch.inf), written)
    return written


def _until_end(tokens: Tensor, end: int) -> list[list[int]]:
    kept = real_tokens(tokens, end) & (tokens != end)
    return [row[mask].tolist() for row, mask in zip(tokens, kept, strict=True)]


def _greedy(captioner: Captioner, cache: Cache, previous: Tensor, end: int, limit: int) -> tuple[Tensor, Tensor]:
    """Tokens and their log-probabilities, (B, at most limit); what stands behind a row's end token means nothing."""
    tokens: list[Tensor] = []
    gains: list[Tensor] = []
    ended = torch.zeros_like(previous, dtype=torch.bool)
    while len(tokens) < limit and not ended.all():
        logits, cache = captioner.step(previous, len(tokens), cache)
        gain, previous = logits.log_softmax(-1).max(-1)
        tokens.append(previous)
        gains.append(gain)
        ended |= previous == end
    return torch.stack(tokens, dim=1), torch.stack(gains, dim=1)


def _beam(
    captioner: Captioner,
    cache: Cache,
    first: Tensor,
    end: int,
    beams: int,
    limit: int,
    best: Tensor,
    written: list[list[int]],
) -> list[list[int]]:
    """The best ended caption of each row by mean log-probability, or, where none ends in time, the best cut one.

    `best` (B,) and `written` are what is known at the start: the greedy captions, -inf where they did not end. So a
    caption is never less likely than the greedy one. A row is finished when its best ended caption beats what its
    best beginning has now; it then takes no further part, so that it does not depend on how long the others run.
    """
    rows = torch.arange(len(first), device=first.device)
    cache, previous = cache.rows(rows.repeat_interleave(beams)), first.repeat_interleave(beams)
    score = torch.full((len(rows), beams), -torch.inf, device=first.device)
    score[:, 0] = 0  # at first all beams are the same beginning
    tokens = torch.empty(len(rows), beams, 0, dtype=torch.int64, device=first.device)
    running = torch.ones_like(rows, dtype=torch.bool)
    for length in range(1, limit + 1):
        logits, cache = captioner.step(previous, length - 1, cache)
        total = score[:, :, None] + logits.log_softmax(-1).unflatten(0, (len(rows), beams))
        ended, lane = (total[:, :, end] / length).max(1)
        for row in (running & (ended > best)).nonzero().flatten().tolist():
            best[row], written[row] = ended[row], tokens[row, lane[row]].tolist()
        total[:, :, end] = -torch.inf
        score, chosen = total.flatten(1).topk(beams)
        lane, token = chosen // total.shape[2], chosen % total.shape[2]
        tokens = torch.cat([tokens[rows[:, None], lane], token[:, :, None]], dim=2)
        running &= best < score[:, 0] / length
        if not running.any():
            break
        cache, previous = cache.rows((rows[:, None] * beams + lane).flatten()), token.flatten()
    for row in (best == -torch.inf).nonzero().flatten().tolist():
        written[row] = tokens[row, 0].tolist()
    return written


def check_decoding(captioner: Captioner, batch_size: int, decode: str, beams: int, max_tokens: int | None) -> None:
    """Raises InputError for an option out of range, or one that this captioner cannot follow."""
    queries = captioner.config.queries
    require_choice("decode", decode, get_args(Decode))
    if decode == "beam" and captioner.config.variant == "queries":
        raise InputError(
            "This captioner writes all tokens at once, so there are no beams to keep; use decode='greedy'."
        )
    if batch_size < 1 or beams < 1:
        raise InputError(f"batch_size is {batch_size} and beams {beams}; both must be at least 1.")
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
    **options: Any,
) -> tuple[int, int]:
    """Write `{key: name, "caption": ...}` for every picture into a jsonl file; how many have a caption, and have none.

    Stopped at any moment, a kill included, the same call goes on: names that have a caption are left alone, a torn
    line is written again. Pictures that cannot be used come last, as `{key: name, "problem": ...}`, and are tried
    again. Beside the file, `<its name>.settings.json` says what the captions were made with.

    Args:
        names: of the pictures, each its own.
        read: called as read(row), from several threads; may raise InputError.
        workers: threads, one or more, that read and preprocess a batch while the one before is captioned.
        options: `decode`, `beams` and `max_tokens` of `write_captions`.

    Raises:
        InputError: as `write_captions`, or no picture can be used.
        ArtefactError: the file was made with another model, captioner or other options, or not by boresight, another
            run is writing it, or it cannot be written.
    """
    file = Path(file)
    decoding: dict[str, Any] = {"decode": "greedy", "beams": 4, "max_tokens": None, **options}
    check_decoding(captioner, batch_size, **decoding)
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
        "decode": f"beam of {decoding['beams']}" if decoding["decode"] == "beam" else decoding["decode"],
        "max_tokens": decoding["max_tokens"],
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
                    captions = write_captions(
                        encoder, captioner, list(ready.values()), webs, batch_size=batch_size, **decoding
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
