"""What the tests of faults share: a run, what it is worth in the end, and copies of it at chosen moments."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dalr
from dalr.io.console import Console

PRODUCTS = {"checkpoints", "heads.safetensors", "metrics.jsonl", "model", "run.json"}
FREE_SETTINGS = (b"save_every:", b"keep:", b"workers:")
"""They change no number of a run."""


class Heard(Console):
    """A console that keeps what was said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def train(recipe: Path, out: Path, *overrides: str, **options: Any) -> list[str]:
    """Run a recipe; what was said meanwhile."""
    heard = Heard()
    dalr.train(recipe, overrides=list(overrides), out=out, console=heard, **options)
    return heard.lines


def outcome(run: Path) -> dict[str, str]:
    """Checksums of all that a finished run is worth; anything left over beside it is an error."""
    assert {path.name for path in run.iterdir()} == PRODUCTS
    assert record(run)["status"] == "finished"
    assert (run / "model" / "README.md").is_file(), "every run leaves a card"
    return {name: digest for name, digest in digests(run).items() if name != "run.json"}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(_compared(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _compared(path: Path) -> bytes:
    """A file's bytes; of the card, which states the recipe, without the settings in which equal runs may differ."""
    data = path.read_bytes()
    if path.name != "README.md":
        return data
    return b"\n".join(line for line in data.splitlines() if not line.strip().startswith(FREE_SETTINGS))


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_bytes())
    return found


def copy(run: Path, target: Path) -> Path:
    """The run as a killed process would leave it: with everything but the lock, which the kernel releases."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns(".lock"))
    return target


def snapshots(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[int], Path]:
    """Copy a run each time it has sealed a resume point; gives the copy made at a step."""
    from dalr.training.progress import Progress

    save = Progress.save

    def saved(self: Progress, step: int) -> None:
        save(self, step)
        copy(self.out, folder / f"at-{step}")

    monkeypatch.setattr(Progress, "save", saved)
    return lambda step: folder / f"at-{step}"


def rising_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the validation score rise with every look at it, whatever the weights: each one is the best so far."""
    from dalr.training.progress import Progress
    from dalr.training.validation import ValidationScore

    def risen(self: Progress, step: int) -> None:
        self.validation = ValidationScore(name="rising", score=lambda task: float(step))
        score(self, step)

    score = Progress.score
    monkeypatch.setattr(Progress, "score", risen)
