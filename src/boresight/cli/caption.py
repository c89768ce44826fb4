"""The command `boresight caption`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Caption every picture of a folder or collection. After a stop, the same command continues."""

    source: Annotated[str, tyro.conf.Positional]
    """A folder of pictures (lines of OUT then have 'file_name'), or any collection that `boresight embed` takes
    ('id')."""
    model: str
    """Hub name or folder of the CLIP or SigLIP model that the captioner was trained with."""
    captioner: Path
    """Folder of the captioner."""
    out: Path = Path("captions.jsonl")
    """File with a line of json per picture; pictures that cannot be read come last, with the problem."""
    split: str | None = None
    """Only this split of a collection; left out: all splits."""
    web_captions: bool = False
    """Give the captioner the first caption of each picture as its web caption; otherwise an empty one."""
    max_tokens: int | None = None
    """Longest caption, its end token included; left out: as long as the captioner was trained for."""
    batch_size: int = 16
    """Pictures per batch."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; the captioner has its own."""
    workers: int = 2
    """Threads that read and preprocess pictures."""

    def run(self) -> None:
        """Write the captions, and say how many."""
        from boresight.cli.sources import open_collection
        from boresight.data.files import walk_pictures
        from boresight.data.images import decode
        from boresight.data.problems import Problem, summary
        from boresight.encoders import load_encoder
        from boresight.progress import say
        from boresight.training.captioner import Captioner
        from boresight.training.captioning import caption_file

        captioner = Captioner.load(self.captioner, self.device)
        encoder = load_encoder(self.model, device=self.device, dtype=self.dtype)
        webs = None
        folder = Path(self.source).expanduser().resolve()
        below: list[Problem] = []
        files = [] if self.web_captions or self.split or not folder.is_dir() else list(walk_pictures(folder, below))
        if files:
            if below:
                say(f"{self.source}: skipped {summary(below)}")
            key, names = "file_name", [Path(file).relative_to(folder).as_posix() for file in files]
        else:
            collection = open_collection(self.source)
            if self.split is not None:
                collection = collection.split(self.split)
            key, names = "id", collection.ids
            webs = [captions[0] if captions else "" for captions in collection.captions] if self.web_captions else None
        done, left_out = caption_file(
            encoder,
            captioner,
            names,
            (lambda row: decode({"path": files[row]}, f"'{names[row]}'")) if files else collection.image,
            self.out,
            key=key,
            web_captions=webs,
            batch_size=self.batch_size,
            workers=self.workers,
            max_tokens=self.max_tokens,
        )
        out = f"; {left_out} could not be read, see the last lines" if left_out else ""
        print(f"{done} captions: {self.out}{out}")
