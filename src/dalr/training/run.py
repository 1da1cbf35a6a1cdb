"""One training run: data checked, vectors and tokens ready, student trained, the best weights exported.

RUN/run.json            resolved recipe, versions, data report, git commit, result
RUN/metrics.jsonl       terms and development scores while training
RUN/checkpoints/        the best checkpoint, sealed
RUN/resume/             where a stopped run goes on; gone when it has finished
RUN/model/              the product: a SentenceTransformer
RUN/heads.safetensors   what was trained beside it
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.console import Console
from dalr.data.config import DataConfig
from dalr.errors import ConfigError, CorruptFileError, Problem, StorageError
from dalr.features.config import FeaturesConfig
from dalr.io.atomic import storage_errors, write_json
from dalr.io.lock import LOCK, locked, require_unlocked
from dalr.io.sealed import sweep
from dalr.models.config import HeadsConfig, StudentConfig, TeacherConfig
from dalr.objectives import Objective
from dalr.seed import seed_everything
from dalr.training.config import DevelopmentConfig, TrainingConfig
from dalr.training.identity import differences, identity
from dalr.training.inputs import Inputs, load_inputs
from dalr.training.launch import process_rank
from dalr.training.provenance import provenance
from dalr.training.reporting import reports

if TYPE_CHECKING:
    from dalr.training.progress import Progress
    from dalr.training.ranks import Ranks
    from dalr.training.resumption import ResumePoint
    from dalr.training.task import TrainingTask

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a run left its product, and how it did."""

    run: Path
    model: Path
    """Loads with `SentenceTransformer(model)`."""
    steps: int
    """Made, not planned."""
    best_step: int
    development: str | None
    """Name of the development score; None without one."""
    best_score: float | None
    """× 100."""
    untrained_score: float | None
    seconds: float
    stopped_early_at: int | None = None
    """The step after which `development.patience` was at its end; None: all steps were made."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The typed sections of a recipe: all that a run depends on."""

    name: str
    seed: int
    data: DataConfig
    features: FeaturesConfig
    student: StudentConfig
    heads: HeadsConfig
    teachers: tuple[TeacherConfig, ...]
    objective: Objective
    training: TrainingConfig
    development: DevelopmentConfig | None


@dataclass(frozen=True, kw_only=True)
class Resume:
    """How to go on with a run that was stopped."""

    read_recipe: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """The resolved recipe of an earlier run, with today's defaults for keys that it did not know."""
    allow_changed: bool = False
    """Go on although recipe, data or versions differ, and say so in `run.json`."""


def run(
    job: Job, *, out: Path, recipe: Mapping[str, Any], console: Console, resume: Resume | None = None
) -> TrainResult:
    """Train `job` into the folder `out`; `recipe` is the resolved recipe as it goes into `run.json`.

    Raises:
        DataError, ModelFileError, ConfigError: before training, with everything that is wrong, or everything that
            differs from the run to go on with.
        NumericsError: a loss is not finite.
        StorageError: `out` is in use, holds something else, or cannot be written.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after the step was finished and a resume point sealed.
    """
    main = process_rank() == 0
    if main:
        require_unlocked(out)
        _require_ours(out, resume)
    inputs = load_inputs(job)
    with locked(out) if main else nullcontext():
        if main:
            _require_ours(out, resume)
            _sweep(out)
        console = console if main else Console(quiet=True)
        return _run(job, inputs, out=out, recipe=recipe, console=console, resume=resume)


def _run(
    job: Job, inputs: Inputs, *, out: Path, recipe: Mapping[str, Any], console: Console, resume: Resume | None
) -> TrainResult:
    for name, value in inputs.dataset.report.items():
        console.detail(f"{name}: {value}")
    same = identity(job, inputs)
    earlier = _earlier(out) if resume is not None else None
    allowed = _compared(earlier, recipe, same, resume) if earlier is not None and resume is not None else []
    if earlier is not None and earlier.get("status") == "finished":
        console.say(f"{out} is finished: nothing to go on with")
        return _tidied(out, earlier)
    # torch and the model libraries take seconds to import: only after the data has been found good
    from dalr.training.ranks import joined

    with joined(job.training.batch_size) as ranks:
        if ranks.world > 1 and job.heads.aligner_norm == "batch":
            what = f"batch norms the rows of one rank, and there are {ranks.world}; use layer"
            raise ConfigError(Problem(where="heads.aligner_norm", what=what))
        start: Record = {"name": job.name, "recipe": dict(recipe), "identity": same}
        return _train(
            job,
            inputs,
            start=start,
            earlier=earlier,
            allowed=allowed,
            resuming=resume is not None,
            ranks=ranks,
            out=out,
            console=console,
        )


