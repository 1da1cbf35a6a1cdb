"""A folder without a valid manifest does not exist for us; damage is noticed; nothing foreign is overwritten."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalr.errors import CorruptFileError, DalrError, StorageError
from dalr.io.sealed import MANIFEST, Manifest, read_manifest, remove_sealed, sweep, verify_sealed, write_sealed

FORMAT, VERSION, REMEDY = "test-things", 3, "make it again"
FILES = {"a.bin": bytes(range(100)), "model/b.txt": b"hello, world", "model/deep/c": b"x"}


def fill(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def seal(folder: Path, *, version: int = VERSION, format: str = FORMAT, **metadata: Any) -> Manifest:
    return write_sealed(folder, format=format, version=version, metadata={"rows": 24, **metadata}, fill=fill)


def read(folder: Path) -> Manifest:
    return read_manifest(folder, format=FORMAT, version=VERSION, remedy=REMEDY)


def open_and_verify(folder: Path) -> Manifest:
    manifest = read(folder)
    verify_sealed(folder, manifest, remedy=REMEDY)
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "absent": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"x",
    "first bit flipped": lambda data: flipped(data, 0),
    "middle bit flipped": lambda data: flipped(data, len(data) // 2),
    "last bit flipped": lambda data: flipped(data, len(data) - 1),
}


def test_a_sealed_folder_is_read_back(tmp_path: Path) -> None:
    written = seal(tmp_path / "s", note="ünï")
    manifest = open_and_verify(tmp_path / "s")
    assert manifest == written
    assert manifest.metadata == {"rows": 24, "note": "ünï"}
    assert {name: size for name, (size, _) in manifest.files.items()} == {n: len(d) for n, d in FILES.items()}
    assert [path.name for path in tmp_path.iterdir()] == ["s"], "no temporary folder is left"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_of_a_file_is_noticed_and_named(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "s"
    seal(folder)
    data = DAMAGES[damage](FILES[name])
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    with pytest.raises(CorruptFileError) as caught:
        open_and_verify(folder)
    assert name in str(caught.value)
    assert REMEDY in str(caught.value)
    assert caught.value.exit_code == 4
    if data is None or len(data) != len(FILES[name]):
        found = "none" if data is None else len(data)
        assert f"expected {len(FILES[name])} bytes, found {found}" in str(caught.value)


@pytest.mark.parametrize("damage", ["absent", "empty", "half", "first bit flipped", "last bit flipped"])
def test_damage_of_the_manifest_is_noticed(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "s"
    seal(folder)
    data = DAMAGES[damage]((folder / MANIFEST).read_bytes().rstrip())
    if data is None:
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_bytes(data)
    with pytest.raises(CorruptFileError, match=MANIFEST):
        open_and_verify(folder)


def test_a_changed_number_in_the_metadata_is_noticed(tmp_path: Path) -> None:
    """R2: damage of any byte. `"rows": 24` becoming 25 shifts every id against its vector."""
    folder = tmp_path / "s"
    seal(folder)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"rows": 24', '"rows": 25'))
    with pytest.raises(CorruptFileError):
        open_and_verify(folder)


def manifest_text(version: str = "1", metadata: str = "{}", files: str = "{}") -> str:
    return f'{{"format": "{FORMAT}", "version": {version}, "metadata": {metadata}, "files": {files}}}'


def file_entry(name: str = "a", size: str = "1") -> str:
    return f'{{"{name}": {{"bytes": {size}, "sha256": ""}}}}'


MALFORMED = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "no keys": "{}",
    "only a format": '{"format": "test-things"}',
    "version is a word": manifest_text(version='"x"'),
    "version of 5000 digits": manifest_text(version="9" * 5000),
    "metadata is a number": manifest_text(metadata="3"),
    "files is a list": manifest_text(files="[]"),
    "file without sha256": manifest_text(files='{"a": {"bytes": 1}}'),
    "infinite size": manifest_text(files=file_entry(size="1e999")),
    "NUL in a name": manifest_text(files=file_entry(name="a\\u0000")),
    "name of 300 letters": manifest_text(files=file_entry(name="a" * 300)),
    "nested 100,000 deep": "[" * 100_000,
    "not a character": "\ufffe",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_manifest_is_a_corrupt_file_and_nothing_worse(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CorruptFileError):
        read(tmp_path)


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A sealed folder and the bytes of its manifest."""
    folder = tmp_path_factory.mktemp("sealed") / "s"
    seal(folder)
    return folder, (folder / MANIFEST).read_bytes()


@given(data=st.data())
@settings(max_examples=300)
def test_a_mutated_manifest_raises_nothing_but_our_errors(
    sealed_once: tuple[Path, bytes], data: st.DataObject
) -> None:
    folder, whole = sealed_once
    place = data.draw(st.integers(0, len(whole) - 1))
    inserted = data.draw(st.binary(max_size=4))
    removed = data.draw(st.integers(0, 4))
    (folder / MANIFEST).write_bytes(whole[:place] + inserted + whole[place + removed :])
    with contextlib.suppress(DalrError):
        open_and_verify(folder)


def test_a_path_that_is_a_file_is_a_corrupt_folder_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorruptFileError):
        read(tmp_path / "file")


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    seal(tmp_path / "s", format="other-things")
    with pytest.raises(CorruptFileError, match="expected a test-things folder, found other-things"):
        read(tmp_path / "s")


def test_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    seal(tmp_path / "s", version=VERSION + 4)
    with pytest.raises(CorruptFileError, match=r"version 7, but this dalr reads up to 3; update dalr"):
        read(tmp_path / "s")


