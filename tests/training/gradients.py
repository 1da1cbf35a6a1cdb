"""Gradients, losses and weights of a recipe in float64 without dropout, on as many ranks as a launcher started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from dalr.io.console import Console
from dalr.losses.inputs import TeacherTokens
from dalr.models.token_teacher import TokenTeacher
from dalr.recipe.loading import load_recipe
from dalr.seed import seed_everything
from dalr.training.batch import Batch
from dalr.training.config import TrainingConfig
from dalr.training.data import load_training_data
from dalr.training.distributed import joined
from dalr.training.optim import Optimization
from dalr.training.setup import Setup, prepare
from dalr.training.step import Step

STEPS = 3


def gradients(recipe: Path, overrides: Sequence[str] = (), *, dropout: bool = False) -> dict[str, torch.Tensor]:
    """`STEP.PARAMETER` -> gradient, and `STEP.loss`, of the first batches; the weights never change."""
    with in_double(recipe, overrides, dropout=dropout) as made:
        found: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(made.batches(STEPS)):
            made.step.task.zero_grad(set_to_none=True)
            found[f"{number}.loss"] = made.loss(batch)
            for name, parameter in made.step.task.named_parameters():
                if parameter.grad is not None:
                    found[f"{number}.{name}"] = parameter.grad.clone()
    return found


def trained(recipe: Path, overrides: Sequence[str] = (), *, steps: int) -> dict[str, torch.Tensor]:
    """`STEP.loss`, and after so many steps every weight, clipped and with gradient norms as in a training."""
    with in_double(recipe, overrides) as made:
        task, found = made.step.task, {}
        optimization = Optimization(task, made.config, steps=steps, heads=task.heads)
        for number, batch in enumerate(made.batches(steps)):
            found[f"{number}.loss"] = made.loss(batch, norms=True)
            optimization.clip()
            optimization.step(unless=torch.zeros(()))
            optimization.advance()
        return found | {name: parameter.detach().clone() for name, parameter in task.named_parameters()}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a training consists of, in float64."""

    config: TrainingConfig
    setup: Setup
    step: Step

    def batches(self, count: int) -> Iterator[Batch]:
        for planned in islice(self.setup.plan.batches(), count):
            yield doubled(self.setup.dataset[planned])

    def loss(self, batch: Batch, *, norms: bool = False) -> torch.Tensor:
        """Of all ranks; the parameters have gradients then."""
        losses = self.step.gradients(batch, norms=norms)
        return self.step.ranks.mean(losses.total.detach().reshape(1).clone())


@contextmanager
def in_double(recipe: Path, overrides: Sequence[str], *, dropout: bool = False) -> Iterator[Made]:
    loaded = load_recipe(str(recipe), list(overrides))
    inputs = load_training_data(loaded)
    with joined(loaded.training.batch_size) as ranks:
        seed_everything(loaded.seed)
        with ranks.main_first():
            setup = prepare(loaded, inputs, Console(quiet=True), ranks)
        task = setup.task.double().train(dropout)
        task.token_teachers = tuple(InDouble(teacher) for teacher in task.token_teachers)  # type: ignore[assignment]
        ranks.start_equal(task)
        config = loaded.training
        step = Step(
            task=task,
            ranks=ranks,
            gather=config.gather,
            mini_batch_size=config.mini_batch_size,
            seed=loaded.seed,
        )
        yield Made(config=config, setup=setup, step=step)


@dataclass(frozen=True)
class InDouble:
    """The token states of a teacher in float64."""

    teacher: TokenTeacher

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> TeacherTokens:
        tokens = self.teacher(ids, mask)
        return replace(tokens, states=tokens.states.double())


def doubled(batch: Batch) -> Batch:
    return batch.with_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
