"""The tools of agents, through the client of the Model Context Protocol."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from boresight.app import Service, create_app
from boresight.app.agents import agent_tools
from boresight.search import Query


def asked(service: Service, tool: str, **arguments: object):
    async def ask():
        async with Client(agent_tools(service)) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(ask)


def told(answer) -> dict:
    assert not answer.is_error, answer
    return json.loads(answer.content[0].text)


def test_search(service: Service) -> None:
    said = told(asked(service, "search", text="a red circle", without="a heart", where="year > 2005", k=3))
    own = service.index.search("a red circle", without="a heart", where="year > 2005", k=3)
    assert [one["id"] for one in said["results"]] == [one.id for one in own]
    assert [one["captions"] for one in said["results"]] == [list(one.captions) for one in own]
    assert said["results"][0]["score"] == pytest.approx(own[0].score, abs=1e-4)
    assert (said["matches"], said["edited"]) == (own.matches, True)


def test_explain(service: Service) -> None:
    said = told(asked(service, "explain", text="a red circle", id="../x"))
    own = service.index.explain(Query(text="a red circle"), "../x")
    assert said["score"] == pytest.approx(own.score, abs=1e-4)
    assert sum(said["parts"].values()) == pytest.approx(said["score"], abs=2e-4)
    assert len(said["kept"]) == 5


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("search", {"text": " "}, "text is empty"),
        ("search", {"text": "a", "where": "nothing == 3"}, "no column 'nothing'"),
        ("search", {"text": "a", "k": 500}, "k"),
        ("explain", {"text": "a", "id": "nobody"}, "The index has no image of this id."),
    ],
)
def test_what_cannot_be_is_a_sentence(service: Service, tool: str, arguments: dict, sentence: str) -> None:
    answer = asked(service, tool, **arguments)
    assert answer.is_error
    assert sentence in answer.content[0].text
    assert "Traceback" not in answer.content[0].text


def test_over_http(service: Service) -> None:
    app = create_app(service)

    async def ask():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport) as web,
            Client(streamable_http_client("http://localhost/mcp", http_client=web)) as client,
        ):
            return await client.list_tools(), await client.call_tool("search", {"text": "a ring", "k": 2})

    tools, answer = anyio.run(ask)
    assert {tool.name for tool in tools.tools} == {"search", "explain"}
    assert len(told(answer)["results"]) == 2
