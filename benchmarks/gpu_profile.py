"""Where do 20 steps of training spend their time on a GPU: kernels, the gaps between them, the host?

    python benchmarks/gpu_profile.py --out FILE [--tiny] [--model bert-base] [--batch 128] [--device cuda]

The loop is that of `dalr train` (`training/loop.py`). Three runs of each kind of step: without a profiler, for the
time of a step and the processor time of the host; with kernels recorded alone, which costs little, for how long the
GPU was busy and the gaps; a few steps with operators too, for the names. On a CPU operators stand for kernels.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from gpu_findings import Findings, wait_for
from gpu_timeline import timeline
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from training_world import MODELS, World, make_world, own_round

from dalr.data.schedule import Kind
from dalr.training.module import TrainingTask
from dalr.training.precision import resolve_precision

TOP = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", choices=MODELS, default=None)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = options.model or ("tiny" if options.tiny else "bert-base")
    batch, steps = options.batch or (8 if options.tiny else 128), options.steps or (2 if options.tiny else 20)
    device = torch.device(options.device)
    findings = Findings(options.out)
    findings.add("shape", {"model": model, "batch": batch, "steps": steps})
    with tempfile.TemporaryDirectory(prefix="dalr-gpu-profile-") as name:
        rows = batch * (steps + 2)
        world = make_world(Path(name), model=model, batch=batch, device=device, shared=None, rows=rows)
        precision = resolve_precision("auto", device)
        task = world.task(recipe="dalr-paper", precision=precision, padding="auto")
        findings.add("layout", {"precision": precision, "padding": task.layout})
        dataset = world.dataset(teachers=True)
        kinds: tuple[Kind, ...] = ("pair",) if options.tiny else ("pair", "text")
        for kind in kinds:
            own_round(world, task, dataset, (kind,), 2)
            measure(findings, world, task, dataset, kind, steps)
    return findings.exit_code()


def measure(findings: Findings, world: World, task: TrainingTask, dataset: Any, kind: Kind, steps: int) -> None:
    wait_for(world.device)
    start, host = perf_counter(), process_time()
    seconds, _ = own_round(world, task, dataset, (kind,), steps)
    wait_for(world.device)
    host_seconds = (process_time() - host) / (steps + 1)
    whole = (perf_counter() - start) / (steps + 1)
    findings.add(
        f"{kind} step",
        {"seconds": seconds, "with start and end": whole, "processor seconds of the host": host_seconds},
    )
    on_gpu = world.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        own_round(world, task, dataset, (kind,), steps)
        wait_for(world.device)
    where = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [
        (each.name, each.time_range.start, each.time_range.end)
        for each in recorded.events()
        if each.device_type == where and not getattr(each, "is_user_annotation", False)  # spans of several kernels
    ]
    findings.add(f"{kind} step, device", timeline(events, steps + 1))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as named:
        own_round(world, task, dataset, (kind,), 2)
        wait_for(world.device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    table = named.key_averages().table(sort_by=key, row_limit=TOP, max_name_column_width=48)
    hosts = named.key_averages().table(sort_by="self_cpu_time_total", row_limit=TOP, max_name_column_width=48)
    findings.add(f"{kind} step, operators", {"by device time": table, "by host time": hosts, "steps": 3})


if __name__ == "__main__":
    sys.exit(main())
