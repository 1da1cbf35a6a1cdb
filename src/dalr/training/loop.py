"""What is the training loop? Batches of a plan in, optimizer steps out.

It is our own because all that a general trainer adds (1 to 2 ms a step, a tenth of a step on a GPU) is either done
elsewhere here or in the way. Dropout draws from streams named by (seed, step): a step depends on nothing but the
weights, the optimizer and its number, so that a resumed run needs no generator states. Nothing in a step waits for
the device; see `finite.py` for how NaN and Inf are stopped nevertheless.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader, Sampler

from dalr.data.schedule import Plan, PlannedBatch
from dalr.losses import Losses
from dalr.training.batch import Batch, BatchDataset
from dalr.training.config import TrainingConfig
from dalr.training.distributed import Ranks
from dalr.training.finite import Guard
from dalr.training.module import TrainingTask
from dalr.training.optim import Optimization
from dalr.training.step import Step

T = TypeVar("T")


@runtime_checkable
class Listener(Protocol):
    """Who follows a training."""

    def reads_gradient_norms(self, batch: Batch) -> bool:
        """Whether `on_losses` wants the gradient norm of each term of this batch."""

    def on_losses(self, batch: Batch, losses: Losses) -> None:
        """A step's losses, still on the device."""

    def reads_weights(self, step: int) -> bool:
        """Whether `on_step` will look at the weights after this step: they are made sure of before."""

    def on_step(self, step: int, learning_rate: float) -> None:
        """The optimizer has made `step` steps, the last one with `learning_rate`."""

    def ends_after(self, step: int) -> bool:
        """Whether training ends here, before all steps are made; asked after `on_step`."""


def fit(
    task: TrainingTask,
    *,
    plan: Plan,
    dataset: BatchDataset,
    config: TrainingConfig,
    optimization: Optimization,
    steps: int,
    seed: int,
    run: Path,
    ranks: Ranks,
    listener: Listener,
    done: int = 0,
) -> None:
    """Train `task` on the batches of `plan` until `steps` optimizer steps are made, of which `done` already are, or
    until `listener` ends it.

    Raises:
        NumericsError: a loss or a gradient is not finite; the step that had it changed nothing.
    """
    device = ranks.device
    ranks.start_equal(task)
    step = Step(task=task, ranks=ranks, gather=config.gather, mini_batch_size=config.mini_batch_size, seed=seed)
    guard = Guard(device, run=run if ranks.main else None, patience=1 if device.type == "cpu" else config.log_every)
    planned = PlannedBatches(plan, steps, first=done)
    for batch in _batches(planned, dataset, workers=config.workers, device=device):
        task.train()
        losses = step.gradients(batch, norms=listener.reads_gradient_norms(batch))
        norm = optimization.clip()
        optimization.step(unless=guard.watch(batch, losses, norm))
        listener.on_losses(batch, losses)
        done = batch.step + 1
        guard.check(at_once=listener.reads_weights(done) or done == steps)
        listener.on_step(done, optimization.learning_rate)
        if listener.ends_after(done):
            guard.check(at_once=True)
            break
        optimization.advance()


class PlannedBatches(Sampler[PlannedBatch]):
    """The batches of a plan as the loader reads them: full ones, from number `first` to before number `steps`."""

    def __init__(self, plan: Plan, steps: int, *, first: int = 0) -> None:
        self.plan, self.steps, self.first = plan, steps, first

    def __len__(self) -> int:
        return max(0, self.steps - self.first)

    def __iter__(self) -> Iterator[PlannedBatch]:
        return islice(self.plan.batches(), self.first, self.steps)


def _batches(
    planned: PlannedBatches, dataset: BatchDataset, *, workers: int, device: torch.device
) -> Iterator[Batch]:
    """The batches in order, on the device; copies overlap with the step before."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if workers == 0 else "false")
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        batch_size=None,  # an item is a whole batch
        sampler=planned,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_trainer,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # its own: the loader draws a seed, which must not come out of the dropout's
    )
    for batch in loader:
        yield batch.to(device, non_blocking=True)


def _as_it_is(batch: T) -> T:
    return batch


def _leave_signals_to_the_trainer(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the step that it asks to finish still needs its batch."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
