"""Where does a stopped run resume? Sealed folders `resume/step-000120`, apart from the best weights.

Batches and dropout are drawn from (seed, step), so there are no generator states to save: weights, what the
optimizer remembers, running means, and what was written so far are all that a later step depends on. A point holds
its own copy of `metrics.jsonl`, and names the best checkpoint of its time, which stays as long as the point does.
Nothing is pickled: tensors are safetensors, everything else is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dalr.errors import ConfigError, CorruptFileError, Problem, StorageError
from dalr.io.paths import exists, regular
from dalr.io.sealed import NewerFormatError, read_manifest, remove_sealed, verify_sealed, write_sealed
from dalr.training.checkpoint import Checkpoint, checkpoint_folder, read_checkpoint

if TYPE_CHECKING:
    from dalr.training.optim import Optimization

RESUME = "resume"
_FORMAT, _VERSION = "dalr-resume", 1
_REMEDY = "not used"


class ProgressState(BaseModel):
    """What a run has counted and chosen so far."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    batches: dict[str, int]
    """By kind."""
    term_counts: dict[str, int]
    best_step: int | None
    best_score: float | None
    untrained_score: float | None
    gained_score: float | None = None
    """The last score that patience took for a gain."""
    scores_without_gain: int = 0
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A point whose every byte is as it was sealed, and so is the best checkpoint that it names."""

    folder: Path
    step: int
    state: ProgressState
    best: Checkpoint | None

    def term_sums(self) -> dict[str, Tensor]:
        """In the order of the terms, which safetensors does not keep."""
        sums = load_file(self.folder / "means.safetensors")
        return {name: sums[name] for name in self.state.term_counts}

    def metrics(self) -> bytes:
        return regular(self.folder / "metrics.jsonl").read_bytes()

    def restore(self, task: nn.Module, optimization: Optimization) -> None:
        """Put weights and optimizer back as they were.

        Raises:
            ConfigError: they belong to other parameters, after a change that was allowed.
        """
        weights = load_file(self.folder / "weights.safetensors")
        remembered = load_file(self.folder / "optimizer.safetensors")
        own = dict(distinct_tensors(task))
        _require_same_shapes(weights, own)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])
        optimization.restore(remembered, step=self.step)


def save_point(
    run: Path,
    *,
    run_id: str,
    step: int,
    keep: int,
    task: nn.Module,
    optimization: Optimization,
    term_sums: Mapping[str, Tensor],
    state: ProgressState,
    metrics: bytes,
) -> Path:
    """Seal a point after `step` steps, then remove all but the newest `keep`."""
    folder = run / RESUME / f"step-{step:06d}"

    def fill(temporary: Path) -> None:
        _save(dict(distinct_tensors(task)), temporary / "weights.safetensors")
        _save(optimization.state(), temporary / "optimizer.safetensors")
        _save(term_sums, temporary / "means.safetensors")
        (temporary / "state.json").write_text(state.model_dump_json(indent=2))
        (temporary / "metrics.jsonl").write_bytes(metrics)

    metadata = {"step": step, "run": run_id}
    if exists(folder, StorageError):  # rejected when the run went on, and now come to again
        remove_sealed(folder)
    write_sealed(folder, format=_FORMAT, version=_VERSION, metadata=metadata, fill=fill)
    older = [path for path in points(run) if _step(path) < step]
    newer = [path for path in points(run) if _step(path) > step]  # rejected when the run went on before them
    for path in [*newer, *older[: max(0, len(older) - keep + 1)]]:
        remove_sealed(path)
    return folder


def newest_point(run: Path, *, run_id: str) -> tuple[ResumePoint | None, list[CorruptFileError]]:
    """The newest point that verifies, and why each newer one does not.

    Raises:
        NewerFormatError: one was written by a later dalr.
    """
    rejected: list[CorruptFileError] = []
    for folder in reversed(points(run)):
        try:
            return read_point(folder, run=run, run_id=run_id), rejected
        except NewerFormatError:
            raise  # it is whole: starting over would throw away what a newer dalr can go on from
        except CorruptFileError as error:
            rejected.append(error)
    return None, rejected


def read_point(folder: Path, *, run: Path, run_id: str) -> ResumePoint:
    """A point of the run `run_id`, every byte compared.

    Raises:
        CorruptFileError: the point or the best checkpoint that it names is damaged, absent, or of another run.
    """
    manifest = read_manifest(folder, format=_FORMAT, version=_VERSION, remedy=_REMEDY)
    verify_sealed(folder, manifest, remedy=_REMEDY)
    step = manifest.metadata.get("step")
    if manifest.metadata.get("run") != run_id or not isinstance(step, int) or _step(folder) != step:
        raise CorruptFileError(f"{folder}: sealed as step {step} of run {manifest.metadata.get('run')}; {_REMEDY}")
    try:
        state = ProgressState.model_validate_json(regular(folder / "state.json").read_bytes())
    except ValidationError as error:
        raise CorruptFileError(f"{folder / 'state.json'}: {error}; {_REMEDY}") from None
    return ResumePoint(folder=folder, step=step, state=state, best=_best(state, run))


def points(run: Path) -> list[Path]:
    """Folders of points, oldest first, whatever their state."""
    return sorted((path for path in (run / RESUME).glob("step-*") if path.name[5:].isdecimal()), key=_step)


def best_steps(run: Path) -> Iterator[int]:
    """Steps of the best checkpoints that points name."""
    for folder in points(run):
        try:
            best = ProgressState.model_validate_json(regular(folder / "state.json").read_bytes()).best_step
        except (OSError, ValidationError):  # a damaged one: nothing goes on from it
            continue
        if best is not None:
            yield best


def distinct_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name; those that share their numbers once, under the first name."""
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or key not in seen:
            seen.add(key)
            yield name, tensor


def _step(folder: Path) -> int:
    return int(folder.name[5:])


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _best(state: ProgressState, run: Path) -> Checkpoint | None:
    if state.best_step is None:
        return None
    best = read_checkpoint(checkpoint_folder(run, state.best_step))
    if (best.step, best.score) != (state.best_step, state.best_score):
        what = f"expected step {state.best_step} with score {state.best_score}, found {best.step} with {best.score}"
        raise CorruptFileError(f"{best.folder}: {what}; {_REMEDY}")
    return best


def _require_same_shapes(stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    problems = []
    for name in sorted(stored.keys() | own.keys()):
        before, now = (tuple(side[name].shape) if name in side else "absent" for side in (stored, own))
        if before != now:
            problems.append(Problem(where=name, what=f"{before} in the checkpoint, {now} in the recipe of now"))
    if problems:
        raise ConfigError(problems)
