"""Everything of a training that happens beside the optimizer: means, scores, checkpoints, the bar, stopping.

What it knows after a step is what a resume point keeps, so going on is making it from the point.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.console import Bar, Console
from dalr.errors import NumericsError
from dalr.training.checkpoint import Checkpoint, keep_checkpoints, save_checkpoint
from dalr.training.config import DevelopmentConfig, TrainingConfig
from dalr.training.record import MetricsFile, TermMeans
from dalr.training.resumption import ResumePoint, Tally, best_steps, save_point
from dalr.training.stopping import Stop

if TYPE_CHECKING:
    from dalr.objectives import Losses
    from dalr.training.batches import Batch
    from dalr.training.development import Development
    from dalr.training.optimization import Optimization
    from dalr.training.task import TrainingTask


class Progress:
    """Follows one training, from its beginning or from a resume point."""

    def __init__(
        self,
        *,
        task: TrainingTask,
        optimization: Optimization,
        development: Development | None,
        training: TrainingConfig,
        scoring: DevelopmentConfig | None,
        out: Path,
        run_id: str,
        steps: int,
        point: ResumePoint | None,
        stop: Stop,
        bar: Bar,
        console: Console,
    ) -> None:
        self.task, self.optimization, self.development = task, optimization, development
        self.training, self.scoring = training, scoring
        self.out, self.run_id, self.steps = out, run_id, steps
        self.stop, self.bar, self.console = stop, bar, console
        self.kinds = {"text": 0, "pair": 0}
        self.means = TermMeans()
        self.best: Checkpoint | None = None
        self.untrained: float | None = None
        self.started = time.monotonic()
        self.stopping = False
        self.sealed = point.folder if point is not None else None
        """The newest resume point."""
        if point is not None:
            tally = point.tally
            self.kinds = dict(tally.batches)
            sums = {name: total.to(task.student.device) for name, total in point.term_sums().items()}
            self.means = TermMeans(sums, tally.term_counts)
            self.best, self.untrained = point.best, tally.untrained_score
            self.started -= tally.seconds
            bar.update(point.step)
        self.metrics = MetricsFile(out / "metrics.jsonl", start=point.metrics() if point is not None else b"")

    @property
    def seconds(self) -> float:
        """Of training so far, in all the processes that it went on in."""
        return time.monotonic() - self.started

    def on_losses(self, batch: Batch, losses: Losses) -> None:
        self.means.add(losses)
        self.kinds[batch.kind] += 1

    def reads_weights(self, step: int) -> bool:
        self.stopping = self.stop.signal is not None and step < self.steps
        return self.stopping or self._is_scored(step) or self._is_saved(step)

    def on_step(self, step: int, learning_rate: float) -> None:
        shown: dict[str, str] = {}
        if step % self.training.log_every == 0 or step == self.steps:
            loss, terms, counts = self.means.read()
            self.metrics.write(
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
        if self._is_scored(step):
            self.score(step)
        if self.stopping or self._is_saved(step):
            self.save(step)
        if self.stopping:
            self.console.say(f"stopped after step {step}; go on with the same command, --out {self.out} --resume")
            raise self.stop.exception()

    def score(self, step: int) -> None:
        """Score the task as it is now; keep it if it is the best so far. Step 0 is a yardstick, never kept."""
        value = self.development.score(self.task) if self.development is not None else None
        if self.development is not None and value is not None:
            self.metrics.write({"step": step, "development": {self.development.name: value}})
            shown = value if self.best is None or self.best.score is None else max(value, self.best.score)
            self.bar.update(step, dev=f"{value:.2f} (best {shown:.2f})")
        if step == 0:
            self.untrained = value
            return
        last_counts = self.development is None and step == self.steps
        if last_counts or self._is_better(value):
            self.best = save_checkpoint(self.task, self.out, step=step, score=value)
            self._tidy()

    def save(self, step: int) -> None:
        """Seal what a later process needs to go on after `step`."""
        tally = Tally(
            batches=dict(self.kinds),
            term_counts=dict(self.means.counts),
            best_step=self.best.step if self.best is not None else None,
            best_score=self.best.score if self.best is not None else None,
            untrained_score=self.untrained,
            seconds=self.seconds,
        )
        self.sealed = save_point(
            self.out,
            run_id=self.run_id,
            step=step,
            keep=self.training.keep,
            task=self.task,
            optimization=self.optimization,
            term_sums=self.means.sums,
            tally=tally,
            metrics=self.metrics.read(),
        )
        self._tidy()

    def finish(self) -> Checkpoint:
        """The best checkpoint of the whole training.

        Raises:
            NumericsError: there is none.
        """
        if self.best is None:
            raise NumericsError("no development score of the whole training was finite; nothing was kept")
        return self.best

    def _is_scored(self, step: int) -> bool:
        every = self.scoring.every if self.scoring is not None else self.steps
        return step % every == 0 or step == self.steps

    def _is_saved(self, step: int) -> bool:
        every = self.training.save_every
        return every is not None and step % every == 0 and step < self.steps

    def _is_better(self, value: float | None) -> bool:
        if value is None or not math.isfinite(value):
            return False
        return self.best is None or self.best.score is None or value > self.best.score

    def _tidy(self) -> None:
        """Remove checkpoints that are neither the best nor named by a resume point."""
        best = [self.best.step] if self.best is not None else []
        keep_checkpoints(self.out, {*best, *best_steps(self.out)})
