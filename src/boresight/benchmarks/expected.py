"""Files of published benchmarks: where they must lie, and a sentence for whoever lacks them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boresight.errors import InputError


def expected(folder: str | Path, names: Sequence[str], *, of: str, source: str) -> Path:
    """The first of `names`, paths below `folder`, that exists, a file or a folder.

    Args:
        names: of one and the same thing, by the layouts in which it is published; the first is the one to name.
        of: the benchmark's name.
        source: where it is published.

    Raises InputError, which names what is missing and where to get it, when there is no such folder or none is there.
    """
    if not Path(folder).is_dir():
        raise InputError(f"There is no folder {folder}; pass the folder that holds the files of {of} ({source}).")
    for name in names:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
    raise InputError(f"{of} needs {names[0]}{others}, which {folder} lacks; it is published at {source}.")


def read_published_json(file: Path, *, of: str, source: str) -> Any:
    """The content of a json file. Raises InputError when it is not readable as json."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as json ({error}); get it anew for {of} from {source}.") from error
