"""What a study has finished, row by row, beside the settings that it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.errors import ArtefactError
from boresight.storage import replace_json


def keep(file: Path, settings: Mapping[str, Any], found: Any) -> None:
    """Write what was found, as json, whole or not at all."""
    replace_json(file, {"settings": settings, "found": found})


def kept(file: Path, settings: Mapping[str, Any]) -> Any:
    """What a file found, None where there is none.

    Raises ArtefactError for a file of other settings.
    """
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    if content["settings"] != json.loads(json.dumps(settings)):  # which has no tuples, for one
        raise ArtefactError(f"{file} was made with other settings; delete it or choose another `out`.")
    return content["found"]
