"""Early stopping: training ends when scores have brought no gain for long enough, and says so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import metrics, record, train

import dalr
from dalr.io.console import Console
from dalr.training.patience import Patience
from dalr.training.validation import ValidationScore
from tiny import Toys


def waits(patience: Patience, *scores: float | None) -> list[int]:
    counts = []
    for score in scores:
        patience.see(score)
        counts.append(patience.without_gain)
    return counts


def test_what_counts_as_a_gain() -> None:
    assert waits(Patience(allowed=2), 50.0, 50.0, 51.0, 50.5, 51.1) == [0, 1, 0, 1, 0]
    assert waits(Patience(allowed=2, min_delta=0.5), 50.0, 50.4, 50.6, 51.0, 51.2) == [0, 1, 0, 1, 0]
    assert waits(Patience(allowed=2), math.nan, None, 50.0, math.inf) == [1, 2, 0, 1]
    assert not Patience(allowed=None, without_gain=1000).exhausted


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    values: Iterator[float] = iter(scores)
    monkeypatch.setattr(
        "dalr.training.setup.make_validation_score",
        lambda *_: ValidationScore(name="scripted", score=lambda task: next(values)),
    )


def test_training_ends_when_patience_does(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, 60.0, 50.0, 51.0, 51.0, 50.0, 99.0)  # the untrained score is no yardstick of patience
    recipe = toys.recipe(tmp_path, validation={"kind": "tsv", "data": str(toys.data.validation), "every": 1})
    overrides = ["training.max_steps=9", "validation.patience=2"]
    result = dalr.train(recipe, overrides=overrides, out=tmp_path / "run", console=Console())
    assert (result.steps, result.stopped_early_at, result.best_step, result.best_score) == (4, 4, 2, 51)
    assert "stopped early at step 4 of 9: 2 scores without a gain" in capsys.readouterr().err
    written = record(tmp_path / "run")
    assert written["result"]["stopped_early_at"] == 4
    assert written["status"] == "finished"
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == [1, 2, 3, 4]


def test_patience_that_lasts_to_the_end_stops_nothing(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, 60.0, 50.0, 49.0)
    result = train(toys.recipe(tmp_path), tmp_path / "run", "validation.patience=1")
    assert (result.steps, result.stopped_early_at) == (4, None)
    assert record(tmp_path / "run")["result"]["stopped_early_at"] is None
