"""Machines as they are: users without a home, homes that cannot be written, full disks, streams that are closed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from senteval import write_senteval
from tiny import recipe_tree as tree
from tiny import save_tiny_bert, write_data, write_recipe

NOBODY = 65_533
"""A user without an entry in the password database."""

BECOME = """
import ctypes, os, sys
user = int(sys.argv.pop(1))
library = ctypes.CDLL(None, use_errno=True)
library.prctl(8, 1, 0, 0, 0)  # keep what root may do until it is chosen below
os.setgroups([])
os.setgid(user)
os.setuid(user)
read_and_search, none = 1 << 2, 0  # this Python may lie in root's home; writing is another thing
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
if library.capset(header, (ctypes.c_uint32 * 6)(read_and_search, read_and_search, none, none, none, none)):
    raise OSError(ctypes.get_errno(), "capset")
from dalr.cli import main
main()
"""


class Place:
    """Inputs that every user can read, and a folder that `NOBODY` can write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data = write_data(folder / "data")
        model = save_tiny_bert(folder / "bert")
        sections: dict[str, Any] = {"training": {"batch_size": 8, "max_steps": 1, "precision": "fp32"}}
        self.recipe = write_recipe(folder / "recipe.yaml", tree(data, model) | sections | {"validation": None})
        self.senteval = write_senteval(folder / "senteval")
        self.results = folder / "results.json"
        self.work = folder / "work"
        self.work.mkdir()
        self.work.chmod(0o777)
        evaluate = ("evaluate", model, "--pooling", "cls", "--tasks", "STS-B", "--map", "none", "-q")
        self.commands: dict[str, tuple[object, ...]] = {
            "check": ("check", self.recipe, "-q"),
            "train": ("train", self.recipe, "-q"),
            "evaluate": (*evaluate, "--allow-changed-data", "--data", self.senteval),
            "report": ("report", self.results, "-q"),
        }
        made = dalr(self, *self.commands["evaluate"], "--json", self.results, DALR_CACHE=str(folder / "cache"))
        assert made.returncode == 0, made.stderr
        for path in folder.rglob("*"):
            path.chmod(0o777 if path == self.work else 0o755 if path.is_dir() else 0o644)


