"""How is a step with NaN or Inf stopped, without waiting for the device?

Whether loss and gradient norm are finite is decided on the device, and the optimizer leaves the step out there; a
flag that stays up keeps it from all later steps too. The host looks at the flag after `patience` steps (on a CPU
after each), and finds the step, the terms and the rows in what it remembers of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dalr.errors import NumericsError, Problem
from dalr.io.atomic import write_json
from dalr.losses import Losses
from dalr.training.batch import Batch

BAD_BATCH = "bad_batch.json"


@dataclass(frozen=True, kw_only=True)
class _Seen:
    step: int
    kind: str
    row_ids: tuple[str, ...]
    loss: Tensor
    terms: dict[str, Tensor]
    norm: Tensor
    tripped: Tensor


class Guard:
    """Watches every step of a training on `device`; what it finds is written below `run`, if given."""

    def __init__(self, device: torch.device, *, run: Path | None, patience: int) -> None:
        self.run, self.patience = run, patience
        self.tripped = torch.zeros((), device=device)
        self.seen: deque[_Seen] = deque()

    def watch(self, batch: Batch, losses: Losses, norm: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """1 from the first step on whose loss or gradient norm is not finite, else 0; on the device."""
        finite = torch.isfinite(losses.total.detach()) & torch.isfinite(norm)
        self.tripped = torch.where(finite, self.tripped, torch.ones_like(self.tripped))
        self.seen.append(
            _Seen(
                step=batch.step + 1,
                kind=batch.kind,
                row_ids=batch.row_ids,
                loss=losses.total.detach(),
                terms={name: value.detach() for name, value in losses.terms.items()},
                norm=norm,
                tripped=self.tripped,
            )
        )
        return self.tripped

    def check(self, *, at_once: bool = False) -> None:
        """Look at the flag, if it is time or `at_once`.

        Raises:
            NumericsError: naming step, kind of batch, terms and rows of the first step that was left out.
        """
        if not self.seen or (len(self.seen) < self.patience and not at_once):
            return
        if bool(self.tripped):
            raise self._report(next(each for each in self.seen if bool(each.tripped)))
        self.seen.clear()

    def _report(self, step: _Seen) -> NumericsError:
        bad = {name: value.item() for name, value in step.terms.items() if not bool(torch.isfinite(value))}
        if not bool(torch.isfinite(step.loss)):
            culprits = ", ".join(f"{name} = {value}" for name, value in bad.items())
            culprits = culprits or f"the weighted sum = {step.loss.item()}"
        else:
            culprits = "a gradient is not finite although the loss is"
        if self.run is not None:
            write_json(self.run / BAD_BATCH, _as_json(step))
        shown = ", ".join(step.row_ids[:8]) + (" …" if len(step.row_ids) > 8 else "")
        where = f"step {step.step} ({step.kind} batch)"
        what = f"{culprits}; the weights were not changed by this step. Rows: {shown}"
        return NumericsError(Problem(where=where, what=what))


def _as_json(step: _Seen) -> dict[str, object]:
    return {
        "step": step.step,
        "kind": step.kind,
        "loss": str(step.loss.item()),
        "terms": {name: str(value.item()) for name, value in step.terms.items()},
        "gradient_norm": str(step.norm.item()),
        "rows": list(step.row_ids),
    }
