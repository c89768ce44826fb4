"""Processes that train together, forked from one that has imported all they need: imports are most of a start."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess


def start_together(world: int, run: Callable[[], object]) -> list[ForkProcess]:
    """`world` processes that call `run` and find one another by the environment, as those that torchrun starts do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def as_rank(rank: int) -> None:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        place |= {"RANK": rank, "LOCAL_RANK": rank}
        os.environ.update({name: str(value) for name, value in place.items()})
        run()

    started = [multiprocessing.get_context("fork").Process(target=as_rank, args=(rank,)) for rank in range(world)]
    for process in started:
        process.start()
    return started


def exit_codes(started: list[ForkProcess]) -> list[int | None]:
    """Waits for all; where one fails, for which the others would wait, they are ended."""
    running = {process.sentinel: process for process in started}
    while running:
        for sentinel in wait(list(running)):
            running.pop(sentinel).join()
        if any(process.exitcode for process in started):
            for process in running.values():
                process.terminate()
    return [process.exitcode for process in started]
