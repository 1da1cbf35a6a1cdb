"""`--dry-run`: what a training would be, without one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import METHODS, metrics, record, train
from safetensors.torch import load_file

import dalr
from dalr.errors import NumericsError
from dalr.io.console import Console
from dalr.models.loading import load_encoder
from dalr.training.dry_run import DryRun
from tiny import Outcome, Toys


def tried(recipe: Path, *overrides: str) -> DryRun:
    return dalr.train(recipe, overrides=list(overrides), console=Console(quiet=True), dry_run=True)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_tried(toys: Toys, tmp_path: Path, name: str) -> None:
    found = tried(toys.method(tmp_path, name))
    kinds = {"text"} if name in ("simcse", "rankcse") else {"text", "pair"}
    assert {trial.kind for trial in found.trials} == kinds
    assert sum(trial.steps for trial in found.trials) == 6
    assert found.validation_scores == 3
    assert all(0 < trial.seconds < 60 and trial.peak_bytes > 2**20 for trial in found.trials)


@pytest.mark.usefixtures("fresh_cache")
def test_numbers_are_those_of_the_training(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(
        tmp_path, teachers=[{"model": str(toys.teacher)}], objective={"infonce": {}, "list_net": {}}
    )
    found = tried(recipe, "student.freeze_layers=1", "training.max_steps=7")
    assert {trial.kind: trial.steps for trial in found.trials} == {"text": 3, "pair": 4}
    pair = next(trial for trial in found.trials if trial.kind == "pair")
    assert re.fullmatch(r"8 sentences × \d+ tokens \(\d+ % real\), each in two views", pair.shapes[0])
    assert pair.shapes[1:] == ("teacher 1 8 × 24",)
    assert set(pair.terms) == {"infonce", "list_net"}
    assert pair.loss == pytest.approx(sum(pair.terms.values()), rel=1e-5)
    result = train(recipe, tmp_path / "run", "student.freeze_layers=1", "training.max_steps=7")
    stored = [*load_file(result.model / "model.safetensors").values()]
    stored += load_file(result.run / "heads.safetensors").values()
    assert found.checkpoint_bytes == sum(tensor.numel() * 4 for tensor in stored)
    assert sum(found.trained.values()) == record(result.run)["trained_parameters"]
    assert sum(found.trained.values()) + sum(found.frozen.values()) == sum(tensor.numel() for tensor in stored)
    moments = 2 * 4 * sum(found.trained.values())
    assert moments <= found.optimizer_bytes <= moments + 4 * 200, "two moments, and a step count a tensor"
    assert found.validation_seconds is not None
    assert found.seconds == pytest.approx(
        sum(trial.steps * trial.seconds for trial in found.trials)
        + 5 * found.validation_seconds
        + found.teacher_seconds
        + found.data_seconds
        + found.evaluation_seconds
    )
    assert found.teacher_seconds > 0
    again = tried(recipe, "student.freeze_layers=1", "training.max_steps=7")
    assert again.teacher_seconds == 0, "the training left the teacher's vectors in the cache"


def test_the_evaluation_afterwards_is_in_the_estimate(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path, objective={"infonce": {}})
    found = tried(recipe, "data.holdout.last=4")
    assert found.test_images == 4
    assert found.evaluation_seconds > 0
    assert "on 4 test images (dalr compare)" in found.table()


def test_the_first_losses_are_those_of_the_first_steps(toys: Toys, tmp_path: Path) -> None:
    """The batches have the rows of the training's first batches, and the untrained student with its dropout."""
    recipe = toys.recipe(tmp_path, objective={"infonce": {}})
    first = next(line for line in metrics(train(recipe, tmp_path / "run").run) if "loss" in line)
    [pair, _] = tried(recipe).trials
    assert (pair.kind, pair.loss) == ("pair", pytest.approx(first["loss"], rel=1e-5))


def test_nothing_is_written(
    toys: Toys, tmp_path: Path, cli: Callable[..., Outcome], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toys.recipe(
        tmp_path, teachers=[{"model": str(toys.teacher)}], objective={"list_net": {"on_text": True}}
    )
    assert cli("check", recipe).code == 0
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    outcome = cli("train", recipe, "--dry-run", "--out", tmp_path / "run")
    assert outcome.code == 0
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    for shown in ("pair batch", "text batch", "list_net", "parameters trained", "whole training", "about", "MiB"):
        assert shown in outcome.out
    names = [line.split("  ")[0] for line in outcome.out.splitlines()]
    parts = ["images", "teachers", "training", "validation", "evaluation", "whole training"]
    assert [name for name in names if name in parts] == parts
    assert os.environ["DALR_CACHE"] == str(fresh_cache)


def test_only_the_rows_of_the_batches_go_to_the_teacher(
    toys: Toys, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dalr.features import text as extraction

    asked: list[int] = []
    embed = extraction.embed

    def watched(encoder: Any, sentences: Any, **options: Any) -> Any:
        asked.append(len(sentences))
        return embed(encoder, sentences, **options)

    monkeypatch.setattr(extraction, "embed", watched)
    recipe = toys.recipe(
        tmp_path, teachers=[{"model": str(toys.teacher)}], objective={"list_net": {"on_text": True}}
    )
    tried(recipe)
    assert asked == [8, 8]


def test_a_kind_that_the_schedule_never_reaches_is_not_waited_for(toys: Toys, tmp_path: Path) -> None:
    found = tried(toys.recipe(tmp_path), "training.max_steps=1")
    assert {trial.kind: trial.steps for trial in found.trials} == {"pair": 1, "text": 0}


def test_a_loss_that_is_not_finite_is_an_error(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        encoder = load_encoder(*arguments)
        with torch.no_grad():
            encoder.transformers_model.embeddings.word_embeddings.weight.fill_(float("nan"))
        return encoder

    monkeypatch.setattr("dalr.training.setup.load_encoder", broken)
    with pytest.raises(NumericsError, match="first pair batch: not finite: loss = nan"):
        tried(toys.recipe(tmp_path))
