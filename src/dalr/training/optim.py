"""Where are the optimizer and the learning-rate schedule? Here: AdamW, warm-up and decay, clipping.

The optimizer is the fused one: a single pass over the weights, and it can be told by a number on the device to
leave a step out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalr.training.config import LearningRateSchedule, TrainingConfig


class Optimization:
    """One optimizer with its learning rates: of the student, and of the `heads` that are trained beside it.

    Weight decay applies to matrices, not to biases and the scales of norms.
    """

    def __init__(
        self, module: nn.Module, config: TrainingConfig, *, steps: int, heads: nn.Module | None = None
    ) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        of_heads = {id(parameter) for parameter in heads.parameters()} if heads is not None else set()
        groups = [
            *_groups([p for p in self.parameters if id(p) not in of_heads], config.learning_rate, config),
            *_groups(
                [p for p in self.parameters if id(p) in of_heads],
                config.head_learning_rate or config.learning_rate,
                config,
            ),
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.share = learning_rate_share(config.learning_rate_schedule, steps=steps, warmup=config.warmup(steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.share)
        self.clip_norm = config.clip_norm

    @property
    def learning_rate(self) -> float:
        """The student's."""
        return float(self.optimizer.param_groups[0]["lr"])

    def clip(self) -> Float[Tensor, ""]:
        """Scale the gradients to the largest norm allowed, over all of them; the norm before that."""
        return torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    def step(self, *, unless: Float[Tensor, ""]) -> None:
        """Change the weights, but not where `unless` is 1."""
        self.optimizer.found_inf = unless  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def advance(self) -> None:
        """Set the learning rate of the next step."""
        self.schedule.step()

    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers of each parameter, as `PARAMETER/QUANTITY`."""
        names = self._numbered()
        return {
            f"{names[number]}/{quantity}": value
            for number, remembered in self.optimizer.state_dict()["state"].items()
            for quantity, value in remembered.items()
        }

    def restore(self, state: Mapping[str, Tensor], *, step: int) -> None:
        """Go on as after `step` steps; hyper-parameters are those of now."""
        numbers = {name: number for number, name in self._numbered().items()}
        remembered: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, _, quantity = key.rpartition("/")
            remembered.setdefault(numbers[name], {})[quantity] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": remembered, "param_groups": groups})
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.share, last_epoch=step - 1)

    def _numbered(self) -> dict[int, str]:
        """Names of the parameters under the numbers that `state_dict` gives them."""
        ordered = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        return {number: self._names[id(parameter)] for number, parameter in enumerate(ordered)}


def _groups(parameters: list[nn.Parameter], rate: float, config: TrainingConfig) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "lr": rate, "weight_decay": config.weight_decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate_share(kind: LearningRateSchedule, *, steps: int, warmup: int) -> Callable[[int], float]:
    """The share of the learning rate after so many steps: up to 1 over the warm-up, then as `kind` says."""

    def share(done: int) -> float:
        if done < warmup:
            return done / warmup
        if kind == "constant":
            return 1.0
        left = max(0.0, (steps - done) / max(1, steps - warmup))
        return left if kind == "linear" else (1 - math.cos(math.pi * left)) / 2

    return share
