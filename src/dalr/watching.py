"""Score the checkpoints of a training while it goes on.

A training keeps its best checkpoint only, so one may vanish while it is read. It is therefore taken hold of first,
as hard links under a hidden name in the run's folder (copies where there are no links), and checked byte by byte:
whatever the training then removes, what is scored is whole. `watched.jsonl` is the memory: a model that it has
under the same settings is not scored again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from dalr.console import Console
from dalr.errors import ConfigError, CorruptFileError, DataError, Problem
from dalr.evaluation.results import Details, Evaluation, Result
from dalr.evaluation.table import lines_of
from dalr.evaluation.tasks import RETRIEVAL, STS_TASKS, TRANSFER_TASKS
from dalr.io.atomic import storage_errors, write_bytes
from dalr.io.sealed import MANIFEST
from dalr.models.config import EncoderConfig
from dalr.models.loading import encoder_sha256
from dalr.scoring import Loaded, Place, Request, evaluate_one, load, run_record, settings_of
from dalr.training.checkpoint import Checkpoint, read_checkpoint

WATCHED = "watched.jsonl"
POLL_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time, as tests may want to make it pass."""

    now: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    sleep: Callable[[float], None] = field(default_factory=lambda: time.sleep)


class Watched(Result):
    """One line of `watched.jsonl`."""

    step: int
    kept_for: float | None
    """The development score that the training kept the checkpoint for, × 100."""
    seconds: float
    """Loading the model and scoring it."""
    evaluation: Evaluation
    """Without its details."""

    def line(self) -> str:
        """Step, averages (of the tasks that they are not of: the scores), seconds."""
        shown = [
            (name, value, tasks)
            for name, value, tasks in (
                ("STS avg", self.evaluation.sts_avg, STS_TASKS),
                ("transfer avg", self.evaluation.transfer_avg, TRANSFER_TASKS),
            )
            if value is not None
        ]
        parts = [f"{name} {value:.2f}" for name, value, _ in shown]
        averaged = {task for _, _, tasks in shown for task in tasks}
        for task, result in self.evaluation.tasks.items():
            if task not in averaged:
                first = lines_of(result)[0]
                parts.append(f"{task} {first.value:.{first.decimals}f}")
        parts += [f"{failed.task} failed" for failed in self.evaluation.failed]
        return " · ".join([f"step {self.step}", *parts, f"{self.seconds:.1f} s"])


def watch(run: Path, request: Request, *, clock: Clock | None = None) -> Iterator[Watched]:
    """Yield the scores of each checkpoint of `run` as it appears, until the training has ended.

    Raises:
        ConfigError: `run` is not the folder of a training, or the request cannot be met.
        DataError: a task whose data is missing or wrong; nothing is scored without it.
        StorageError: `watched.jsonl` cannot be written.
    """
    clock = clock or Clock()
    _require_run_folder(run)
    loaded = load(replace(request, map_method="none"))
    if loaded.failed:
        raise DataError([Problem(where=failed.task, what=failed.reason) for failed in loaded.failed])
    _wait_for_record(run, request.console, clock)
    if loaded.pictures is not None:
        loaded.pictures(run)
    watcher = _Watcher(run=run, request=request, loaded=loaded, clock=clock)
    while True:
        status = str(run_record(run).get("status"))  # before looking: what the training left last is seen too
        yield from watcher.new()
        if status != "training":
            break
        clock.sleep(POLL_SECONDS)
    request.console.say(f"{run}: training {status}, {watcher.scored} checkpoints scored in {run / WATCHED}")


