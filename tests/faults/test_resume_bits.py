"""R5: a run that was cut and gone on with ends in the bits of one that was not: every recipe, every kind of cut."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from trainings import copy, outcome, record, snapshots, train

from dalr.recipe.loading import load_recipe
from dalr.training.data import load_training_data
from tiny import Toys

METHODS = ("simcse", "rankcse", "mcse", "kdmcse", "dalr", "dalr-release")
STEPS = 12
SETTINGS = (
    "training.batch_size=16",
    f"training.max_steps={STEPS}",
    "training.log_every=3",
    "validation.every=4",
    "training.save_every=1",
)

pytestmark = pytest.mark.usefixtures("prepared_once")


def cuts(recipe: Path) -> dict[str, int]:
    """After which steps a run of this recipe is cut."""
    plan = load_training_data(load_recipe(str(recipe), list(SETTINGS))).plan
    kinds = [batch.kind for batch in islice(plan.batches(), STEPS)]
    changes = [step for step in range(1, STEPS) if kinds[step] != kinds[step - 1]]
    found = {
        "after the first step": 1,
        "inside a log line and an epoch": 4,
        "between text and pair": next((step for step in changes if step > 1), 2),
        "at the edge of an epoch": plan.steps(1),
        "before the last step": STEPS - 1,
    }
    assert 1 < plan.steps(1) < STEPS - 1
    assert changes or len(plan.streams) == 1
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_cut_run_ends_in_the_same_bits(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe = toys.method(tmp_path, name)
    train(recipe, tmp_path / "plain", *SETTINGS, "training.save_every=null")
    with monkeypatch.context() as patched:
        at = snapshots(patched, tmp_path)
        train(recipe, tmp_path / "whole", *SETTINGS)
    expected = outcome(tmp_path / "whole")
    assert expected == outcome(tmp_path / "plain"), "writing checkpoints changes nothing"
    for number, (where, step) in enumerate(cuts(recipe).items()):
        run = copy(at(step), tmp_path / f"cut-{number}")
        workers = 2 if number == 1 else 0
        said = train(recipe, run, *SETTINGS, f"training.workers={workers}", resume=True)
        assert f"going on from step {step} ({run}/resume/step-{step:06d})" in said
        assert outcome(run) == expected, where
        [resumed] = record(run)["resumed_at"]
        assert (resumed["step"], resumed["allowed_changes"]) == (step, [])


def test_a_run_cut_again_and_again_ends_in_the_same_bits(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toys.method(tmp_path, "dalr")
    at = snapshots(monkeypatch, tmp_path)
    train(recipe, tmp_path / "whole", *SETTINGS)
    expected = outcome(tmp_path / "whole")
    run = copy(at(2), tmp_path / "run")
    for step in (5, 8, 11):
        for path in tmp_path.glob("at-*"):
            path.rename(tmp_path / f"old-{step}-{path.name}")
        train(recipe, run, *SETTINGS, resume=True)
        run = copy(at(step), tmp_path / f"run-{step}")
    train(recipe, run, *SETTINGS, resume=True)
    assert outcome(run) == expected
    assert [each["step"] for each in record(run)["resumed_at"]] == [2, 5, 8, 11]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("dalr") else pytest.mark.nightly)
        for name in METHODS
    ],
)
def test_a_new_process_ends_in_the_same_bits(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe = toys.method(tmp_path, name)
    at = snapshots(monkeypatch, tmp_path)
    train(recipe, tmp_path / "whole", *SETTINGS)
    run = copy(at(7), tmp_path / "cut")
    settings = [argument for setting in SETTINGS for argument in ("-s", setting)]
    subprocess.run(
        [sys.executable, "-m", "dalr", "train", str(recipe), *settings, "--out", str(run), "--resume", "-q"],
        env=os.environ | {"PYTHONHASHSEED": "77"},
        cwd=tmp_path,
        timeout=600,
        check=True,
    )
    assert outcome(run) == outcome(tmp_path / "whole")
