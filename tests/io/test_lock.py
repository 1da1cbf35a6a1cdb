"""R9: one writer to a folder; a dead one's lock blocks nobody."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalr.errors import StorageError
from dalr.io.lock import LOCK, locked, require_unlocked

HOLD = """
import os, sys, time
from pathlib import Path
from dalr.io.lock import locked
with locked(Path(sys.argv[1])):
    here, there = os.pipe()
    worker = os.fork() if "fork" in sys.argv else 1
    if worker == 0:
        os.write(there, b"1")  # forking is over: what a child does after it has been done
        time.sleep(60)
    if worker > 1:
        os.read(here, 1)
    print(worker, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lock of `tmp_path/run`, and the id of its forked worker."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), *getattr(request, "param", ())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        yield process, worker
        process.kill()
        if worker > 1:
            os.kill(worker, signal.SIGKILL)


def test_the_second_is_refused_at_once_by_process_and_host(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], int]
) -> None:
    started = time.monotonic()
    for attempt in (lambda: locked(tmp_path / "run").__enter__(), lambda: require_unlocked(tmp_path / "run")):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert f"in use by process {holder[0].pid} on {socket.gethostname()}" in str(caught.value)
        assert caught.value.exit_code == 6
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("holder", [(), ("fork",)], indirect=True)
def test_a_killed_process_and_its_workers_block_nobody(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], int]
) -> None:
    holder[0].send_signal(signal.SIGKILL)
    holder[0].wait()
    assert (tmp_path / "run" / LOCK).is_file()
    require_unlocked(tmp_path / "run")
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_bytes())["pid"] == os.getpid()


def test_the_lock_is_gone_afterwards_and_can_be_had_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "run"):
            assert (tmp_path / "run" / LOCK).is_file()
        assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(ValueError, match="x"), locked(tmp_path / "run"):
        raise ValueError("x")
    with locked(tmp_path / "run"):
        pass


def test_a_holder_that_has_not_yet_said_who_it_is(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / LOCK).write_text("")
        with pytest.raises(StorageError, match="in use by another process"), locked(tmp_path):
            pass


def test_a_lock_that_its_holder_removes_meanwhile_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, its holder may end and remove it: that lock would guard nothing."""
    import fcntl

    flock = fcntl.flock
    calls = []

    def late(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / LOCK).is_file()
        with pytest.raises(StorageError):
            require_unlocked(tmp_path)
