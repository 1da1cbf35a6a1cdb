"""Paths that a person names: expanded, refused where they can be nobody's, looked at without surprises."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dalr.errors import ConfigError, DataError, ModelFileError, StorageError
from dalr.io.paths import (
    NotRegularError,
    entries,
    exists,
    expanded,
    is_dir,
    is_file,
    refusal,
    regular,
    require_place_for_file,
    require_place_for_folder,
    require_regular_below,
    resolve,
    size_of,
)

LOOKS: tuple[Callable[[Path, type[DataError]], object], ...] = (exists, is_file, is_dir, size_of)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop"


class TestExpanded:
    def test_a_tilde_is_the_home_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert expanded("~/run") == tmp_path / "run"
        assert expanded(Path("~/run")) == tmp_path / "run"
        assert expanded("a~/~b") == Path("a~/~b")

    @pytest.mark.parametrize("path", [".", "..", "a/..", "./"])
    def test_a_folder_that_is_written_has_a_name(
        self, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert expanded(path).name
        assert expanded(path) == (tmp_path / path).resolve()

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("", "nothing between the quotes"),
            ("~nosuchuser/run", "~nosuchuser"),
            ("a\0b", "NUL"),
            ("caf\udce9.txt", "not UTF-8"),
            ("x/" + "n" * 256, "255 bytes"),
            ("ü" * 128, "255 bytes"),
            ("a/" * 300, "folders"),
        ],
    )
    def test_what_can_be_nobodys_file_is_refused_with_the_option(self, path: str, found: str) -> None:
        with pytest.raises(ConfigError, match=found) as caught:
            expanded(path, "--out")
        assert str(caught.value).startswith("--out: ")

    def test_the_longest_name_that_a_file_can_have_is_let_through(self) -> None:
        assert expanded("n" * 255) == Path("n" * 255)

    def test_a_current_folder_that_is_not_utf_8_is_found_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = os.fsencode(tmp_path) + b"/\xff"
        try:
            os.mkdir(folder)
        except OSError:
            pytest.skip("this file system has no such names")
        monkeypatch.chdir(os.fsdecode(folder))
        with pytest.raises(ConfigError, match="current folder"):
            expanded("run")
        assert expanded(tmp_path / "run") == tmp_path / "run"

    def test_a_current_folder_that_was_deleted_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(ConfigError, match="current folder cannot be used"):
            expanded("run")


class TestLooks:
    def test_what_is_not_there_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "nothing", tmp_path / "file" / "below"):
            assert not any(look(path, DataError) for look in LOOKS)
            assert entries(path) == []

    @pytest.mark.parametrize("look", [*LOOKS, entries])
    def test_links_in_a_circle_are_an_error(self, look: Callable[..., object], loop: Path) -> None:
        with pytest.raises(ModelFileError, match="circle"):
            look(loop, ModelFileError)
        with pytest.raises(DataError, match="circle"):
            look(loop / "below")

    def test_a_circle_has_no_real_path(self, loop: Path) -> None:
        with pytest.raises(DataError, match="circle"):
            resolve(loop)

    @pytest.mark.parametrize("look", [*LOOKS, entries])
    @pytest.mark.parametrize(("name", "found"), [("n" * 256, "255 bytes"), ("a\0", "NUL"), ("x/" * 3000, "4,096")])
    def test_names_that_no_file_has_are_an_error(
        self, look: Callable[..., object], name: str, found: str, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageError, match=found):
            look(tmp_path / name, StorageError)

    def test_missing_permission_is_called_so(self, tmp_path: Path) -> None:
        error = refusal(tmp_path / "closed" / "file", PermissionError(13, "Permission denied"), ConfigError)
        assert isinstance(error, ConfigError)
        assert "no permission to read" in str(error)
        assert "no such file" not in str(error)


SPECIAL = ("pipe", "device", "socket")


def special(folder: Path, kind: str) -> Path:
    """Something that is no regular file, made here."""
    place = folder / f"a-{kind}"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "device":
            try:
                os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))
            except PermissionError:
                pytest.skip("only root can make devices")
        case _:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.relpath(place))
    return place


class TestRegular:
    def test_a_file_and_a_link_to_one_are_let_through(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("a")
        (tmp_path / "link").symlink_to("file")
        assert regular(tmp_path / "file") == tmp_path / "file"
        assert regular(tmp_path / "link").read_text() == "a"

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_anything_else_is_named_with_the_remedy(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(NotRegularError, match=f"found a .*{kind}; write its content to a file first"):
            regular(special(tmp_path, kind))

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_in_a_folder_of_files_too(self, kind: str, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()
        (tmp_path / "inner" / "file").touch()
        (tmp_path / "dangling").symlink_to("nowhere")
        require_regular_below(tmp_path, ModelFileError)
        special(tmp_path / "inner", kind)
        with pytest.raises(ModelFileError, match=kind):
            require_regular_below(tmp_path, ModelFileError)


class TestPlaces:
    def test_a_new_file_in_new_folders_has_a_place(self, tmp_path: Path) -> None:
        require_place_for_file(tmp_path / "a" / "b" / "c.json", "--json")
        require_place_for_folder(tmp_path / "a" / "b", "--out")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_and_what_lies_below_a_file_are_no_places(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match=r"--json: .* is a folder"):
            require_place_for_file(tmp_path, "--json")
        with pytest.raises(StorageError, match=r"file is a file, not a folder: choose another --json"):
            require_place_for_file(tmp_path / "file" / "x", "--json")
        with pytest.raises(StorageError, match=r"choose another --out"):
            require_place_for_folder(tmp_path / "file", "--out")

    def test_a_pipe_is_opened_when_there_is_something_to_write(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        require_place_for_file(tmp_path / "pipe", "--json")
