"""Attention inside short sentences on a CPU: the fused kernel beside the plain formula, with and without gradients.

    OMP_NUM_THREADS=1 python benchmarks/attention.py

Processor time of a call, so that a busy machine tells the same. What packed rows use is in `models/packing.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = ((6, 16, 32), (12, 24, 32), (6, 16, 64), (64, 32, 64), (4, 128, 64))
"""(rows, tokens, head dimension), all of 12 heads."""
HEADS, CALLS = 12, 50


def main() -> None:
    torch.manual_seed(0)
    print(f"{'dtype':10}{'rows × tokens × dim':24}{'forward and backward, µs':32}forward alone, µs")
    for dtype in (torch.bfloat16, torch.float32):
        for rows, tokens, dim in SHAPES:
            q, k, v = (torch.randn(rows, HEADS, tokens, dim, dtype=dtype, requires_grad=True) for _ in range(3))
            times = [
                microseconds(lambda attend=attend, q=q, k=k, v=v: attend(q, k, v), backward=backward)
                for backward in (True, False)
                for attend in (fused, plain)
            ]
            shape = f"{rows} × {tokens} × {dim}"
            shown = [f"fused {a:.0f}, plain {b:.0f} ({a / b:.1f})" for a, b in (times[:2], times[2:])]
            print(f"{str(dtype).removeprefix('torch.'):10}{shape:24}{shown[0]:32}{shown[1]}")


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    return scores.softmax(-1) @ v


def microseconds(call: Callable[[], Tensor], *, backward: bool) -> float:
    gradient = torch.ones_like(call())
    start = time.process_time()
    for _ in range(CALLS):
        if backward:
            call().backward(gradient)
        else:
            with torch.no_grad():
                call()
    return (time.process_time() - start) / CALLS * 1e6


if __name__ == "__main__":
    main()
