"""Archives that others made: honest ones of each kind, damaged ones, and those that mean harm."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dalr.errors import DataError, StorageError
from dalr.io.unpacking import unpack

LISTED = {"MR/pos.txt": 100, "SICK/test.txt": 50}
CONTENT = {"MR/pos.txt": b"fine\n" * 20, "SICK/test.txt": b"a\tb\n"}


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive, its headers saying what they are told to."""
    made = io.BytesIO()
    for info, content in members:
        made.write(info.tobuf(format))
        made.write(content + bytes(-len(content) % 512))
    return made.getvalue() + bytes(1024)


def honest(prefix: str = "", contents: Mapping[str, bytes] = CONTENT) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(prefix + name, content) for name, content in contents.items()]


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "into"
    folder.mkdir(parents=True)
    return folder


def refused(content: bytes, into: Path, match: str, ending: str = ".tar") -> None:
    """The archive is refused in these words, and nothing was written outside the folder."""
    archive = into.parent.parent / f"a{ending}"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        unpack(archive, into, LISTED)
    assert all(problem.where == str(archive) for problem in caught.value.problems)
    assert {path.name for path in into.parent.parent.iterdir()} == {archive.name, "here"}
    assert {path.name for path in into.parent.iterdir()} == {"into"}
    assert not any(path.is_symlink() for path in into.rglob("*"))


@pytest.mark.parametrize("prefix", ["", "./", "downstream/", "SentEval/data/downstream/"])
@pytest.mark.parametrize(
    ("ending", "pack"),
    [(".tar", bytes), (".tar.gz", gzip.compress), (".tgz", gzip.compress), (".tar.bz2", bz2.compress)],
)
def test_listed_files_are_taken_wherever_they_lie_and_others_are_not(
    into: Path, ending: str, pack: Callable[[bytes], bytes], prefix: str
) -> None:
    others = [member("STS/other.txt", b"y" * 5000), member("notes", type=tarfile.SYMTYPE, linkname="/etc", size=0)]
    archive = into.parent / f"data{ending}"
    archive.write_bytes(pack(tar(*others[:1], *honest(prefix), (others[1][0], b""))))
    unpack(archive, into, LISTED)
    assert files_below(into) == CONTENT


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_format_are_read(into: Path, format: int) -> None:
    archive = into.parent / "data.tar"
    archive.write_bytes(tar(*honest("d" * 90 + "/"), format=format))
    unpack(archive, into, LISTED)
    assert files_below(into) == CONTENT


def test_modes_and_owners_of_the_archive_do_not_count(into: Path) -> None:
    archive = into.parent / "data.tar"
    archive.write_bytes(tar(member("MR/pos.txt", mode=0o6777, uid=12345, gid=12345, uname="nobody")))
    unpack(archive, into, LISTED)
    found = os.stat(into / "MR" / "pos.txt")
    assert (found.st_mode & 0o7000, found.st_uid) == (0, os.getuid())


@pytest.mark.parametrize("name", ["/MR/pos.txt", "/etc/passwd", "../MR/pos.txt", "a/../../x", "MR/../MR/pos.txt"])
def test_a_name_that_leads_out_condemns_the_archive(into: Path, name: str) -> None:
    refused(tar(member(name), *honest()), into, "leads out of the folder; nothing of this archive is taken")
    assert files_below(into) == {}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE],
)
def test_a_listed_name_of_what_is_no_regular_file_is_refused(into: Path, kind: bytes) -> None:
    info, _ = member("MR/pos.txt", b"", type=kind, linkname="../../../etc/passwd", devmajor=1, devminor=3)
    refused(tar((info, b"")), into, "expected a regular file, found a link, a device or another special one")


def test_a_link_to_a_folder_is_not_followed(into: Path) -> None:
    archive = into.parent / "data.tar"
    info, _ = member("MR", b"", type=tarfile.SYMTYPE, linkname=str(into.parent))
    archive.write_bytes(tar((info, b""), *honest()))
    unpack(archive, into, LISTED)
    assert files_below(into) == CONTENT
    assert {path.name for path in into.parent.iterdir()} == {"data.tar", "into"}


