"""What does a number depend on besides the recipe? Versions, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.io.paths import regular

if TYPE_CHECKING:
    from torch import nn

_PACKAGES = ("dalr", "torch", "transformers", "sentence-transformers", "tokenizers", "numpy")


def provenance(module: nn.Module) -> dict[str, Any]:
    """Versions, machine and git commit, and how many parameters are trained."""
    import torch

    return {
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "git_commit": _git_commit(),
        "trained_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
    }


def _processor() -> str:
    try:
        for line in regular(Path("/proc/cpuinfo")).read_text().split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the checkout that this package runs from; None for an installed package."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
