"""Where a model's files are, and a fingerprint of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import get_repo_discussions, snapshot_download
from huggingface_hub.errors import HFValidationError

from boresight.errors import InputError, first_line

CONFIG = "config.json"
_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]  # no pickled weights, no code
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
_CONVERTER = "SFconvertbot"  # the hub's own account that offers safetensors copies of pickled weights


def model_folder(name_or_path: str) -> Path:
    """The folder of a model: the one named, or the local copy of a model on the Hugging Face hub.

    Raises InputError when there is no such folder, or the hub has no such model or cannot be reached.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{name_or_path} is a file; pass the folder that holds config.json and the weights.")
    if name_or_path.startswith((".", "~")) or folder.is_absolute() or name_or_path.count("/") != 1:
        raise InputError(f"There is no model folder {name_or_path}; check the path, or pass a hub name 'owner/model'.")
    try:
        folder = _download(name_or_path)
        return folder if weight_files(folder) else _download(name_or_path, _converted(name_or_path, folder))
    except HFValidationError as error:
        raise InputError(f"'{name_or_path}' is neither a folder nor a hub name; check the spelling.") from error
    except Exception as error:  # the hub's client lets those of its http library through
        raise InputError(
            f"'{name_or_path}' is no folder here and could not be had from the hub ({first_line(error)}); "
            "check the name and the network, or pass the path of a downloaded folder."
        ) from error


def _download(name: str, revision: str | None = None) -> Path:
    return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=["*/*"]))


def _converted(name: str, main: Path) -> str | None:
    """The revision of the hub's safetensors copy of a model whose `main` branch has only pickled weights, or None.

    A copy fetched before is found in the cache, so that it can be loaded without the network.
    """
    snapshots = main.parent
    for pull_request in sorted((snapshots.parent / "refs" / "refs" / "pr").glob("*")):
        if weight_files(snapshots / pull_request.read_text()):
            return f"refs/pr/{pull_request.name}"
    for discussion in get_repo_discussions(name, author=_CONVERTER, discussion_type="pull_request"):
        if discussion.author == _CONVERTER and "safetensors" in discussion.title.lower():
            return discussion.git_reference
    return None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name."""
    return sorted(folder.glob("*.safetensors"))


def check_folder(folder: Path, label: str) -> None:
    """Raises InputError when the folder lacks the configuration, the safetensors weights or the vocabulary."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{label} has no {CONFIG}, so it is no model folder; pass a folder save_pretrained() wrote.")
    if not weight_files(folder):
        raise InputError(
            f"{label} has no safetensors weights, and pickled ones are not read; "
            "save the model again with save_pretrained()."
        )
    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        raise InputError(
            f"{label} has no tokenizer files ({', '.join(_VOCABULARIES)}); "
            "copy them from the original model into the folder."
        )


def file_fingerprint(folder: Path) -> str:
    """Hex digest (16 characters) of config.json and of the bytes of all safetensors files, read in a stream."""
    digest = hashlib.sha256()
    for file in [folder / CONFIG, *weight_files(folder)]:
        with open(file, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
