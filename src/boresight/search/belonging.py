"""What belongs to an index, wherever it is kept: the encoder of its embeddings, the latents of its editor."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError, one_of
from boresight.sae import LatentNames
from boresight.sae.autoencoder import encoder_of


def named_encoder(place: str, manifest: Mapping[str, Any]) -> Encoder:
    """The encoder that a manifest names. Raises InputError where it names none; raises as `load_encoder` does."""
    from boresight.encoders import load_encoder

    if not manifest.get("encoder"):
        raise InputError(
            f"{place} does not know its encoder, since its vectors came from arrays; pass `encoder`, or search by "
            "embeddings."
        )
    return load_encoder(manifest["encoder"])


def require_same_encoder(place: str, manifest: Mapping[str, Any], width: int, source: Embeddings | Encoder) -> None:
    """Raises ArtefactError for embeddings, or an encoder, other than those of the index with this manifest."""
    theirs = encoder_of(source)
    for key in ("encoder_fingerprint", "encoder"):
        if manifest.get(key) and theirs.get(key):
            if manifest[key] != theirs[key]:
                mine, other = (f"'{side.get('encoder') or side[key]}' ({side[key]})" for side in (manifest, theirs))
                raise ArtefactError(f"{place} holds embeddings of {mine} and these are of {other}; use {mine}.")
            break
    if source.width != width:
        raise ArtefactError(
            f"{place} is {width} wide and these embeddings are {source.width}; use the encoder that it was made with."
        )


def require_same_editor(place: str, manifest: Mapping[str, Any], editor: CaptionEditor | None) -> None:
    """Raises ArtefactError for an editor other than the one that the index with this manifest was made with."""
    wanted = manifest.get("editor")
    if wanted is None and editor is not None:
        raise ArtefactError(f"{place} was made without an editor; make it again with this one.")
    if wanted is not None and (editor is None or editor.fingerprint != wanted):
        given = "none was passed" if editor is None else f"this one is {editor.fingerprint}"
        raise ArtefactError(
            f"{place} was made with the editor {wanted} and {given}; pass that one, or make it again with this one."
        )


def latent_number(name: int | str, editor: CaptionEditor | None, names: LatentNames | None) -> int:
    """The number of a latent, from its number or name. Raises InputError where there is none of it."""
    count = 0 if editor is None else editor.sae.n_latents
    if isinstance(name, str) and not name.isdecimal():
        known = [] if names is None else [each for each in names.names if each]
        if name not in known:
            raise InputError(
                f"There is no latent named '{name}'; {one_of(name, sorted(known)[:20])}."
                if known
                else f"The latents of this index have no names, so '{name}' is none; use numbers."
            )
        assert names is not None
        return list(names.names).index(name)
    if isinstance(name, bool) or not isinstance(name, str | Integral):
        raise InputError(f"The latent {name!r} is {type(name).__name__}; pass its number or name.")
    if not 0 <= int(name) < count:
        raise InputError(f"There is no latent {name}; there are {count:,}, from 0 on.")
    return int(name)
