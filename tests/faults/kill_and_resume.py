"""Real kills: `python tests/faults/kill_and_resume.py FOLDER TRIALS` kills trainings with SIGKILL and resumes them.

Every training is a process of its own, forked from one that has imported everything and trained nothing. Half of
them are killed at a random time, half before a random write, rename or fsync of theirs; each is gone on with in a
new process. The last line is a summary in JSON.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from trainings import outcome, record, train  # noqa: E402

from tiny import Toys, save_tiny_bert, save_tiny_sentence_transformer, write_data  # noqa: E402

SETTINGS = (
    "training.max_steps=30",
    "training.save_every=4",
    "training.keep=1",
    "training.log_every=3",
    "validation.every=5",
)
COUNTED = ("replace", "rename", "fsync", "mkdir")


def main(folder: Path, trials: int) -> None:
    recipe = _make(folder)
    _import_everything(folder)
    counter = folder / "operations"
    started = time.monotonic()
    _in_a_child(lambda: _train(recipe, folder / "whole", kill_before=0, counter=counter))
    seconds = time.monotonic() - started
    operations = int(counter.read_text())
    expected = outcome(folder / "whole")
    random = np.random.default_rng(0)
    same, killed, steps = 0, 0, []
    for trial in range(trials):
        run = folder / f"run-{trial}"
        before = int(random.integers(1, operations + 1)) if trial % 2 else 0
        after = None if trial % 2 else float(random.uniform(0.1, 1.0)) * seconds
        code = _in_a_child(lambda run=run, before=before: _train(recipe, run, kill_before=before), kill_after=after)
        killed += code == -signal.SIGKILL
        code = _in_a_child(lambda run=run: _train(recipe, run, resume=True))
        equal = code is None and outcome(run) == expected
        same += equal
        steps += [each["step"] for each in record(run)["resumed_at"]]
        where = f"before operation {before} of {operations}" if before else f"after {after:.2f} of {seconds:.2f} s"
        _say(f"{trial}: {where}: {'same' if equal else 'DIFFERENT'}")
    _say(json.dumps({"trials": trials, "killed": killed, "same": same, "operations": operations, "steps": steps}))


def _import_everything(folder: Path) -> None:
    """So that the processes that are killed spend their time training."""
    import dalr.api
    import dalr.training.loop
    import dalr.training.progress
    import dalr.training.setup
    import dalr.training.space  # noqa: F401
    from dalr.evaluation.metrics import spearman
    from dalr.models.config import StudentConfig
    from dalr.models.embedding import embed
    from dalr.models.export import save_encoder
    from dalr.models.loading import load_encoder

    encoder = load_encoder(StudentConfig(model=str(folder / "student"), pooling="cls"))
    vectors = embed(encoder, ["a red dog", "a blue cat", "two cows"])
    spearman(vectors[0], vectors[1])
    save_encoder(encoder, folder / "saved")


def _make(folder: Path) -> Path:
    (folder / "recipe").mkdir(parents=True)
    toys = Toys(
        data=write_data(folder / "data"),
        student=save_tiny_bert(folder / "student"),
        teacher=save_tiny_sentence_transformer(folder / "teacher"),
    )
    return toys.method(folder / "recipe", "dalr")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _train(
    recipe: Path, run: Path, *, kill_before: int = 0, counter: Path | None = None, resume: bool = False
) -> None:
    count = _kill_before(run, kill_before)
    train(recipe, run, *SETTINGS, resume=resume)
    if counter is not None:
        counter.write_text(str(count()))


def _kill_before(run: Path, chosen: int) -> Callable[[], int]:
    """End this process before its `chosen`th change below `run`; gives how many there were."""
    count = 0

    def changes(place: Any) -> None:
        nonlocal count
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else place
        if Path(path).absolute().is_relative_to(run):
            count += 1
            if count == chosen:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(original: Callable[..., Any], is_change: Callable[..., bool]) -> Callable[..., Any]:
        def call(place: Any, *more: Any, **options: Any) -> Any:
            if is_change(*more, **options):
                changes(place)
            return original(place, *more, **options)

        return call

    for name in COUNTED:
        setattr(os, name, counted(getattr(os, name), lambda *_, **__: True))
    writing = counted(builtins.open, lambda mode="r", *_, **__: mode[0] in "wax")
    builtins.open = io.open = writing  # type: ignore[assignment]
    return lambda: count


def _in_a_child(act: Callable[[], None], *, kill_after: float | None = None) -> int | None:
    """Run `act` in a forked process; its code where that is not 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)  # at worst it has just ended and waits to be asked for
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code or None


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]))
