"""R8: a changed recipe, data or version never goes on silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import copy, outcome, record, snapshots, train

from dalr.errors import ConfigError, CorruptFileError
from dalr.training.fingerprint import differences
from tiny import Toys, write_data

SETTINGS = ("training.max_steps=4", "training.save_every=2")


@pytest.fixture
def stopped(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A recipe on data of its own, and a run of it that was killed after step 2."""
    data = write_data(tmp_path / "data")
    (tmp_path / "recipe").mkdir()
    recipe = Toys(data=data, student=toys.student, teacher=toys.teacher).recipe(tmp_path / "recipe")
    with monkeypatch.context() as patched:
        at = snapshots(patched, tmp_path)
        train(recipe, tmp_path / "whole", *SETTINGS)
    return recipe, copy(at(2), tmp_path / "run")


def refused(recipe: Path, run: Path, *settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        train(recipe, run, *SETTINGS, *settings, resume=True)
    *found, advice = map(str, caught.value.problems)
    assert advice == "--resume: the run was started with different settings; --allow-changed resumes it anyway"
    return found


def test_every_changed_key_is_listed_old_and_new(stopped: tuple[Path, Path]) -> None:
    recipe, run = stopped
    settings = ["training.batch_size=16", "objective.grounding.weight=0.2", "training.learning_rate=2e-3", "seed=5"]
    assert refused(recipe, run, *settings) == [
        "seed: 0 → 5",
        "objective.grounding.weight: 0.1 → 0.2",
        "training.batch_size: 8 → 16",
        "training.learning_rate: 0.001 → 0.002",
    ]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pairs.jsonl", "captions"),
        ("text.txt", "text"),
        ("images.npy", "image features"),
        ("dev.tsv", "validation pairs"),
    ],
)
def test_changed_data_is_noticed_by_its_content(stopped: tuple[Path, Path], name: str, what: str) -> None:
    recipe, run = stopped
    path = recipe.parent.parent / "data" / name
    if path.suffix == ".npy":
        matrix = np.load(path)
        matrix[0, 0] += 1
        np.save(path, matrix)
    elif name == "dev.tsv":
        path.write_text(path.read_text().replace(".", ".0", 1))
    else:
        path.write_text(path.read_text().replace("red", "green", 1))
    [found] = refused(recipe, run)
    assert found.startswith(f"{what}: ")
    assert "… → " in found


@pytest.mark.parametrize(
    ("key", "value"),
    [("torch version", "1.0"), ("dalr major version", "7"), ("precision", "bf16"), ("device", "tpu")],
)
def test_other_versions_and_arithmetic_are_refused(stopped: tuple[Path, Path], key: str, value: str) -> None:
    recipe, run = stopped
    written = record(run)
    now = written["identity"][key]
    written["identity"][key] = value
    (run / "run.json").write_text(json.dumps(written))
    assert refused(recipe, run) == [f"{key}: {value} → {now}"]


def test_what_changes_no_number_may_differ(stopped: tuple[Path, Path]) -> None:
    recipe, run = stopped
    train(recipe, run, *SETTINGS, "training.keep=3", "training.save_every=null", "training.workers=1", resume=True)
    assert outcome(run) == outcome(run.parent / "whole")


def test_a_key_that_the_earlier_dalr_did_not_know_is_taken_at_its_default(stopped: tuple[Path, Path]) -> None:
    recipe, run = stopped
    written = record(run)
    del written["recipe"]["training"]["clip_norm"]
    (run / "run.json").write_text(json.dumps(written))
    train(recipe, run, *SETTINGS, resume=True)


def test_allowed_changes_are_named_in_the_record(stopped: tuple[Path, Path]) -> None:
    recipe, run = stopped
    changed = "training.learning_rate=2e-3"
    train(recipe, run, *SETTINGS, changed, resume=True, allow_changed=True)
    [resumed] = record(run)["resumed_at"]
    assert resumed["allowed_changes"] == ["training.learning_rate: 0.001 → 0.002"]
    assert record(run)["recipe"]["training"]["learning_rate"] == 2e-3
    rates = [
        line["learning_rate"]
        for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "loss" in line
    ]
    assert rates == pytest.approx([1e-3, 7.5e-4, 1e-3, 5e-4])


def test_other_parameters_are_refused_even_if_changes_are_allowed(stopped: tuple[Path, Path]) -> None:
    recipe, run = stopped
    with pytest.raises(
        ConfigError, match=r"heads\.sentence\.0\.bias: \(32,\) in the checkpoint, absent in the current recipe"
    ):
        train(recipe, run, *SETTINGS, "heads.sentence=false", resume=True, allow_changed=True)


def test_a_finished_run_says_so_and_stays_as_it_is(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    train(recipe, tmp_path / "run", *SETTINGS)
    before = outcome(tmp_path / "run"), record(tmp_path / "run")
    assert f"{tmp_path / 'run'} is finished: nothing to resume" in train(
        recipe, tmp_path / "run", *SETTINGS, resume=True
    )
    assert (outcome(tmp_path / "run"), record(tmp_path / "run")) == before
    assert refused(recipe, tmp_path / "run", "seed=5") == ["seed: 0 → 5"]


def test_a_run_of_a_dalr_that_could_not_go_on_is_refused(toys: Toys, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"name": "old", "recipe": {}, "status": "stopped"}')
    with pytest.raises(CorruptFileError, match="no id, identity in it"):
        train(toys.recipe(tmp_path), tmp_path / "run", resume=True)


@pytest.mark.parametrize("options", [{"resume": True}, {"allow_changed": True}])
def test_which_run_must_be_said(toys: Toys, tmp_path: Path, options: dict[str, Any]) -> None:
    import dalr

    with pytest.raises(ConfigError, match=r"--out|goes with --resume"):
        dalr.train(toys.recipe(tmp_path), **options)


def test_differences_of_lists_and_missing_keys_have_their_paths() -> None:
    found = differences({"a": {"b": [1, 2]}, "c": None}, {"a": {"b": [1, 3]}, "d": 1}, ignored=frozenset())
    assert list(map(str, found)) == ["a.b.1: 2 → 3", "c: None → absent", "d: absent → 1"]
