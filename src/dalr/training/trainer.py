"""What is a training run? Data checked, vectors and tokens ready, student trained, best weights exported.

RUN/run.json            resolved recipe, versions, data report, git commit, result
RUN/split.jsonl         which image was trained on, chose the weights, or is for the test
RUN/metrics.jsonl       terms and validation scores while training
RUN/checkpoints/        the best checkpoint, sealed
RUN/resume/             where a stopped run resumes; removed when it has finished
RUN/model/              the product: a SentenceTransformer
RUN/heads.safetensors   what was trained beside it
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.data.holdout import SPLIT, side_line
from dalr.errors import ConfigError, CorruptFileError, DalrError, Problem, StorageError
from dalr.io.atomic import storage_errors, write_json, write_with
from dalr.io.claim import require_ours
from dalr.io.console import Console
from dalr.io.environment import process_rank, require_meeting
from dalr.io.lock import locked, require_unlocked
from dalr.io.paths import is_file, regular
from dalr.io.records import parse_record
from dalr.io.sealed import sweep
from dalr.models.verification import CHECKSUMS, unverified
from dalr.recipe.paths import expand
from dalr.recipe.schema import Recipe
from dalr.seed import seed_everything
from dalr.training.data import FromProgram, TrainingData, load_training_data
from dalr.training.fingerprint import differences, identity
from dalr.training.provenance import provenance
from dalr.training.record import Metrics, read_metrics
from dalr.training.reporting import reports
from dalr.training.threads import threads_of

if TYPE_CHECKING:
    from dalr.training.distributed import Ranks
    from dalr.training.module import TrainingTask
    from dalr.training.progress import Progress
    from dalr.training.resume import ResumePoint

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
    validation: str | None
    """Name of the validation score; None without one."""
    best_score: float | None
    """× 100."""
    untrained_score: float | None
    seconds: float
    stopped_early_at: int | None = None
    """The step after which `validation.patience` was at its end, or a callback ended the training; None: all steps
    were made."""

    @property
    def metrics(self) -> Metrics:
        """The lines of `metrics.jsonl`: losses and terms at logging steps, scores at validation steps."""
        return read_metrics(self.run)


@dataclass(frozen=True, kw_only=True)
class Resume:
    """How to resume a run that was stopped."""

    read_recipe: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """The resolved recipe of an earlier run, with today's defaults for keys that it did not know."""
    allow_changed: bool = False
    """Go on although recipe, data or versions differ, and say so in `run.json`."""


def run(
    recipe: Recipe,
    *,
    out: Path,
    console: Console,
    resume: Resume | None = None,
    program: FromProgram | None = None,
) -> TrainResult:
    """Train `recipe` into the folder `out`.

    Raises:
        DataError, ModelFileError, ConfigError: before training, with everything that is wrong, or everything that
            differs from the run to resume.
        NumericsError: a loss is not finite.
        StorageError: `out` is in use, holds something else, or cannot be written.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after the step was finished and a resume point sealed.
    """
    main = process_rank() == 0
    require_meeting()
    if main:
        require_unlocked(out)
        _require_ours(out, resume)
    program = program or FromProgram()
    data = load_training_data(recipe, program.data)
    with locked(out) if main else nullcontext():
        if main:
            _require_ours(out, resume)
            _sweep(out)
        console = console if main else Console(quiet=True)
        result = _run(recipe, data, out=out, console=console, resume=resume, program=program)
        if main:
            _write_card(out, console)
        return result


def _write_card(out: Path, console: Console) -> None:
    """The model's card; the run is finished, with one or without."""
    from dalr.export.card import write_card

    try:
        write_card(out)
    except DalrError as error:
        console.say(f"warning: no model card: {error.problems[0]}")


def _run(
    recipe: Recipe,
    data: TrainingData,
    *,
    out: Path,
    console: Console,
    resume: Resume | None,
    program: FromProgram,
) -> TrainResult:
    for name, value in data.dataset.report.items():
        console.detail(f"{name}: {value}")
    for warning in data.warnings:
        console.say(f"warning: {warning}")
    for model in (recipe.student.model, *(teacher.model for teacher in recipe.teachers)):
        if model is not None and (note := unverified(expand(model))) is not None:
            console.say(note)
    same = identity(recipe, data)
    earlier = _earlier(out) if resume is not None else None
    resolved = recipe.model_dump(mode="json")
    allowed = _compared(earlier, resolved, same, resume) if earlier is not None and resume is not None else []
    if earlier is not None and earlier.get("status") == "finished":
        console.say(f"{out} is finished: nothing to resume")
        return _tidied(out, earlier)
    # torch and the model libraries take seconds to import: only after the data has been found good
    from dalr.training.distributed import joined

    with threads_of(earlier, console), joined(recipe.training.batch_size) as ranks:
        if ranks.world > 1 and recipe.heads.aligner_norm == "batch":
            what = f"batch norms the rows of one rank, and there are {ranks.world}; use layer"
            raise ConfigError(Problem(where="heads.aligner_norm", what=what))
        start: Record = {"name": recipe.name, "recipe": resolved, "identity": same}
        return _train(
            recipe,
            data,
            start=start,
            earlier=earlier,
            allowed=allowed,
            resuming=resume is not None,
            program=program,
            ranks=ranks,
            out=out,
            console=console,
        )


