"""AdamW over everything that is trained, its schedule, and clipping.

The optimizer is the fused one: a single pass over the weights, and it can be told by a number on the device to
leave a step out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalr.training.config import TrainingConfig


class Optimization:
    """One optimizer with its learning rate, which decays linearly to 0 after the warm-up.

    Weight decay applies to matrices, not to biases and the scales of norms.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig, *, steps: int) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in self.parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in self.parameters if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.learning_rate, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, linear(steps=steps, warmup=config.warmup_steps)
        )
        self.clip_norm = config.clip_norm

    @property
    def learning_rate(self) -> float:
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

    def state(self) -> Mapping[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def linear(*, steps: int, warmup: int) -> Callable[[int], float]:
    """The share of the learning rate after so many steps: up to 1 over the warm-up, then down to 0."""

    def share(done: int) -> float:
        if done < warmup:
            return done / warmup
        return max(0.0, (steps - done) / max(1, steps - warmup))

    return share
