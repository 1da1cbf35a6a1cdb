"""AdamW over everything that is trained, its schedule, and clipping.

The optimizer is the fused one: a single pass over the weights, and it can be told by a number on the device to
leave a step out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        matrices = [parameter for parameter in self.parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in self.parameters if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.learning_rate, fused=True
        )
        self.share = linear(steps=steps, warmup=config.warmup_steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.share)
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


def linear(*, steps: int, warmup: int) -> Callable[[int], float]:
    """The share of the learning rate after so many steps: up to 1 over the warm-up, then down to 0."""

    def share(done: int) -> float:
        if done < warmup:
            return done / warmup
        return max(0.0, (steps - done) / max(1, steps - warmup))

    return share
