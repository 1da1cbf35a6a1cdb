"""Gradient caching is the plain step in less memory: same loss, same gradients, same dropout views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gradients import gradients
from runs import METHODS, metrics, train
from test_ranks import require_close

from dalr.training.batch import TokenBatch
from dalr.training.module import TrainingTask
from dalr.training.step import Step
from tiny import Toys


@pytest.mark.parametrize("method", METHODS)
def test_mini_batches_change_nothing(toys: Toys, tmp_path: Path, method: str) -> None:
    recipe = toys.method(tmp_path, method)
    require_close(gradients(recipe, ["training.mini_batch_size=3"]), gradients(recipe), tolerance=1e-9)


def test_the_second_pass_has_the_dropout_of_the_first(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a step that keeps the graphs of all mini-batches, which needs no second pass."""
    recipe = toys.recipe(tmp_path, objective={"infonce": {}, "grounding": {}, "consistency": {}})
    overrides = ["training.mini_batch_size=3"]
    cached = gradients(recipe, overrides, dropout=True)

    def at_once(self: Step, batch: Any, norms: bool) -> Any:
        assert self.mini_batch_size is not None
        parts = batch.tokens.split(self.mini_batch_size)
        vectors = [self._encode(batch, part, number) for number, part in enumerate(parts)]
        losses = self._losses(batch, *(torch.cat(view) for view in zip(*vectors, strict=True)), norms)
        losses.total.backward()
        return losses

    monkeypatch.setattr(Step, "_cached", at_once)
    require_close(cached, gradients(recipe, overrides, dropout=True), tolerance=1e-9)
    assert (cached["0.loss"] - gradients(recipe, overrides)["0.loss"]).abs() > 1e-3, "there was dropout"


def test_no_forward_holds_more_rows_than_asked(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    two_passes = TrainingTask.two_passes

    def watched(self: TrainingTask, tokens: TokenBatch) -> Any:
        rows.append(len(tokens.ids))
        return two_passes(self, tokens)

    monkeypatch.setattr(TrainingTask, "two_passes", watched)
    result = train(toys.recipe(tmp_path), tmp_path / "run", "training.mini_batch_size=3", "training.max_steps=1")
    assert rows == [3, 3, 2, 3, 3, 2]
    assert [line["step"] for line in metrics(result.run) if "loss" in line] == [1]
