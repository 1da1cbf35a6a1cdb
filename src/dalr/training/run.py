"""One training run: data checked, vectors and tokens ready, student trained, the best weights exported.

RUN/run.json            resolved recipe, versions, data report, git commit, result
RUN/metrics.jsonl       terms and development scores while training
RUN/checkpoints/        the best checkpoint, sealed
RUN/model/              the product: a SentenceTransformer
RUN/heads.safetensors   what was trained beside it
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.console import Bar, Console
from dalr.data.config import DataConfig
from dalr.errors import ConfigError, DalrError, NumericsError, Problem, StorageError
from dalr.features.config import FeaturesConfig
from dalr.io.atomic import storage_errors, write_json
from dalr.models.config import HeadsConfig, StudentConfig, TeacherConfig
from dalr.objectives import Objective
from dalr.seed import seed_everything
from dalr.training.config import DevelopmentConfig, TrainingConfig
from dalr.training.inputs import Inputs, load_inputs
from dalr.training.launch import process_rank
from dalr.training.patience import make_patience
from dalr.training.provenance import provenance
from dalr.training.reporting import Reports, reports

if TYPE_CHECKING:
    from dalr.objectives import Losses
    from dalr.training.batches import Batch
    from dalr.training.checkpoint import Checkpoint
    from dalr.training.development import Development
    from dalr.training.ranks import Ranks
    from dalr.training.task import TrainingTask


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


def run(job: Job, *, out: Path, recipe: Mapping[str, Any], console: Console) -> TrainResult:
    """Train `job` into the folder `out`; `recipe` is the resolved recipe as it goes into `run.json`.

    Raises:
        DataError, ModelFileError, ConfigError: before training, with everything that is wrong.
        NumericsError: a loss is not finite.
        StorageError: `out` is in use or cannot be written.
    """
    inputs = load_inputs(job)
    main = process_rank() == 0
    if main:
        _claim(out)
    console = console if main else Console(quiet=True)
    for name, value in inputs.dataset.report.items():
        console.detail(f"{name}: {value}")
    # torch and the model libraries take seconds to import: only after the data has been found good
    from dalr.training.ranks import joined

    with joined(job.training.batch_size) as ranks:
        if ranks.world > 1 and job.heads.aligner_norm == "batch":
            what = f"batch norms the rows of one rank, and there are {ranks.world}; use layer"
            raise ConfigError(Problem(where="heads.aligner_norm", what=what))
        return _train(job, inputs, ranks=ranks, out=out, recipe=recipe, console=console)


def _train(
    job: Job, inputs: Inputs, *, ranks: Ranks, out: Path, recipe: Mapping[str, Any], console: Console
) -> TrainResult:
    from dalr.training.loop import fit
    from dalr.training.setup import prepare

    seed_everything(job.seed)
    with ranks.main_first():
        setup = prepare(job, inputs, console, ranks)
    steps = job.training.max_steps or setup.plan.steps(job.training.epochs)
    record: dict[str, Any] = {
        "name": job.name,
        "recipe": dict(recipe),
        "data": inputs.dataset.report | setup.report,
        "steps": steps,
        **provenance(setup.task),
    }
    _write_record(ranks, out, record | {"status": "training"})
    started = time.monotonic()
    reporters = job.training.report_to if ranks.main else ()
    reporting = reports(reporters, run=out, project=job.name, recipe=recipe)
    with reporting as reported, console.bar(f"train {job.name}", steps, "step") as bar:
        progress = _Progress(
            task=setup.task,
            development=setup.development,
            job=job,
            ranks=ranks,
            out=out,
            steps=steps,
            bar=bar,
            reports=reported,
        )
        try:
            progress.score(0)
            fit(
                setup.task,
                plan=setup.plan,
                collator=setup.collator,
                config=job.training,
                steps=steps,
                seed=job.seed,
                run=out,
                ranks=ranks,
                listener=progress,
            )
        except (DalrError, KeyboardInterrupt) as error:
            reason = str(error) or "interrupted"
            _write_record(ranks, out, record | {"status": "stopped", "reason": reason})
            console.say(f"stopped; {out} has no finished model")
            raise
    result = progress.finish(seconds=time.monotonic() - started)
    if result.stopped_early_at is not None:
        scores = f"{progress.patience.without_gain} scores without a gain"
        console.say(f"stopped early at step {result.stopped_early_at} of {steps}: {scores}")
    outcome = {
        "stopped_early_at": result.stopped_early_at,
        "best_step": result.best_step,
        "best_score": result.best_score,
        "untrained_score": result.untrained_score,
        "development": result.development,
        "seconds": round(result.seconds, 1),
    }
    _write_record(ranks, out, record | {"status": "finished", "result": outcome})
    return result


def _write_record(ranks: Ranks, out: Path, record: Mapping[str, Any]) -> None:
    if ranks.main:
        write_json(out / "run.json", record)


class _Progress:
    """Everything that happens beside the optimizer: means, scores, the best checkpoint, the bar."""

    def __init__(
        self,
        *,
        task: TrainingTask,
        development: Development | None,
        job: Job,
        ranks: Ranks,
        out: Path,
        steps: int,
        bar: Bar,
        reports: Reports,
    ) -> None:
        from dalr.training.record import MetricsFile, TermMeans

        self.task, self.development, self.job, self.out = task, development, job, out
        self.ranks, self.steps, self.bar, self.reports = ranks, steps, bar, reports
        self.patience = make_patience(job.development)
        self.stopped_at: int | None = None
        self.metrics = MetricsFile(out / "metrics.jsonl" if ranks.main else None)
        self.means = TermMeans(None if job.training.gather else ranks.mean)
        self.best: Checkpoint | None = None
        self.untrained: float | None = None
        self.kinds = {"text": 0, "pair": 0}

    def on_losses(self, batch: Batch, losses: Losses) -> None:
        self.means.add(losses)
        self.kinds[batch.kind] += 1

    def on_step(self, step: int, learning_rate: float) -> None:
        shown: dict[str, str] = {}
        if step % self.job.training.log_every == 0 or step == self.steps:
            loss, terms, counts = self.means.read()
            self._write(
                {
                    "step": step,
                    "loss": loss,
                    "learning_rate": learning_rate,
                    "terms": terms,
                    "steps_with_term": counts,
                    "batches": dict(self.kinds),
                }
            )
            shown["loss"] = f"{loss:.4f}"
        self.bar.update(step, **shown)
        if self.reads_weights(step):
            self.score(step)

    def ends_after(self, step: int) -> bool:
        """Whether patience is at its end before the last step."""
        if self.patience.exhausted and step < self.steps:
            self.stopped_at = step
            self.bar.update(step, stopped="early")
        return self.stopped_at is not None

    def _write(self, record: dict[str, Any]) -> None:
        self.metrics.write(record)
        self.reports.write(record)

    def reads_weights(self, step: int) -> bool:
        every = self.job.development.every if self.job.development is not None else self.steps
        return step % every == 0 or step == self.steps

    def score(self, step: int) -> None:
        """Score the task as it is now; keep it if it is the best so far. Step 0 is a yardstick, never kept."""
        value = None
        if self.development is not None:
            scores = self.ranks.agree(self.development.scores(self.task) if self.ranks.main else {})
            value = scores[self.development.name]
            self._write({"step": step, "development": scores})
            shown = value if self.best is None or self.best.score is None else max(value, self.best.score)
            self.bar.update(step, dev=f"{value:.2f} (best {shown:.2f})")
        if step == 0:
            self.untrained = value
            return
        self.patience.see(value)
        last_counts = self.development is None and step == self.steps
        if last_counts or self._is_better(value):
            from dalr.training.checkpoint import remove_checkpoint, save_checkpoint

            previous, best = self.best, None
            if self.ranks.main:
                best = save_checkpoint(self.task, self.out, step=step, score=value)
            self.best = self.ranks.agree(best)
            if previous is not None and self.ranks.main:
                remove_checkpoint(previous)

    def _is_better(self, value: float | None) -> bool:
        if value is None or not math.isfinite(value):
            return False
        return self.best is None or self.best.score is None or value > self.best.score

    def finish(self, *, seconds: float) -> TrainResult:
        from dalr.training.checkpoint import publish

        if self.best is None:
            raise NumericsError("no development score of the whole training was finite; nothing was kept")
        return TrainResult(
            run=self.out,
            model=self.ranks.agree(publish(self.best, self.out) if self.ranks.main else self.out),
            steps=self.stopped_at or self.steps,
            stopped_early_at=self.stopped_at,
            best_step=self.best.step,
            development=self.development.name if self.development is not None else None,
            best_score=self.best.score,
            untrained_score=self.untrained,
            seconds=seconds,
        )


def _claim(out: Path) -> None:
    """Refuse a folder that already holds something: a finished run is never overwritten by accident."""
    with storage_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StorageError(f"{out} already exists and is not empty; choose another --out, or remove it")
        out.mkdir(parents=True, exist_ok=True)
