"""What several commands open: a collection by name or path, an encoder by name or the default one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boresight.data import Collection
    from boresight.embeddings import Embeddings
    from boresight.encoders import Encoder
    from boresight.search import SearchIndex

BUILT_IN = ("emoji", "scenes")
SHIPPED = "the small model that ships with boresight. It knows emoji and simple scenes; on photographs it is at chance."
COMMON = "openai/clip-vit-base-patch32"


def open_collection(source: str, *, split_anew: bool = False, **options: Any) -> Collection:
    """'emoji', 'scenes', or whatever `load_collection` reads; a collection without splits gets them by hash of id.

    split_anew: so does one that has splits. Which splits there are, and why, is said.
    """
    from boresight.data import load_collection, load_emoji, load_scenes, train_validation_test
    from boresight.errors import InputError
    from boresight.progress import say

    given = [name for name, value in options.items() if value is not None and name != "on_error"]
    given += ["split_anew"] if split_anew else []
    if source in BUILT_IN and given:
        raise InputError(f"'{source}' comes with all that belongs to it; leave --{given[0].replace('_', '-')} out.")
    if source == "emoji":
        return load_emoji()
    if source == "scenes":
        return load_scenes()
    collection = load_collection(source, **{name: value for name, value in options.items() if value is not None})
    why = "as the source names them"
    if split_anew or (set(collection.splits) == {"all"} and collection.counts.any()):
        why = "by a hash of each id, " + ("anew" if split_anew else "since the source names none")
        collection = train_validation_test(collection, anew=split_anew)
    counts = Counter(collection.splits)
    if counts.keys() != {"all"}:
        say(f"Splits: {', '.join(f'{name} {count:,}' for name, count in counts.items())} images, {why}.")
    return collection


def open_encoder(
    name: str | None, *, device: str | None, dtype: str, of: str | None = None, option: str = "--encoder"
) -> Encoder:
    """The encoder of this name, or the small CLIP that ships with boresight.

    Args:
        of: what is to be encoded; it is said where that is the user's own and no encoder was named by `option`.
    """
    from boresight.encoders import load_encoder
    from boresight.models import default_model_path
    from boresight.progress import say

    if name is None and of is not None and of not in BUILT_IN:
        say(f"No {option} was named for {of}, so it is seen through {SHIPPED} Name one: {option} {COMMON}.")
    return load_encoder(name or str(default_model_path()), device=device, dtype=dtype)


def open_index(folder: Path, encoder: str | None, *, device: str | None, dtype: str) -> SearchIndex:
    """An index and the encoder that asks it: the one named, that ships with boresight, or that the index names."""
    from boresight.encoders import load_encoder
    from boresight.errors import InputError
    from boresight.models import default_model_path
    from boresight.search import SearchIndex

    index = SearchIndex.open(folder, device=device)
    said = index.made_by
    name = encoder or said.get("encoder")
    if encoder is None and _by_shipped(said):
        name = str(default_model_path())
    if name is None:
        raise InputError(f"{folder} does not know which encoder made its embeddings; name it: --encoder {COMMON}.")
    index.use(load_encoder(name, device=device, dtype=dtype))
    return index


def shipped_warning(embeddings: Embeddings, split: str) -> str | None:
    """A sentence where the model that ships with boresight made embeddings of what it does not know, or learnt on."""
    if not _by_shipped(embeddings.manifest):
        return None
    if embeddings.name not in BUILT_IN:
        return f"These embeddings are by {SHIPPED} Embed with another: boresight embed --encoder {COMMON}."
    return f"The model was trained on the split '{split}'; test on others." if split == "encoder" else None


def _by_shipped(made_by: Mapping[str, Any]) -> bool:
    """Whether the encoder of embeddings, as a manifest names it, is the one that ships with boresight."""
    from boresight.encoders.model_files import file_fingerprint
    from boresight.models import default_model_path

    return made_by.get("encoder_fingerprint") == file_fingerprint(default_model_path())
