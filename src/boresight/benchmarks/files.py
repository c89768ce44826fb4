"""The files of a published benchmark: where they must lie, and a sentence for whoever lacks them or has them torn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.errors import InputError


@dataclass(frozen=True)
class PublishedFiles:
    """A folder that holds the files of a benchmark as they are published.

    Attributes:
        folder: the folder.
        title: the benchmark's name, for errors.
        source: where it is published, for errors.
        bases: the folders that may hold its pictures.
    """

    folder: str | Path
    title: str
    source: str
    bases: Sequence[Path] = ()

    def find(self, *names: str) -> Path:
        """The first of `names`, paths below the folder, that exists, a file or a folder.

        The names are of one and the same thing, by the layouts in which it is published; the first is the one to name.
        Raises InputError, which says what is missing and where to get it.
        """
        if not Path(self.folder).is_dir():
            raise InputError(
                f"There is no folder {self.folder}; pass the folder that holds the files of {self.title} "
                f"({self.source})."
            )
        for name in names:
            if (Path(self.folder) / name).exists():
                return Path(self.folder) / name
        others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
        raise InputError(
            f"{self.title} needs {names[0]}{others}, which {self.folder} lacks; it is published at {self.source}."
        )

    def find_optional(self, *names: str) -> Path | None:
        """The first of `names` that is a file; None where there is none."""
        return next((Path(self.folder) / name for name in names if (Path(self.folder) / name).is_file()), None)

    def read_json(self, file: Path, kind: type | tuple[type, ...] = object) -> Any:
        """The content of a json file. Raises InputError when it is no json, or not of this kind."""
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.torn(file, f"cannot be read as json ({error})") from error
        if not isinstance(content, kind):
            raise self.torn(file, f"holds a {type(content).__name__} at its top and not what it is published with")
        return content

    def lines(self, file: Path) -> list[tuple[str, str]]:
        """The lines of a text file that are not blank, each after its place in words."""
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise self.torn(file, f"cannot be read as UTF-8 ({error})") from error
        # Not splitlines: it would also cut at signs that stand inside captions, such as U+2028.
        lines = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
        return [(f"line {number} of {file}", line) for number, line in lines if line.strip()]

    def json_lines(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """The objects of a file with one a line, each after its place in words."""
        for where, line in self.lines(file):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self.torn(where, f"is no json ({error})") from error
            if not isinstance(row, dict):
                raise self.torn(where, "is no json object")
            yield where, row

    def text(self, row: Any, key: str, where: str) -> str:
        """The text under `key` of a row. Raises InputError when there is none."""
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, str):
            raise self.torn(where, f"lacks a text '{key}'")
        return value

    def torn(self, what: Path | str, why: str) -> InputError:
        """The error to raise for a file, or a place in one, that is not as published."""
        return InputError(f"{what} {why}; get it anew for {self.title} from {self.source}.")


def with_annotations(*names: str) -> list[str]:
    """Each name as it stands, and below `annotations/`."""
    return [above + name for name in names for above in ("", "annotations/")]
