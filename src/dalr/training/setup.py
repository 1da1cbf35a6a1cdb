"""From a checked data set to everything a training loop needs: module, batches, development score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from dalr.console import Bar, Console
from dalr.data.dataset import Dataset
from dalr.data.schedule import Kind, Plan
from dalr.data.tokens import tokenised
from dalr.errors import ConfigError, Problem
from dalr.features.controls import training_images
from dalr.features.extraction import cached_text_store
from dalr.features.store import FeatureStore
from dalr.models.embedding import pad_token_id
from dalr.models.export import record_widths
from dalr.models.heads import Heads
from dalr.models.loading import load_encoder
from dalr.models.lora import add_adapters
from dalr.models.packing import Layout, best_layout
from dalr.models.prompts import prompt_of
from dalr.models.reference import token_positions
from dalr.models.token_teacher import TokenTeacher
from dalr.objectives import Need
from dalr.objectives.token_level import GlobalToLocal
from dalr.objectives.widths import make_widths
from dalr.seed import seed_everything
from dalr.training.batches import Collator, StreamData, TokenRows, Vectors
from dalr.training.compilation import CompiledForward, compiled_layout, require_compiler
from dalr.training.development import Development, make_development
from dalr.training.inputs import Inputs, image_names, sentences_by_kind
from dalr.training.neighbours import grouped
from dalr.training.precision import resolve_precision
from dalr.training.ranks import Ranks
from dalr.training.task import Precision, TrainingTask

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.training.run import Job


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run trains with."""

    task: TrainingTask
    plan: Plan
    collator: Collator
    development: Development | None
    report: dict[str, int | str]


def prepare(job: Job, inputs: Inputs, console: Console, ranks: Ranks) -> Setup:
    """Ask the teachers once, tokenise once, and build the module under the seed."""
    require_compiler(job.training.compile, ranks.device)
    development = make_development(job.development, inputs, job.training.dimensions)
    student = load_encoder(job.student)
    token_teachers: tuple[TokenTeacher, ...] = ()
    if Need.TEACHER_TOKENS in _needs(job):
        token_teachers = tuple(TokenTeacher(teacher) for teacher in job.teachers)
    streams = {
        kind: _stream(job, inputs, kind, ids, sentences, student, token_teachers, console)
        for kind, ids, sentences in sentences_by_kind(inputs.dataset)
    }
    plan = inputs.plan
    if (groups := job.training.schedule.groups) is not None:
        alphas = [teacher.weight for teacher in job.teachers]
        plan = grouped(plan, [(each, streams[each.kind]) for each in plan.streams], groups, alphas=alphas)
    task = _task(job, inputs, student, token_teachers, ranks.device)
    report: dict[str, int | str] = {
        "precision": task.precision,
        "padding": task.layout,
        "compile": job.training.compile,
        "device": str(ranks.device),
        "ranks": ranks.world,
    }
    for kind, data in streams.items():
        tokens = data.tokens.stream
        report |= {f"{kind}_rows": len(tokens), f"{kind}_truncated": tokens.truncated}
    report |= {f"{kind}_rows_left_over_per_pass": rows for kind, rows in plan.left_over().items()}
    collator = Collator(
        streams=streams, seed=job.seed, rank=ranks.rank, world=ranks.world, gather=job.training.gather
    )
    return Setup(task=task, plan=plan, collator=collator, development=development, report=report)


def _needs(job: Job) -> frozenset[Need]:
    return job.objective.needs("pair") | job.objective.needs("text")


def _stream(
    job: Job,
    inputs: Inputs,
    kind: Kind,
    ids: Sequence[str],
    sentences: Sequence[str],
    student: SentenceTransformer,
    token_teachers: tuple[TokenTeacher, ...],
    console: Console,
) -> StreamData:
    """Everything that the batches of one kind read."""
    needs = job.objective.needs(kind)
    token_rows: tuple[TokenRows, ...] = ()
    if Need.TEACHER_TOKENS in needs:
        token_rows = tuple(_token_rows(job, sentences, teacher.encoder) for teacher in token_teachers)
        _require_equal_tokens(job, token_rows)
    data = StreamData(
        row_ids=ids,
        tokens=_token_rows(job, sentences, student),
        teachers=_teacher_vectors(job, inputs, kind, ids, sentences, console) if Need.TEACHERS in needs else (),
        teacher_tokens=token_rows,
    )
    pairs = inputs.dataset.pairs
    if kind == "text" or pairs is None:
        return data
    return replace(
        data,
        images=pairs.image_of,
        image=_image_vectors(job, inputs.dataset, inputs.images) if inputs.images is not None else None,
        clip_text=_by_id(inputs.clip_text, ids, "caption") if inputs.clip_text is not None else None,
        candidates=job.objective.candidates,
    )


