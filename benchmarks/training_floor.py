"""What a training step must cost on this machine, and where a measured one goes beyond.

Arithmetic is counted at the speed of the machine's matrix products, bytes at that of its memory. Counted: 6 FLOPs
per real token and weight of the linear layers, attention inside sentences, the last layer's output half for first
tokens only; 40 bytes a parameter for the optimizer, the norm of the gradients and their clipping, and in bf16 12
bytes a linear weight for its cast and its gradient's. Not counted: activations, norms, dropout, heads and
objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from training_world import now

from dalr.training.module import TrainingTask

_OPTIMIZER_BYTES, _CAST_BYTES = 40, 12


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Of this machine, now."""

    flops: float
    """A second, of large matrix products in the precision in question."""
    bytes: float
    """A second, read and written, of a copy."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    flops: float
    bytes: float
    seconds: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def measured_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    words = torch.empty((256 if device.type == "cuda" else 64) * 2**20, device=device)
    target = torch.empty_like(words)
    product = _fastest(lambda: a @ b, device)
    copy = _fastest(lambda: target.copy_(words), device)
    return Rates(flops=2 * size**3 / product, bytes=2 * words.numel() * 4 / copy)


def step_floor(task: TrainingTask, lengths: Sequence[int], rates: Rates) -> Floor:
    """`lengths` are the real tokens of each row of the batch, before it is repeated."""
    rows, tokens = 2 * len(lengths), 2 * sum(lengths)
    backbone = task.student.transformers_model
    assert backbone is not None
    stack = next(module for module in backbone.modules() if isinstance(module, nn.ModuleList))
    last = stack[-1]
    linear = _linear_weights(stack)
    output_half = _linear_weights(last) - _linear_weights(last.get_submodule("attention.self"))
    attention = 12 * len(stack) * backbone.config.hidden_size * 2 * sum(length**2 for length in lengths)
    flops = 6 * (tokens * (linear - output_half) + rows * output_half) + attention
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    traffic = _OPTIMIZER_BYTES * parameters + (_CAST_BYTES * linear if task.precision == "bf16" else 0)
    return Floor(flops=flops, bytes=traffic, seconds=flops / rates.flops + traffic / rates.bytes)


def operators(step: Callable[[], Any], rows: int = 16) -> str:
    """Where one step spends its time, by operator."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    step()
    with profile(activities=activities) as profiled:
        step()
    key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(profiled.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=48))


def _linear_weights(module: nn.Module) -> int:
    return sum(child.weight.numel() for child in module.modules() if isinstance(child, nn.Linear))


def _fastest(run: Callable[[], Any], device: torch.device, times: int = 7) -> float:
    best = float("inf")
    for _ in range(times):
        start = now()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, now() - start)
    return best
