"""Whole trainings of a tiny model in a fraction of a second, many of them from one preparation.

Reading data, loading models and tokenising are the same for all runs of a recipe, so they are done once: every run
gets the prepared module with its first weights. Everything that is written is written anew, but nothing waits for
the disk: what would survive a loss of power is a matter of the order of calls, which `power_loss.py` looks at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def prepared_once() -> Iterator[None]:
    from dalr.training import setup as setup_module
    from dalr.training import trainer as run_module

    prepare, load_training_data = setup_module.prepare, run_module.load_training_data
    setups: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {}
    inputs: dict[str, Any] = {}

    def key(recipe: Any) -> str:
        free = {"save_every": 1, "keep": 1, "workers": 0, "max_steps": 1}
        return repr(recipe.model_copy(update={"training": recipe.training.model_copy(update=free)}))

    def loaded(recipe: Any, memory: Any = None) -> Any:
        if key(recipe) not in inputs:
            inputs[key(recipe)] = load_training_data(recipe)
        return inputs[key(recipe)]

    def prepared(recipe: Any, found: Any, console: Any, ranks: Any, validation: Any = None) -> Any:
        if key(recipe) not in setups:
            made = prepare(recipe, found, console, ranks)
            setups[key(recipe)] = made, {name: value.clone() for name, value in made.task.state_dict().items()}
        made, first = setups[key(recipe)]
        made.task.load_state_dict(first)
        made.task.zero_grad(set_to_none=True)
        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(setup_module, "prepare", prepared)
        patched.setattr(run_module, "load_training_data", loaded)
        patched.setattr(os, "fsync", lambda _: None)
        yield