def _train(
    recipe: Recipe,
    data: TrainingData,
    *,
    start: Record,
    earlier: Record | None,
    allowed: list[str],
    resuming: bool,
    program: FromProgram,
    ranks: Ranks,
    out: Path,
    console: Console,
) -> TrainResult:
    from dalr.models.heads import load_heads
    from dalr.training.distributed import is_lost_connection
    from dalr.training.loop import fit
    from dalr.training.optim import Optimization
    from dalr.training.progress import Progress
    from dalr.training.setup import prepare, require_unchanged
    from dalr.training.signals import asked_to_stop
    from dalr.training.space import require_space

    seed_everything(recipe.seed)
    with ranks.main_first():
        setup = prepare(recipe, data, console, ranks, program.validation)
        if program.initial_heads is not None and earlier is None:
            kept = load_heads(setup.task.heads, program.initial_heads)
            console.detail(f"{kept} tensors of {program.initial_heads} are begun with")
    steps = recipe.training.max_steps or setup.plan.steps(recipe.training.epochs)
    optimization = Optimization(setup.task, recipe.training, steps=steps, heads=setup.task.heads)
    run_id = ranks.agree(earlier["id"] if earlier is not None else uuid.uuid4().hex)
    point = _point(out, run_id, ranks, console) if earlier is not None else None
    if resuming and point is None:
        console.say(f"{out} holds no checkpoint: starting from step 0")
    if point is not None:
        point.restore(setup.task, optimization)
    saves = recipe.training.save_every is not None and recipe.training.save_every < steps
    if ranks.main:
        require_space(out, setup.task, points=recipe.training.keep + 1 if saves else 0)
    record: Record = {
        "id": run_id,
        **start,
        "data": data.dataset.report | setup.report,
        "steps": steps,
        **provenance(setup.task),
        **({"space": setup.task.heads.space} if setup.task.heads.space is not None else {}),
        **({"init_from": str(program.initial_heads.parent)} if program.initial_heads is not None else {}),
        "resumed_at": _resumptions(earlier, point, allowed),
    }
    _write_record(ranks, out, record | {"status": "training"})
    if ranks.main and data.dataset.held_out is not None:
        sides = data.dataset.sides()
        write_with(out / SPLIT, partial(_write_lines, starmap(side_line, sides)))
    reporters = recipe.training.report_to if ranks.main else ()
    with (
        reports(reporters, run=out, project=recipe.name, recipe=start["recipe"]) as reported,
        console.bar(f"train {recipe.name}", steps, "step") as bar,
        asked_to_stop(console, announce=ranks.world == 1) as stop,
    ):
        progress: Progress | None = None
        try:
            progress = Progress(
                task=setup.task,
                optimization=optimization,
                validation=setup.validation,
                training=recipe.training,
                scoring=recipe.validation,
                ranks=ranks,
                out=out,
                run_id=run_id,
                steps=steps,
                point=point,
                measured="pair" if recipe.data.pairs is not None else "text",
                callbacks=program.callbacks,
                stop=stop,
                bar=bar,
                reports=reported,
                console=console,
                require_inputs=partial(require_unchanged, setup),
            )
            if point is None:
                progress.score(0)
            else:
                bar.skip(point.step)
            fit(
                setup.task,
                plan=setup.plan,
                dataset=setup.dataset,
                config=recipe.training,
                optimization=optimization,
                steps=steps,
                seed=recipe.seed,
                run=out,
                ranks=ranks,
                listener=progress,
                done=point.step if point is not None else 0,
            )
            return _finished(out, record, progress, ranks)
        except BaseException as error:
            lost = is_lost_connection(error)  # of which one rank speaks for all
            reason = str(error) if isinstance(error, Exception) else "interrupted"
            reason = "another rank has ended" if lost else reason
            with suppress(StorageError):  # the disk may be what is wrong
                _write_record(ranks, out, record | {"status": "stopped", "reason": reason})
            if not lost:
                console.say(f"stopped; {out} has no finished model")
            if isinstance(error, StorageError):
                raise _with_advice(error, out, progress, setup.task) from error
            raise


