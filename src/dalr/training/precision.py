"""Which precision is fastest on this processor?"""

from __future__ import annotations

from typing import Literal

import torch


def resolve_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 where the processor multiplies it natively (AVX512-BF16, AMX, CUDA ≥ 8.0), else fp32.

    Emulated bf16 is slower than fp32. On AVX512-BF16 a training step takes about half the time of fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        cpu = torch.cpu
        native = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
        return "bf16" if native else "fp32"
    return "fp32"