class _Watcher:
    """What was seen of a run."""

    def __init__(self, *, run: Path, request: Request, loaded: Loaded, clock: Clock) -> None:
        self.run, self.request, self.loaded, self.clock = run, request, loaded, clock
        self.console = request.console
        self.seen: set[str] = set()
        self.known = _read_watched(run / WATCHED, request.console)
        self.scored = 0

    def new(self) -> Iterator[Watched]:
        for folder in sorted(
            (self.run / "checkpoints").glob("step-*"), key=lambda path: (len(path.name), path.name)
        ):
            if folder.name in self.seen:
                continue
            self.seen.add(folder.name)
            try:
                with _held(folder, self.run) as checkpoint:
                    watched = self._score(folder, checkpoint)
            except _UnusableError as error:
                self.console.say(f"{folder.name}: {error}; skipped")
                continue
            if watched is not None:
                self.scored += 1
                self._write(watched)
                yield watched

    def _score(self, folder: Path, held: Checkpoint) -> Watched | None:
        request = self.request
        encoder = EncoderConfig(
            model=str(held.folder / "model"),
            pooling=request.pooling,
            num_layers=request.num_layers,
            prompt=request.prompt,
        )
        if self._is_known(encoder_sha256(encoder)):
            self.console.say(f"{folder.name}: already in {WATCHED}")
            return None
        heads = held.folder / "heads.safetensors"
        place = Place(
            name=str(folder),
            encoder=encoder,
            heads=request.heads or (heads if heads.is_file() else None),
            run=self.run,
        )
        started = self.clock.now()
        evaluation = evaluate_one(place, self.loaded, replace(request, map_method="none"))
        return Watched(
            step=held.step,
            kept_for=held.score,
            seconds=round(self.clock.now() - started, 3),
            evaluation=evaluation.model_copy(update={"details": Details()}),
        )

    def _is_known(self, sha256: str) -> bool:
        wanted = {task.name for task in self.loaded.tasks} | {task.name for task in self.loaded.mteb}
        wanted |= {RETRIEVAL} if self.loaded.pictures is not None else set()
        settings = settings_of(self.request)
        return any(
            earlier.model_sha256 == sha256
            and earlier.settings.model_copy(update={"data_changed": ()}) == settings
            and wanted <= set(earlier.tasks)
            for earlier in self.known
        )

    def _write(self, watched: Watched) -> None:
        """The whole file anew, so that a line is there or is not."""
        path = self.run / WATCHED
        before = path.read_bytes() if path.is_file() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        write_bytes(path, before + watched.model_dump_json(by_alias=True).encode() + b"\n")


class _UnusableError(Exception):
    """Why a checkpoint is not scored."""


@contextmanager
def _held(folder: Path, run: Path) -> Iterator[Checkpoint]:
    """A checkpoint that stays, whatever the training does to its own.

    Raises:
        _UnusableError: it was removed meanwhile, or is damaged.
    """
    with ExitStack() as stack:
        with storage_errors(run):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=run, prefix=".watched-")))
        try:
            shutil.copytree(folder, place / folder.name, copy_function=_link)
            checkpoint = read_checkpoint(place / folder.name)
        except (OSError, CorruptFileError) as error:
            if not (folder / MANIFEST).is_file():
                raise _UnusableError("removed while it was being read") from None
            raise _UnusableError(str(error).replace(str(place / folder.name), str(folder))) from None
        yield checkpoint


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, or the file is gone: then copying says so
        shutil.copy2(source, target)


def _read_watched(path: Path, console: Console) -> list[Evaluation]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found.append(Watched.model_validate_json(line).evaluation)
        except ValidationError:
            console.say(f"{path}:{number}: not a line that this dalr can read; left as it is")
    return found


def _require_run_folder(run: Path) -> None:
    where = "--watch"
    if not run.is_dir():
        raise ConfigError(Problem(where=where, what=f"expected the folder of a training, found no folder {run}"))
    other = [name for name in ("modules.json", "config.json", MANIFEST) if (run / name).is_file()]
    if other and not (run / "run.json").is_file():
        what = f"expected the folder of a training, found {other[0]} and no run.json in {run}"
        raise ConfigError(Problem(where=where, what=what))


def _wait_for_record(run: Path, console: Console, clock: Clock) -> None:
    record = run / "run.json"
    if not record.is_file():
        console.say(f"waiting for {record}: the training has not begun")
    while not record.is_file():
        clock.sleep(POLL_SECONDS)