def test_a_file_that_claims_too_much_is_refused_before_it_is_written(into: Path) -> None:
    refused(
        tar(member("MR/pos.txt", bytes(101))), into, "member 'MR/pos.txt': expected at most 100 bytes, found 101"
    )
    assert files_below(into) == {}
    info, _ = member("MR/pos.txt", b"", size=1 << 40)
    refused(tar((info, b"")), into, "expected at most 100 bytes, found 1099511627776")


def test_a_sparse_file_is_refused(into: Path) -> None:
    sparse = tarfile.TarInfo("MR/pos.txt")
    sparse.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99", "GNU.sparse.numblocks": "1"}
    refused(tar((sparse, b""), format=tarfile.PAX_FORMAT), into, "expected a regular file|damaged")


@pytest.mark.parametrize("again", ["MR/pos.txt", "other/MR/pos.txt"])
def test_a_file_that_comes_twice_is_refused(into: Path, again: str) -> None:
    refused(tar(*honest(), member(again)), into, "MR/pos.txt is in the archive twice")


def test_a_bomb_of_gzip_is_refused_before_it_is_read(into: Path) -> None:
    info, _ = member("STS/zeros", b"", size=1 << 42)
    refused(gzip.compress(tar((info, b""), *honest())), into, "more than 4294967296 bytes once unpacked", ".tar.gz")


def test_a_bomb_of_many_members_is_refused(into: Path) -> None:
    archive = into.parent / "data.tar.gz"
    archive.write_bytes(gzip.compress(tar(*[member(f"zeros-{n}", bytes(4096)) for n in range(100)])))
    with pytest.raises(DataError, match="more than 100000 bytes once unpacked"):
        unpack(archive, into, LISTED, most_bytes=100_000)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [1 << 30, -1024, -1])
def test_a_header_that_would_fill_the_memory_is_refused(into: Path, kind: bytes, size: int) -> None:
    info, _ = member("name", b"", type=kind, size=size)
    refused(tar((info, b"")), into, r"a header of -?\d+ bytes|damaged")


def test_a_negative_size_does_not_run_in_circles(into: Path) -> None:
    info, _ = member("STS/other", b"", size=-512)
    refused(tar(*honest(), (info, b"")), into, "a negative size; the archive is damaged or forged")


def test_headers_inside_headers_come_to_an_end(into: Path) -> None:
    info, content = member("././@LongLink", b"name\0", type=tarfile.GNUTYPE_LONGNAME)
    refused(tar(*[(info, content)] * 3000), into, "damaged or no tar archive")


@pytest.mark.parametrize("content", [b"", b"no archive", b"x" * 5000, b"<html>" + b" " * 1000])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2"])
def test_what_is_no_archive_is_said_to_be_none(into: Path, content: bytes, ending: str) -> None:
    refused(content, into, "damaged", ending)


@pytest.mark.parametrize(
    ("ending", "pack"), [(".tar", bytes), (".tar.gz", gzip.compress), (".tar.bz2", bz2.compress)]
)
def test_an_archive_cut_short_within_a_file_is_damaged(
    into: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(tar(*honest(), member("MR/rest", os.urandom(9000))))
    refused(packed[: len(packed) - 9000], into, "damaged", ending)


@pytest.mark.parametrize("name", ["data.zip", "data.tar.xz", "data"])
def test_other_archives_are_left_to_the_user(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=r"expected one of \.tar, \.tar\.gz.*; unpack any other yourself"):
        unpack(tmp_path / name, tmp_path, LISTED)


def test_an_archive_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.tar"):
        unpack(tmp_path / "data.tar", tmp_path, LISTED)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(tar(*honest()))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        unpack(tmp_path / "data.tar", tmp_path / "file", LISTED)
