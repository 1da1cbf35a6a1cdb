"""Downloads: complete, cut short and resumed, refused, and every way in which a server can be wrong."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalr.errors import DataError, StorageError
from dalr.io.download import UnreachableError, download
from file_server import FileServer, serve

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve({"data/a.txt": CONTENT}) as served:
        yield served


def fetch(server: FileServer, path: Path, **options: object) -> None:
    download(f"{server.address}/data/a.txt", path, wait=0.0, **options)  # type: ignore[arg-type]


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def unlike(expected: bytes):  # type: ignore[no-untyped-def]
    return lambda part: None if part.read_bytes() == expected else "the content differs"


def test_a_file_arrives_whole_with_progress_and_nothing_beside_it(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(server, tmp_path / "new" / "a.txt", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "new" / "a.txt").read_bytes() == CONTENT
    assert only(tmp_path / "new") == ["a.txt"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.ranges_asked == [None]


def test_a_transfer_cut_short_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    server.cuts.extend([1000, 2000])
    fetch(server, tmp_path / "a.txt", refuse=unlike(CONTENT))
    assert (tmp_path / "a.txt").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=1000-", "bytes=3000-"]
    assert only(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("tags", [True, False])
def test_another_process_goes_on_with_the_part(server: FileServer, tmp_path: Path, tags: bool) -> None:
    server.tags = tags
    server.cuts.extend([100, 100, 100, 100])
    with pytest.raises(UnreachableError, match=r"cut short: 400 of 10240 bytes arrived \(after 4 attempts\)"):
        fetch(server, tmp_path / "a.txt")
    assert (tmp_path / "a.txt.part").read_bytes() == CONTENT[:400]
    assert not (tmp_path / "a.txt").exists()
    server.asked.clear()
    fetch(server, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == CONTENT
    assert server.ranges_asked == ["bytes=400-"]
    assert only(tmp_path) == ["a.txt"]


def test_the_rest_of_another_version_is_not_appended(server: FileServer, tmp_path: Path) -> None:
    server.cuts.extend([100] * 4)
    with pytest.raises(UnreachableError):
        fetch(server, tmp_path / "a.txt")
    server.files["data/a.txt"] = b"new" * 5000
    fetch(server, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"new" * 5000


def test_a_server_without_ranges_is_read_from_the_beginning(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts.append(1000)
    fetch(server, tmp_path / "a.txt", refuse=unlike(CONTENT))
    assert (tmp_path / "a.txt").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=1000-"]


def test_a_refused_content_is_an_error_at_once_and_leaves_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data/a.txt: the content differs$"):
        fetch(server, tmp_path / "a.txt", refuse=unlike(b"something else"))
    assert only(tmp_path) == []
    assert server.ranges_asked == [None]


def test_a_part_that_was_damaged_is_fetched_once_more(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt.part").write_bytes(b"x" * 500)
    fetch(server, tmp_path / "a.txt", refuse=unlike(CONTENT))
    assert (tmp_path / "a.txt").read_bytes() == CONTENT
    assert server.ranges_asked == ["bytes=500-", None]


def test_a_part_that_is_complete_is_only_checked(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "a.txt", refuse=unlike(CONTENT))
    assert (tmp_path / "a.txt").read_bytes() == CONTENT
    assert server.ranges_asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt.part").write_bytes(CONTENT + b"more")
    fetch(server, tmp_path / "a.txt", refuse=unlike(CONTENT))
    assert (tmp_path / "a.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_said_at_once(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses.append(status)
    with pytest.raises(DataError, match=f"the server answers {status} ") as caught:
        fetch(server, tmp_path / "a.txt")
    assert not isinstance(caught.value, UnreachableError)
    assert len(server.asked) == 1
    assert only(tmp_path) == []


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses.extend([503, 429])
    fetch(server, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.statuses.extend([503] * 9)
    with pytest.raises(UnreachableError, match=r"the server answers 503 .* \(after 3 attempts\)"):
        fetch(server, tmp_path / "a.txt", attempts=3)
    assert len(server.asked) == 3


def test_nobody_there_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/a.txt"
        with pytest.raises(UnreachableError, match="no connection: "):
            download(address, tmp_path / "a.txt", wait=0.0)


def test_an_unknown_host_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def unknown(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError, match="no such host, or no connection to the internet"):
        download("http://data.invalid/a.txt", tmp_path / "a.txt", wait=0.0)
    assert len(calls) == 1


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://host/a", "a.txt", ""])
def test_only_web_addresses_are_opened(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match="begins with https:// or http://"):
        download(address, tmp_path / "a.txt")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_a_redirect_out_of_the_web_is_refused(server: FileServer, tmp_path: Path, target: str) -> None:
    server.redirects = {"data/a.txt": target}
    with pytest.raises(DataError, match=target):
        fetch(server, tmp_path / "a.txt")
    assert only(tmp_path) == []


def test_the_checksum_that_a_redirect_states_is_held(server: FileServer, tmp_path: Path) -> None:
    server.redirects = {"hub": f"{server.address}/data/a.txt"}
    server.stated_sha256 = hashlib.sha256(CONTENT).hexdigest()
    download(f"{server.address}/hub", tmp_path / "good", wait=0.0)
    assert (tmp_path / "good").read_bytes() == CONTENT
    server.stated_sha256 = "0" * 64
    with pytest.raises(DataError, match="the server stated 000000000000"):
        download(f"{server.address}/hub", tmp_path / "bad", wait=0.0, attempts=2)
    assert only(tmp_path) == ["good"]


def test_a_place_that_cannot_be_written_is_a_storage_error(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        fetch(server, tmp_path / "file" / "a.txt")
