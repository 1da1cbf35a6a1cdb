"""A shard that is changed while a training reads it ends the training at the next validation, and by its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import record

import dalr
from dalr.errors import CorruptFileError
from dalr.features.store import write_store
from dalr.io.console import Console
from tiny import Toys


def overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with open(path, "r+b") as file:
        file.write(data)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.replace(other, path)


class After:
    """Does something to a file after a step."""

    def __init__(self, step: int, path: Path, change: Callable[[Path], object]) -> None:
        self.step, self.path, self.change = step, path, change

    def on_step(self, step: int, losses: Any, metrics: Any) -> None:
        if step == self.step:
            self.change(self.path)


@pytest.mark.parametrize(
    "change",
    [overwrite, replace, lambda path: os.truncate(path, path.stat().st_size - 1), lambda path: path.unlink()],
    ids=["overwritten in place", "replaced", "cut", "removed"],
)
def test_a_training_ends_at_the_next_validation_and_goes_on_once_the_shard_is_back(
    toys: Toys, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    store = tmp_path / "store"
    write_store(store, ids=toys.data.images, blocks=[toys.data.features], source={}, origin="made")
    shard = store / "vectors-00000.safetensors"
    intact = shard.read_bytes()
    recipe = toys.recipe(tmp_path, features={"image": str(store)})
    settings: dict[str, Any] = {"console": Console(quiet=True)}
    overrides = ["training.max_steps=8", "training.save_every=2", "validation.every=4"]
    whole = dalr.train(recipe, overrides=overrides, out=tmp_path / "whole", **settings)
    with pytest.raises(CorruptFileError) as ended:
        dalr.train(
            recipe, overrides=overrides, out=tmp_path / "run", callbacks=[After(3, shard, change)], **settings
        )
    assert str(shard) in str(ended.value)
    assert ended.value.exit_code == 4
    assert not (tmp_path / "run" / "model").exists()
    assert record(tmp_path / "run")["status"] != "finished"
    shard.write_bytes(intact)
    again = dalr.train(recipe, overrides=overrides, out=tmp_path / "run", resume=True, **settings)
    for path in (again.model, whole.model):
        assert (path / "model.safetensors").is_file()
    assert (again.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()
    assert np.isfinite(again.best_score or 0.0)
