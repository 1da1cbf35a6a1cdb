"""R1 and R4: a kill costs some steps and nothing else; from the first on there is always a whole checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_points import States, before_each_change, contents, forget
from trainings import copy, outcome, record, rising_scores, train

from dalr.errors import CorruptFileError, StorageError
from dalr.training.resume import points, read_point
from dalr.training.trainer import _sweep
from tiny import Toys

SETTINGS = ("training.max_steps=4", "validation.every=2", "training.save_every=1")

pytestmark = pytest.mark.usefixtures("prepared_once")


def test_a_kill_at_any_moment_is_gone_on_from_to_the_same_bits(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1. What goes on depends on what is left when hidden leftovers are swept away: each such tree once."""
    rising_scores(monkeypatch)
    recipe = toys.recipe(tmp_path)
    run = tmp_path / "run"
    states = States(run, tmp_path / "states")
    with before_each_change(run, states.look):
        train(recipe, run, *SETTINGS)
    expected = outcome(run)
    results: dict[str, str] = {}
    for state in states:
        copied = copy(state, tmp_path / "swept")
        _sweep(copied)
        tree = repr(sorted((name, hash(data)) for name, data in contents(copied).items()))
        forget(copied)
        if tree in results:
            continue
        results[tree] = state.name
        train(recipe, state, *SETTINGS, resume=True)
        assert outcome(state) == expected, state.name
    assert states.count > 100
    assert len(results) > 10


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_one_whole_checkpoint_is_there_at_every_moment_from_the_first(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    """R4."""
    rising_scores(monkeypatch)
    run = tmp_path / "run"
    counts: list[int] = []

    def look(_: str) -> None:
        whole = 0
        for folder in points(run):
            try:
                read_point(folder, run=run, run_id=record(run)["id"])
            except (CorruptFileError, FileNotFoundError):
                continue
            whole += 1
        counts.append(whole)
        finished = (run / "run.json").is_file() and record(run)["status"] == "finished"
        assert whole >= 1 or max(counts) == 0 or finished

    with before_each_change(run, look):
        train(toys.recipe(tmp_path), run, *SETTINGS, "training.max_steps=6", f"training.keep={keep}")
    assert max(counts) == keep + 1, "one more while the newest is being written"
    assert counts.count(0) < len(counts) / 2


def test_a_kill_before_anything_was_said_leaves_a_folder_that_can_be_begun_in(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text('{"pid": 1, "host": "gone"}')
    said = train(recipe, tmp_path / "run", *SETTINGS, resume=True)
    assert f"{tmp_path / 'run'} holds no checkpoint to go on from: starting from step 0" in said
    outcome(tmp_path / "run")


def test_a_run_that_stands_in_the_way_says_how_to_go_on_with_it(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    train(recipe, tmp_path / "run", *SETTINGS)
    with pytest.raises(StorageError, match="or --resume to resume it"):
        train(recipe, tmp_path / "run", *SETTINGS)
