"""How much memory does a training step take by batch size, at once and with gradient caching?

    python benchmarks/gpu_memory.py --out FILE [--tiny] [--batches 128 512 4096] [--mini 128] [--device cuda]

A text step of `dalr-paper` on a BERT-base of random weights with AdamW: weights, gradients and optimizer states
count too. Batches that are larger than the GPU takes at once are reported as such, not as a failure.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from gpu_findings import Findings, PeakMemory, wait_for
from training_world import World, make_world

from dalr.training.batch import Batch
from dalr.training.config import TrainingConfig
from dalr.training.distributed import Ranks
from dalr.training.module import TrainingTask
from dalr.training.optim import Optimization
from dalr.training.precision import resolve_precision
from dalr.training.step import Step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=None)
    parser.add_argument("--mini", type=int, default=None, help="rows at a time with gradient caching")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = "tiny" if options.tiny else "bert-base"
    batches = options.batches or ([8, 32] if options.tiny else [128, 512, 4_096])
    mini = options.mini or (8 if options.tiny else 128)
    device, findings = torch.device(options.device), Findings(options.out)
    peak = PeakMemory(device)
    findings.add("shape", {"model": model, "mini-batch": mini, "memory": peak.kind})
    with tempfile.TemporaryDirectory(prefix="dalr-gpu-memory-") as name:
        rows = max(batches) * (options.steps + 2)
        world = make_world(Path(name), model=model, batch=max(batches), device=device, shared=None, rows=rows)
        precision = resolve_precision("auto", device)
        task = world.task(recipe="dalr-paper", precision=precision, padding="auto")
        for batch in batches:
            for way in dict.fromkeys((None, mini if batch > mini else None)):
                title = f"batch {batch}, {'at once' if way is None else f'{way} at a time'}"
                findings.add(title, measured(world, task, batch, way, options.steps, peak))
    return findings.exit_code()


def measured(
    world: World, task: TrainingTask, rows: int, mini: int | None, steps: int, peak: PeakMemory
) -> dict[str, float | str]:
    optimization = Optimization(task, TrainingConfig(learning_rate=1e-6), steps=10**6)
    step = Step(task=task, ranks=Ranks(device=world.device), gather=False, mini_batch_size=mini, seed=0)
    never = torch.zeros((), device=world.device)
    batches = batches_of(world, rows, steps + 1)
    task.train()
    peak.start()
    seconds = 0.0
    try:
        for number, batch in enumerate(batches):
            wait_for(world.device)
            start = perf_counter()
            step.gradients(batch)
            optimization.clip()
            optimization.step(unless=never)
            wait_for(world.device)
            seconds += perf_counter() - start if number else 0.0
    except torch.OutOfMemoryError as error:
        task.zero_grad(set_to_none=True)
        return {"out of memory": str(error).split("\n")[0][:200]}
    return {"peak MiB": peak.mib(), "seconds per step": seconds / steps, "rows/s": rows * steps / seconds}


def batches_of(world: World, rows: int, count: int) -> list[Batch]:
    """Text batches of the size in question, on the device."""
    dataset = world.dataset(teachers=False)
    planned = [each for each, _ in zip(world.plan(("text",)).batches(), range(count), strict=False)]
    return [dataset[keys._replace(rows=keys.rows[:rows])].to(world.device) for keys in planned]


if __name__ == "__main__":
    sys.exit(main())
