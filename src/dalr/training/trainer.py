"""The one file that knows `transformers.Trainer`.

It gives us the optimizer, the schedule, clipping, devices and ranks; we give it one module, batches that are
already planned, and hooks at the end of every step. Its own logging, evaluation, saving and NaN filter (which
logs a NaN loss as 0.0 and trains on) are off. Its overhead is 1 to 2 ms a step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dalr.data.schedule import Plan, RowKey
from dalr.errors import ConfigError, NumericsError, Problem
from dalr.objectives import Losses
from dalr.training.batches import Batch, Collator
from dalr.training.config import TrainingConfig
from dalr.training.task import TrainingTask

OnLosses = Callable[[Batch, Losses], None]
OnStep = Callable[[int, float], None]
"""Called after every optimizer step with (steps done, learning rate of that step)."""


def fit(
    task: TrainingTask,
    *,
    plan: Plan,
    collator: Collator,
    config: TrainingConfig,
    steps: int,
    seed: int,
    scratch: Path,
    on_losses: OnLosses,
    on_step: OnStep,
) -> None:
    """Train `task` for `steps` optimizer steps on the batches of `plan`.

    Raises:
        NumericsError: a loss is not finite; raised before the optimizer step, naming term, step and rows.
        ConfigError: several GPUs in one process, which would silently become DataParallel.
    """
    arguments = _arguments(config, steps=steps, seed=seed, scratch=scratch)
    if arguments.n_gpu > 1:
        what = f"found {arguments.n_gpu} GPUs in one process; set CUDA_VISIBLE_DEVICES to one of them"
        raise ConfigError(Problem(where="devices", what=what))
    trainer = _Trainer(
        task=task,
        arguments=arguments,
        loader=_loader(plan, collator, steps=steps, workers=config.workers),
        on_losses=on_losses,
    )
    trainer.add_callback(_AroundStep(trainer, on_step))
    trainer.remove_callback(transformers.trainer_callback.ProgressCallback)
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    trainer.train()


class PlannedBatches(Sampler[list[RowKey]]):
    """The batches of a plan as the trainer reads them: one pass of `steps` full batches."""

    drop_last = True

    def __init__(self, plan: Plan, steps: int) -> None:
        self.plan, self.steps, self.batch_size = plan, steps, plan.batch_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[RowKey]]:
        batches = self.plan.batches()
        for _ in range(self.steps):
            yield next(batches)

    def set_epoch(self, epoch: int) -> None:
        """Nothing: a plan covers all epochs."""


class _Rows(Dataset[RowKey]):
    """A row key is its own item; the collator does the reading, once for the whole batch."""

    def __getitem__(self, key: Any) -> RowKey:
        row: RowKey = key
        return row

    def __len__(self) -> int:
        raise TypeError("rows are addressed by the sampler")


class _Trainer(transformers.Trainer):
    """`transformers.Trainer` reduced to what it is good at."""

    def __init__(
        self,
        *,
        task: TrainingTask,
        arguments: transformers.TrainingArguments,
        loader: DataLoader[RowKey],
        on_losses: OnLosses,
    ) -> None:
        super().__init__(model=task, args=arguments, train_dataset=loader.dataset)
        self.loader = loader
        self.on_losses = on_losses
        self.batch: Batch | None = None
        """The batch of the step in progress."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        prepared: DataLoader[Any] = self.accelerator.prepare(self.loader)
        return prepared

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        batch: Batch = inputs["batch"].to(self.args.device)
        self.batch = batch
        losses: Losses = model(batch)
        _require_finite(losses, batch)
        self.on_losses(batch, losses)
        return losses.total


class _AroundStep(transformers.TrainerCallback):
    """Looks at the gradients before the optimizer does, and calls back when the step is done."""

    def __init__(self, trainer: _Trainer, on_step: OnStep) -> None:
        self.trainer = trainer
        self.on_step = on_step
        self.learning_rate = float("nan")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.learning_rate = float(kwargs["optimizer"].param_groups[0]["lr"])
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if not bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
            assert self.trainer.batch is not None
            raise _not_finite("a gradient is not finite although the loss is", self.trainer.batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_step(int(state.global_step), self.learning_rate)


def _require_finite(losses: Losses, batch: Batch) -> None:
    """Stop before the optimizer sees a number that is not one."""
    if bool(torch.isfinite(losses.total)):
        return
    bad = [f"{name} = {value.item()}" for name, value in losses.terms.items() if not bool(torch.isfinite(value))]
    culprits = ", ".join(bad) or f"the weighted sum = {losses.total.item()}"
    raise _not_finite(culprits, batch)


def _not_finite(culprits: str, batch: Batch) -> NumericsError:
    shown = ", ".join(batch.row_ids[:8]) + (" …" if len(batch.row_ids) > 8 else "")
    where = f"step {batch.step + 1} ({batch.kind} batch)"
    what = f"{culprits}; the weights were not changed by this step. Rows: {shown}"
    return NumericsError(Problem(where=where, what=what))


def _loader(plan: Plan, collator: Collator, *, steps: int, workers: int) -> DataLoader[RowKey]:
    return DataLoader(
        _Rows(),
        batch_sampler=PlannedBatches(plan, steps),
        collate_fn=collator,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _arguments(config: TrainingConfig, *, steps: int, seed: int, scratch: Path) -> transformers.TrainingArguments:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if config.workers == 0 else "false")
    return transformers.TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=config.batch_size,
        max_steps=steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="linear",
        max_grad_norm=config.clip_norm,
        seed=seed,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        accelerator_config={"split_batches": True},
    )
