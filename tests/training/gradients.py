"""Gradients of a recipe's first batches in float64 without dropout, on as many ranks as a launcher started.

python tests/training/gradients.py OUT PORT RECIPE [key=value ...] [-- OUT PORT RECIPE ...]

Each writes OUT-RANK.safetensors; one process for several, because its start costs far more than the gradients.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from dalr.io.console import Console
from dalr.losses.inputs import TeacherTokens
from dalr.models.token_teacher import TokenTeacher
from dalr.recipe.loading import load_recipe
from dalr.seed import seed_everything
from dalr.training.batch import Batch
from dalr.training.data import load_training_data
from dalr.training.distributed import joined
from dalr.training.setup import prepare
from dalr.training.step import Step

STEPS = 3


def gradients(recipe: Path, overrides: Sequence[str] = (), *, dropout: bool = False) -> dict[str, torch.Tensor]:
    """`STEP.PARAMETER` -> gradient, and `STEP.loss`; the weights never change."""
    loaded = load_recipe(str(recipe), list(overrides))
    inputs = load_training_data(loaded)
    found: dict[str, torch.Tensor] = {}
    with joined(loaded.training.batch_size) as ranks:
        seed_everything(loaded.seed)
        with ranks.main_first():
            setup = prepare(loaded, inputs, Console(quiet=True), ranks)
        task = setup.task.double().train(dropout)
        task.token_teachers = tuple(InDouble(teacher) for teacher in task.token_teachers)  # type: ignore[assignment]
        step = Step(
            task=task,
            ranks=ranks,
            gather=loaded.training.gather,
            mini_batch_size=loaded.training.mini_batch_size,
            seed=loaded.seed,
        )
        for number, planned in zip(range(STEPS), setup.plan.batches(), strict=False):
            task.zero_grad(set_to_none=True)
            losses = step.gradients(doubled(setup.dataset[planned]))
            found[f"{number}.loss"] = ranks.mean(losses.total.detach().reshape(1).clone())
            for name, parameter in task.named_parameters():
                if parameter.grad is not None:
                    found[f"{number}.{name}"] = parameter.grad.clone()
    return found


@dataclass(frozen=True)
class InDouble:
    """The token states of a teacher in float64."""

    teacher: TokenTeacher

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> TeacherTokens:
        tokens = self.teacher(ids, mask)
        return replace(tokens, states=tokens.states.double())


def doubled(batch: Batch) -> Batch:
    return batch.with_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def main(arguments: Sequence[str]) -> None:
    while arguments:
        end = arguments.index("--") if "--" in arguments else len(arguments)
        out, os.environ["MASTER_PORT"], recipe, *overrides = arguments[:end]
        save_file(gradients(Path(recipe), overrides), f"{out}-{os.environ['RANK']}.safetensors")
        arguments = arguments[end + 1 :]


if __name__ == "__main__":
    main(sys.argv[1:])
