"""Files that commands write: somebody else's stay as they are, and a second process waits for nobody."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dalr.errors import StorageError
from dalr.io.lock import locked, locked_output, require_unlocked
from dalr.io.output_file import LATEX, MARKDOWN, PAGE, RESULT, Kind, claimed_file
from tiny import Outcome, Toys

Cli = Callable[..., Outcome]
FOREIGN = {
    "text": b"my thesis\n",
    "other JSON": b'{"name": "package", "version": "1.0"}\n',
    "other HTML": b"<!doctype html><html><head><title>x</title></head></html>\n",
    "bytes": bytes(range(256)) * 100,
    "a mark in the middle of a large file": b"x" * 200_000 + RESULT.mark + PAGE.mark + b"x" * 200_000,
}


@pytest.mark.parametrize("kind", [RESULT, PAGE, MARKDOWN, LATEX], ids=lambda kind: kind.name)
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_file_is_refused_and_stays(tmp_path: Path, kind: Kind, linked: bool, content: str) -> None:
    (tmp_path / "file").write_bytes(FOREIGN[content])
    path = tmp_path / ("link" if linked else "file")
    if linked:
        path.symlink_to("file")
    names = sorted(tmp_path.iterdir())
    refused = pytest.raises(StorageError, match=f"already exists, and it is not {kind.name}")
    with refused, claimed_file(path, kind, "--out"):
        raise AssertionError("no work is done")
    assert (tmp_path / "file").read_bytes() == FOREIGN[content]
    assert sorted(tmp_path.iterdir()) == names


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b'{\n "format": "dalr-evaluation"}'])
def test_an_empty_file_and_an_earlier_result_may_be_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    refused = pytest.raises(StorageError, match="in use by process")
    with claimed_file(tmp_path / "file", RESULT, "--json"), refused, claimed_file(tmp_path / "file", RESULT, ""):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_that_were_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with claimed_file(tmp_path / "a" / "b" / "file", RESULT, "--json"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", ["pipe", "/dev/stdout"])
def test_pipes_and_open_outputs_have_no_lock(tmp_path: Path, stream: str) -> None:
    path = Path(stream)
    if stream == "pipe":
        path = tmp_path / stream
        os.mkfifo(path)
    elif not path.exists():
        pytest.skip("no /dev/stdout here")
    if stream == "/dev/stdout" and not sys.__stdout__:
        pytest.skip("no standard output")
    with claimed_file(path, RESULT, "--json"):
        assert [each for each in tmp_path.iterdir() if each != path] == []


def test_the_files_of_a_report_are_written_over_by_the_next_one_and_by_nothing_else(
    cli: Cli, tmp_path: Path, toys: Toys
) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
    from generated import run_folder

    run = run_folder(tmp_path / "run")
    named = {"--out": "r.html", "--markdown": "r.md", "--latex": "r.tex"}
    arguments = ["report", run, *(part for each, name in named.items() for part in (each, tmp_path / name)), "-q"]
    for _ in range(2):
        assert cli(*arguments).code == 0
    first = {name: (tmp_path / name).read_bytes() for name in named.values()}
    for option, name in named.items():
        (tmp_path / name).write_text("notes\n")
        outcome = cli(*arguments)
        assert outcome.code == 6
        assert f"{option}: {tmp_path / name} already exists, and it is not" in outcome.err
        assert (tmp_path / name).read_text() == "notes\n"
        (tmp_path / name).unlink()
        assert cli(*arguments).code == 0
        assert (tmp_path / name).read_bytes() == first[name]
    twice = cli("report", run, "--out", tmp_path / "r.html", "--markdown", tmp_path / "r.html", "-q")
    assert twice.code == 2
    assert "is the file of --out, too" in twice.err


def test_a_result_of_check_is_written_over_and_notes_are_not(cli: Cli, tmp_path: Path, toys: Toys) -> None:
    recipe = toys.recipe(tmp_path)
    for _ in range(2):
        assert cli("check", recipe, "--json", tmp_path / "c.json", "-q").code == 0
    (tmp_path / "c.json").write_text("notes")
    assert cli("check", recipe, "--json", tmp_path / "c.json", "-q").code == 6
    assert (tmp_path / "c.json").read_text() == "notes"


class TestTheTwoLocksSeeEachOther:
    def test_a_folder_at_work_inside_is_not_replaced_as_a_whole(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("run")
        with locked(tmp_path / "run"):
            for path in (tmp_path / "run", tmp_path / "link"):
                with pytest.raises(StorageError, match="in use by process"), locked_output(path):
                    pass

    def test_nor_the_other_way_round(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("run")
        with locked_output(tmp_path / "run"):
            for look in (lambda: locked(tmp_path / "run").__enter__(), lambda: require_unlocked(tmp_path / "link")):
                with pytest.raises(StorageError, match="in use by process"):
                    look()

    def test_one_folder_has_one_lock_whichever_link_leads_to_it(self, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "link").symlink_to("store")
        refused = pytest.raises(StorageError, match="in use by process")
        with locked_output(tmp_path / "link"), refused, locked_output(tmp_path / "store"):
            pass


def test_a_record_waits_for_another_that_takes_a_moment(tmp_path: Path) -> None:
    taken, free = threading.Event(), threading.Event()

    def hold() -> None:
        with locked_output(tmp_path / "record"):
            taken.set()
            free.wait(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    with locked_output(tmp_path / "record", wait=10.0):
        assert not (tmp_path / "record").exists()
    free.set()
    holder.join()


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_the_longest_names_have_a_lock_of_their_own(tmp_path: Path, name: str) -> None:
    with locked_output(tmp_path / name), locked_output(tmp_path / f"{name[:-1]}x"):
        locks = [path.name for path in tmp_path.iterdir()]
        assert len(locks) == 2
        assert all(len(each.encode()) <= 255 for each in locks)


def test_a_store_behind_a_link_is_written_where_the_link_leads(cli: Cli, tmp_path: Path, toys: Toys) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "store").mkdir()
    (tmp_path / "link").symlink_to("disk/store")
    for _ in range(2):
        outcome = cli("features", "import", toys.data.matrix, "--ids", toys.data.ids, "--out", tmp_path / "link")
        assert outcome.code == 0, outcome.err
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "store" / "manifest.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link"}
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["store"]


@pytest.mark.parametrize(
    "arguments", [("--help",), ("train", "--help"), ("recipe", "list"), ("--version",), ("cache",)]
)
def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    import subprocess

    here, there = os.pipe()
    os.close(here)
    done = subprocess.run(
        [sys.executable, "-m", "dalr", *arguments], stdout=there, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(there)
    assert (done.returncode, done.stderr) == (141, "")