def _train(
    job: Job,
    inputs: Inputs,
    *,
    start: Record,
    earlier: Record | None,
    allowed: list[str],
    resuming: bool,
    ranks: Ranks,
    out: Path,
    console: Console,
) -> TrainResult:
    from dalr.training.loop import fit
    from dalr.training.optimization import Optimization
    from dalr.training.progress import Progress
    from dalr.training.setup import prepare
    from dalr.training.space import require_space
    from dalr.training.stopping import asked_to_stop

    seed_everything(job.seed)
    with ranks.main_first():
        setup = prepare(job, inputs, console, ranks)
    steps = job.training.max_steps or setup.plan.steps(job.training.epochs)
    optimization = Optimization(setup.task, job.training, steps=steps, heads=setup.task.heads)
    run_id = ranks.agree(earlier["id"] if earlier is not None else uuid.uuid4().hex)
    point = _point(out, run_id, ranks, console) if earlier is not None else None
    if resuming and point is None:
        console.say(f"{out} holds no checkpoint to go on from: starting from step 0")
    if point is not None:
        point.restore(setup.task, optimization)
    saves = job.training.save_every is not None and job.training.save_every < steps
    if ranks.main:
        require_space(out, setup.task, points=job.training.keep + 1 if saves else 0)
    record: Record = {
        "id": run_id,
        **start,
        "data": inputs.dataset.report | setup.report,
        "steps": steps,
        **provenance(setup.task),
        "resumed_at": _resumptions(earlier, point, allowed),
    }
    _write_record(ranks, out, record | {"status": "training"})
    reporters = job.training.report_to if ranks.main else ()
    with (
        reports(reporters, run=out, project=job.name, recipe=start["recipe"]) as reported,
        console.bar(f"train {job.name}", steps, "step") as bar,
        asked_to_stop(console) as stop,
    ):
        progress: Progress | None = None
        try:
            progress = Progress(
                task=setup.task,
                optimization=optimization,
                development=setup.development,
                training=job.training,
                scoring=job.development,
                ranks=ranks,
                out=out,
                run_id=run_id,
                steps=steps,
                point=point,
                stop=stop,
                bar=bar,
                reports=reported,
                console=console,
            )
            if point is None:
                progress.score(0)
            else:
                bar.skip(point.step)
            fit(
                setup.task,
                plan=setup.plan,
                collator=setup.collator,
                config=job.training,
                optimization=optimization,
                steps=steps,
                seed=job.seed,
                run=out,
                ranks=ranks,
                listener=progress,
                done=point.step if point is not None else 0,
            )
            return _finished(out, record, progress, ranks)
        except BaseException as error:
            reason = str(error) if isinstance(error, Exception) else "interrupted"
            with suppress(StorageError):  # the disk may be what is wrong
                _write_record(ranks, out, record | {"status": "stopped", "reason": reason})
            console.say(f"stopped; {out} has no finished model")
            if isinstance(error, StorageError):
                raise _with_advice(error, out, progress, setup.task) from error
            raise


def _write_record(ranks: Ranks, out: Path, record: Record) -> None:
    if ranks.main:
        write_json(out / "run.json", record)


def _finished(out: Path, record: Record, progress: Progress, ranks: Ranks) -> TrainResult:
    from dalr.training.checkpoint import publish

    best = progress.finish()
    outcome = {
        "steps": progress.stopped_at or progress.steps,
        "stopped_early_at": progress.stopped_at,
        "best_step": best.step,
        "best_score": best.score,
        "untrained_score": progress.untrained,
        "development": progress.development.name if progress.development is not None else None,
        "seconds": round(progress.seconds, 1),
    }
    record = record | {"status": "finished", "result": outcome}
    if ranks.main:
        publish(best, out)
        write_json(out / "run.json", record)
        _tidy(out, best.step)
    return _result(out, record)


def _tidied(out: Path, record: Record) -> TrainResult:
    """The result of a run that had finished, and nothing kept that was only there to go on with it."""
    if process_rank() == 0:
        _tidy(out, record["result"]["best_step"])
    return _result(out, record)


