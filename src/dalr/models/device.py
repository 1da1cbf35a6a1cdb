"""Where do frozen models compute? On a GPU if there is one, else on the processor, or where the user says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dalr.errors import ConfigError, Problem

if TYPE_CHECKING:
    import torch

BF16 = "--precision bf16"
"""The option that asks for it, as messages name it."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """The device that `name` names; `auto` is the first CUDA device, or the CPU where there is none.

    Raises:
        ConfigError: not a device, or one that this machine does not have.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        what = f"expected auto, cpu or a device of this machine such as cuda:0, found {name!r} ({reason:.120})"
        raise ConfigError(Problem(where="--device", what=what)) from None
    if device.type == "meta":
        raise ConfigError(Problem(where="--device", what="expected a device that computes, found 'meta'"))
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 natively: AVX512-BF16, AMX, CUDA ≥ 8.0. Emulated, it is slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def require_bf16(device: torch.device, where: str, *, native: bool | None = None) -> None:
    """Refuse bf16 where it would only be slower.

    Args:
        where: what asked for it.
        native: whether the device has the instructions; None asks it.

    Raises:
        ConfigError: it has none.
    """
    if not (computes_bf16(device) if native is None else native):
        what = f"{device} has no instructions for bf16, which would be slower than fp32 there; leave bf16 out"
        raise ConfigError(Problem(where=where, what=what))
