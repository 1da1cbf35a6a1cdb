"""Is the arithmetic on the device right? The checks of gpu.py that need a GPU to mean anything.

    python benchmarks/gpu_checks.py --out FILE [--tiny] [--device cuda]

1. Losses and gradients of a pair step and a text step, for BERT, RoBERTa, MPNet and ModernBERT, in fp32 and bf16:
   padded rows, packed ones (in bf16 on a GPU through flash attention; MPNet cannot and has buckets), and the layout
   that training picks, each against padded float64 on the CPU. Without dropout, so that all compute the same
   function. Packing may not add much to what the precision costs padded rows on the same device.
2. A NaN and an Inf in the features of one row stop the training, and the weights are those before that step.
3. With deterministic algorithms: the same seed gives the same bits in two processes and another seed others, and a
   run that is stopped and resumed ends in the bits of one that was not. Without: how far the losses of two equal
   runs lie apart.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
import transformers
from gpu_findings import Findings
from gpu_models import ARCHITECTURES, SIZES, world_of
from torch import Tensor
from training_world import World

from dalr.data.schedule import Kind, PlannedBatch
from dalr.errors import NumericsError
from dalr.losses import Losses
from dalr.models.packing import best_layout
from dalr.training.batch import Batch, BatchDataset
from dalr.training.config import TrainingConfig
from dalr.training.distributed import Ranks
from dalr.training.loop import fit
from dalr.training.module import TrainingTask
from dalr.training.optim import Optimization

BUCKETED = ("mpnet",)
"""Architectures with an attention of their own, which cannot be packed."""
FP32_LOSS, FP32_GRADIENT = 1e-4, 1e-3
"""Largest relative distance to float64 in fp32: of the loss, and of all gradients as one vector."""
BF16_LOSS, BF16_GRADIENT, BF16_OVER_PADDED = 5e-2, 0.3, 1.5
"""In bf16: wide, for what is wrong rather than imprecise. And how many times the distance of padded rows that of
packed rows may be."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--train", nargs=2, metavar=("RUN", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.train is not None:
        torch.use_deterministic_algorithms(True)
        toy_run(Path(options.train[0]), seed=int(options.train[1]), tiny=options.tiny)
        return 0
    findings = Findings(options.out)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory(prefix="dalr-gpu-checks-") as name:
        folder = Path(name)
        same, other = (started(folder / f"seed-{seed}", seed, options) for seed in range(2))
        for architecture in ARCHITECTURES:
            world = world_of(folder, architecture, SIZES["tiny" if options.tiny else "base"], device)
            attempted(findings, f"{architecture}: arithmetic", compare_arithmetic, findings, world)
        torch.use_deterministic_algorithms(True)
        small = world_of(folder / "small", "bert", replace(SIZES["tiny"], dim=64, rows=8), device)
        for value in ("nan", "inf"):
            attempted(findings, f"stop at {value}", stop_at, findings, small, float(value))
        attempted(findings, "resume", resume_in_the_same_bits, findings, folder, options.tiny)
        attempted(findings, "seeds", compare_processes, findings, folder / "whole", same, other)
        torch.use_deterministic_algorithms(False)
        attempted(findings, "default mode", bound_default_mode, findings, folder, options.tiny)
    return findings.exit_code()


def attempted(findings: Findings, name: str, check: Any, *arguments: Any) -> None:
    """One check that breaks does not keep the others from running."""
    try:
        check(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
        findings.check(name, False, error=f"{type(error).__name__}: {str(error)[:500]}")


# --- 1. losses and gradients ---------------------------------------------------------------------------------


def compare_arithmetic(findings: Findings, world: World) -> None:
    task = world.task(recipe="dalr-paper", precision="fp32", padding="padded").eval()
    exact = copy.deepcopy(task).cpu().double()
    best = best_layout(task.student, dtype=torch.bfloat16)
    checked = "bucketed" if world.model in BUCKETED else "packed"  # also where the probe does not pick it
    dataset = world.dataset(teachers=True)
    kinds: tuple[Kind, ...] = ("pair", "text")
    for kind in kinds:
        batch = dataset[next(world.plan((kind,)).batches())]
        truth = computed(exact, batch.with_tensors(as_double))
        on_device = batch.to(world.device)
        for precision in ("fp32", "bf16"):
            distances = {}
            for layout in dict.fromkeys(("padded", checked, best)):
                task.layout, task.precision = layout, precision  # type: ignore[assignment]
                distances[layout] = distance(computed(task, on_device), truth)
            name = f"{world.model}, {kind} step, {precision}"
            findings.check(name, within(precision, distances), picked=best, expected=checked, distances=distances)


def as_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@dataclass(frozen=True, kw_only=True)
class Computed:
    loss: float
    gradients: Mapping[str, Tensor]


def computed(task: TrainingTask, batch: Batch) -> Computed:
    task.zero_grad(set_to_none=True)
    losses: Losses = task(batch)
    losses.total.backward()
    gradients = {name: p.grad.double().cpu() for name, p in task.named_parameters() if p.grad is not None}
    return Computed(loss=losses.total.item(), gradients=gradients)


def distance(found: Computed, truth: Computed) -> dict[str, float]:
    """Relative: of the loss, and of all gradients together as one vector."""
    assert found.gradients.keys() == truth.gradients.keys()
    apart = sum(float((found.gradients[name] - each).square().sum()) for name, each in truth.gradients.items())
    length = sum(float(each.square().sum()) for each in truth.gradients.values())
    return {"loss": abs(found.loss / truth.loss - 1), "gradient": (apart / length) ** 0.5}


def within(precision: str, distances: Mapping[str, Mapping[str, float]]) -> bool:
    loss, gradient = (FP32_LOSS, FP32_GRADIENT) if precision == "fp32" else (BF16_LOSS, BF16_GRADIENT)
    most = min(gradient, BF16_OVER_PADDED * distances["padded"]["gradient"] + FP32_GRADIENT)
    return all(each["loss"] < loss and each["gradient"] < most for each in distances.values())


# --- 2. NaN and Inf ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SpoiledDataset(BatchDataset):
    """One number of one image feature is replaced in one step."""

    spoiled_step: int
    value: float

    def __getitem__(self, planned: PlannedBatch) -> Batch:
        batch = super().__getitem__(planned)
        if batch.step == self.spoiled_step and batch.targets.image is not None:
            image = batch.targets.image.clone()
            image[0, 0] = self.value
            batch = replace(batch, targets=replace(batch.targets, image=image))
        return batch


class Silent:
    """A listener that lets the training run."""

    def reads_gradient_norms(self, batch: Batch) -> bool:
        return False

    def on_losses(self, batch: Batch, losses: Losses) -> None: ...

    def reads_weights(self, step: int) -> bool:
        return False

    def on_step(self, step: int, learning_rate: float) -> None: ...

    def ends_after(self, step: int) -> bool:
        return False


def stop_at(findings: Findings, world: World, value: float, at: int = 3) -> None:
    """The loop looks at the flag only after the last step, as it may on a GPU; the weights must not show that."""
    dataset = world.dataset(teachers=True)
    before = trained(world, dataset, steps=at, schedule=8)
    parts = {"streams": dataset.streams, "seed": dataset.seed, "teacher_weights": dataset.teacher_weights}
    task = fresh_task(world)
    try:
        train_on(world, task, SpoiledDataset(**parts, spoiled_step=at, value=value), steps=8, schedule=8)  # type: ignore[arg-type]
        message = None
    except NumericsError as error:
        message = str(error)
    named = message is not None and message.startswith(f"step {at + 1} (pair batch)")
    unchanged = digest(task.state_dict()) == digest(before.state_dict())
    findings.check(f"stop at {value}", named and unchanged, message=message, weights_unchanged=unchanged)


def fresh_task(world: World) -> TrainingTask:
    from dalr.training.precision import resolve_precision

    return world.task(recipe="dalr-paper", precision=resolve_precision("auto", world.device), padding="auto")


def trained(world: World, dataset: BatchDataset, *, steps: int, schedule: int) -> TrainingTask:
    task = fresh_task(world)
    train_on(world, task, dataset, steps=steps, schedule=schedule)
    return task


def train_on(world: World, task: TrainingTask, dataset: BatchDataset, *, steps: int, schedule: int) -> None:
    config = TrainingConfig(batch_size=world.batch, learning_rate=1e-3, log_every=1_000)
    fit(
        task,
        plan=world.plan(("pair",)),
        dataset=dataset,
        config=config,
        optimization=Optimization(task, config, steps=schedule, heads=task.heads),
        steps=steps,
        seed=0,
        run=world.folder,
        ranks=Ranks(device=world.device),
        listener=Silent(),
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


# --- 3. the same bits ----------------------------------------------------------------------------------------


def toy_run(out: Path, *, seed: int, tiny: bool, steps: int | None = None, stop_after: int | None = None) -> None:
    """A `dalr train` on generated data that takes seconds; `stop_after` asks it to stop as Ctrl-C does."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import dalr
    from dalr.io.console import Console
    from tiny import recipe_tree, save_tiny_bert, write_data, write_recipe

    place = out.with_name(f"{out.name}-made-of")
    recipe = place / "recipe.yaml"
    if not recipe.exists():
        student = save_tiny_bert(place / "student", dim=32 if tiny else 256, layers=2 if tiny else 6)
        tree = recipe_tree(write_data(place / "data"), student)
        tree["training"]["precision"] = "auto"
        write_recipe(recipe, tree)
    number = steps or 12
    settings = [f"seed={seed}", f"training.max_steps={number}", f"validation.every={number}"]

    class Stop:
        def on_step(self, step: int, losses: Losses, metrics: Mapping[str, Any]) -> bool | None:
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGINT)
            return None

    again = (out / "run.json").exists()
    try:
        dalr.train(
            recipe, overrides=settings, out=out, resume=again, callbacks=[Stop()], console=Console(quiet=True)
        )
    except KeyboardInterrupt:
        if stop_after is None:
            raise


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of every tensor file that a run leaves."""
    files = sorted([*run.glob("model/**/*.safetensors"), *run.glob("*.safetensors")])
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def resume_in_the_same_bits(findings: Findings, folder: Path, tiny: bool) -> None:
    toy_run(folder / "whole", seed=0, tiny=tiny)
    expected = weights(folder / "whole")
    assert expected
    for cut in (6,) if tiny else (1, 4, 6, 11):
        run = folder / f"cut-{cut}"
        toy_run(run, seed=0, tiny=tiny, stop_after=cut)
        resumed = json.loads((run / "run.json").read_bytes())["status"] == "stopped"
        toy_run(run, seed=0, tiny=tiny)
        same = weights(run) == expected
        findings.check(f"resumed after step {cut}", resumed and same, was_stopped=resumed, same_bits=same)


@dataclass(frozen=True, kw_only=True)
class Started:
    run: Path
    process: subprocess.Popen[str]

    def weights(self) -> dict[str, str]:
        _, errors = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(errors[-500:])
        return weights(self.run)


def started(run: Path, seed: int, options: argparse.Namespace) -> Started:
    """A training in a process of its own, with hash randomisation and a working folder of its own."""
    run.parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(dir=run.parent))
    command = [sys.executable, str(Path(__file__).resolve()), "--out", str(run.with_suffix(".json"))]
    command += ["--train", str(run), str(seed), *(["--tiny"] if options.tiny else [])]
    environment = os.environ | {"PYTHONHASHSEED": str(1 + sum(map(ord, run.name)))}
    process = subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    return Started(run=run, process=process)


def compare_processes(findings: Findings, whole: Path, same: Started, other: Started) -> None:
    """`whole` was trained in this process, with the seed of `same`."""
    expected, of_same, of_other = weights(whole), same.weights(), other.weights()
    equal, differs = of_same == expected, of_other.keys() == expected.keys() and of_other != expected
    findings.check("seeds", equal and differs, same_seed_same_bits=equal, other_seed_other_bits=differs)


def bound_default_mode(findings: Findings, folder: Path, tiny: bool) -> None:
    """Not a promise of equal bits: a number to report."""
    steps, apart = (2, []) if tiny else (200, [])
    for seed in range(1 if tiny else 3):
        last = []
        for turn in range(2):
            run = folder / f"default-{seed}-{turn}"
            toy_run(run, seed=seed, tiny=tiny, steps=steps)
            records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            last.append(next(record["loss"] for record in reversed(records) if "loss" in record))
        apart.append(abs(last[0] - last[1]))
    findings.add("default mode", {"steps": steps, "difference_of_the_last_loss_by_seed": apart})


if __name__ == "__main__":
    sys.exit(main())