def _task(
    job: Job,
    inputs: Inputs,
    student: SentenceTransformer,
    token_teachers: tuple[TokenTeacher, ...],
    device: torch.device,
) -> TrainingTask:
    width = student.get_embedding_dimension()
    assert width is not None
    temperatures = {
        name: bounds for name, term in job.objective.active() if (bounds := term.learns_temperature) is not None
    }
    seed_everything(job.seed)  # loading encoders may have drawn numbers, and not always the same ones
    heads = Heads(
        job.heads,
        student_width=width,
        image_width=inputs.images.width if inputs.images is not None else None,
        clip_text_width=inputs.clip_text.width if inputs.clip_text is not None else None,
        needs=_needs(job),
        temperatures=temperatures,
    )
    precision = resolve_precision(job.training.precision, device)
    if job.student.lora is not None:
        add_adapters(student, job.student.lora, "student.lora")
    if job.training.dimensions:
        record_widths(student, job.training.dimensions)
    student = student.to(device)
    mode = job.training.compile
    return TrainingTask(
        student=student,
        heads=heads,
        objective=job.objective,
        teacher_weights=tuple(teacher.weight for teacher in job.teachers),
        token_teachers=token_teachers,
        precision=precision,
        layout=_layout(job, student, precision),
        widths=make_widths(job.training.dimensions, job.training.dimension_weights),
        compiled=CompiledForward(student, mode, max_tokens=job.data.max_tokens) if mode != "off" else None,
    ).to(device)


def _layout(job: Job, student: SentenceTransformer, precision: Precision) -> Layout:
    """The recipe's own, or the best that this student can do on its device.

    Raises:
        ConfigError: the recipe asks for packed rows, and the student cannot.
    """
    wanted = job.training.padding
    if job.training.compile != "off":
        return compiled_layout(job.training.compile, None if wanted == "auto" else wanted)
    if wanted in ("bucketed", "padded"):
        return wanted
    found = best_layout(student, dtype=torch.bfloat16 if precision == "bf16" else None)
    if wanted == "packed" and found != "packed":
        what = f"packed, but rows of {job.student.model} can only be {found} on {student.device}; use auto"
        raise ConfigError(Problem(where="training.padding", what=what))
    return found


def _token_rows(job: Job, sentences: Sequence[str], encoder: SentenceTransformer) -> TokenRows:
    backbone = encoder.transformers_model
    positions = token_positions(backbone.config.to_dict()) if backbone is not None else None
    if positions is not None and job.data.max_tokens > positions:
        what = f"{job.data.max_tokens} tokens, but the encoder has {positions} positions; lower it"
        raise ConfigError(Problem(where="data.max_tokens", what=what))
    prompt = prompt_of(encoder)
    if prompt:
        sentences = [prompt + sentence for sentence in sentences]
    stream = tokenised(sentences, encoder.tokenizer, max_tokens=job.data.max_tokens)
    return TokenRows(stream=stream, pad_id=pad_token_id(encoder))


def _require_equal_tokens(job: Job, rows: tuple[TokenRows, ...]) -> None:
    """`mix: states` adds the token states of all teachers, which means something only token by token."""
    term = job.objective.term("global_to_local")
    if not isinstance(term, GlobalToLocal) or term.mix != "states":
        return
    for other in rows[1:]:
        if not np.array_equal(rows[0].stream.tokens, other.stream.tokens):
            what = "mix: states adds token states, but the teachers' tokenizers differ; use mix: losses"
            raise ConfigError(Problem(where="objective.global_to_local", what=what))


def _image_vectors(job: Job, dataset: Dataset, store: FeatureStore) -> Vectors:
    pairs = dataset.pairs
    assert pairs is not None
    used = np.unique(pairs.image_of)
    row_of_image = np.full(len(pairs.images), -1, np.int64)
    store, row_of_image[used] = training_images(
        store, image_names(dataset), control=job.features.image_control, seed=job.seed
    )
    return Vectors(store=store, rows=row_of_image[pairs.image_of])


def _by_id(store: FeatureStore, ids: Sequence[str], what: str) -> Vectors:
    return Vectors(store=store, rows=store.rows_of(ids, what=what))


def _teacher_vectors(
    job: Job, inputs: Inputs, kind: Kind, ids: Sequence[str], sentences: Sequence[str], console: Console
) -> tuple[Vectors, ...]:
    what = "caption" if kind == "pair" else "text line"
    found = []
    for number, (teacher, stored) in enumerate(zip(job.teachers, inputs.teacher_stores, strict=True), start=1):
        if stored is not None:
            found.append(_by_id(stored, ids, what))
            continue
        with _bar_if_needed(console, f"teacher {number}, {what}s", len(set(sentences))) as advance:
            store = cached_text_store(encoder=teacher.encoder(), ids=ids, sentences=sentences, progress=advance)
        found.append(_by_id(store, ids, what))
    return tuple(found)


@contextmanager
def _bar_if_needed(console: Console, name: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first piece of work: what comes from the cache shows none."""
    with ExitStack() as stack:
        bars: list[Bar] = []

        def advance(done: int, _: int) -> None:
            if not bars:
                bars.append(stack.enter_context(console.bar(name, total, "sentence")))
            bars[0].update(done)

        yield advance
