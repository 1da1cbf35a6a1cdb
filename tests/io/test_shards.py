"""Tar shards are read in place, and what no honest shard holds is named with its place."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from dalr.errors import DataError
from dalr.io.shards import Member, members, read_member, shard_paths, write_shard

FILES = [("a.jpg", b"\xff\xd8" * 300), ("a.txt", b"a dog"), ("b.jpg", b""), ("b.txt", b"two cats")]


def shard_of(path: Path, *infos: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in infos:
            tar.addfile(info, io.BytesIO(data))
    return path


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **more: str) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    for key, value in more.items():
        setattr(found, key, value)
    return found


def test_members_are_read_where_they_lie(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", FILES)
    found = list(members(tmp_path / "s.tar"))
    assert [(each.name, read_member(each, most=1_000)) for each in found] == FILES
    data = (tmp_path / "s.tar").read_bytes()
    assert [data[each.offset : each.offset + each.size] for each in found] == [content for _, content in FILES]


def test_any_tar_program_reads_what_is_written_and_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    long = [*FILES, ("f" * 120 + "/é.txt", b"x")]
    write_shard(tmp_path / "one.tar", long)
    write_shard(tmp_path / "two.tar", iter(long))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert tar.getnames() == [name for name, _ in long]
    assert [each.name for each in members(tmp_path / "one.tar")] == [name for name, _ in long]


def test_folders_are_passed_over(tmp_path: Path) -> None:
    path = shard_of(tmp_path / "s.tar", (info("f", kind=tarfile.DIRTYPE), b""), (info("f/a.txt", 1), b"a"))
    assert [each.name for each in members(path)] == ["f/a.txt"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused_with_their_offset(tmp_path: Path, kind: bytes) -> None:
    path = shard_of(
        tmp_path / "s.tar", (info("a.txt", 1), b"a"), (info("b.txt", kind=kind, linkname="/etc/passwd"), b"")
    )
    with pytest.raises(DataError, match=r"s\.tar: member 'b\.txt' at byte 1024: expected a regular file"):
        list(members(path))


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    sparse = info("a.jpg", 0)
    sparse.pax_headers = {"GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,1"}
    with pytest.raises(DataError, match=r"expected a regular file|damaged"):
        list(members(shard_of(tmp_path / "s.tar", (sparse, b""))))


@pytest.mark.parametrize("size", [2**33 - 1, 4096, 1024])
def test_more_bytes_than_the_shard_has_are_refused(tmp_path: Path, size: int) -> None:
    header = info("a.jpg", size).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "s.tar").write_bytes(header + b"x" * 512)
    with pytest.raises(DataError, match=r"s\.tar.*(of which the shard holds 512|damaged)"):
        list(members(tmp_path / "s.tar"))


@pytest.mark.parametrize("size", [-1, -512, -(2**20)])
def test_sizes_that_lead_backwards_end_the_reading(tmp_path: Path, size: int) -> None:
    first, second = info("a.txt", 1).tobuf(), bytearray(info("b.txt", 0).tobuf())
    second[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    second[148:156] = b" " * 8
    second[148:156] = b"%06o\0 " % (sum(second))
    (tmp_path / "s.tar").write_bytes(first + b"a".ljust(512, b"\0") + bytes(second) + b"\0" * 1024)
    with pytest.raises(DataError, match=r"s\.tar"):
        list(members(tmp_path / "s.tar"))


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = info("x", 2**32, tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
    with open(tmp_path / "s.tar", "wb") as file:
        file.write(header)
        file.truncate(2**32 + 2048)
    with pytest.raises(DataError, match="damaged"):
        list(members(tmp_path / "s.tar"))


def test_every_cut_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", FILES)
    data = (tmp_path / "s.tar").read_bytes()
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    for length in range(1, end + 511, 37):
        (tmp_path / "cut.tar").write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut\.tar"):
            list(members(tmp_path / "cut.tar"))


def test_a_header_that_was_changed_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", FILES)
    data = bytearray((tmp_path / "s.tar").read_bytes())
    start = next(each for each in members(tmp_path / "s.tar") if each.name == "a.txt").offset - 512
    for place in (*range(start, start + 5), *range(start + 124, start + 155)):
        changed = bytearray(data)
        changed[place] ^= 0x05
        (tmp_path / "changed.tar").write_bytes(changed)
        with pytest.raises(DataError, match=r"changed\.tar.*byte"):
            list(members(tmp_path / "changed.tar"))


def test_what_is_no_tar_file_says_what_it_is(tmp_path: Path) -> None:
    for content, message in (
        (b"no tar " * 100, "no tar file"),
        (b"", "no tar file"),
        (gzip.compress(b"x"), "gunzip"),
    ):
        (tmp_path / "s.tar").write_bytes(content)
        with pytest.raises(DataError, match=message):
            list(members(tmp_path / "s.tar"))
    with pytest.raises(DataError, match="no such file"):
        list(members(tmp_path / "missing.tar"))
    (tmp_path / "s.tar").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="LFS"):
        list(members(tmp_path / "s.tar"))


def test_a_member_that_is_too_large_or_gone_is_not_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", FILES)
    first = next(members(tmp_path / "s.tar"))
    with pytest.raises(DataError, match="600 bytes, more than the 599 allowed"):
        read_member(first, most=599)
    (tmp_path / "s.tar").write_bytes(b"")
    with pytest.raises(DataError, match="has changed meanwhile"):
        read_member(first, most=600)
    with pytest.raises(DataError, match="no such file"):
        read_member(Member(shard=tmp_path / "gone.tar", name="a", offset=0, size=1), most=1)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s.tar", ["s.tar"]),
        ("s/{000..002}.tar", ["s/000.tar", "s/001.tar", "s/002.tar"]),
        ("{9..11}.tar", ["9.tar", "10.tar", "11.tar"]),
        ("{a,b}-{1..2}.tar", ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]),
    ],
)
def test_patterns_name_shards_as_a_shell_does(pattern: str, expected: list[str]) -> None:
    assert shard_paths(Path(pattern)) == list(map(Path, expected))


@pytest.mark.parametrize(
    "pattern",
    ["{1..}.tar", "{3..1}.tar", "{}.tar", "{1..3.tar", "1}.tar", "{a}.tar", "{1..2..3}.tar", "{{1..2}}.tar"],
)
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(DataError, match=r"expected|braces"):
        shard_paths(Path(pattern))


def test_patterns_do_not_explode_and_name_nothing_twice() -> None:
    for pattern, message in (
        ("{0..999999999}.tar", "at most 1000000"),
        ("{0..9999}{0..9999}.tar", "100000000 shards"),
        ("{a,a}.tar", "twice"),
    ):
        with pytest.raises(DataError, match=message):
            shard_paths(Path(pattern))
