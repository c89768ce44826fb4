"""The same search as tools of the Model Context Protocol, for agents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field
from starlette.routing import BaseRoute

from boresight.app.problems import Refused, log
from boresight.app.schemas import ImageId, Sentence
from boresight.app.service import Service
from boresight.app.shown import columns_of
from boresight.errors import ArtefactError, InputError
from boresight.search import Query

SHOWN = 5  # latents and pairs of an explanation that an agent is told


def agent_tools(service: Service) -> MCPServer:
    """A server of two tools, `search` and `explain`, over one service."""
    server = MCPServer("boresight", instructions="Finds images by what they show.", log_level="WARNING")

    @server.tool()
    def search(
        text: Annotated[Sentence, Field(description="What the images are to show, as a sentence.")],
        without: Annotated[Sentence | None, Field(description="What they are not to show.")] = None,
        where: Annotated[str | None, Field(description="Filter on columns: year > 2020 and place == 'Rome'.")] = None,
        k: Annotated[int, Field(ge=1, le=50, description="How many images.")] = 10,
    ) -> dict[str, Any]:
        """Images that match a sentence, best first, with their captions, columns and scores."""
        with _in_words(service):
            found = service.search(Query(text=text, without=() if without is None else without, where=where, k=k))
        results = [
            {
                "id": one.id,
                "score": round(one.score, 4),
                "plain_score": round(one.plain_score, 4),
                "captions": list(one.captions),
                "columns": columns_of(one.columns),
            }
            for one in found
        ]
        return {"matches": found.matches, "edited": found.edited, "results": results}

    @server.tool()
    def explain(
        text: Annotated[Sentence, Field(description="The sentence that was searched for.")],
        id: Annotated[ImageId, Field(description="Id of the image.")],
    ) -> dict[str, Any]:
        """Why an image has its score under a sentence: parts that sum to it, and the latents that did most."""
        with _in_words(service):
            reasons = service.explain(Query(text=text), id)
        said = reasons.terms[0].explanation
        answer: dict[str, Any] = {"id": reasons.id, "score": round(reasons.score, 4)}
        if said is None:
            return {**answer, "parts": {"cosine": answer["score"]}}
        shown = said.rounded()
        return {
            **answer,
            "plain_score": shown.plain_score,
            "parts": {name: round(part, 4) for name, part in shown.parts.items()},
            "kept": {latent.label: latent.kept for latent in shown.kept[:SHOWN]},
            "dropped": {latent.label: latent.dropped for latent in shown.dropped[:SHOWN]},
        }

    return server


def agent_routes(server: MCPServer) -> list[BaseRoute]:
    """The address /mcp, by streamable HTTP: a request, an answer, and nothing kept between them.

    `server.session_manager.run()` must be entered while it is served. Who may ask is checked before: `guard`.
    """
    checked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(stateless_http=True, json_response=True, transport_security=checked)
    return list(app.routes)


@contextlib.contextmanager
def _in_words(service: Service) -> Iterator[None]:
    """Room for the work; what goes wrong in it as a sentence for the agent."""
    try:
        with service.admitted():
            yield
    except (InputError, Refused) as error:
        raise ToolError(str(error)) from error
    except ArtefactError as error:
        log.error("%s", error)
        raise ToolError("The index cannot be read now.") from error
    except Exception as error:
        log.exception("a tool failed")
        raise ToolError("The service failed; its log says why.") from error
