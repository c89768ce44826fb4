"""What several commands open: a collection by name or path, an encoder by name or the default one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boresight.data import Collection
    from boresight.encoders import Encoder


def open_collection(source: str, **options: Any) -> Collection:
    """'emoji', 'scenes', or whatever `load_collection` reads; a collection without splits gets them by hash of id."""
    from boresight.data import load_collection, load_emoji, load_scenes, train_validation_test
    from boresight.errors import InputError
    from boresight.progress import say

    given = [name for name, value in options.items() if value is not None and name != "on_error"]
    if source in ("emoji", "scenes") and given:
        raise InputError(f"'{source}' comes with all that belongs to it; leave --{given[0].replace('_', '-')} out.")
    if source == "emoji":
        return load_emoji()
    if source == "scenes":
        return load_scenes()
    collection = load_collection(source, **{name: value for name, value in options.items() if value is not None})
    if set(collection.splits) == {"all"}:
        collection = train_validation_test(collection)
        say(f"{collection.name} names no splits: 80 % train, 10 % validation, 10 % test, by a hash of each id.")
    return collection


def open_encoder(name: str | None, *, device: str | None, dtype: str) -> Encoder:
    """The encoder of this name, or the small CLIP that ships with boresight."""
    from boresight.encoders import load_encoder
    from boresight.models import default_model_path

    return load_encoder(name or str(default_model_path()), device=device, dtype=dtype)
