"""How does a checked data set become everything the loop needs: module, batches, validation score?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from dalr.data.rows import Pairs, Sentences
from dalr.data.schedule import Plan
from dalr.data.tokens import tokenised
from dalr.errors import ConfigError, Problem
from dalr.features.controls import training_images
from dalr.features.store import StoredVectors
from dalr.features.text import cached_text_store
from dalr.io.console import Bar, Console
from dalr.losses import Need
from dalr.losses.matryoshka import make_matryoshka
from dalr.losses.token_level import GlobalToLocal
from dalr.models.config import TeacherConfig
from dalr.models.embedding import pad_token_id, reads_padding
from dalr.models.export import record_matryoshka_dims
from dalr.models.heads import Heads
from dalr.models.loading import load_encoder
from dalr.models.lora import add_adapters
from dalr.models.packing import Layout, best_layout
from dalr.models.prompts import prompt_of
from dalr.models.reference import token_positions
from dalr.models.token_teacher import TokenTeacher
from dalr.recipe.schema import Recipe
from dalr.seed import generator, seed_everything
from dalr.training.batch import BatchDataset, StreamData, TokenRows
from dalr.training.callbacks import ValidationFunction
from dalr.training.data import TrainingData
from dalr.training.distributed import Ranks
from dalr.training.module import Precision, TrainingTask
from dalr.training.neighbours import grouped
from dalr.training.precision import resolve_precision
from dalr.training.validation import ValidationScore, make_validation_score

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run trains with."""

    task: TrainingTask
    plan: Plan
    dataset: BatchDataset
    validation: ValidationScore | None
    report: dict[str, int | str]


def prepare(
    recipe: Recipe, data: TrainingData, console: Console, ranks: Ranks, function: ValidationFunction | None = None
) -> Setup:
    """Ask the teachers once, tokenise once, and build the module under the seed."""
    validation = make_validation_score(recipe.validation, data, recipe.training.matryoshka_dims, function)
    student = load_encoder(recipe.student)
    token_teachers: tuple[TokenTeacher, ...] = ()
    if Need.TEACHER_TOKENS in recipe.objective.all_needs():
        token_teachers = tuple(TokenTeacher(teacher) for teacher in recipe.teachers)
    weights = tuple(teacher.weight for teacher in recipe.teachers)
    streams = {
        each.kind: _stream(recipe, data, each, student, token_teachers, console) for each in data.dataset.streams
    }
    plan = data.plan
    if (groups := recipe.training.schedule.groups) is not None:
        plan = grouped(plan, [(each, streams[each.kind]) for each in plan.streams], groups, alphas=weights)
    task = _task(recipe, data, student, token_teachers, ranks.device)
    report: dict[str, int | str] = {
        "precision": task.precision,
        "padding": task.layout,
        "device": str(ranks.device),
        "ranks": ranks.world,
    }
    for kind, stream in streams.items():
        tokens = stream.tokens.stream
        report |= {f"{kind}_rows": len(tokens), f"{kind}_truncated": tokens.truncated}
    report |= {f"{kind}_rows_left_over_per_pass": rows for kind, rows in plan.left_over().items()}
    dataset = BatchDataset(
        streams=streams,
        seed=recipe.seed,
        teacher_weights=weights,
        rank=ranks.rank,
        world=ranks.world,
        gather=recipe.training.gather,
    )
    return Setup(task=task, plan=plan, dataset=dataset, validation=validation, report=report)


def require_unchanged(setup: Setup) -> None:
    """Refuse to continue with stored vectors that were changed since training opened them.

    Raises:
        CorruptFileError: naming the shard.
    """
    for data in setup.dataset.streams.values():
        for vectors in (*data.teachers, data.image, data.clip_text):
            if vectors is not None:
                vectors.store.require_unchanged()


def _stream(
    recipe: Recipe,
    data: TrainingData,
    stream: Sentences,
    student: SentenceTransformer,
    token_teachers: tuple[TokenTeacher, ...],
    console: Console,
) -> StreamData:
    """Everything that the batches of one kind read."""
    needs, sentences = recipe.objective.needs(stream.kind), stream.sentences
    token_rows: tuple[TokenRows, ...] = ()
    if Need.TEACHER_TOKENS in needs:
        token_rows = tuple(_token_rows(recipe, sentences, teacher.encoder) for teacher in token_teachers)
        _require_equal_tokens(recipe, token_rows)
    found = StreamData(
        row_ids=stream.ids,
        tokens=_token_rows(recipe, sentences, student),
        teachers=_teacher_vectors(recipe, data, stream, console) if Need.TEACHERS in needs else (),
        teacher_tokens=token_rows,
    )
    pairs = data.dataset.pairs
    if stream.kind == "text" or pairs is None:
        return found
    return replace(
        found,
        images=pairs.image_of,
        image=_image_vectors(recipe, pairs, data.images) if data.images is not None else None,
        clip_text=data.clip_text,
        candidates=recipe.objective.candidates,
    )


