"""What machine is this? The GPU, the versions, the date, and rates that everything else is compared with.

python benchmarks/gpu_device.py --out FILE [--tiny]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from gpu_findings import Findings
from training_floor import measured_rates

PACKAGES = (
    "dalr",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "numba",
    "scikit-learn",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    findings, device = Findings(options.out), torch.device(options.device)
    findings.add("device", describe(device))
    findings.add("versions", {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}})
    for dtype in (torch.bfloat16, torch.float32):
        rates = measured_rates(device, dtype)
        name = str(dtype).removeprefix("torch.")
        findings.add(
            f"rates, {name}", {"matrix product, TFLOP/s": rates.flops / 1e12, "copy, GB/s": rates.bytes / 1e9}
        )
    if not options.tiny:
        findings.check("a GPU was found", device.type == "cuda")
    return findings.exit_code()


def describe(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"type": device.type, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.type != "cuda":
        return found | {"name": platform.processor() or platform.machine()}
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "name": properties.name,
        "GiB": properties.total_memory / 2**30,
        "multiprocessors": properties.multi_processor_count,
        "capability": list(torch.cuda.get_device_capability(device)),
        "CUDA": torch.version.cuda,
    }


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
