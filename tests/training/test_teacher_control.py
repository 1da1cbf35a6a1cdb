"""A teacher whose vectors are dealt out at random: the same batches, the same student, another target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dalr
from dalr.errors import ConfigError
from dalr.io.console import Console
from tiny import Toys


def trained(toys: Toys, folder: Path, teacher: dict[str, Any], seed: int = 0) -> list[dict[str, float]]:
    """The terms of every step."""
    folder.mkdir()
    path = toys.recipe(folder, teachers=[teacher])
    overrides = {"objective.list_net": {"on_text": True}, "training.log_every": 1, "seed": seed}
    recipe = dalr.load_recipe(path, overrides)
    run = dalr.train(recipe, out=folder / "run", console=Console(quiet=True)).run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["terms"] for line in lines if "terms" in line]


def test_the_target_alone_is_another_one(toys: Toys, tmp_path: Path) -> None:
    model = {"model": str(toys.teacher)}
    true = trained(toys, tmp_path / "true", model)
    shuffled = trained(toys, tmp_path / "shuffled", {**model, "control": "shuffled"})
    assert true[0]["infonce"] == shuffled[0]["infonce"]
    assert true[0]["list_net"] != shuffled[0]["list_net"]
    assert shuffled == trained(toys, tmp_path / "again", {**model, "control": "shuffled"})


def test_a_recipe_without_a_control_is_dumped_as_before_there_was_one(toys: Toys, tmp_path: Path) -> None:
    recipe = dalr.load_recipe(toys.recipe(tmp_path, teachers=[{"model": str(toys.teacher)}]))
    assert "control" not in recipe.model_dump(mode="json")["teachers"][0]


def test_token_states_are_not_dealt_out(toys: Toys, tmp_path: Path) -> None:
    path = toys.recipe(tmp_path, teachers=[{"model": str(toys.teacher), "control": "shuffled"}])
    with pytest.raises(ConfigError, match=r"teachers\.0\.control: global_to_local reads token states"):
        dalr.load_recipe(path, {"objective.global_to_local": {}})