def _tidy(out: Path, best_step: int) -> None:
    from dalr.training.checkpoint import keep_checkpoints

    shutil.rmtree(out / "resume", ignore_errors=True)
    with suppress(StorageError):  # what cannot be removed does no harm: the run is finished
        keep_checkpoints(out, [best_step])


def _result(out: Path, record: Record) -> TrainResult:
    outcome = record["result"]
    return TrainResult(
        run=out,
        model=out / "model",
        steps=outcome.get("steps", record["steps"]),
        stopped_early_at=outcome.get("stopped_early_at"),
        best_step=outcome["best_step"],
        development=outcome["development"],
        best_score=outcome["best_score"],
        untrained_score=outcome["untrained_score"],
        seconds=outcome["seconds"],
    )


def _require_ours(out: Path, resume: Resume | None) -> None:
    """Refuse a folder that holds something else than a run to go on with: nothing is overwritten by accident."""
    with storage_errors(out):
        if not out.exists():
            return
        if out.is_dir() and all(path.name.startswith((LOCK, ".run.json.")) for path in out.iterdir()):
            return  # empty, or what a run leaves that is killed before it says anything
        is_run = (out / "run.json").is_file()
    if is_run and resume is not None:
        return
    go_on = ", or --resume to go on with it" if is_run else ""
    raise StorageError(f"{out} already exists and is not empty; choose another --out, or remove it{go_on}")


def _sweep(out: Path) -> None:
    """Delete what a killed process left half-written."""
    sweep(out, "run.json", "metrics.jsonl", "heads.safetensors", "model", "bad_batch.json")
    sweep(out / "checkpoints", "step-")
    sweep(out / "resume", "step-")


def _earlier(out: Path) -> Record | None:
    """What the run to go on with says of itself; None where it had not yet begun."""
    path = out / "run.json"
    if not path.is_file():
        return None
    try:
        record: Record = json.loads(path.read_bytes())
        missing = {"id", "recipe", "identity"} - record.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"{path}: cannot be read ({error}); start anew with another --out") from None
    if missing:
        what = f"no {', '.join(sorted(missing))} in it, so it cannot be gone on with"
        raise CorruptFileError(f"{path}: {what}; start anew with another --out")
    return record


def _compared(earlier: Record, recipe: Mapping[str, Any], same: Mapping[str, str], resume: Resume) -> list[str]:
    """What differs from the earlier run, if that is allowed.

    Raises:
        ConfigError: it is not; with each difference.
    """
    found = differences(resume.read_recipe(earlier["recipe"]), recipe) + differences(earlier["identity"], same)
    if found and not resume.allow_changed:
        raise ConfigError(
            [*found, Problem(where="--resume", what="the run was begun otherwise; --allow-changed goes on anyway")]
        )
    return [str(problem) for problem in found]


def _point(out: Path, run_id: str, ranks: Ranks, console: Console) -> ResumePoint | None:
    """Where to go on, with a line for each newer place that was rejected.

    Raises:
        StorageError: the ranks do not find the same, because they do not share the folder.
    """
    from dalr.training.resumption import newest_point

    point, rejected = newest_point(out, run_id=run_id)
    first = ranks.agree(point.step if point is not None else 0)
    if first != (point.step if point is not None else 0):
        what = f"the first rank goes on from step {first}, which this one does not find"
        raise StorageError(f"{out}: {what}; all ranks need the same folder")
    using = f"using {point.folder.name}" if point is not None else "starting from step 0"
    for error in rejected:
        console.say(f"{str(error).removesuffix('; not used')}; {using}")
    if point is not None:
        console.say(f"going on from step {point.step} ({point.folder})")
    return point


def _resumptions(earlier: Record | None, point: ResumePoint | None, allowed: list[str]) -> list[Record]:
    """Each time the run went on: when, from which step, and in spite of which differences."""
    if earlier is None:
        return []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    step = point.step if point is not None else 0
    return [*earlier.get("resumed_at", []), {"step": step, "time": now, "allowed_changes": allowed}]


def _with_advice(error: StorageError, out: Path, progress: Progress | None, task: TrainingTask) -> StorageError:
    from dalr.training.space import free_bytes, in_mb, point_bytes

    sealed = progress.sealed if progress is not None else None
    needs = f"a checkpoint needs about {in_mb(point_bytes(task))}, {in_mb(free_bytes(out))} free"
    last = f"last complete checkpoint: {sealed}" if sealed is not None else "no checkpoint was complete yet"
    return StorageError(f"{error}; {needs}; {last}; then go on with the same command, --out {out} --resume")
