"""Every moment at which a run can be killed: before each call that changes its folder.

What is written between two such calls may be there whole, half or not at all, so each moment gives a state with the
newest files whole, with each of them cut in half, and with each of them empty.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHANGING = ("mkdir", "replace", "rename", "unlink", "rmdir", "chmod", "fsync")


@contextmanager
def before_each_change(run: Path, look: Callable[[str], None]) -> Iterator[None]:
    """Call `look` before every change below `run`, and after the last one."""

    def below(argument: Any, options: dict[str, Any]) -> bool:
        if isinstance(argument, int):
            argument = os.readlink(f"/proc/self/fd/{argument}")
        if options.get("dir_fd") is not None:
            argument = os.path.join(os.readlink(f"/proc/self/fd/{options['dir_fd']}"), argument)
        return Path(argument).absolute().is_relative_to(run)

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(argument: Any, *more: Any, **options: Any) -> Any:
            if below(argument, options):
                look(name)
            return original(argument, *more, **options)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in CHANGING:
            patched.setattr(os, name, watched(name))
        yield
    look("end")


class States:
    """Copies of a run at every moment, one for each tree that differs from the one before."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.seen: dict[str, bytes] = {}
        self.count = 0

    def look(self, _: str) -> None:
        now = contents(self.run)
        known = set(self.seen.values())  # under another name: renamed, which is never half done
        fresh = [name for name, data in now.items() if data and data not in known]
        if now == self.seen and self.count:
            return
        self.seen = now
        self._keep(now)
        for name in fresh:
            for cut in (b"", now[name][: len(now[name]) // 2]):
                self._keep(now | {name: cut})

    def _keep(self, files: dict[str, bytes]) -> None:
        target = self.folder / f"{self.count:04d}"
        self.count += 1
        for path in self.run.rglob("*"):
            if path.is_dir():
                (target / path.relative_to(self.run)).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)

    def __iter__(self) -> Iterator[Path]:
        return iter(sorted(self.folder.iterdir()))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
