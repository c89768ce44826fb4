"""The main job: from a collection and an encoder, or embeddings, to the comparison with every rival, and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from boresight.data import Collection
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings, embed
from boresight.encoders import Encoder
from boresight.errors import InputError
from boresight.evaluation.comparison import compare
from boresight.evaluation.comparison_figures import Comparison
from boresight.evaluation.examples import pick_examples, pick_latents
from boresight.reports.comparison_page import write_report
from boresight.sae import LatentNames, SparseAutoencoder, name_latents


@dataclass(frozen=True)
class Job:
    """What the main job left: the embeddings, the comparison, and the autoencoder and editor of the first seed.

    `names` of its latents are None where embeddings came without the words of their captions.
    """

    embeddings: Embeddings
    comparison: Comparison
    sae: SparseAutoencoder
    editor: CaptionEditor
    names: LatentNames | None


def run_job(
    encoder: Encoder,
    collection: Collection,
    folder: str | Path,
    report: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    n_latents: int | None = None,
    k: int = 32,
    device: str | torch.device | None = None,
    on_error: Literal["skip", "refuse"] = "skip",
) -> Job:
    """Embed, fit, compare with every control, name the latents, write the page.

    Uses the splits 'train' (autoencoder and editor), 'validation' (choice) and every split whose name begins with
    'test' (reported once, each beside the others); all other splits are left alone. What stood in `folder` from an
    interrupted run of the same job is used.

    Args:
        folder: gets `embeddings/`, `seed-<s>/sae`, `seed-<s>/edited`, `names/`, `comparison.json`, `comparison.csv`.
        report: the HTML file.

    Raises:
        InputError: a split is missing or empty, or an input cannot be used.
        ArtefactError: the folder cannot be written, or holds something else.

    Example:
        run_job(load_encoder("openai/clip-vit-base-patch32"), load_collection("photos"), "runs/photos", "photos.html")

    Relations: `compare_embeddings` does the same with embeddings that are there.
    """
    wanted = {"train", "validation", *held_out_splits(collection.splits)}
    used = collection.select(np.flatnonzero([split in wanted for split in collection.splits]))
    return compare_embeddings(
        embed(encoder, used, Path(folder) / "embeddings", on_error=on_error),
        folder,
        report,
        seeds=seeds,
        n_latents=n_latents,
        k=k,
        device=device,
        pictures=used,
        facts={"Collection": collection.name},
    )


def compare_embeddings(
    embeddings: Embeddings,
    folder: str | Path,
    report: str | Path,
    *,
    tests: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    n_latents: int | None = None,
    k: int = 32,
    device: str | torch.device | None = None,
    pictures: Collection | None = None,
    facts: Mapping[str, str] | None = None,
) -> Job:
    """Fit, compare with every rival and control, name the latents, write the page: `run_job` from embeddings on.

    Args:
        tests: the splits to report on; left out, every split whose name begins with 'test'.
        pictures: where they are, for the page and for kinds of captions.

    Raises:
        InputError, ArtefactError: as `run_job`.

    Example:
        job = compare_embeddings(Embeddings.load("photos.embeddings"), "runs/photos", "photos.html")
        print(job.comparison.verdicts["test"])
    """
    folder, tests = Path(folder), held_out_splits(embeddings.splits, tests)
    train, held = embeddings.train, {name: embeddings.split(name) for name in tests}
    kinds = {
        name: labels
        for name, part in held.items()
        if pictures is not None and (labels := caption_kinds(pictures, part)) is not None
    }
    options: dict[str, Any] = {"n_latents": n_latents, "k": k, "device": device}
    comparison = compare(train, embeddings.validation, held, seeds=seeds, kinds=kinds, folder=folder, **options)
    comparison.save_json(folder / "comparison.json")
    comparison.save_csv(folder / "comparison.csv")

    first = folder / f"seed-{seeds[0]}"
    sae, editor = SparseAutoencoder.load(first / "sae"), CaptionEditor.load(first / "edited")
    names = name_latents(sae, embeddings=train) if train.captions else None
    if names is not None:
        names.save(folder / "names")
    shown, words = held[tests[0]], () if names is None else names
    write_report(
        report,
        comparison,
        pick_examples(shown, editor, words, remembered=train, kinds=kinds.get(tests[0]), seed=seeds[0])
        if shown.captions
        else (),
        pick_latents(shown, sae, words, seed=seeds[0]),
        pictures=pictures,
        facts={**(facts or {}), "Names of latents": "none, without captions" if names is None else str(names)},
    )
    return Job(embeddings, comparison, sae, editor, names)


def held_out_splits(splits: Sequence[str], tests: Sequence[str] = ()) -> list[str]:
    """`tests`, or every split whose name begins with 'test'.

    Raises InputError where one of them, 'train' or 'validation' is not there.
    """
    tests = list(tests) or sorted({split for split in splits if split.startswith("test")})
    for needed in ("train", "validation", *(tests or ["test"])):
        if needed not in splits:
            present = ", ".join(sorted(set(splits))) or "none"
            raise InputError(
                f"The job needs a split '{needed}' and the collection has: {present}; name the splits so, or draw them "
                "anew ('boresight embed --split-anew', in Python train_validation_test with anew=True)."
            )
    return tests


def caption_kinds(collection: Collection, embeddings: Embeddings) -> list[str] | None:
    """The kind of each of the M captions, from the collection's column `caption_kinds`; None where it has none."""
    if "caption_kinds" not in collection.dataset.column_names:
        return None
    columns: Any = collection.dataset.select_columns(["id", "caption_kinds"])
    of_image = {row["id"]: row["caption_kinds"] for row in columns}
    return [kind for image in embeddings.ids for kind in of_image[image]]
