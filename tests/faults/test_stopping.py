"""R10: Ctrl-C and SIGTERM finish the step, seal, and leave with 130 and 143; a second Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import Heard, outcome, record, train

import dalr
from tiny import Outcome, Toys

STEPS = 8
SETTINGS = (f"training.max_steps={STEPS}", "validation.every=3", "training.save_every=4", "training.log_every=3")
PLACES = {
    "before the step": "dalr.training.step.Step.gradients",
    "in the step": "dalr.training.finite.Guard.watch",
    "after the step": "dalr.training.progress.Progress.on_step",
    "while scoring": "dalr.training.progress.Progress.score",
    "while sealing": "dalr.training.progress.Progress.save",
}

pytestmark = pytest.mark.usefixtures("prepared_once")


def at_call(monkeypatch: pytest.MonkeyPatch, place: str, call: int, act: Callable[[], None]) -> None:
    """Let `act` happen when a function is entered for the `call`th time."""
    module, _, rest = place.rpartition(".")
    module, _, owner = module.rpartition(".")
    kind = getattr(__import__(module, fromlist=["_"]), owner)
    original = getattr(kind, rest)
    calls = 0

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            act()
        return original(*arguments, **options)

    monkeypatch.setattr(kind, rest, watched)


@pytest.fixture(scope="module")
def whole(toys: Toys, prepared_once: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run that nobody stops is worth."""
    folder = tmp_path_factory.mktemp("whole")
    train(toys.recipe(folder), folder / "whole", *SETTINGS)
    return outcome(folder / "whole")


@pytest.mark.parametrize("trial", range(20))
def test_a_signal_at_any_time_leaves_a_run_that_goes_on(
    toys: Toys, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: int
) -> None:
    random = np.random.default_rng(trial)
    place = list(PLACES)[trial % len(PLACES)]
    number = (signal.SIGINT, signal.SIGTERM)[trial % 2]
    recipe = toys.recipe(tmp_path)
    run = tmp_path / "run"
    most = {"while scoring": 3, "while sealing": 1}.get(place, STEPS - 2)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    heard = Heard()
    with monkeypatch.context() as patched:
        at_call(patched, PLACES[place], int(random.integers(1, most + 1)), lambda: os.kill(os.getpid(), number))
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            dalr.train(recipe, overrides=list(SETTINGS), out=run, console=heard)
    if number == signal.SIGTERM:
        assert isinstance(caught.value, SystemExit)
        assert caught.value.code == 143
    else:
        assert isinstance(caught.value, KeyboardInterrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert any(f"run the same command with --out {run} --resume" in line for line in heard.lines)
    assert record(run)["status"] == "stopped"
    assert not (run / ".lock").exists()
    train(recipe, run, *SETTINGS, resume=True)
    assert outcome(run) == whole


def test_a_run_asked_to_stop_in_its_last_step_finishes(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_call(monkeypatch, PLACES["before the step"], STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train(toys.recipe(tmp_path), tmp_path / "run", *SETTINGS)
    outcome(tmp_path / "run")


def test_without_checkpoints_one_is_sealed_when_asked_to_stop(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_call(monkeypatch, PLACES["before the step"], 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(toys.recipe(tmp_path), tmp_path / "run", *SETTINGS, "training.save_every=null")
    assert [path.name for path in (tmp_path / "run" / "resume").iterdir()] == ["step-000003"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_line_exits_with_the_code_of_the_signal(
    toys: Toys,
    tmp_path: Path,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    recipe = toys.recipe(tmp_path)
    settings = [argument for setting in SETTINGS for argument in ("-s", setting)]
    with monkeypatch.context() as patched:
        at_call(patched, PLACES["before the step"], 2, lambda: os.kill(os.getpid(), number))
        stopped = cli("train", recipe, *settings, "--out", tmp_path / "run")
    assert stopped.code == code
    assert "stopped after step 2; to resume, run the same command" in stopped.err
    resumed = cli("train", recipe, *settings, "--out", tmp_path / "run", "--resume")
    assert resumed.code == 0
    assert "resuming from step 2" in resumed.err
    outcome(tmp_path / "run")


def test_a_second_process_exits_with_6_while_the_first_works(
    toys: Toys, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9, at the command line; `tests/io/test_lock.py` has the processes."""
    recipe = toys.recipe(tmp_path)
    found: list[Outcome] = []

    def second() -> None:
        found.append(cli("train", recipe, "--out", tmp_path / "run", "--resume"))

    at_call(monkeypatch, PLACES["before the step"], 2, second)
    train(recipe, tmp_path / "run", *SETTINGS)
    assert found[0].code == 6
    assert f"in use by process {os.getpid()} on" in found[0].err


def test_outside_the_main_thread_nobody_listens(toys: Toys, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train, args=(toys.recipe(tmp_path), tmp_path / "run", *SETTINGS))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) == handler
    outcome(tmp_path / "run")


SLOW_STEP = """
import os, sys, time
from dalr.training.step import Step
gradients = Step.gradients
seconds = float(sys.argv.pop(1))
def slow(self, batch, **options):
    print("step", batch.step, flush=True)
    time.sleep(seconds if batch.step == 1 else 0)
    return gradients(self, batch, **options)
Step.gradients = slow
from dalr.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("signals", "seconds"), [(("SIGINT",), 2), (("SIGTERM",), 2), (("SIGINT", "SIGINT"), 300)])
def test_signals_to_a_whole_group_of_processes(
    toys: Toys, tmp_path: Path, signals: tuple[str, ...], seconds: int, workers: int
) -> None:
    """As a terminal sends them: to the workers that assemble batches too."""
    recipe = toys.recipe(tmp_path)
    settings = [argument for setting in (*SETTINGS, f"training.workers={workers}") for argument in ("-s", setting)]
    command = [sys.executable, "-c", SLOW_STEP, str(seconds), "train", str(recipe), *settings]
    command += ["--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "step 1\n":
                break
        for name in signals:
            os.killpg(process.pid, getattr(signal, name))
            time.sleep(0.3)
        code = process.wait(timeout=60)
    assert code == {("SIGINT",): 130, ("SIGTERM",): 143}.get(signals, -signal.SIGINT)
    if len(signals) == 1:
        assert [path.name for path in (tmp_path / "run" / "resume").iterdir()] == ["step-000002"]
    train(recipe, tmp_path / "run", *SETTINGS, resume=True)
    train(recipe, tmp_path / "whole", *SETTINGS)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
