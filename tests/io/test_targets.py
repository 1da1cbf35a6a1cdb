"""Where a file is written to: links keep their names, devices and pipes are written into, folders are refused."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dalr.errors import StorageError
from dalr.io import atomic
from dalr.io.atomic import make_folders, write_bytes, write_json, write_text, write_with

SCRIPT = """
import sys
from pathlib import Path
from dalr.io.atomic import write_json
print("before")
write_json(Path(sys.argv[1]), {"a": 1})
print("after")
"""
WRITTEN = 'before\n{\n  "a": 1\n}\nafter\n'


def save_arrays(path: Path) -> None:
    from safetensors.numpy import save_file

    write_with(path, lambda temporary: save_file({"x": np.ones(3, np.float32)}, temporary))


WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, ["new"]),
    "safetensors": save_arrays,
}


def expected(writer: str, folder: Path) -> bytes:
    """What a writer leaves in a plain file."""
    WRITERS[writer](folder / "plain")
    return (folder / "plain").read_bytes()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def device(tmp_path: Path) -> Callable[[int, int, int], Path]:
    """Make a node in the temporary folder; where that is not allowed, there is nothing to test."""

    def make(kind: int, major: int, minor: int) -> Path:
        path = tmp_path / "nodes" / f"node-{major}-{minor}"
        path.parent.mkdir(exist_ok=True)
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
            os.close(os.open(path, os.O_WRONLY)) if kind == stat.S_IFCHR else None
        except OSError as error:
            pytest.skip(f"no device nodes here: {error.strerror}")
        return path

    return make


@pytest.mark.parametrize("writer", WRITERS)
def test_a_device_is_written_into_and_stays_a_device(
    device: Callable[[int, int, int], Path], tmp_path: Path, writer: str
) -> None:
    null = device(stat.S_IFCHR, 1, 3)
    WRITERS[writer](null)
    assert stat.S_ISCHR(os.lstat(null).st_mode)
    assert names(null.parent) == {null.name}
    link = tmp_path / "link"
    link.symlink_to(null)
    WRITERS[writer](link)
    assert link.is_symlink()
    assert stat.S_ISCHR(os.stat(link).st_mode)


def test_a_full_device_is_a_storage_error(device: Callable[[int, int, int], Path]) -> None:
    full = device(stat.S_IFCHR, 1, 7)
    with pytest.raises(StorageError, match="no space left writing"):
        write_text(full, "x" * 100_000)
    assert stat.S_ISCHR(os.lstat(full).st_mode)


def test_a_disk_is_not_overwritten(device: Callable[[int, int, int], Path]) -> None:
    disk = device(stat.S_IFBLK, 7, 250)
    with pytest.raises(StorageError, match="is a block device"):
        write_text(disk, "x")
    assert stat.S_ISBLK(os.lstat(disk).st_mode)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path: Path, writer: str, linked: bool) -> None:
    whole = expected(writer, tmp_path)
    pipe = tmp_path / "pipes" / "pipe"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    target = tmp_path / "link" if linked else pipe
    if linked:
        target.symlink_to(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    WRITERS[writer](target)
    reader.join()
    assert read == [whole]
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)
    assert names(pipe.parent) == {"pipe"}
    assert target.is_symlink() == linked


def test_more_than_a_pipe_holds_comes_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_bytes(tmp_path / "pipe", bytes(1_000_000))
    reader.join()
    assert read == [bytes(1_000_000)]


def test_a_pipe_that_nobody_reads_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(atomic, "READER_SECONDS", 0.2)
    with pytest.raises(StorageError, match="nobody has read from"):
        write_text(tmp_path / "pipe", "x")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(StorageError, match="is a socket"):
            write_text(tmp_path / "socket", "x")
    assert names(tmp_path) == {"socket"}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("there", ["old", None], ids=["replaced", "dangling"])
def test_the_target_of_a_link_is_written_and_the_link_stays(tmp_path: Path, writer: str, there: str | None) -> None:
    whole = expected(writer, tmp_path)
    target = tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    if there is not None:
        target.write_text(there)
    (tmp_path / "links").mkdir()
    first, second = tmp_path / "links" / "first", tmp_path / "links" / "second"
    first.symlink_to("second")
    second.symlink_to(os.path.relpath(target, second.parent))
    WRITERS[writer](first)
    assert first.is_symlink()
    assert second.is_symlink()
    assert target.read_bytes() == whole
    assert names(target.parent) == {"target"}
    assert names(first.parent) == {"first", "second"}


def test_a_loop_of_links_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "a", "x")
    assert names(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_is_refused_in_words(tmp_path: Path, linked: bool) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / ("link" if linked else "folder")
    if linked:
        target.symlink_to("folder")
    with pytest.raises(StorageError, match="is a folder; expected the name of a file"):
        write_text(target, "x")
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to", ["file", "pipe", "appended"])
def test_standard_output_gets_the_content_in_its_place(tmp_path: Path, name: str, to: str) -> None:
    """A redirected output is a regular file; replaced or opened anew, it would lose what else is said."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        name = str(tmp_path / "link")
    command = [sys.executable, "-c", SCRIPT, name]
    if to == "pipe":
        assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == WRITTEN
        return
    log = tmp_path / "log"
    log.write_text("earlier\n" if to == "appended" else "")
    with open(log, "a" if to == "appended" else "w") as stream:
        subprocess.run(command, stdout=stream, check=True)
    assert log.read_text() == ("earlier\n" if to == "appended" else "") + WRITTEN


