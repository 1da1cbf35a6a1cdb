"""What a step of gpu.py finds, on disk as soon as it is known: one that is stopped loses nothing it had found."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import torch

SHOWN = 400
"""Characters of a finding that are printed; the file has all of it."""


class Findings:
    """Named findings of one step; each call writes the whole file anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {}
        self.failed: list[str] = []

    def add(self, name: str, value: Any) -> None:
        self.found[name] = value
        print(f"{name}: {json.dumps(value, ensure_ascii=False)[:SHOWN]}", flush=True)
        self._write()

    def check(self, name: str, passed: bool, **details: Any) -> None:
        """A finding that is right or wrong."""
        if not passed:
            self.failed.append(name)
        self.add(name, {"passed": passed, **details})

    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".partial")
        temporary.write_text(json.dumps({"failed": self.failed, **self.found}, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


class PeakMemory:
    """The most memory since `start`: the GPU's allocator on a GPU, on a CPU resident memory of the whole process.

    The two cannot be compared, and the second never falls: `kind` says which one it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def kind(self) -> str:
        return "allocated on the GPU" if self.device.type == "cuda" else "resident memory of the process so far"

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def mib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
