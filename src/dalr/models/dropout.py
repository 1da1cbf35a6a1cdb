"""How is dropout made as fast as its random bits?

On a CPU torch draws a Bernoulli number per element, one after the other: a twelfth of a training step in bf16.
Here 32 bits of torch's own generator decide an element, which keeps the probability to 2^-33 and the seeding as
it was (a step's stream follows from the seed set before it), at less than half the time. The numbers drawn are
others than torch's. On other devices torch's kernel is left in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BitDropout(nn.Dropout):
    """`nn.Dropout`, other bits."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1) or input.device.type != "cpu":
            return super().forward(input)
        return input * dropout_noise(input.shape, self.p, input.dtype)


def dropout_noise(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """0 with probability p, else 1 / (1 − p); on the CPU, 0 < p < 1."""
    count = torch.Size(shape).numel()
    words = torch.empty((count + 1) // 2, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int32)[:count] >= round(p * 2**32) - 2**31
    return kept.view(torch.int8).to(dtype).mul_(1 / (1 - p)).view(shape)


def use_bit_dropout(module: nn.Module) -> None:
    """Put `BitDropout` in the place of each `nn.Dropout` of `module`; no parameter and no name changes."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, BitDropout(child.p).train(child.training))
