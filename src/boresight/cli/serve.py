"""The command `boresight serve`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from boresight.app.config import OWN_HOSTS, Limits

TOKEN = "BORESIGHT_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve an index over HTTP: a search page, an API with its description at /docs, metrics.

    Example: boresight serve INDEX --port 8000 --comparison runs/demo
    """

    index: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight index'."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every network of this machine."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    hosts: tuple[str, ...] = ()
    """Names that the service may be asked under, as behind a proxy; left out: this machine's own while --host is one of
    them, else any."""
    token: str | None = None
    """Word that every request must bear ('Authorization: Bearer WORD'); left out: the environment variable
    BORESIGHT_TOKEN, or none."""
    comparison: Path | None = None
    """Folder with the comparison.json of a demo or comparison of the editor, for its tables; left out: none."""
    mcp: bool = False
    """Serve tools for agents (Model Context Protocol) over standard input and output instead of HTTP."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    encoder: str | None = None
    """Encoder that made the embeddings; left out: the one that the index names."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""

    def run(self) -> None:
        """Serve until stopped."""
        require_packages()
        from boresight.app.agents import agent_tools
        from boresight.app.service import Service
        from boresight.cli.sources import open_index
        from boresight.evaluation.comparison_figures import Comparison

        comparison = None if self.comparison is None else Comparison.load_json(self.comparison / "comparison.json")
        index = open_index(self.index, self.encoder, device=self.device, dtype=self.dtype)
        service = Service(index, self.limits, comparison)
        try:
            if self.mcp:
                agent_tools(service).run("stdio")
            else:
                self._serve(service)
        finally:
            service.close()

    def _serve(self, service: Any) -> None:
        from boresight.app.config import Access
        from boresight.app.server import create_app, listening, run
        from boresight.progress import say

        own = self.host in OWN_HOSTS
        token = self.token or os.environ.get(TOKEN) or None
        access = Access(token, (*self.hosts, *OWN_HOSTS) if own else self.hosts)
        bound = listening(self.host, self.port)
        if not own:
            who = "with the token" if token else f"without a token: set {TOKEN} to ask for one"
            say(f"Other machines can reach the service at {self.host}, {who}.")
        shown = f"[{self.host}]" if ":" in self.host else self.host
        index = service.index
        print(f"{index.folder}: {len(index):,} images at http://{shown}:{bound.getsockname()[1]}", flush=True)
        run(create_app(service, access), bound, self.limits.seconds)


def require_packages() -> None:
    """Raises InputError where the extra [serve] is not installed."""
    from boresight.errors import InputError

    try:
        import fastapi  # noqa: F401
        import mcp  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"The service needs {error.name}; install it: pip install 'boresight[serve]'.") from error
