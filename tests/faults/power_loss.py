"""What a disk may hold after a loss of power: any subset of the changes that no fsync had made durable.

The calls of a run are recorded in order: files made and written, folders made, names moved and removed, fsyncs of
files and of folders. Content is durable from an fsync of the file on, a name from an fsync of its folder on; every
change that is not may have happened or not, whatever was called later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

Tree = dict[str, bytes | None]
"""Path -> content; None for a folder."""


@dataclass
class Change:
    """One change: `make` (a name, empty), `write` (content), `move` (a name) or `remove`."""

    what: str
    path: str
    target: str = ""
    content: bytes | None = None

    def folders(self) -> set[str]:
        """Whose fsync makes it durable."""
        return {os.path.dirname(path) for path in (self.path, self.target) if path}


@dataclass
class Recorder:
    """The changes below `root`, and after how many of them each fsync came."""

    root: Path
    log: list[Change | tuple[str, str]] = field(default_factory=list)
    known: Tree = field(default_factory=dict)

    def notice(self) -> None:
        """Record files that were made or written since the last look."""
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            content = None if path.is_dir() else path.read_bytes()
            if name not in self.known:
                self.log.append(Change("make", name, content=None if content is None else b""))
            if content and self.known.get(name) != content:
                self.log.append(Change("write", name, content=content))
            self.known[name] = content

    def name(self, path: Any) -> str | None:
        absolute = Path(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path).absolute()
        return absolute.relative_to(self.root).as_posix() if absolute.is_relative_to(self.root) else None

    def moved(self, source: str, target: str) -> None:
        self.log.append(Change("move", source, target))
        self.known = _moved(self.known, source, target)


@contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    recorder = Recorder(root)
    recorder.notice()
    recorder.log.clear()  # what was there before is durable

    def before(name: str, act: Callable[..., None]) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if options.get("dir_fd") is not None:  # inside rmtree: noticed below as removed
                return original(*arguments, **options)
            places = arguments[:1] if name != "replace" else arguments[:2]  # mkdir's second is a mode
            names = [recorder.name(place) for place in places]
            recorder.notice()
            result = original(*arguments, **options)
            if names and names[0] is not None:
                act(*names)
            return result

        return call

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", before("fsync", lambda name: recorder.log.append(("fsync", name))))
        patched.setattr(os, "replace", before("replace", recorder.moved))
        patched.setattr(os, "mkdir", before("mkdir", lambda *_: recorder.notice()))
        yield recorder
    recorder.notice()


def states(before: Tree, log: list[Change | tuple[str, str]], *, limit: int) -> Iterator[Tree]:
    """Every tree that a loss of power after any part of `log` may leave.

    Raises:
        AssertionError: more than `limit` subsets at one moment: the protocol syncs too little to be looked at.
    """
    for end in range(len(log) + 1):
        certain, open_ = durable(log[:end])
        assert 2 ** len(open_) <= limit, f"{len(open_)} changes are open at once"
        for chosen in product((False, True), repeat=len(open_)):
            happened = certain | {number for number, yes in zip(open_, chosen, strict=True) if yes}
            tree = dict(before)
            for number in sorted(happened):
                change = log[number]
                assert isinstance(change, Change)
                tree = apply(tree, change)
            yield tree


def durable(log: list[Change | tuple[str, str]]) -> tuple[set[int], list[int]]:
    """Numbers of the changes that are durable, and of those that are not."""
    certain: set[int] = set()
    open_: list[int] = []
    for number, entry in enumerate(log):
        if isinstance(entry, Change):
            open_.append(number)
            continue
        synced = entry[1]
        for other in list(open_):
            change = log[other]
            assert isinstance(change, Change)
            content = change.what == "write" and change.path == synced
            if content or (change.what != "write" and synced in {folder or "." for folder in change.folders()}):
                certain.add(other)
                open_.remove(other)
    return certain, open_


def apply(tree: Tree, change: Change) -> Tree:
    if change.what == "move":
        return _moved(tree, change.path, change.target) if change.path in tree else tree
    if change.what == "make":
        parent = os.path.dirname(change.path)
        return tree | {change.path: change.content} if not parent or parent in tree else tree
    return tree | {change.path: change.content} if change.path in tree else tree


def _moved(tree: Tree, source: str, target: str) -> Tree:
    def renamed(name: str) -> str:
        return target + name[len(source) :] if name == source or name.startswith(f"{source}/") else name

    kept = {name: content for name, content in tree.items() if name != target and not name.startswith(f"{target}/")}
    return {renamed(name): content for name, content in kept.items()}
