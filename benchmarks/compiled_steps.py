"""The training step with `training.compile` beside the same step without, and beside packed rows.

python benchmarks/compiled_steps.py [--model minilm-3] [--batch 64] [--steps 2] [--rounds 5] [--no-dropout]

Text steps: forward, backward, clipping, optimizer, on the same batches. Contestants take turns, round by round, in
one process; a figure is the median over the rounds. The first step of each, which compiles, is stated apart. On a
machine that others use, DALR_BENCH_CPU_TIME=1 with OMP_NUM_THREADS=1 counts processor seconds. On a GPU, CUDA
graphs take part.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import nn
from training_world import CPU_TIME, MODELS, World, make_world, now

from dalr.training.batches import Batch
from dalr.training.compilation import require_compiler
from dalr.training.config import Compile, TrainingConfig
from dalr.training.optimization import Optimization
from dalr.training.precision import resolve_precision
from dalr.training.ranks import Ranks
from dalr.training.step import Step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="minilm-3")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="measured steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("DALR_SHARED", "../shared")))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-dropout", action="store_true", help="how much of it is random bits")
    options = parser.parse_args()
    device = torch.device(options.device)
    shared = options.shared if (options.shared / "data").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="dalr-compiled-") as name:
        world = make_world(
            Path(name), model=options.model, batch=options.batch, device=device, shared=shared, rows=2_000
        )
        plans = world.plan(("text",)).batches()
        dataset = world.dataset(teachers=False)
        batches = [dataset[keys].to(device) for keys, _ in zip(plans, range(options.steps), strict=False)]
        for precision in dict.fromkeys(("fp32", resolve_precision("auto", device))):
            contest(world, precision, batches, rounds=options.rounds, dropout=not options.no_dropout)
    clock = "processor" if CPU_TIME else "wall"
    print(f"{clock} seconds, {torch.get_num_threads()} threads, load at the end {os.getloadavg()[0]:.1f}")


def contest(world: World, precision: str, batches: Sequence[Batch], *, rounds: int, dropout: bool) -> None:
    eager: list[tuple[str, Compile]] = [("packed", "off"), ("bucketed", "off"), ("padded", "off")]
    forms: list[tuple[str, Compile]] = [*eager, ("bucketed", "on")]
    if world.device.type == "cuda":
        forms.append(("padded", "cuda-graphs"))
    steps = {form: stepper(world, precision, *form, dropout=dropout) for form in forms}
    first = {form: seconds(step, batches[:1], world.device) for form, step in steps.items()}
    times: dict[tuple[str, Compile], list[float]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form, step in steps.items():
            times[form].append(seconds(step, batches, world.device))
    found = {form: median(each) for form, each in times.items()}
    fastest = found["packed", "off"]
    for form, value in found.items():
        spread = f"{min(times[form]):.3f} to {max(times[form]):.3f}"
        name = f"{form[0]}, compile {form[1]}"
        ratio = f"packed / this {fastest / value:.2f}"
        print(f"{precision}  {name:28} {value:.3f} s ({spread})  {ratio}  first {first[form]:.1f} s", flush=True)


def stepper(
    world: World, precision: str, padding: str, compile: Compile, *, dropout: bool
) -> Callable[[Batch], None]:
    """One whole step of a task of its own."""
    require_compiler(compile, world.device)
    task = world.task(recipe="simcse", precision=precision, padding=padding, compile=compile)  # type: ignore[arg-type]
    for module in task.student.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    optimization = Optimization(task, TrainingConfig(learning_rate=1e-6), steps=10**6)
    step = Step(task=task, ranks=Ranks(device=world.device), gather=True, mini_batch_size=None, seed=0)
    fine = torch.zeros((), device=world.device)

    def run(batch: Batch) -> None:
        task.train()
        step.gradients(batch)
        optimization.clip()
        optimization.step(unless=fine)
        optimization.advance()

    return run


def seconds(step: Callable[[Batch], None], batches: Sequence[Batch], device: torch.device) -> float:
    """A step, waited for."""
    started = now()
    for batch in batches:
        step(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (now() - started) / len(batches)


if __name__ == "__main__":
    main()
