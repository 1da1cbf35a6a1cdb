"""Where do frozen models compute? On a GPU if there is one, else on the processor, or where the user says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dalr.errors import ConfigError, Problem

if TYPE_CHECKING:
    import torch


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
