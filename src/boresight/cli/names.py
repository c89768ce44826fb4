"""The command `boresight names`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Names:
    """Name an autoencoder's latents by the captions of the images that activate them; print the most active ones."""

    sae: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight sae'."""
    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'; its captions name the latents."""
    out: Path
    """Folder for the names, for 'boresight explain --names'."""
    split: str = "train"
    """Split whose captions give the names."""
    least_certainty: float = 0.3
    """A less certain name is not used. Certainty is the share of a latent's activation on images whose captions contain
    the name, corrected for chance."""
    vocabulary: Path | None = None
    """File of words, one per line, to choose names from; left out: all words of the captions."""
    model: str | None = None
    """Encoder of the embeddings, if they have no captions: a name is then the word of --vocabulary nearest to the
    latent's direction. Left out: captions give the names."""
    shown: int = 20
    """Number of latents to print."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""

    def run(self) -> None:
        """Name, save, print."""
        from boresight.cli.sources import open_encoder
        from boresight.embeddings import Embeddings
        from boresight.errors import InputError
        from boresight.sae import SparseAutoencoder, name_latents
        from boresight.storage import check_place
        from boresight.tables import table

        check_place(self.out, "latent-names")
        sae, embeddings = SparseAutoencoder.load(self.sae), Embeddings.load(self.embeddings).split(self.split)
        if not embeddings.captions and self.model is None:
            raise InputError(f"{self.embeddings} has no captions to name latents by; pass --vocabulary and --model.")
        options: dict[str, Any] = {} if self.vocabulary is None else {"vocabulary": _lines(self.vocabulary)}
        if self.model is not None:
            if embeddings.captions or self.vocabulary is None:
                raise InputError("--model is for embeddings without captions, and needs --vocabulary; see --help.")
            encoder = open_encoder(self.model, device=self.device, dtype=self.dtype)
            sae.require_same_encoder(encoder)
            options["vocabulary_embeddings"] = encoder.embed_texts(options["vocabulary"])
        names = name_latents(sae, embeddings=embeddings, least_certainty=self.least_certainty, **options)
        names.save(self.out)
        whole = max(1e-12, float(names.activity.sum()))
        rows = []
        for latent in names.activity.argsort(descending=True, stable=True)[: self.shown].tolist():
            strongest = [_short(names.ids[row]) for row in names.examples[latent, :3].tolist() if row >= 0]
            sure = f"{float(names.certainty[latent]):.2f}" if names[latent] else ""
            share = f"{float(names.activity[latent]) / whole:.1%}"
            rows.append([names[latent] or f"latent {latent}", str(latent), share, sure, ", ".join(strongest)])
        print(table(["name", "latent", "of all activation", "certainty", "strongest images"], rows))
        if not any(names.names):
            print(
                "No word stands so much more often where a latent is active that it is a sure name; take more "
                "captioned images, fewer latents, or a lower --least-certainty."
            )
        print(f"{names}: {self.out}")


def _short(image_id: str, most: int = 20) -> str:
    return image_id if len(image_id) <= most else f"{image_id[: most - 1]}…"


def _lines(file: Path) -> list[str]:
    from boresight.errors import InputError

    try:
        lines = file.read_text(encoding="utf-8").lower().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The vocabulary {file} cannot be read ({error}); pass a text file, one word a line."
        ) from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
