"""Which precision is fastest on this processor?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dalr.models.device import computes_bf16

if TYPE_CHECKING:
    import torch


def resolve_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 where the processor multiplies it natively, else fp32.

    Emulated bf16 is slower than fp32. On AVX512-BF16 a training step takes about half the time of fp32.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if computes_bf16(device) else "fp32"
