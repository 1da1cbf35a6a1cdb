"""What could change a result without a word: threads, validation data, stores and records that are written to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import dalr
from dalr.console import Console
from dalr.errors import CorruptFileError
from dalr.features.store import open_store
from dalr.io.json import NotFiniteError, loads_finite
from tiny import Outcome, Toys


class KilledError(Exception):
    pass


class KillAt:
    def __init__(self, step: int, before: Callable[[], object] = lambda: None) -> None:
        self.step, self.before = step, before

    def on_step(self, step: int, losses: Any, metrics: Mapping[str, Any]) -> None:
        if step == self.step:
            self.before()
            raise KilledError


@pytest.fixture
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Threads


def test_a_run_is_resumed_on_as_many_threads_as_it_had(
    toys: Toys, tmp_path: Path, threads: None, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, seen = toys.recipe(tmp_path), []

    class Threads:
        def on_step(self, step: int, losses: Any, metrics: Mapping[str, Any]) -> None:
            seen.append(torch.get_num_threads())

    settings = {"training.save_every": 2, "training.max_steps": 6}
    torch.set_num_threads(2)
    with pytest.raises(KilledError):
        dalr.train(recipe, overrides=settings, out=tmp_path / "run", callbacks=[KillAt(5)])
    torch.set_num_threads(1)
    capsys.readouterr()
    dalr.train(recipe, overrides=settings, out=tmp_path / "run", resume=True, callbacks=[Threads()])
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1, "given back"
    said = capsys.readouterr().err
    assert said.count("computing on 2 threads, as the run did before (this process was started for 1)") == 1


# Validation sentences that are trained on


def test_validation_sentences_that_are_trained_on_are_counted_and_shown(
    toys: Toys, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    leaking = [line for line in toys.data.text.read_text().splitlines() if line.strip()][:7]
    scored = tmp_path / "scored.tsv"
    scored.write_text("".join(f"{n / 2}\t{line.upper()}\tSomething else {n}.\n" for n, line in enumerate(leaking)))
    recipe = toys.recipe(tmp_path, development={"kind": "tsv", "data": str(scored), "every": 2})
    for words in (("check", recipe), ("train", recipe, "--out", tmp_path / "run")):
        found = cli(*words)
        assert found.code == 0, found.err
        [warning] = [line for line in found.err.splitlines() if line.startswith("warning: 7")]
        assert warning.startswith("warning: 7 validation sentences are also trained on")
        assert sum(line.upper() in warning for line in leaking) == 5
    checked = cli("check", recipe, "--json", tmp_path / "check.json")
    assert checked.code == 0
    assert json.loads((tmp_path / "check.json").read_text())["warning"].startswith("warning: 7 validation")


def test_nothing_is_said_where_validation_sentences_are_new(
    toys: Toys, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    scored = tmp_path / "scored.tsv"
    scored.write_text("".join(f"{n}\tQuite new {n}.\tAnother {n}.\n" for n in range(4)))
    recipe = toys.recipe(tmp_path, development={"kind": "tsv", "data": str(scored)})
    assert "trained on" not in cli("check", recipe).err


# Stores and records


def overwrite_a_byte(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x00")
    os.utime(path, ns=(1, 1))


def test_a_shard_that_is_written_to_during_training_is_noticed_at_the_next_validation(
    toys: Toys, tmp_path: Path, fresh_cache: Path
) -> None:
    store = tmp_path / "store"
    from dalr.features.importing import import_matrix

    import_matrix(toys.data.matrix, toys.data.ids, store)
    [shard] = store.glob("*.safetensors")

    class Overwrite:
        def on_step(self, step: int, losses: Any, metrics: Mapping[str, Any]) -> None:
            if step == 1:
                overwrite_a_byte(shard)

    recipe = toys.recipe(tmp_path, features={"image": str(store)})
    with pytest.raises(CorruptFileError, match=f"{shard.name}: it was written to while it was in use"):
        dalr.train(recipe, overrides={"training.max_steps": 6}, out=tmp_path / "run", callbacks=[Overwrite()])


def test_a_store_that_nobody_touches_is_unchanged(toys: Toys, tmp_path: Path) -> None:
    from dalr.features.importing import import_matrix

    import_matrix(toys.data.matrix, toys.data.ids, tmp_path / "store")
    open_store(tmp_path / "store").require_unchanged()


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_no_records(number: str, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="expected finite numbers"):
        loads_finite(f'{{"result": {{"best_score": {number}}}}}')


@pytest.mark.parametrize("number", ["1e400", "NaN"])
def test_a_record_with_such_a_number_is_refused_where_it_is_read(
    toys: Toys, tmp_path: Path, number: str, cli: Callable[..., Outcome]
) -> None:
    run = tmp_path / "run"
    recipe = toys.recipe(tmp_path)
    dalr.train(recipe, out=run, console=Console(quiet=True))
    record = run / "run.json"
    record.write_text(record.read_text().replace('"seconds":', f'"worth": {number}, "seconds":'))
    for words in (("train", recipe, "--out", run, "--resume"), ("report", run, "--out", tmp_path / "page.html")):
        found = cli(*words)
        assert found.code in (3, 4), found
        assert "expected finite numbers" in found.err
        assert "run.json" in found.err


# Evaluations whose record cannot be written


def test_scores_are_shown_although_the_run_cannot_keep_them(
    toys: Toys, tmp_path: Path, shared: Path, cli: Callable[..., Outcome]
) -> None:
    runs = []
    for name in ("one", "two"):
        dalr.train(toys.recipe(tmp_path), out=tmp_path / name, console=Console(quiet=True))
        runs.append(tmp_path / name)
    (runs[0] / "evaluation.json").mkdir()
    found = cli("evaluate", *runs, "--data", shared / "data" / "senteval", "--tasks", "sts-b-dev")
    assert found.code == 0, found.err
    assert found.out.count("sts-b-dev") >= 1
    assert str(runs[0]) in found.out
    assert str(runs[1]) in found.out
    assert "warning: the run keeps no record of these scores" in found.err
    assert (runs[1] / "evaluation.json").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_scores_of_a_read_only_run_are_shown(  # pragma: no cover - needs another user
    toys: Toys, tmp_path: Path, shared: Path, cli: Callable[..., Outcome]
) -> None:
    run = tmp_path / "run"
    dalr.train(toys.recipe(tmp_path), out=run, console=Console(quiet=True))
    run.chmod(stat.S_IRUSR | stat.S_IXUSR)
    found = cli("evaluate", run, "--data", shared / "data" / "senteval", "--tasks", "sts-b-dev")
    run.chmod(stat.S_IRWXU)
    assert found.code == 0
    assert "sts-b-dev" in found.out
