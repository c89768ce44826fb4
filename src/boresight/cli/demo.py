"""`boresight demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from boresight.data import Collection
    from boresight.search import SearchIndex


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole job: embed, fit an autoencoder and an editor, compare plain with edited, write a report.

    With --open instead the search page of a built-in collection, with an editor that comes with boresight.
    """

    collection: Annotated[str | None, tyro.conf.Positional] = None
    """Folder, captions file, shards, parquet or Hugging Face dataset; 'emoji' and 'scenes' are built in. Left out:
    emoji; with --open scenes, which need nothing installed."""
    open: bool = False
    """Open the search page in the browser, on pictures that come with boresight; nothing is fitted."""
    browser: bool = True
    """With --open, whether the browser is opened; its address is printed in any case."""
    port: int = 0
    """With --open, the port of the page; 0 takes a free one."""
    encoder: str | None = None
    """Hub name or folder of a CLIP or SigLIP model; left out: the one that ships with boresight."""
    out: Path = Path("runs/demo")
    """Folder for embeddings, autoencoder, editor and figures."""
    report: Path = Path("report.html")
    """The page to write."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The job runs once per seed; figures are means with their spread."""
    n_latents: int | None = None
    """Latents of the autoencoder; left out: a third of the images as a power of two, between 128 and 4,096."""
    k: int = 32
    """Active latents of an image."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    on_error: Literal["skip", "refuse"] = "skip"
    """What to do with a corrupt picture, a missing file, an empty caption or a duplicate id."""

    def run(self) -> None:
        """Run the main job and say where its figures and page are."""
        if self.open:
            self._open()
            return
        import time

        from boresight.cli.sources import open_encoder
        from boresight.demo import run_job
        from boresight.progress import say

        started = time.monotonic()
        encoder = open_encoder(self.encoder, device=self.device, dtype="auto", of=self.collection or "emoji")
        collection = self._collection()
        job = run_job(
            encoder,
            collection,
            self.out,
            self.report,
            seeds=self.seeds,
            n_latents=self.n_latents,
            k=self.k,
            device=self.device,
            on_error=self.on_error,
        )
        print(job.names)
        print(job.comparison)
        say(f"{time.monotonic() - started:.0f} s; figures and models in {self.out}, the page in {self.report}")

    def _collection(self) -> Collection:
        from boresight.cli.sources import open_collection
        from boresight.errors import BoresightError
        from boresight.progress import say

        try:
            return open_collection(self.collection or "emoji", on_error=self.on_error)
        except BoresightError as error:
            if self.collection not in (None, "emoji"):
                raise
            say(f"No emoji here: {error} The demo runs on the generated world 'scenes' instead.")
            return open_collection("scenes")

    def _open(self) -> None:
        """Serve the page until stopped."""
        from boresight.cli.serve import require_packages

        require_packages()
        import threading
        import webbrowser

        from boresight.app.server import create_app, listening, run
        from boresight.app.service import Service

        bound = listening("127.0.0.1", self.port)
        index = self._index()
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        print(f"{len(index):,} pictures at {address}; Ctrl+C ends it", flush=True)
        if self.browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        service = Service(index)
        try:
            run(create_app(service), bound, service.limits.seconds)
        finally:
            service.close()

    def _index(self) -> SearchIndex:
        from boresight.app.example import cache_folder, example_index
        from boresight.errors import BoresightError, InputError
        from boresight.progress import say

        if self.collection not in (None, "emoji", "scenes"):
            raise InputError(
                f"--open shows 'emoji' or 'scenes'; for {self.collection} run boresight embed, boresight index and "
                "boresight serve."
            )
        if self.collection == "emoji":
            try:
                return example_index("emoji", cache_folder())
            except BoresightError as error:
                say(f"No emoji here: {error} The page shows the generated world 'scenes' instead.")
        return example_index("scenes", cache_folder())
