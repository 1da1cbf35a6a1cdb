"""What happens in a training beside the optimizer? Means, scores, checkpoints, the bar, stopping.

What it knows after a step is what a resume point keeps, so resuming restores it from the point.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.errors import NumericsError
from dalr.io.console import Bar, Console
from dalr.training.callbacks import Callback
from dalr.training.checkpoint import Checkpoint, keep_checkpoints, save_checkpoint
from dalr.training.config import TrainingConfig, ValidationConfig
from dalr.training.distributed import Ranks
from dalr.training.patience import make_patience
from dalr.training.record import IN_EFFECT, MetricsFile, TermMeans, gradient_shares
from dalr.training.reporting import Reports
from dalr.training.resume import ProgressState, ResumePoint, best_steps, save_point
from dalr.training.signals import Stop

if TYPE_CHECKING:
    from dalr.losses import BatchKind, Losses
    from dalr.training.batch import Batch
    from dalr.training.module import TrainingTask
    from dalr.training.optim import Optimization
    from dalr.training.validation import ValidationScore


class Progress:
    """Follows one training, from its beginning or from a resume point."""

    def __init__(
        self,
        *,
        task: TrainingTask,
        optimization: Optimization,
        validation: ValidationScore | None,
        training: TrainingConfig,
        scoring: ValidationConfig | None,
        ranks: Ranks,
        out: Path,
        run_id: str,
        steps: int,
        point: ResumePoint | None,
        measured: BatchKind,
        callbacks: Sequence[Callback],
        stop: Stop,
        bar: Bar,
        reports: Reports,
        console: Console,
        require_inputs: Callable[[], None] = lambda: None,
    ) -> None:
        self.task, self.optimization, self.validation = task, optimization, validation
        self.training, self.scoring, self.ranks = training, scoring, ranks
        self.out, self.run_id, self.steps = out, run_id, steps
        self.callbacks = callbacks
        self.stop, self.bar, self.reports, self.console = stop, bar, reports, console
        self.require_inputs = require_inputs
        """Raises if the stored vectors that training reads were changed since they were opened."""
        self.measured = measured
        """The kind of batches whose gradient norms are measured."""
        self.kinds = {"text": 0, "pair": 0}
        over_ranks = None if training.gather or ranks.world == 1 else ranks.mean
        self.means = TermMeans(over_ranks=over_ranks)
        self.patience = make_patience(scoring)
        self.stopped_at: int | None = None
        """The step after which patience was at its end."""
        self.best: Checkpoint | None = None
        self.untrained: float | None = None
        self.started = time.monotonic()
        self.stopping = False
        self.ended = False
        """A callback has asked to end the training."""
        self.losses: Losses | None = None
        """Of the step that was made last."""
        self.written: dict[str, Any] = {}
        """What went to `metrics.jsonl` since the last step."""
        self.scored_at: int | None = None
        self.sealed = point.folder if point is not None else None
        """The newest resume point."""
        if point is not None:
            state = point.state
            self.kinds = dict(state.batches)
            sums = {name: total.to(task.student.device) for name, total in point.term_sums().items()}
            self.means = TermMeans(sums, state.term_counts, over_ranks=over_ranks)
            self.patience = make_patience(
                scoring, reference=state.gained_score, without_gain=state.scores_without_gain
            )
            self.best, self.untrained = point.best, state.untrained_score
            self.started -= state.seconds
            bar.update(point.step)
        written = point.metrics() if point is not None else b""
        self.metrics = MetricsFile(out / "metrics.jsonl" if ranks.main else None, start=written)

    @property
    def seconds(self) -> float:
        """Of training so far, in all the processes that it went on in."""
        return time.monotonic() - self.started

    def reads_gradient_norms(self, batch: Batch) -> bool:
        """One batch per log line, of the kind that has all terms."""
        return batch.kind == self.measured and not self.means.has_gradient_norms

    def on_losses(self, batch: Batch, losses: Losses) -> None:
        self.losses, self.written = losses, {}
        self.means.add(losses)
        self.kinds[batch.kind] += 1

    def reads_weights(self, step: int) -> bool:
        self.stopping = self._is_asked_to_stop(step) and step < self.steps
        return self.stopping or self._is_scored(step) or self._is_saved(step)

    def on_step(self, step: int, learning_rate: float) -> None:
        shown: dict[str, str] = {}
        if step % self.training.log_every == 0 or step == self.steps:
            means = self.means.read()
            norms = {"gradient_norms": means.gradient_norms} if means.gradient_norms else {}
            self._write(
                {
                    "step": step,
                    "loss": means.loss,
                    "learning_rate": learning_rate,
                    "terms": means.terms,
                    "steps_with_term": means.counts,
                    **norms,
                    "batches": dict(self.kinds),
                }
            )
            shown["loss"] = f"{means.loss:.4f}"
        self.bar.update(step, **shown)
        if self._is_scored(step):
            self.score(step)
        self._call_back(step)
        if self.stopping or self._is_saved(step):
            self.save(step)
        if self.stopping:
            self.console.say(
                f"stopped after step {step}; to resume, run the same command with --out {self.out} --resume"
            )
            raise self.stop.exception()

    def ends_after(self, step: int) -> bool:
        """Whether training ends before the last step: patience is at its end, or a callback says so."""
        if self.ended and step < self.steps:
            self.stopped_at = step
            self.console.say(f"ended by a callback after step {step} of {self.steps}")
        elif self.patience.exhausted and step < self.steps:
            self.stopped_at = step
            self.bar.update(step, stopped="early")
            scores = f"{self.patience.without_gain} scores without an improvement"
            self.console.say(f"stopped early at step {step} of {self.steps}: {scores}")
        return self.stopped_at is not None

    def score(self, step: int) -> None:
        """Score the task as it is now; keep it if it is the best so far. Step 0 is a baseline, never kept."""
        self.require_inputs()
        value = None
        self.scored_at = step
        if self.validation is not None:
            self.bar.update(step, now="validation")
            scores = self.ranks.agree(self.validation.scores(self.task) if self.ranks.main else {})
            value = scores[self.validation.name]
            self._write({"step": step, "validation": scores})
            shown = value if self.best is None or self.best.score is None else max(value, self.best.score)
            self.bar.update(step, dev=f"{value:.2f} (best {shown:.2f})", now="training")
        if step == 0:
            self.untrained = value
            return
        self.patience.see(value)
        last_counts = self.validation is None and step == (self.stopped_at or self.steps)
        if last_counts or self._is_better(value):
            best = save_checkpoint(self.task, self.out, step=step, score=value) if self.ranks.main else None
            self.best = self.ranks.agree(best)
            self._tidy()

    def save(self, step: int) -> None:
        """Seal what a later process needs to resume after `step`."""
        self.require_inputs()
        sums = self.means.sums()
        if not self.ranks.main:
            return
        state = ProgressState(
            batches=dict(self.kinds),
            term_counts=dict(self.means.counts),
            best_step=self.best.step if self.best is not None else None,
            best_score=self.best.score if self.best is not None else None,
            untrained_score=self.untrained,
            gained_score=self.patience.reference,
            scores_without_gain=self.patience.without_gain,
            seconds=self.seconds,
        )
        self.sealed = save_point(
            self.out,
            run_id=self.run_id,
            step=step,
            keep=self.training.keep,
            task=self.task,
            optimization=self.optimization,
            term_sums=sums,
            state=state,
            metrics=self.metrics.read(),
        )
        self._tidy()

    def finish(self) -> Checkpoint:
        """The best checkpoint of the whole training.

        Raises:
            NumericsError: there is none.
        """
        if self.stopped_at is not None and self.scored_at != self.stopped_at:
            self.score(self.stopped_at)
        if self.best is None:
            raise NumericsError("no validation score of the whole training was finite; nothing was kept")
        return self.best

    def gradient_shares(self) -> dict[str, float]:
        """Of each term, over the whole training; says which terms are not in effect. Only the first rank knows."""
        lines = [json.loads(line) for line in self.metrics.read().splitlines()]
        shares = gradient_shares(lines)
        weak = [f"{name} {share:.1%}" for name, share in shares.items() if share < IN_EFFECT]
        if weak:
            parts = f"{', '.join(weak)} of the summed gradient norms at the student"
            self.console.say(f"not in effect: {parts}; give the term more weight, or remove it")
        return shares

    def _is_asked_to_stop(self, step: int) -> bool:
        """Several ranks get the signal in different steps, and agree when they log."""
        if self.ranks.world == 1:
            return self.stop.signal is not None
        if step % self.training.log_every != 0:
            return False
        self.stop.signal = next((each for each in self.ranks.all(self.stop.signal) if each is not None), None)
        return self.stop.signal is not None

    def _call_back(self, step: int) -> None:
        """Ask the callbacks; several ranks end together when one of them is told to."""
        if not self.callbacks:
            return
        assert self.losses is not None
        losses = self.losses.detached()
        answers = [each.on_step(step, losses, self.written) for each in self.callbacks]
        self.ended = any(self.ranks.all(any(answer is True for answer in answers)))

    def _write(self, record: dict[str, Any]) -> None:
        self.written |= record
        self.metrics.write(record)
        self.reports.write(record)

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
        if not self.ranks.main:
            return
        best = [self.best.step] if self.best is not None else []
        keep_checkpoints(self.out, {*best, *best_steps(self.out)})
