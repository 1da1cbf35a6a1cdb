"""What the tests of training share: how a run is started, and a look inside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import dalr
from dalr.io.console import Console

if TYPE_CHECKING:
    from dalr.training.batch import Batch
    from dalr.training.setup import Setup
    from dalr.training.trainer import TrainResult

METHODS = ("simcse", "rankcse", "mcse", "kdmcse", "dalr", "dalr-release")


def train(recipe: Path, out: Path, *overrides: str) -> TrainResult:
    return dalr.train(recipe, overrides=list(overrides), out=out, console=Console(quiet=True))


@dataclass(kw_only=True)
class Inside:
    """What was seen of a run from the inside."""

    setup: Setup | None = None
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    """The weights before training."""
    at_forward: dict[str, torch.Tensor] = field(default_factory=dict)
    """The weights when the last batch went in."""
    batches: list[Batch] = field(default_factory=list)

    @property
    def made(self) -> Setup:
        assert self.setup is not None
        return self.setup

    def weights(self) -> dict[str, torch.Tensor]:
        return copied(self.made.task)


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def look_inside(
    monkeypatch: pytest.MonkeyPatch, tamper: Callable[[Batch], Batch | None] = lambda batch: None
) -> Inside:
    """Watch the runs that follow; `tamper` may give another batch in place of the one that goes in."""
    from dalr.training import setup as setup_module
    from dalr.training.module import TrainingTask

    inside = Inside()
    prepare, losses = setup_module.prepare, TrainingTask.losses

    def watched_prepare(*arguments: Any, **options: Any) -> Setup:
        inside.setup = prepare(*arguments, **options)
        inside.before = copied(inside.setup.task)
        return inside.setup

    def watched_losses(self: TrainingTask, batch: Batch, h_a: torch.Tensor, h_b: torch.Tensor) -> Any:
        inside.at_forward = copied(self)
        inside.batches.append(batch)
        return losses(self, tamper(batch) or batch, h_a, h_b)

    monkeypatch.setattr(setup_module, "prepare", watched_prepare)
    monkeypatch.setattr(TrainingTask, "losses", watched_losses)
    return inside


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found