def dalr(
    place: Place, *arguments: object, user: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command in an environment that holds nothing else than this."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    start = ["-m", "dalr"] if user is None else ["-c", BECOME, str(user)]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        env=kept | {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        cwd=place.work,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="dalr-environments-"))
    folder.chmod(0o755)
    try:
        yield Place(folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def nobody() -> int:
    """A user who may read everything, and has no home."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return NOBODY


def out_of(command: str, folder: Path) -> tuple[object, ...]:
    """The option that says where a command writes."""
    name = {"check": "--json", "train": "--out", "evaluate": "--json", "report": "--out"}[command]
    return (name, folder / f"{command}-out")


def require_words(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr


EACH = ["check", pytest.param("train", marks=pytest.mark.slow), pytest.param("evaluate", marks=pytest.mark.slow)]
ALL = [*EACH, "report"]


@pytest.mark.parametrize("command", ALL)
def test_a_user_without_a_home_who_names_a_cache_can_do_all(place: Place, nobody: int, command: str) -> None:
    out = out_of(command, place.work)
    done = dalr(place, *place.commands[command], *out, user=nobody, DALR_CACHE=str(place.work / "cache"))
    require_words(done, 0)


@pytest.mark.parametrize("command", EACH[:2])
def test_without_a_home_the_cache_is_asked_for_by_its_variable(place: Place, nobody: int, command: str) -> None:
    done = dalr(place, *place.commands[command], *out_of(command, place.work / "homeless"), user=nobody)
    require_words(done, 2, "DALR_CACHE", f"user {nobody}")


@pytest.mark.parametrize("command", EACH[:2])
def test_a_home_that_cannot_be_written_names_the_cache_and_not_another_option(
    place: Place, nobody: int, command: str
) -> None:
    home = place.folder / f"home-{command}"
    home.mkdir()
    for folder in ("/", str(home)):
        done = dalr(place, *place.commands[command], *out_of(command, place.work / "ro"), user=nobody, HOME=folder)
        require_words(done, 6, "DALR_CACHE")
        assert "--out" not in done.stderr


@pytest.mark.parametrize("command", ALL)
def test_a_place_without_permission_is_named_with_its_option(place: Place, nobody: int, command: str) -> None:
    closed = place.folder / "closed"
    closed.mkdir(exist_ok=True)
    option, path = out_of(command, closed)
    cache = str(place.work / "cache")
    done = dalr(place, *place.commands[command], option, path, user=nobody, DALR_CACHE=cache)
    require_words(done, 6, "no permission", f"choose another {option}")


@pytest.fixture
def full(place: Place) -> Iterator[Path]:
    """A file system without space."""
    folder = place.folder / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    try:
        (folder / "filler").write_bytes(bytes(60 * 1024))
        with suppress(OSError), open(folder / "filler", "ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@pytest.mark.parametrize("command", ALL)
def test_a_full_disk_is_called_so(place: Place, full: Path, command: str) -> None:
    cache = str(place.work / "cache-of-root")
    done = dalr(place, *place.commands[command], *out_of(command, full), DALR_CACHE=cache)
    require_words(done, 6, "no space left")


def test_a_full_cache_is_called_so(place: Place, full: Path) -> None:
    done = dalr(place, *place.commands["check"], DALR_CACHE=str(full / "cache"))
    require_words(done, 6, "no space left")


def shell(place: Place, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("dalr", f"{sys.executable} -m dalr", 1)],
        cwd=place.work,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestStreams:
    @pytest.mark.parametrize("command", ["recipe list", "--help", "--version"])
    def test_standard_output_that_takes_no_more_is_an_error_of_storage(self, place: Place, command: str) -> None:
        device = place.folder / "full-device"
        if not device.exists():
            try:
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 7))
                os.close(os.open(device, os.O_WRONLY))
            except OSError:
                pytest.skip("no device can be made here")
        done = shell(place, f"dalr {command} > {device}")
        require_words(done, 6, "standard output")
        assert stat.S_ISCHR(device.stat().st_mode)

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("dalr check nothing 2>&-", 2),
            ("dalr recipe list >&-", 0),
            ("dalr recipe list >&- 2>&-", 0),
            ("dalr check nothing <&- >&- 2>&-", 2),
            ("dalr data get sts --out x <&-", 2),
        ],
    )
    def test_closed_streams_change_no_exit_code(self, place: Place, line: str, code: int) -> None:
        require_words(shell(place, line), code)

    def test_a_reader_who_has_gone_ends_it_without_words(self, place: Place) -> None:
        done = shell(place, "dalr recipe show dalr | (exec <&-; sleep 1); echo ${PIPESTATUS[0]}")
        assert done.stdout.strip() in ("0", "141")
        assert done.stderr == ""

    def test_a_file_gets_no_number_of_a_closed_stream(self, place: Place) -> None:
        """What a library prints to number 2 would go into the file."""
        result = place.work / "checked.json"
        done = shell(place, f"dalr check nothing --json {result} 2>&-")
        assert done.returncode == 2
        assert result.read_text().startswith("{")


class TestVariablesOfALauncher:
    @pytest.mark.parametrize(
        ("variables", "named"),
        [
            ({"RANK": "abc"}, "RANK"),
            ({"RANK": "-1"}, "RANK"),
            ({"RANK": "3"}, "RANK"),
            ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK"),
            ({"WORLD_SIZE": "two"}, "WORLD_SIZE"),
            ({"WORLD_SIZE": "0"}, "WORLD_SIZE"),
            ({"WORLD_SIZE": "9" * 30}, "WORLD_SIZE"),
            ({"WORLD_SIZE": "2"}, "MASTER_ADDR"),
            ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR"),
            ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "MASTER_PORT"),
        ],
    )
    def test_a_wrong_one_is_named_before_anything_is_read(
        self, place: Place, variables: dict[str, str], named: str
    ) -> None:
        done = dalr(place, *place.commands["train"], **variables)
        require_words(done, 2, named)
