"""Explanations of a whole table: arrays and a figure for every row, each on disk at once, so that nothing is lost."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boresight.attribution.explain import explain
from boresight.attribution.maps import Attribution
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError
from boresight.progress import progress, say
from boresight.runs import open_run
from boresight.storage import replace_file

SUMMARY = "explanations.csv"
LABELS = {
    "encoder_fingerprint": "an encoder of fingerprint",
    "table": "a table of fingerprint",
    "options": "the options",
}
COLUMNS = ("row", "image", "caption", "score", "strongest word", "problem")


def explain_csv(
    encoder: Encoder,
    table: str | Path,
    folder: str | Path,
    *,
    figures: bool = True,
    batch_size: int = 8,
    **options: Any,
) -> int:
    """Explain every row of a csv file with the columns `image` and `caption`; how many rows have an explanation.

    Row i leaves `<i>.npz` (`image` (gh, gw), `text` (T,), `tokens`, `special`, `words`, `weights`, `score`, `box`, as
    in `Attribution`, without padding) and `<i>.png`; `explanations.csv` sums up, with what was wrong with a row that
    could not be explained. Rows that are finished already are not explained again.

    Args:
        table: paths in it are relative to its folder.
        options: of `explain`.

    Raises:
        InputError: no such table, a column is missing, no rows, or an option that `explain` refuses.
        ArtefactError: the folder holds explanations of another table, model or of other options, is being written by
            another run, or is not writable; or the place of the pictures went away, which is no fault of any row: bring
            it back, and the same call goes on.

    Relations:
        For pictures and captions at hand, and maps in memory, use `explain`.
    """
    table, folder = Path(table), Path(folder)
    rows = _read(table)
    problems: dict[int, str] = {}

    def explained(chosen: list[int]) -> list[tuple[int, Attribution, int]]:
        files, captions = (
            [table.parent / rows[row]["image"] for row in chosen],
            [rows[row]["caption"] for row in chosen],
        )
        try:
            answer = explain(encoder, files, captions, batch_size=batch_size, **options)
        except InputError as error:
            if len(chosen) > 1:  # one bad row spoils its batch, so each by itself
                return [one for row in chosen for one in explained([row])]
            problems[chosen[0]] = str(error)
            say(f"Row {chosen[0]} is left out: {error}")
            return []
        return [(row, answer, index) for index, row in enumerate(chosen)]

    with open_run(folder, _made_from(encoder, rows, options), LABELS) as run:
        done = {part["row"] for part in run.parts}
        if done:
            say(f"{len(done)} of {len(rows)} rows are there already.")
        todo = [row for row in range(len(rows)) if row not in done]
        try:
            with progress(total=len(rows), initial=len(done), what="explaining", unit="row") as bar:
                for start in range(0, len(todo), batch_size):
                    chosen = todo[start : start + batch_size]
                    for row, answer, index in explained(chosen):
                        run.add(_save(answer, index, row, folder, figures))
                    bar.update(len(chosen))
        except (KeyboardInterrupt, ArtefactError):
            say(f"Stopped: {len(run.parts)} of {len(rows)} rows are safe in {folder}; run the same to go on.")
            raise
        finally:
            if not run.parts:  # a mistyped option must not claim the folder
                run.finish()
        if len(problems) == len(rows):
            raise InputError(f"No row of {table} can be explained, the first because: {problems[0]}")
        _sum_up(folder, rows, run.parts, problems)
    return len(rows) - len(problems)


def _read(table: Path) -> list[dict[str, str]]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except OSError as error:
        raise InputError(f"The table {table} cannot be read ({error.strerror}); check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The table {table} is no csv in UTF-8 ({error}); save it as one.") from error
    if not rows:
        raise InputError(f"The table {table} has no rows; each needs an image and a caption.")
    for column in ("image", "caption"):
        if column not in rows[0]:
            raise InputError(f"The table {table} has no column '{column}'; its columns are {', '.join(rows[0])}.")
    return [{"image": row["image"] or "", "caption": row["caption"] or ""} for row in rows]


def _made_from(encoder: Encoder, rows: Sequence[dict[str, str]], options: dict[str, Any]) -> dict[str, Any]:
    """What explanations in one folder must have in common."""
    given = {name: getattr(value, "fingerprint", value) for name, value in sorted(options.items()) if value is not None}
    return {
        "encoder": encoder.name,
        "encoder_fingerprint": encoder.fingerprint,
        "table": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16],
        "options": ", ".join(f"{name} {value}" for name, value in given.items()),
    }


def _save(answer: Attribution, index: int, row: int, folder: Path, figures: bool) -> dict[str, Any]:
    """Write the figure and the arrays of pair `index`; what the summary says of it."""
    if figures:
        from boresight.attribution.plots import save_figure

        save_figure(answer.plot(index), folder / f"{row:06d}.png")
    length = len(answer.tokens[index])
    words = answer.words[index] if answer.words else []
    arrays: dict[str, Any] = {
        "score": answer.score[index].numpy(),
        "box": answer.boxes[index].numpy(),
        "tokens": np.array(answer.tokens[index]),
        "special": answer.special[index, :length].numpy(),
        "words": np.array([word.text for word in words], dtype=str),
        "weights": np.array([word.weight for word in words], dtype=np.float32),
    }
    if answer.image is not None:
        arrays["image"] = answer.image[index].numpy()
    if answer.text is not None:
        arrays["text"] = answer.text[index, :length].numpy()
    out = io.BytesIO()
    np.savez(out, **arrays)
    replace_file(folder / f"{row:06d}.npz", out.getvalue())
    strongest = max(words, key=lambda word: word.weight).text if words else ""
    return {"row": row, "score": f"{float(answer.score[index]):.4f}", "strongest word": strongest}


def _sum_up(
    folder: Path, rows: Sequence[dict[str, str]], parts: Sequence[Mapping[str, Any]], problems: Mapping[int, str]
) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="")
    writer.writeheader()
    finished = {part["row"]: part for part in parts}
    for number, row in enumerate(rows):
        writer.writerow({"row": number, **row, **finished.get(number, {}), "problem": problems.get(number, "")})
    replace_file(folder / SUMMARY, out.getvalue().encode())
