"""Ranks find each other after every restart, and one of them names the rank that has died."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from forked import exit_codes, free_port, on_ranks
from torch import distributed as dist

from dalr.training.liveness import Liveness
from dalr.training.meeting import Meeting, meet

PATIENCE = timedelta(seconds=60)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a store that outlives the ranks, as torchrun has one."""
    port = free_port()
    kept = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    kept.set("dalr/hello/1", "killed-before-it-was-answered")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    yield port
    del kept


def met(rank: int, world: int, port: int, *, patience: int = 100) -> Liveness:
    os.environ["MASTER_PORT"] = str(port)
    return Liveness(meet(rank, world, patience=PATIENCE), patience=patience, second=0.1)


def lines_of(world: int, folder: Path, body: Callable[[int], None], expected: list[int]) -> list[str]:
    """What all ranks together write to standard error, until they end with the expected codes."""

    def written(rank: int) -> None:
        with (folder / f"err-{rank}").open("w") as sys.stderr:
            body(rank)

    assert exit_codes(world, folder, written) == expected
    return [line for path in sorted(folder.glob("err-*")) for line in path.read_text().splitlines()]


def test_a_killed_rank_is_named_in_one_line(launcher: int, tmp_path: Path) -> None:
    def body(rank: int) -> None:
        liveness = met(rank, 3, launcher)
        with liveness.watched():
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1)
            liveness.end("connection closed by peer")

    [line] = lines_of(3, tmp_path, body, [1, -signal.SIGKILL, 1])
    assert line.startswith("error: rank 1 (on ")
    assert "of 3 died" in line
    assert line.endswith("run the same command on every machine with --resume")


def test_a_rank_without_a_sign_of_life_is_given_up(launcher: int, tmp_path: Path) -> None:
    """No connection fails where a machine has lost its power."""

    def body(rank: int) -> None:
        liveness = met(rank, 2, launcher, patience=10)
        with liveness.watched():
            if rank == 1:
                liveness.rest()  # as if its machine had stopped
            time.sleep(5 if rank == 0 else 3)

    [line] = lines_of(2, tmp_path, body, [1, 0])
    assert line.startswith("error: rank 1 (on ")


def test_a_lost_connection_between_living_ranks(launcher: int, tmp_path: Path) -> None:
    def body(rank: int) -> None:
        liveness = met(rank, 2, launcher)
        with liveness.watched():
            liveness.end("no route to host")

    [line] = lines_of(2, tmp_path, body, [1, 1])
    assert "cannot reach the others (no route to host)" in line


def test_an_error_of_a_rank_is_the_only_line(launcher: int, tmp_path: Path) -> None:
    def body(rank: int) -> None:
        liveness = met(rank, 2, launcher)
        with liveness.watched():
            if rank == 0:
                liveness.has_spoken()
                time.sleep(1)
                return
            time.sleep(0.3)
            liveness.end("connection closed by peer")

    assert lines_of(2, tmp_path, body, [0, 1]) == []


def test_what_a_launcher_that_restarts_does_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.training.liveness import advice

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    assert "starts all ranks again from the newest resume point" in advice()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert "--resume" in advice()


def test_ranks_meet_again_although_machines_count_restarts_differently(launcher: int, tmp_path: Path) -> None:
    """The store of the launcher remembers the hello of ranks that have died."""

    def body(rank: int) -> tuple[int, bytes]:
        os.environ |= {"MASTER_PORT": str(launcher), "TORCHELASTIC_RESTART_COUNT": str(rank)}
        meeting: Meeting = meet(rank, 2, patience=PATIENCE)
        if rank == 0:
            meeting.store.set("from the first", str(meeting.attempt))
        return meeting.attempt, meeting.store.get("from the first")

    assert on_ranks(2, tmp_path, body) == [(1, b"1"), (1, b"1")]
    assert on_ranks(2, tmp_path, body) == [(2, b"2"), (2, b"2")]
