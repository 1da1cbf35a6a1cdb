"""The training step beside the public arithmetic and sentence-transformers' own trainer.

python benchmarks/training.py [--models bert-base minilm-3] [--batch 64] [--steps 2] [--rounds 3] [--shared FOLDER]
python benchmarks/training.py --schedule        the whole wiki + flickr schedule, extrapolated (for a GPU)

Contestants take turns, round by round, in one process with the same weights and sentences; a figure is the median
over the rounds, and a ratio that of two medians. Each runs its own whole loop: reading, forward, backward,
clipping, optimizer. On a machine that others use, DALR_BENCH_CPU_TIME=1 with OMP_NUM_THREADS=1 counts processor
seconds. `--profile` adds the floor of a step (training_floor.py) and where it spends its time.
Writes everything to --out as JSON.

  (a) public     fp32, padded to the longest, two teachers on both views of each pair step, the release's terms
  (b) library    SentenceTransformerTrainer, MultipleNegativesRankingLoss on (s, s), fp32
  (c) fp32       ours: the recipe `dalr-paper` in fp32
  (d) best       ours: the same as `dalr train` runs it here
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from public_training import PublicStep, library_round, public_round
from training_floor import measured_rates, operators, step_floor
from training_world import CPU_TIME, MODELS, World, make_world, now, own_round

from dalr.data.schedule import Kind
from dalr.training.config import TrainingConfig
from dalr.training.module import TrainingTask
from dalr.training.optim import Optimization
from dalr.training.precision import resolve_precision

TEXT_ROWS, PAIR_ROWS, EPOCHS = 1_000_000, 148_915, 4
"""Of the recipe `dalr-paper`: Wiki1M and the captions of Flickr30k."""
PUBLIC, LIBRARY, FP32, BEST = "(a) public", "(b) library", "(c) fp32", "(d) best"


def main() -> None:
    options = parsed()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use was found; leave --device out, or use --device cpu")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    shared = None if options.generated or options.schedule else options.shared
    if shared is not None and not (shared / "data").is_dir():
        print(f"{shared} holds no real data: sentences are generated")
        shared = None
    report: dict[str, Any] = {"machine": machine(device), "options": {k: str(v) for k, v in vars(options).items()}}
    print(json.dumps(report["machine"]))
    with tempfile.TemporaryDirectory(prefix="dalr-training-") as name:
        for model in options.models:
            rows = options.batch * (options.steps + 2)
            folder = Path(name)
            world = make_world(
                folder, model=model, batch=options.batch, device=device, shared=shared, rows=max(rows, 2_000)
            )
            report[model] = whole_schedule(world, options) if options.schedule else contest(world, options)
            report["load at the end"] = os.getloadavg()
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=1))
    print(f"load at the end {os.getloadavg()[0]:.1f}; written to {options.out}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["bert-base", "minilm-3"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=None, help="measured steps a round (2; with --schedule 500)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("DALR_SHARED", "../shared")))
    parser.add_argument("--generated", action="store_true", help="random tokens of the real lengths")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--schedule", action="store_true", help="extrapolate the whole wiki + flickr training")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the data sheet, for model FLOP utilisation")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/training.json"))
    options = parser.parse_args()
    options.steps = options.steps or (500 if options.schedule else 2)
    return options


def machine(device: torch.device) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "seconds": "processor" if CPU_TIME else "wall",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def contest(world: World, options: argparse.Namespace) -> dict[str, Any]:
    """Every contestant's steps, in turns."""
    best = resolve_precision("auto", world.device)
    fp32 = world.task(recipe="dalr-paper", precision="fp32", padding="auto")
    ours = world.task(recipe="dalr-paper", precision=best, padding="auto")
    public, library = PublicStep(world).to(world.device), world.student()
    stored = world.dataset(teachers=True)
    contestants: dict[tuple[str, Kind], Callable[[], float]] = {
        (PUBLIC, "text"): lambda: public_round(world, public, "text", options.steps),
        (LIBRARY, "text"): lambda: library_round(world, library, "text", options.steps),
        (FP32, "text"): lambda: own_round(world, fp32, stored, ("text",), options.steps)[0],
        (BEST, "text"): lambda: own_round(world, ours, stored, ("text",), options.steps)[0],
        (PUBLIC, "pair"): lambda: public_round(world, public, "pair", options.steps),
        (FP32, "pair"): lambda: own_round(world, fp32, stored, ("pair",), options.steps)[0],
        (BEST, "pair"): lambda: own_round(world, ours, stored, ("pair",), options.steps)[0],
    }
    times: dict[tuple[str, Kind], list[float]] = {each: [] for each in contestants}
    for _ in range(options.rounds):
        for each, run in contestants.items():
            times[each].append(run())
    seconds = {each: median(found) for each, found in times.items()}
    print_table(world, ours, seconds)
    result: dict[str, Any] = {
        "best": {"precision": ours.precision, "padding": ours.layout},
        "seconds": {f"{who} {kind}": found for (who, kind), found in times.items()},
        "ratios": ratios(seconds),
        "load": os.getloadavg(),
    }
    if options.profile:
        result["floor"] = {kind: profile(world, ours, kind, seconds[BEST, kind]) for kind in ("text", "pair")}
    return result


def schedule_seconds(seconds: dict[tuple[str, Kind], float], who: str, batch: int = 1) -> float:
    """A whole epoch of wiki and flickr, in steps of `batch`."""
    return (TEXT_ROWS * seconds[who, "text"] + PAIR_ROWS * seconds[who, "pair"]) / batch