def _write_lines(lines: Iterable[str], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


def _write_record(ranks: Ranks, out: Path, record: Record) -> None:
    if ranks.main:
        write_json(out / "run.json", record)


def _finished(out: Path, record: Record, progress: Progress, ranks: Ranks) -> TrainResult:
    from dalr.training.checkpoint import publish

    best = progress.finish()
    shares = progress.gradient_shares() if ranks.main else {}
    outcome = {
        "steps": progress.stopped_at or progress.steps,
        "stopped_early_at": progress.stopped_at,
        "best_step": best.step,
        "best_score": best.score,
        "untrained_score": progress.untrained,
        "validation": progress.validation.name if progress.validation is not None else None,
        "gradient_shares": {name: round(share, 4) for name, share in shares.items()},
        "seconds": round(progress.seconds, 1),
    }
    record = record | {"status": "finished", "result": outcome}
    if ranks.main:
        write_json(out / "run.json", record | {CHECKSUMS: publish(best, out)})
        _tidy(out, best.step)
    return _result(out, record)


def _tidied(out: Path, record: Record) -> TrainResult:
    """The result of a run that had finished, and nothing kept that only resuming needs."""
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
        validation=outcome["validation"],
        best_score=outcome["best_score"],
        untrained_score=outcome["untrained_score"],
        seconds=outcome["seconds"],
    )


def _require_ours(out: Path, resume: Resume | None) -> None:
    """Refuse a folder that holds something other than a run to resume: nothing is overwritten by accident."""
    with storage_errors(out):
        is_run = is_file(out / "run.json", StorageError)
    if is_run and resume is None:
        what = "already exists and is not empty: it holds a run"
        raise StorageError(f"{out} {what}; choose another --out, or --resume to resume it")
    require_ours(out, "a run", ours=lambda: is_run, remedy="choose another --out, or remove it")


def _sweep(out: Path) -> None:
    """Delete what a killed process left half-written."""
    sweep(out, "run.json", SPLIT, "metrics.jsonl", "heads.safetensors", "model", "bad_batch.json")
    sweep(out / "model", "README.md")
    sweep(out / "checkpoints", "step-")
    sweep(out / "resume", "step-")


def _earlier(out: Path) -> Record | None:
    """The record of the run to resume; None where it had not started."""
    path = out / "run.json"
    if not is_file(path, StorageError):
        return None
    try:
        record: Record = parse_record(regular(path).read_bytes())
        missing = {"id", "recipe", "identity"} - record.keys()
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"{path}: cannot be read ({error}); start again with another --out") from None
    if missing:
        what = f"cannot resume: no {', '.join(sorted(missing))} in it"
        raise CorruptFileError(f"{path}: {what}; start again with another --out")
    return record


def _compared(earlier: Record, recipe: Mapping[str, Any], same: Mapping[str, str], resume: Resume) -> list[str]:
    """What differs from the earlier run, if that is allowed.

    Raises:
        ConfigError: it is not; with each difference.
    """
    found = differences(resume.read_recipe(earlier["recipe"]), recipe) + differences(earlier["identity"], same)
    if found and not resume.allow_changed:
        raise ConfigError(
            [
                *found,
                Problem(
                    where="--resume",
                    what="the run was started with different settings; --allow-changed resumes it anyway",
                ),
            ]
        )
    return [str(problem) for problem in found]


def _point(out: Path, run_id: str, ranks: Ranks, console: Console) -> ResumePoint | None:
    """Where to resume, with a line for each newer place that was rejected.

    Raises:
        StorageError: the ranks do not find the same, because they do not share the folder.
    """
    from dalr.training.resume import newest_point

    point, rejected = newest_point(out, run_id=run_id)
    first = ranks.agree(point.step if point is not None else 0)
    if first != (point.step if point is not None else 0):
        what = f"the first rank resumes from step {first}, which this one does not find"
        raise StorageError(f"{out}: {what}; all ranks need the same folder")
    using = f"using {point.folder.name}" if point is not None else "starting from step 0"
    for error in rejected:
        console.say(f"{str(error).removesuffix('; not used')}; {using}")
    if point is not None:
        console.say(f"resuming from step {point.step} ({point.folder})")
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
    return StorageError(f"{error}; {needs}; {last}; then rerun the same command with --out {out} --resume")
