"""Ranks of a test: forks of its process, which need not import torch again."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

SECONDS = 120


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def on_ranks(world: int, folder: Path, body: Callable[[int], Any]) -> list[Any]:
    """What `body(rank)` returns on so many ranks, each with the environment that a launcher gives it.

    It gets there through a file below `folder`.
    """
    results = Path(mkdtemp(dir=folder))

    def kept(rank: int) -> None:
        torch.save(body(rank), results / f"result-{rank}.pt")

    assert exit_codes(world, folder, kept) == [0] * world
    return [torch.load(results / f"result-{rank}.pt", weights_only=False) for rank in range(world)]


def exit_codes(world: int, folder: Path, body: Callable[[int], Any]) -> list[int | None]:
    """How so many ranks end that run `body(rank)`; an exception in it fails the test."""
    port, failures = free_port(), Path(mkdtemp(dir=folder))
    context = multiprocessing.get_context("fork")
    started = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which wait for work that nobody gives
        for rank in range(world):
            process = context.Process(target=_rank, args=(rank, world, port, failures, body))
            process.start()
            started.append(process)
    for process in started:
        process.join(SECONDS)
        process.kill()
        process.join()
    failed = [path.read_text() for path in sorted(failures.iterdir())]
    assert not failed, failed[0]
    return [process.exitcode for process in started]


def _rank(rank: int, world: int, port: int, folder: Path, body: Callable[[int], Any]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        body(rank)
    except BaseException:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
        raise