def test_a_folder_behind_a_link_that_leads_nowhere_is_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere/target")
    make_folders(tmp_path / "link")
    assert (tmp_path / "elsewhere" / "target").is_dir()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_of_folders_is_written_to_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """As CIFS, vboxsf and some FUSE file systems are."""
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    monkeypatch.setattr(atomic, "_said", set())
    for name in ("x", "y", "new/z"):
        write_text(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: ")
    assert "cannot make the names in a folder durable" in said[0]


def test_a_folder_whose_fsync_fails_otherwise_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="Input/output error"):
        write_text(tmp_path / "x", "x")


class TestNoInodes:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of few files and much space, filled with files."""
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=6", "tmpfs", str(folder)]
        try:
            if subprocess.run(command, capture_output=True).returncode != 0:
                pytest.skip("a tmpfs cannot be mounted here")
        except OSError:
            pytest.skip("there is no mount here")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def fill(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            for number in range(20):
                (folder / str(number)).write_text("")

    def test_a_disk_with_space_and_no_inodes_is_not_called_full(self, small: Path) -> None:
        self.fill(small)
        with pytest.raises(StorageError, match="no free inodes") as caught:
            write_text(small / "x", "x")
        assert "no space left" not in str(caught.value)
        assert caught.value.exit_code == 6

    def test_nor_while_a_sealed_folder_is_filled(self, small: Path) -> None:
        from dalr.io.sealed import write_sealed

        def fill(folder: Path) -> None:
            for number in range(20):
                (folder / str(number)).write_text("x")

        with pytest.raises(StorageError, match="no free inodes"):
            write_sealed(small / "s", format="test", version=1, metadata={}, fill=fill)
        assert list(small.iterdir()) == []

    @pytest.mark.parametrize(
        ("files", "free_files", "free_blocks", "words"),
        [(1000, 0, 50, "no free inodes"), (1000, 5, 0, "no space left"), (0, 0, 50, "no space left")],
        ids=["no inodes", "no bytes", "a file system that counts no inodes"],
    )
    def test_what_the_disk_says_decides(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        files: int,
        free_files: int,
        free_blocks: int,
        words: str,
    ) -> None:
        stated = os.statvfs_result(
            (4096, 4096, 100, free_blocks, free_blocks, files, free_files, free_files, 0, 255)
        )
        monkeypatch.setattr(os, "statvfs", lambda _: stated)

        def refuse(_: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(StorageError, match=words):
            write_with(tmp_path / "x", refuse)
