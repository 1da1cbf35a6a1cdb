"""What would a training take? `--dry-run`: one batch of each kind through everything that a step does.

Only the rows of these batches are tokenised and given to the teachers, so that the answer takes seconds also where
the teachers would take an hour. The module is built as for a training and thrown away: no run folder is claimed,
and what would go to dalr's cache goes to a folder that is removed. A step is timed after one that warms up.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dalr.data.rows import Kind, Sentences
from dalr.data.schedule import Plan, PlannedBatch
from dalr.errors import NumericsError, Problem
from dalr.io.cache import temporary_cache
from dalr.io.console import Console, duration
from dalr.models.device import pick_device
from dalr.recipe.schema import Recipe
from dalr.seed import seed_everything
from dalr.training.data import FromProgram, TrainingData, few_rows, load_training_data

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from dalr.training.batch import Batch
    from dalr.training.module import TrainingTask
    from dalr.training.optim import Optimization
    from dalr.training.step import Step

_COUNTED_EPOCHS = 20
"""Epochs whose batches are counted one by one; counting millions would take hours."""
_TIMED_SENTENCES, _WARM_UP = 128, 8
"""Sentences that an encoder is timed on."""
_TIMED = 3
"""Steps of each kind that are timed; the median counts."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A batch of one kind, tried."""

    kind: Kind
    steps: int
    """Batches of this kind in the whole training."""
    shapes: tuple[str, ...]
    loss: float
    terms: dict[str, float]
    seconds: float
    """Of one step: forward, backward, clipping, optimizer."""
    peak_bytes: int
    """Most memory in use so far: of the device, or of the process on a CPU."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a training would be."""

    name: str
    device: str
    precision: str
    trials: tuple[Trial, ...]
    trained: dict[str, int]
    """Parameters of `student` and `heads` that are trained."""
    frozen: dict[str, int]
    validation_seconds: float | None
    """Of one validation score; None without one."""
    validation_scores: int
    checkpoint_bytes: int
    """Of the best checkpoint: exported model and heads, without the tokenizer's files."""
    optimizer_bytes: int
    """Of the optimizer's state, which resuming needs beside the weights."""
    teacher_seconds: float = 0.0
    """Of asking the teachers about every distinct sentence once, which a later run finds in the cache."""
    data_seconds: float = 0.0
    """Of reading and checking data and stored vectors; images themselves are not looked at in a training."""
    images: int = 0
    """Distinct images whose stored vectors are read."""
    evaluation_seconds: float = 0.0
    """Of encoding what `dalr compare` encodes afterwards, by the student and by the untouched encoder."""
    test_images: int = 0

    @property
    def seconds(self) -> float:
        """Of the whole: data, teachers, steps, validation, evaluation; without loading models and saving."""
        validation = self.validation_scores * (self.validation_seconds or 0.0)
        before = self.data_seconds + self.teacher_seconds
        return before + self.step_seconds + validation + self.evaluation_seconds

    @property
    def step_seconds(self) -> float:
        """Of the steps alone."""
        return sum(trial.steps * trial.seconds for trial in self.trials)

    def table(self) -> str:
        """For a terminal: a block for each kind of batch, then the whole."""
        rows: list[tuple[str, str]] = []
        for trial in self.trials:
            rows.append((f"{trial.kind} batch", trial.shapes[0]))
            rows += [("", shape) for shape in trial.shapes[1:]]
            values = ", ".join(f"{name} {value:.4f}" for name, value in trial.terms.items())
            rows.append(("  loss", f"{trial.loss:.4f} ({values})"))
            rows.append(("  a step", f"{trial.seconds:.3f} s, peak memory {_size(trial.peak_bytes)}"))
        for part in self.trained:
            rows.append((part, f"{self.trained[part]:,} parameters trained, {self.frozen[part]:,} frozen"))
        kinds = ", ".join(f"{trial.steps} {trial.kind}" for trial in self.trials)
        rows.append(("steps", f"{sum(trial.steps for trial in self.trials)} ({kinds})"))
        rows += self._times()
        saved = f"{_size(self.checkpoint_bytes)} (two of them for a moment)"
        rows.append(("checkpoint", f"{saved}; optimizer state {_size(self.optimizer_bytes)}"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}".rstrip() for name, value in rows)

    def _times(self) -> list[tuple[str, str]]:
        """What each part takes, also those that take nothing, and the whole."""
        stored = f"stored vectors of {self.images}, none computed; " if self.images else "none; "
        rows = [("images", f"{stored}reading all data takes about {duration(self.data_seconds)}")]
        once = f"about {duration(self.teacher_seconds)}, once: then they are in the cache"
        rows.append(("teachers", once if self.teacher_seconds else "nothing to compute"))
        rows.append(("training", f"about {duration(self.step_seconds)}"))
        if self.validation_seconds is not None:
            whole = duration(self.validation_scores * self.validation_seconds)
            scores = f"{self.validation_scores} scores of {self.validation_seconds:.2f} s"
            rows.append(("validation", f"{scores}, about {whole}"))
        else:
            rows.append(("validation", "none in the recipe"))
        compare = f"about {duration(self.evaluation_seconds)} on {self.test_images} test images (dalr compare)"
        rows.append(("evaluation", compare if self.test_images else "no test images in the recipe"))
        rows.append(("whole training", f"about {duration(self.seconds)} on {self.device} in {self.precision}"))
        return rows


def dry_run(recipe: Recipe, *, console: Console, program: FromProgram | None = None) -> DryRun:
    """Try a batch of each kind of `recipe`; nothing is left on disk that `dalr check` would not leave.

    Raises:
        DataError, ModelFileError, ConfigError: as a training would.
        NumericsError: a loss is not finite.
    """
    program = program or FromProgram()
    started = time.perf_counter()
    data = load_training_data(recipe, program.data)
    data_seconds = time.perf_counter() - started
    first = _first_batches(data.plan)
    few = few_rows(recipe, data, {planned.kind: planned.rows for planned in first})
    teacher_seconds = _teacher_seconds(recipe, data)  # before, because it looks into the user's own cache
    with temporary_cache():
        from dalr.training.distributed import Ranks
        from dalr.training.optim import Optimization
        from dalr.training.setup import prepare
        from dalr.training.step import Step

        seed_everything(recipe.seed)
        ranks = Ranks(device=pick_device("auto"))
        setup = prepare(recipe, few, console, ranks, program.validation)
        task, validation = setup.task, setup.validation
        step = Step(
            task=task, ranks=ranks, gather=True, mini_batch_size=recipe.training.mini_batch_size, seed=recipe.seed
        )
        counts = _count(data.plan, recipe.training.max_steps, recipe.training.epochs)
        steps = sum(counts.values())
        optimization = Optimization(task, recipe.training, steps=steps, heads=task.heads)
        trials = []
        with console.bar("dry run", len(first) * (_TIMED + 1), "step") as bar:
            for planned in first:
                local = planned._replace(rows=np.arange(len(planned.rows)))
                batch = setup.dataset[local].to(task.student.device)
                trials.append(_try(step, optimization, batch, steps=counts[planned.kind]))
                bar.update(len(trials) * (_TIMED + 1))
        seconds = _timed(lambda: validation.scores(task)) if validation is not None else None
        every = recipe.validation.every if recipe.validation is not None else steps
        return DryRun(
            name=recipe.name,
            device=str(setup.report["device"]),
            precision=task.precision,
            trials=tuple(trials),
            trained=_parameters(task, trained=True),
            frozen=_parameters(task, trained=False),
            validation_seconds=seconds,
            validation_scores=1 + -(-steps // every) if validation is not None else 0,
            checkpoint_bytes=_checkpoint_bytes(task),
            optimizer_bytes=_optimizer_bytes(optimization.optimizer),
            teacher_seconds=teacher_seconds,
            data_seconds=data_seconds,
            images=len(data.dataset.pairs.image_names) if data.images is not None and data.dataset.pairs else 0,
            evaluation_seconds=_evaluation_seconds(task, data),
            test_images=len(data.dataset.test.image_names) if data.dataset.test is not None else 0,
        )


def _teacher_seconds(recipe: Recipe, data: TrainingData) -> float:
    """What the teachers take that are models: timed on a sample of the sentences that are not in the cache yet."""
    from dalr.features.text import is_cached
    from dalr.models.loading import load_encoder

    streams = [each for each in data.dataset.streams if each.kind in data.teachers]
    total = 0.0
    for teacher in recipe.teachers:
        if teacher.model is None:
            continue
        precision = teacher.precision or "fp32"
        asked = [each for each in streams if not is_cached(teacher.encoder(), each.ids, each.sentences, precision)]
        if asked:
            encoder = load_encoder(teacher.encoder()).to(pick_device("cpu"))
            total += _encoding_seconds(encoder, asked, teacher.max_tokens, bf16=precision == "bf16")
    return total


def _evaluation_seconds(task: TrainingTask, data: TrainingData) -> float:
    """What `dalr compare` encodes: test captions, and with images those that a linear map is fitted on."""
    test, pairs = data.dataset.test, data.dataset.pairs
    if test is None:
        return 0.0
    read = [test, pairs] if data.images is not None else [test]
    return 2 * _encoding_seconds(task.student, [each.stream for each in read if each is not None], None)


def _encoding_seconds(
    encoder: SentenceTransformer, streams: Sequence[Sentences], max_tokens: int | None, *, bf16: bool = False
) -> float:
    """Of all distinct sentences, by the time of a sample."""
    from dalr.models.embedding import embed

    distinct, first = np.unique(np.concatenate([each.keys for each in streams]), return_index=True)
    chosen = np.sort(first)[:: max(len(distinct) // _TIMED_SENTENCES, 1)][:_TIMED_SENTENCES]
    borders = np.cumsum([0, *(len(each.keys) for each in streams)])
    of_stream = np.searchsorted(borders, chosen, side="right") - 1
    sample = [
        streams[stream].sentences[row]
        for stream, row in zip(of_stream.tolist(), (chosen - borders[of_stream]).tolist(), strict=True)
    ]
    ask = partial(embed, encoder, max_tokens=max_tokens, bf16=bf16)
    ask(sample[:_WARM_UP])
    return _timed(partial(ask, sample)) / len(sample) * len(distinct)


def _first_batches(plan: Plan) -> list[PlannedBatch]:
    """The first batch of each kind that the training has."""
    found: dict[Kind, PlannedBatch] = {}
    wanted = {stream.kind for stream in plan.streams}
    for batch in plan.batches():
        found.setdefault(batch.kind, batch)
        if found.keys() == wanted:
            break
    return list(found.values())


def _count(plan: Plan, steps: int | None, epochs: int) -> dict[Kind, int]:
    """How many batches of each kind there are in `steps` batches, or in all `epochs` where no number is set.

    The first epochs are counted; of a longer training the rest is taken to be like them.
    """
    counted: list[Kind] = []
    passes = min(epochs, _COUNTED_EPOCHS) if steps is None else _COUNTED_EPOCHS
    for epoch in range(passes):
        counted += plan.kinds(epoch)
        if steps is not None and len(counted) >= steps:
            break
    total = steps if steps is not None else len(counted) * epochs // passes
    if total <= len(counted):
        return {stream.kind: counted[:total].count(stream.kind) for stream in plan.streams}
    counts = {stream.kind: total * counted.count(stream.kind) // len(counted) for stream in plan.streams}
    counts[plan.streams[-1].kind] += total - sum(counts.values())
    return counts


def _try(training_step: Step, optimization: Optimization, batch: Batch, *, steps: int) -> Trial:
    """A few steps on one batch; the losses are those of the first."""
    import torch

    def step() -> tuple[float, dict[str, float]]:
        training_step.task.train()
        losses = training_step.gradients(batch)
        norm = optimization.clip()
        optimization.step(unless=(~torch.isfinite(norm)).float())
        return losses.total.item(), {name: value.item() for name, value in losses.terms.items()}

    if batch.tokens.ids.is_cuda:
        torch.cuda.reset_peak_memory_stats(batch.tokens.ids.device)
    loss, terms = step()
    if not all(map(math.isfinite, (loss, *terms.values()))):
        values = ", ".join(f"{name} = {value}" for name, value in {"loss": loss, **terms}.items())
        raise NumericsError(Problem(where=f"first {batch.kind} batch", what=f"not finite: {values}"))
    return Trial(
        kind=batch.kind,
        steps=steps,
        shapes=_shapes(batch),
        loss=loss,
        terms=terms,
        seconds=statistics.median(_timed(step) for _ in range(_TIMED)),
        peak_bytes=_peak_bytes(batch.tokens.ids.device),
    )


def _shapes(batch: Batch) -> tuple[str, ...]:
    rows, longest = batch.tokens.ids.shape
    share = batch.tokens.mask.float().mean().item()
    shapes = [f"{rows} sentences × {longest} tokens ({100 * share:.0f} % real), each in two views"]
    targets = batch.targets
    for name, vectors in (("image features", targets.image), ("CLIP text features", targets.clip_text)):
        if vectors is not None:
            shapes.append(f"{name} {rows} × {vectors.shape[1]}")
    shapes += [f"teacher {k} {rows} × {vectors.shape[1]}" for k, vectors in enumerate(targets.teachers, start=1)]
    shapes += [f"teacher {k} {rows} × {t.ids.shape[1]} tokens" for k, t in enumerate(batch.teacher_tokens, start=1)]
    return tuple(shapes)


def _parameters(task: TrainingTask, *, trained: bool) -> dict[str, int]:
    parts = {"student": task.student, "heads": task.heads}
    return {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad is trained)
        for name, part in parts.items()
    }


def _checkpoint_bytes(task: TrainingTask) -> int:
    from dalr.models.lora import merged

    tensors = [*merged(task.student).state_dict().values(), *task.heads.state_dict().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    import torch

    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))


def _peak_bytes(device: torch.device) -> int:
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # Linux states kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _timed(work: Callable[[], object]) -> float:
    """Seconds that `work` took; it ends with numbers on the host, so that nothing is still under way."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"
