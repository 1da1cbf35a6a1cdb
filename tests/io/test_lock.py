"""R9: one writer to a folder; a dead one's lock blocks nobody."""

from __future__ import annotations

import errno
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
from dalr.io.lock import LOCK, locked, require_unlocked, scratch_folder

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


def test_a_forked_worker_that_ends_releases_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        worker = os.fork()
        if worker == 0:
            try:
                raise SystemExit  # as an exception that reaches the end of the block would
            finally:
                os._exit(0)
        os.waitpid(worker, 0)
        with pytest.raises(StorageError, match="in use by"):
            require_unlocked(tmp_path / "run")


class TestWhatIsNoLockFile:
    """`.lock` may be anything in a folder that somebody else made, and what it leads to is never written."""

    def refused(self, folder: Path) -> str:
        texts = []
        for attempt in (lambda: locked(folder).__enter__(), lambda: require_unlocked(folder)):
            with pytest.raises(StorageError) as caught:
                attempt()
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
        assert "nothing was changed" in texts[0]
        return texts[0]

    @pytest.mark.parametrize("relative", [False, True])
    def test_a_symbolic_link(self, tmp_path: Path, relative: bool) -> None:
        (tmp_path / "thesis").write_text("years of work")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / LOCK).symlink_to("../thesis" if relative else tmp_path / "thesis")
        assert "is a symbolic link" in self.refused(tmp_path / "run")
        assert (tmp_path / "thesis").read_text() == "years of work"
        assert (tmp_path / "run" / LOCK).is_symlink()

    def test_a_symbolic_link_that_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / LOCK).symlink_to(tmp_path / "thesis")
        self.refused(tmp_path / "run")
        assert not (tmp_path / "thesis").exists()

    def test_a_hard_link(self, tmp_path: Path) -> None:
        (tmp_path / "thesis").write_text("years of work")
        (tmp_path / "run").mkdir()
        os.link(tmp_path / "thesis", tmp_path / "run" / LOCK)
        assert "2 names (hard links)" in self.refused(tmp_path / "run")
        assert (tmp_path / "thesis").read_text() == "years of work"

    def test_a_pipe_or_a_folder(self, tmp_path: Path) -> None:
        for name, make in {"pipe": os.mkfifo, "folder": os.mkdir}.items():
            (tmp_path / name).mkdir()
            make(tmp_path / name / LOCK)
            assert "not a regular file" in self.refused(tmp_path / name)

    def test_a_folder_behind_a_link_is_locked_where_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("run")
        with locked(tmp_path / "link"), pytest.raises(StorageError, match="in use by"):
            require_unlocked(tmp_path / "run")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_work_goes_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """As on some NFS and Lustre."""
    import fcntl

    from dalr.io import atomic

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(atomic, "_said", set())
    for name in ("a", "b"):
        with locked(tmp_path / name):
            (tmp_path / name / "x").write_text("x")
        require_unlocked(tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["x"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "this file system has no locks" in said[0]


SCRATCH = """
import sys, time
from pathlib import Path
from dalr.io.lock import scratch_folder
with scratch_folder(Path(sys.argv[1])) as place:
    (place / "large").write_text("x")
    print(place, flush=True)
    time.sleep(60)
"""


def test_scratch_folders_of_killed_processes_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    places = []
    processes = []
    for _ in range(2):
        command = [sys.executable, "-c", SCRATCH, str(tmp_path / "entry")]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        places.append(Path(processes[-1].stdout.readline().strip()))
    processes[0].kill()
    processes[0].wait()
    with scratch_folder(tmp_path / "entry") as own:
        assert {path.name for path in tmp_path.iterdir()} == {places[1].name, own.name}
        assert (places[1] / "large").is_file()
    processes[1].kill()
    processes[1].communicate()
    processes[0].communicate()
    with scratch_folder(tmp_path / "other"):
        pass
    assert list(tmp_path.iterdir()) == []