def _task(
    recipe: Recipe,
    data: TrainingData,
    student: SentenceTransformer,
    token_teachers: tuple[TokenTeacher, ...],
    device: torch.device,
) -> TrainingTask:
    dim = student.get_embedding_dimension()
    assert dim is not None
    temperatures = {
        name: bounds for name, term in recipe.objective.active() if (bounds := term.learns_temperature) is not None
    }
    _require_space(recipe, data)
    seed_everything(recipe.seed)  # loading encoders may have drawn numbers, and not always the same ones
    heads = Heads(
        recipe.heads,
        student_dim=dim,
        image_dim=data.images.store.dim if data.images is not None else None,
        clip_text_dim=data.clip_text.store.dim if data.clip_text is not None else None,
        needs=recipe.objective.all_needs(),
        temperatures=temperatures,
    )
    precision = resolve_precision(recipe.training.precision, device)
    if recipe.student.lora is not None:
        add_adapters(student, recipe.student.lora, "student.lora")
    if recipe.training.matryoshka_dims:
        record_matryoshka_dims(student, recipe.training.matryoshka_dims)
    student = student.to(device)
    return TrainingTask(
        student=student,
        heads=heads,
        objective=recipe.objective,
        token_teachers=token_teachers,
        precision=precision,
        layout=_layout(recipe, student, precision),
        matryoshka=make_matryoshka(recipe.training.matryoshka_dims, recipe.training.matryoshka_weights),
    ).to(device)


def _require_space(recipe: Recipe, data: TrainingData) -> None:
    """As the checks of the recipe, for features that it does not name.

    Raises:
        ConfigError: the text head would not lead to the dimension of the features.
    """
    if Need.CLIP_SPACE not in recipe.objective.all_needs():
        return
    for vectors in (data.images, data.clip_text):
        if vectors is not None and vectors.store.dim != recipe.heads.grounding_dim:
            what = f"grounding.space: clip needs the dimension of the features, {vectors.store.dim}, found "
            what += str(recipe.heads.grounding_dim)
            raise ConfigError(Problem(where="heads.grounding_dim", what=what))


def _layout(recipe: Recipe, student: SentenceTransformer, precision: Precision) -> Layout:
    """The recipe's own, or the best that this student can do on its device.

    Raises:
        ConfigError: the recipe asks for what this student cannot do: packed rows, or padding that it would read.
    """
    wanted = recipe.training.padding
    if wanted in ("bucketed", "padded"):
        if reads_padding(student):
            what = (
                f"{wanted}, but {recipe.student.model} has no attention mask: padding would change its vectors; "
                "use auto, which puts sentences of one length together"
            )
            raise ConfigError(Problem(where="training.padding", what=what))
        return wanted
    found = best_layout(student, dtype=torch.bfloat16 if precision == "bf16" else None)
    if wanted == "packed" and found != "packed":
        what = f"packed, but rows of {recipe.student.model} can only be {found} on {student.device}; use auto"
        raise ConfigError(Problem(where="training.padding", what=what))
    return found


def _token_rows(recipe: Recipe, sentences: Sequence[str], encoder: SentenceTransformer) -> TokenRows:
    backbone = encoder.transformers_model
    positions = token_positions(backbone.config.to_dict()) if backbone is not None else None
    if positions is not None and recipe.data.max_tokens > positions:
        what = f"{recipe.data.max_tokens} tokens, but the encoder has {positions} positions; lower it"
        raise ConfigError(Problem(where="data.max_tokens", what=what))
    prompt = prompt_of(encoder) or ""
    stream = tokenised(sentences, encoder.tokenizer, max_tokens=recipe.data.max_tokens, prompt=prompt)
    return TokenRows(stream=stream, pad_id=pad_token_id(encoder))


def _require_equal_tokens(recipe: Recipe, rows: tuple[TokenRows, ...]) -> None:
    """`mix: states` adds the token states of all teachers, which means something only token by token."""
    term = recipe.objective.term("global_to_local")
    if not isinstance(term, GlobalToLocal) or term.mix != "states":
        return
    for other in rows[1:]:
        if not np.array_equal(rows[0].stream.tokens, other.stream.tokens):
            what = "mix: states adds token states, but the teachers' tokenizers differ; use mix: losses"
            raise ConfigError(Problem(where="objective.global_to_local", what=what))


def _image_vectors(recipe: Recipe, pairs: Pairs, images: StoredVectors) -> StoredVectors:
    """The image vectors of the captions."""
    trained = training_images(images, control=recipe.features.image_control, seed=recipe.seed)
    return trained.at(np.searchsorted(pairs.image_numbers, pairs.image_of))


def _teacher_vectors(
    recipe: Recipe, data: TrainingData, stream: Sentences, console: Console
) -> tuple[StoredVectors, ...]:
    what = "caption" if stream.kind == "pair" else "text line"
    found: list[StoredVectors] = []
    for number, (teacher, stored) in enumerate(
        zip(recipe.teachers, data.teachers[stream.kind], strict=True), start=1
    ):
        if stored is not None:
            found.append(_controlled(stored, teacher, recipe.seed, f"teacher {number} {stream.kind}"))
            continue
        with _bar_if_needed(console, f"teacher {number}, {what}s", len(np.unique(stream.keys))) as advance:
            store = cached_text_store(
                encoder=teacher.encoder(),
                ids=stream.ids,
                sentences=stream.sentences,
                precision=teacher.precision or "fp32",
                progress=advance,
            )
        vectors = StoredVectors(store=store, rows=store.rows_of(stream.ids, what=what))
        found.append(_controlled(vectors, teacher, recipe.seed, f"teacher {number} {stream.kind}"))
    return tuple(found)


def _controlled(vectors: StoredVectors, teacher: TeacherConfig, seed: int, name: str) -> StoredVectors:
    """A teacher's vectors, its own or those of other rows."""
    if teacher.control is None:
        return vectors
    return replace(vectors, rows=generator(seed, "teacher_control", name).permutation(vectors.rows))


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