def test_an_older_version_is_read(tmp_path: Path) -> None:
    seal(tmp_path / "s", version=1)
    assert read(tmp_path / "s").version == 1


def foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")


def foreign_with_manifest(folder: Path) -> None:
    foreign(folder)
    (folder / MANIFEST).write_text('{"name": "a web page", "format": "chrome"}')


def sealed_otherwise(folder: Path) -> None:
    seal(folder, format="other-things")


def a_file(folder: Path) -> None:
    folder.write_text("years of work")


@pytest.mark.parametrize("occupy", [foreign, foreign_with_manifest, sealed_otherwise, a_file])
def test_what_is_not_ours_is_never_overwritten(tmp_path: Path, occupy: Callable[[Path], None]) -> None:
    target = tmp_path / "s"
    occupy(target)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match="another --out"):
        seal(target)
    assert contents(tmp_path) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    seal(tmp_path / "s")
    open_and_verify(tmp_path / "s")


def test_a_folder_of_the_same_format_is_replaced_whole(tmp_path: Path) -> None:
    def fill_less(folder: Path) -> None:
        (folder / "new").write_bytes(b"new")

    seal(tmp_path / "s")
    write_sealed(tmp_path / "s", format=FORMAT, version=VERSION, metadata={}, fill=fill_less)
    assert set(open_and_verify(tmp_path / "s").files) == {"new"}
    assert set(contents(tmp_path)) == {"s/new", f"s/{MANIFEST}"}


@pytest.mark.parametrize("failure", [ValueError("half way"), KeyboardInterrupt()])
def test_a_failure_while_filling_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    def half(folder: Path) -> None:
        fill(folder)
        raise failure

    seal(tmp_path / "s")
    before = contents(tmp_path)
    with pytest.raises(type(failure)):
        write_sealed(tmp_path / "s", format=FORMAT, version=VERSION, metadata={}, fill=half)
    assert contents(tmp_path) == before


def interrupted(monkeypatch: pytest.MonkeyPatch, operation: str, occurrence: int, write: Callable[[], Any]) -> bool:
    """Let the given occurrence of an operation fail as on a full disk; whether it came to that."""
    seen = 0
    original = getattr(os, operation)

    def faulty(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == occurrence:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, operation, faulty)
        with contextlib.suppress(StorageError):
            write()
            return False
    return True


@pytest.mark.parametrize("operation", ["mkdir", "chmod", "fsync", "replace"])
def test_a_fault_at_any_operation_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    for occurrence in range(1, 50):
        target = tmp_path / f"{operation}-{occurrence}" / "s"
        failed = interrupted(monkeypatch, operation, occurrence, lambda target=target: seal(target))
        if target.exists():
            open_and_verify(target)
        if not failed:
            open_and_verify(target)
            return
    pytest.fail("never succeeded")


@pytest.mark.parametrize("operation", ["mkdir", "chmod", "fsync", "replace"])
def test_a_fault_while_replacing_keeps_the_old_or_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    for occurrence in range(1, 50):
        target = tmp_path / f"{operation}-{occurrence}" / "s"
        seal(target, edition="old")
        failed = interrupted(monkeypatch, operation, occurrence, lambda target=target: seal(target, edition="new"))
        assert open_and_verify(target).metadata["edition"] in ("old", "new")
        if not failed:
            return
    pytest.fail("never succeeded")


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_modes_of_all_files_follow_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    def private(folder: Path) -> None:
        fill(folder)
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o600)

    before = os.umask(mask)
    try:
        write_sealed(tmp_path / "s", format=FORMAT, version=VERSION, metadata={}, fill=private)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {expected}
    assert len(files) == len(FILES) + 1


def test_the_manifest_is_written_last_and_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace

    def noted(source: Any, target: Any) -> None:
        order.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    seal(tmp_path / "s")
    assert order == [MANIFEST, "s"]
    stated = json.loads((tmp_path / "s" / MANIFEST).read_bytes())
    assert {"format", "version", "metadata", "files"} <= set(stated)


def test_every_file_and_every_folder_is_durable_before_the_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append(path.relative_to(tmp_path).as_posix())

    def named(source: Any, target: Any) -> None:
        replace(source, target)
        done.append(f"named {Path(target).name}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    seal(tmp_path / "new" / "s")
    last = done.index("named s")
    inside = {name.partition("/")[2].partition("/")[2] for name in done[:last] if name.startswith("new/")}
    assert {*FILES, "model", "model/deep", ""} <= inside
    assert done[0] == ".", "the new parent has its name for good"
    assert done[last + 1 :] == ["new"]


def test_a_folder_that_is_taken_away_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(tmp_path / "s")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed here
    remove_sealed(tmp_path / "s")
    assert not (tmp_path / "s").exists()
    monkeypatch.undo()
    (tmp_path / ".other.1234.tmp").write_text("of somebody else")
    (tmp_path / ".s.1234.txt").write_text("no leftover")
    (tmp_path / ".s.1234.tmp").write_text("half a file")
    sweep(tmp_path, "s")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.1234.tmp", ".s.1234.txt"]
    sweep(tmp_path / "absent", "s")


def test_a_file_that_cannot_be_read_is_a_corrupt_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(tmp_path / "s")

    def broken(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("dalr.io.sealed.file_sha256", broken)
    with pytest.raises(CorruptFileError, match="cannot be read"):
        open_and_verify(tmp_path / "s")
