"""R24 and R25: a disk that refuses is said in those words and stops no run for good; files follow the umask."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from crash_points import contents
from trainings import copy, outcome, record, rising_scores, snapshots, train

from dalr.errors import StorageError
from tiny import Toys

SETTINGS = ("training.max_steps=2", "validation.every=2", "training.save_every=1", "training.log_every=1")
CHANGING = ("mkdir", "replace", "rename", "chmod", "fsync")
SAID = {errno.ENOSPC: "no space left writing", errno.EACCES: "no permission to write", errno.EIO: "cannot write"}

pytestmark = pytest.mark.usefixtures("prepared_once")


class Disk:
    """Refuses the `first` write below `run` and, if it `stays` broken, all that follow."""

    def __init__(self, run: Path, *, first: int, number: int, stays: bool) -> None:
        self.run, self.first, self.number, self.stays = run, first, number, stays
        self.writes = 0

    def write(self, path: Any) -> None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if not Path(path).absolute().is_relative_to(self.run):
            return
        self.writes += 1
        if self.writes == self.first or (self.stays and self.writes > self.first):
            raise OSError(self.number, os.strerror(self.number), str(path))

    @contextmanager
    def mounted(self) -> Iterator[None]:
        def refusing(original: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
            def call(path: Any, *more: Any, **options: Any) -> Any:
                if writes(*more, **options):
                    self.write(path)
                return original(path, *more, **options)

            return call

        def for_writing(mode: str = "r", *_: Any, **__: Any) -> bool:
            return any(letter in mode for letter in "wax+")

        with pytest.MonkeyPatch.context() as patched:
            for name in CHANGING:
                patched.setattr(os, name, refusing(getattr(os, name), lambda *_, **__: True))
            for module in (builtins, io):
                patched.setattr(module, "open", refusing(open, for_writing))
            for name in ("dalr.training.resume.save_file",):
                place, _, function = name.rpartition(".")
                patched.setattr(name, self._safetensors(__import__(place, fromlist=["_"]).__dict__[function]))
            yield

    def _safetensors(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """It writes by itself, and wraps the system's error in one of its own."""
        from safetensors import SafetensorError

        def save(tensors: Any, path: Path, **options: Any) -> None:
            try:
                self.write(path)
            except OSError as error:
                raise SafetensorError(f"Error while serializing: I/O error: x (os error {error.errno})") from None
            original(tensors, path, **options)

        return save


def refusal(recipe: Path, run: Path) -> str | None:
    """What a run was refused with; None for one that came to its end, past a write that may fail."""
    try:
        train(recipe, run, *SETTINGS)
    except StorageError as error:
        return str(error)
    return None


ERRORS = ((errno.ENOSPC, True), (errno.EIO, False), (errno.EACCES, False))
"""With whether the disk stays broken."""


@pytest.mark.parametrize(
    ("number", "stays", "begin", "every"),
    [
        *((*error, place, 3) for place, error in enumerate(ERRORS, start=1)),  # together at every write
        pytest.param(*ERRORS[0], 1, 1, marks=pytest.mark.slow),
        *(pytest.param(*error, 1, 1, marks=pytest.mark.nightly) for error in ERRORS[1:]),
    ],
)
def test_a_refusal_at_any_write_is_said_and_gone_on_from(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stays: bool, begin: int, every: int
) -> None:
    rising_scores(monkeypatch)
    recipe = toys.recipe(tmp_path)
    train(recipe, tmp_path / "whole", *SETTINGS)
    expected = outcome(tmp_path / "whole")
    known: set[str] = set()
    refused = 0
    for first in range(begin, 1000, every):
        run = tmp_path / f"run-{first}"
        disk = Disk(run, first=first, number=number, stays=stays)
        with disk.mounted():
            said = refusal(recipe, run)
        assert said is None or SAID[number] in said
        refused += said is not None
        if disk.writes < first:
            break
        if not run.exists():
            continue
        state = repr(sorted((name, hash(data)) for name, data in contents(run).items()))
        if state not in known:
            known.add(state)
            train(recipe, run, *SETTINGS, resume=True)
            assert outcome(run) == expected, first
    else:
        pytest.fail("never came to the end")
    assert refused > 60 / every


def test_a_full_disk_names_what_is_needed_what_is_free_and_the_last_checkpoint(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dalr.training import resume as resumption

    save = resumption.save_point

    def full(run: Path, *, step: int, **options: Any) -> Path:
        if step == 2:
            raise StorageError(f"no space left writing {run}")
        return save(run, step=step, **options)

    monkeypatch.setattr("dalr.training.progress.save_point", full)
    run = tmp_path / "run"
    with pytest.raises(StorageError) as caught:
        train(toys.recipe(tmp_path), run, *SETTINGS, "training.max_steps=3")
    text = str(caught.value)
    assert "a checkpoint needs about" in text
    assert "MB free" in text
    assert f"last complete checkpoint: {run / 'resume' / 'step-000001'}" in text
    assert "--resume" in text
    assert caught.value.exit_code == 6
    assert record(run)["status"] == "stopped"


def test_a_disk_too_small_for_the_training_is_refused_before_it_begins(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9 - 200_000, 200_000))
    with pytest.raises(StorageError, match=r"no space left for a training in .*: needs about \d+ MB, 0 MB free"):
        train(toys.recipe(tmp_path), tmp_path / "run", *SETTINGS)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_of_a_run_follows_the_umask(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int, mode: int
) -> None:
    at = snapshots(monkeypatch, tmp_path)
    before = os.umask(mask)
    try:
        train(toys.recipe(tmp_path), tmp_path / "run", *SETTINGS)
    finally:
        os.umask(before)
    files = [path for run in (tmp_path / "run", at(1)) for path in run.rglob("*") if path.is_file()]
    assert any(path.name == "optimizer.safetensors" for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert copy(at(1), tmp_path / "readable").is_dir()
