"""The cache: where it is, what it holds, and that cleaning takes nothing else with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dalr.errors import CorruptFileError
from dalr.io.cache import cache_folder, cache_root, cache_use, cached, clean_cache


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("DALR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "dalr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "dalr"


def test_an_absent_cache_is_empty(fresh_cache: Path) -> None:
    assert cache_use() == []
    clean_cache()
    assert not fresh_cache.exists()


def test_entries_and_bytes_are_counted_by_kind_and_cleaned(fresh_cache: Path) -> None:
    for entry in ("a", "b"):
        (cache_folder("tokens") / entry).mkdir(parents=True)
        (cache_folder("tokens") / entry / "tokens.npy").write_bytes(bytes(100))
    [use] = cache_use()
    assert (use.kind, use.entries, use.bytes) == ("tokens", 2, 200)
    clean_cache()
    assert cache_use() == []


def test_cleaning_takes_only_what_dalr_put_there(fresh_cache: Path) -> None:
    """$DALR_CACHE may be set to a folder that holds other things, such as /data or a home folder."""
    (fresh_cache / "photos").mkdir(parents=True)
    (fresh_cache / "photos" / "wedding.jpg").write_bytes(b"irreplaceable")
    (cache_folder("tokens") / "x").mkdir(parents=True)
    clean_cache()
    assert (fresh_cache / "photos" / "wedding.jpg").exists()
    assert not cache_folder("tokens").exists()


ENTRIES = """
import sys
import subprocess
import sys
from pathlib import Path
from dalr.io.cache import cached
from dalr.io.sealed import read_manifest, verify_sealed, write_sealed

root, entries = Path(sys.argv[1]), int(sys.argv[2])
FORMAT = dict(format="test-entry", version=1)

def read(folder):
    manifest = read_manifest(folder, remedy="make it again", **FORMAT)
    verify_sealed(folder, manifest, remedy="make it again")
    return (folder / "a").read_text()

def fill(folder):
    for name in "abc":
        (folder / name).write_text(folder.parent.name + name * 1000)

sys.stdin.readline()
for number in range(entries):
    folder = root / f"entry-{number}"
    text = cached(folder, read=read, write=lambda place: write_sealed(place, metadata={}, fill=fill, **FORMAT))
    assert text.endswith("a" * 1000), text
    assert read(folder).endswith("a" * 1000)
print("all read")
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_make_the_same_entries_at_once_all_get_them(tmp_path: Path, damaged: bool) -> None:
    entries = 60
    if damaged:
        for number in range(entries):
            (tmp_path / f"entry-{number}").mkdir()
            (tmp_path / f"entry-{number}" / "manifest.json").write_text("half of a mani")
    command = [sys.executable, "-c", ENTRIES, str(tmp_path), str(entries)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate() for process in processes]
    assert [err for _, err in ends] == [""] * 4
    assert [out for out, _ in ends] == ["all read\n"] * 4
    assert len(list(tmp_path.iterdir())) == entries, "nothing hidden is left"


def test_an_entry_that_appears_meanwhile_is_used_and_not_replaced(tmp_path: Path) -> None:
    made: list[Path] = []

    def write(folder: Path) -> None:
        made.append(folder)
        folder.mkdir()
        (folder / "x").write_text("mine")
        (tmp_path / "entry").mkdir()
        (tmp_path / "entry" / "x").write_text("theirs")

    assert cached(tmp_path / "entry", read=lambda folder: (folder / "x").read_text(), write=write) == "theirs"
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_an_entry_that_cannot_be_made_whole_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    made: list[Path] = []

    def write(folder: Path) -> None:
        made.append(folder)
        folder.mkdir()

    def read(folder: Path) -> str:
        raise CorruptFileError(f"{folder}: damaged")

    with pytest.raises(CorruptFileError, match="damaged"):
        cached(tmp_path / "entry", read=read, write=write)
    assert len(made) <= 3
