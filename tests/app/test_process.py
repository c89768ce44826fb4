"""The service as a process of its own, from its command line to the signal that ends it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from boresight.evaluation.comparison_figures import Comparison, HeldOut
from boresight.evaluation.comparison_rows import EDITED, PLAIN
from boresight.evaluation.retrieval import RECALLS
from boresight.evaluation.verdict import Verdict
from command_line import ENVIRONMENT, refused


@contextmanager
def served(index: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process, and its address."""
    command = [sys.executable, "-m", "boresight", "serve", str(index), "--port", "0", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**ENVIRONMENT, **environment}, **pipes)  # type: ignore[call-overload]
    try:
        line = process.stdout.readline()
        assert "60 images at http://127.0.0.1:" in line, process.stderr.read()
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Of two rows and two seeds, written as a demo does."""
    figures = {
        row.name: {seed: {measure: float(value) for measure in RECALLS} for seed, value in values.items()}
        for row, values in ((PLAIN, {"-": 10}), (EDITED, {"0": 20, "1": 22}))
    }
    verdict = Verdict("helps", "plain", 126.0, 60.0, 66.0, 60.0, 70.0, "The edit helps.", ("Few images.",))
    made = Comparison(
        (PLAIN, EDITED), (HeldOut("test", 60, 180),), (0, 1), {"test": figures}, verdicts={"test": verdict}
    )
    made.save_json(tmp_path / "comparison.json")
    assert Comparison.load_json(tmp_path / "comparison.json").verdicts == made.verdicts
    return made


def test_from_the_command_line_to_its_end(scenes_index: Path, comparison: Comparison, tmp_path: Path) -> None:
    with served(scenes_index, "--comparison", str(tmp_path), BORESIGHT_TOKEN="word") as (process, address):
        with httpx.Client(base_url=address, headers={"Authorization": "Bearer word"}, timeout=60) as web:
            assert httpx.get(f"{address}/api/info").status_code == 401
            assert web.get("/api/info").json()["comparison"] is True
            said = web.get("/api/verdict").json()
            (test,) = said["tests"]
            assert (test["word"], test["sentence"], test["warnings"]) == ("helps", "The edit helps.", ["Few images."])
            assert [(row["name"], row["values"]) for row in test["rows"]] == [("plain", [10] * 6), ("edited", [21] * 6)]
            assert len(web.post("/api/search", json={"text": "a ring", "k": 3}).json()["results"]) == 3
            assert "<html" in web.get("/").text
        headers = {"Authorization": "Bearer word"}
        body = {"text": "a red circle", "id": "scene-20", "method": "occlusion"}
        with ThreadPoolExecutor(6) as threads:  # one after the other there
            drawn = [
                threads.submit(httpx.post, f"{address}/api/heatmap", json=body, headers=headers, timeout=60)
                for _ in range(6)
            ]
            while "boresight_in_flight 7.0" not in httpx.get(f"{address}/metrics", headers=headers).text:
                assert not drawn[-1].done()
            process.send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in drawn] == [200] * 6  # all were in flight
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_agents_over_standard_input(scenes_index: Path) -> None:
    async def ask():
        arguments = ["-m", "boresight", "serve", str(scenes_index), "--mcp"]
        server = StdioServerParameters(command=sys.executable, args=arguments, env=ENVIRONMENT)
        async with Client(stdio_client(server)) as client:
            return await client.call_tool("search", {"text": "a ring", "k": 2})

    assert len(json.loads(anyio.run(ask).content[0].text)["results"]) == 2


def test_what_cannot_be_served(scenes_index: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused("serve", scenes_index, "--port", taken.getsockname()[1], cwd=tmp_path)
    assert re.search(r"Cannot listen on 127.0.0.1:\d+ \(Address already in use\); choose another --port", said)
    assert "comparison.json cannot be read" in refused("serve", scenes_index, "--comparison", tmp_path, cwd=tmp_path)
    assert "no boresight index" in refused("serve", tmp_path, cwd=tmp_path)
    assert "k is 0; it must be at least 1" in refused("serve", scenes_index, "--k", 0, cwd=tmp_path)
