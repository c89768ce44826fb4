"""Explanations of a whole table: arrays and a figure for every row, each on disk at once, so that nothing is lost."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boresight.attribution.explain import explain
from boresight.attribution.maps import Attribution
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError
from boresight.progress import progress, say
from boresight.storage import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = "settings.json"
SUMMARY = "explanations.csv"
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
    could not be explained. Rows whose arrays are there already are not explained again.

    Args:
        table: paths in it are relative to its folder.
        options: of `explain`.

    Raises:
        InputError: no such table, a column is missing, no rows, or an option that `explain` refuses.
        ArtefactError: the folder holds explanations of another table, model or of other options, or is not writable.
    """
    table, folder = Path(table), Path(folder)
    rows = _read(table)
    settings = _settings(encoder, rows, options)
    _check_folder(folder, settings)
    problems: dict[int, str] = {}
    todo = [row for row in range(len(rows)) if not (folder / f"{row:06d}.npz").is_file()]
    if len(todo) < len(rows):
        say(f"{len(rows) - len(todo)} of {len(rows)} rows are there already.")
    with progress(total=len(rows), initial=len(rows) - len(todo), what="explaining", unit="row") as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            try:
                _save(_explained(encoder, table, rows, batch, batch_size, options), batch, folder, settings, figures)
            except InputError:
                for row in batch:  # one bad row spoils its batch: find it, and do the others
                    try:
                        _save(_explained(encoder, table, rows, [row], 1, options), [row], folder, settings, figures)
                    except InputError as error:
                        problems[row] = str(error)
                        say(f"Row {row} is left out: {error}")
            bar.update(len(batch))
    if len(problems) == len(rows):
        raise InputError(f"No row of {table} can be explained, the first because: {problems[0]}")
    _sum_up(folder, rows, problems)
    return len(rows) - len(problems)


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure whole or not at all, in the format of its suffix. Raises InputError for a suffix unknown."""
    kind = file.suffix.lower().removeprefix(".")
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"A figure cannot be written as '{file.name}'; end the name in .png, .svg or .pdf.")
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=130)
    replace_file(file, out.getvalue())


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


def _settings(encoder: Encoder, rows: Sequence[dict[str, str]], options: dict[str, Any]) -> dict[str, Any]:
    """What explanations in one folder must have in common."""
    told = {name: getattr(value, "fingerprint", None) or str(value) for name, value in options.items()}
    table = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    return {"encoder": encoder.name, "encoder_fingerprint": encoder.fingerprint, "table": table, **told}


def _check_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Raises ArtefactError unless the folder is new, empty, or holds explanations under these very settings."""
    file = folder / SETTINGS
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != settings:
            raise ArtefactError(
                f"{folder} holds explanations of another table, model or of other options; choose another folder."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtefactError(f"{folder} holds files that boresight did not write; choose an empty or new folder.")


def _explained(
    encoder: Encoder,
    table: Path,
    rows: Sequence[dict[str, str]],
    batch: Sequence[int],
    size: int,
    options: dict[str, Any],
) -> Attribution:
    images = [table.parent / rows[row]["image"] for row in batch]
    return explain(encoder, images, [rows[row]["caption"] for row in batch], batch_size=size, **options)


def _save(found: Attribution, batch: Sequence[int], folder: Path, settings: dict[str, Any], figures: bool) -> None:
    if not (folder / SETTINGS).is_file():  # only now: a mistyped option must not claim the folder
        replace_file(folder / SETTINGS, (json.dumps(settings, indent=1) + "\n").encode())
    for place, row in enumerate(batch):
        if figures:
            save_figure(found.plot(place), folder / f"{row:06d}.png")
        length = len(found.tokens[place])
        words = found.words[place] if found.words else []
        arrays: dict[str, Any] = {
            "score": found.score[place].numpy(),
            "box": found.boxes[place].numpy(),
            "tokens": np.array(found.tokens[place]),
            "special": found.special[place, :length].numpy(),
            "words": np.array([word.text for word in words], dtype=str),
            "weights": np.array([word.weight for word in words], dtype=np.float32),
        }
        if found.image is not None:
            arrays["image"] = found.image[place].numpy()
        if found.text is not None:
            arrays["text"] = found.text[place, :length].numpy()
        out = io.BytesIO()
        np.savez(out, **arrays)
        replace_file(folder / f"{row:06d}.npz", out.getvalue())


def _sum_up(folder: Path, rows: Sequence[dict[str, str]], problems: dict[int, str]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for number, row in enumerate(rows):
        score = strongest = ""
        if number not in problems:
            with np.load(folder / f"{number:06d}.npz", allow_pickle=False) as arrays:
                score = f"{float(arrays['score']):.4f}"
                if arrays["weights"].size:
                    strongest = str(arrays["words"][arrays["weights"].argmax()])
        writer.writerow([number, row["image"], row["caption"], score, strongest, problems.get(number, "")])
    replace_file(folder / SUMMARY, out.getvalue().encode())