def ratios(seconds: dict[tuple[str, Kind], float]) -> dict[str, float]:
    whole = schedule_seconds(seconds, PUBLIC)
    return {
        "pair, a / d": seconds[PUBLIC, "pair"] / seconds[BEST, "pair"],
        "pair, a / c": seconds[PUBLIC, "pair"] / seconds[FP32, "pair"],
        "text, a / d": seconds[PUBLIC, "text"] / seconds[BEST, "text"],
        "text, b / d": seconds[LIBRARY, "text"] / seconds[BEST, "text"],
        "text, b / c": seconds[LIBRARY, "text"] / seconds[FP32, "text"],
        "schedule, a / d": whole / schedule_seconds(seconds, BEST),
        "schedule, a / c": whole / schedule_seconds(seconds, FP32),
    }


def print_table(world: World, ours: TrainingTask, seconds: dict[tuple[str, Kind], float]) -> None:
    how = f"(d) in {ours.precision}, {ours.layout}; load {os.getloadavg()[0]:.1f}"
    print(f"\n{world.model}, batch {world.batch}, {how}")
    print(f"{'seconds a step':16}{'text':>10}{'pair':>10}{'an epoch of wiki + flickr, h':>32}")
    for who in (PUBLIC, LIBRARY, FP32, BEST):
        pair = seconds.get((who, "pair"))
        whole = f"{schedule_seconds(seconds, who, world.batch) / 3600:.1f}" if pair is not None else "-"
        print(f"{who:16}{seconds[who, 'text']:10.4f}{'-' if pair is None else f'{pair:.4f}':>10}{whole:>32}")
    print("ratios: " + "; ".join(f"{name} {value:.2f}" for name, value in ratios(seconds).items()), flush=True)


def profile(world: World, task: TrainingTask, kind: Kind, seconds: float) -> dict[str, Any]:
    """The floor of one batch, its share of the measured step, and the operators of a step."""
    rates = measured_rates(world.device, torch.bfloat16 if task.precision == "bf16" else torch.float32)
    batch = world.dataset(teachers=True)[next(world.plan((kind,)).batches())].to(world.device)
    floor = step_floor(task, batch.tokens.lengths, rates)
    table = operators(bare_step(task, [batch]))
    print(f"\n{world.model}, {kind} step: {floor.flops / 1e9:.0f} GFLOP at {rates.flops / 1e9:.0f} GFLOP/s, "
          f"{floor.bytes / 1e9:.2f} GB at {rates.bytes / 1e9:.1f} GB/s: floor {floor.seconds:.4f} s, "
          f"{floor.seconds / seconds:.0%} of the measured step\n{table}")  # fmt: skip
    utilisation = floor.flops / seconds / rates.flops
    print(f"model FLOP utilisation {utilisation:.0%} of the measured matrix product")
    return {
        **floor.as_dict(),
        "share": floor.seconds / seconds,
        "matrix product, FLOP/s": rates.flops,
        "copy, bytes/s": rates.bytes,
        "model FLOP utilisation": utilisation,
        "operators": table,
    }


def bare_step(task: TrainingTask, batches: list[Any]) -> Callable[[], None]:
    """Forward, backward, clipping and optimizer over batches that lie on the device, and nothing else."""
    optimization = Optimization(task, TrainingConfig(learning_rate=1e-6), steps=10**6)
    never = torch.zeros((), device=next(task.parameters()).device)
    turn = iter(range(10**9))

    def step() -> None:
        task.train()
        task(batches[next(turn) % len(batches)]).total.backward()
        optimization.clip()
        optimization.step(unless=never)

    return step


def whole_schedule(world: World, options: argparse.Namespace) -> dict[str, Any]:
    """`dalr train`'s loop over both streams in the proportion of the recipe, and what of it is not arithmetic."""
    precision = resolve_precision("auto", world.device)
    task = world.task(recipe="dalr-paper", precision=precision, padding="auto")
    dataset = world.dataset(teachers=True)
    batches: dict[Kind, list[Any]] = {
        kind: [
            dataset[keys].to(world.device) for keys, _ in zip(world.plan((kind,)).batches(), range(8), strict=False)
        ]
        for kind in ("text", "pair")
    }
    share = PAIR_ROWS / (TEXT_ROWS + PAIR_ROWS)
    pairs = max(1, round(options.steps * share))
    counts: dict[Kind, int] = {"text": options.steps - pairs, "pair": pairs}
    looped, bare = {}, {}
    for kind, count in counts.items():
        own_round(world, task, dataset, (kind,), min(count, 20))  # warm-up of every shape
        looped[kind], _ = own_round(world, task, dataset, (kind,), count)
        bare[kind] = timed(bare_step(task, batches[kind]), count, world.device)
    per_step = (1 - share) * looped["text"] + share * looped["pair"]
    per_bare = (1 - share) * bare["text"] + share * bare["pair"]
    steps = EPOCHS * (TEXT_ROWS // world.batch + PAIR_ROWS // world.batch)
    rates = measured_rates(world.device, torch.bfloat16 if precision == "bf16" else torch.float32)
    flops = {
        kind: sum(step_floor(task, batch.tokens.lengths, rates).flops for batch in found) / len(found)
        for kind, found in batches.items()
    }
    rate = ((1 - share) * flops["text"] + share * flops["pair"]) / per_step
    peak = options.peak * 1e12 if options.peak else rates.flops
    result = {
        "precision": precision,
        "padding": task.layout,
        "seconds a step": looped,
        "without the loop": bare,
        "share of the loop": 1 - per_bare / per_step,
        "steps": steps,
        "measured steps": options.steps,
        "minutes of the schedule": steps * per_step / 60,
        "model FLOP/s": rate,
        "model FLOP utilisation": rate / peak,
        "peak": "data sheet" if options.peak else "measured matrix product",
    }
    print(f"\n{world.model}, batch {world.batch}: {json.dumps(result, indent=1)}", flush=True)
    return result


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = now()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (now() - start) / count


if __name__ == "__main__":
    main()
