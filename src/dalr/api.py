"""What can a program do with dalr? Whatever a command can, also on objects in memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from pydantic import ValidationError

from dalr.data.memory import IN_MEMORY, captioned_images, sentences
from dalr.data.rows import CaptionedImages
from dalr.errors import Attempts, ConfigError, Problem
from dalr.evaluation.request import Request
from dalr.evaluation.results import Evaluation
from dalr.evaluation.run import evaluate as evaluate_models
from dalr.evaluation.run import evaluate_model
from dalr.features.importing import read_ids
from dalr.features.source import features_in_memory
from dalr.io.console import Console
from dalr.io.environment import restarts
from dalr.io.paths import exists, expanded, is_dir, is_file
from dalr.models.absent import no_such
from dalr.models.choices import ComputePrecision, PoolingMode
from dalr.models.reference import run_around
from dalr.recipe.checks import conflicts
from dalr.recipe.document import Change, with_tuples
from dalr.recipe.loading import Overrides, Reference, load_recipe
from dalr.recipe.schema import Recipe
from dalr.training.callbacks import Callback, ValidationFunction
from dalr.training.data import FromProgram, InMemory
from dalr.training.dry_run import DryRun
from dalr.training.dry_run import dry_run as try_batches
from dalr.training.trainer import Resume, TrainResult, run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_FOLDER_NAME = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]*")
_LONGEST_NAME = 200

__all__ = ["DryRun", "Evaluation", "Recipe", "TrainResult", "evaluate", "load_recipe", "train"]

Pairs = str | Path | Iterable[Any]
"""A pairs file, or (image id, captions) items, mappings, or a `datasets.Dataset`."""
Text = str | Path | Iterable[Any]
"""A text file, or sentences."""


@overload
def train(
    recipe: Reference | Recipe,
    *,
    overrides: Overrides = ...,
    pairs: Pairs | None = ...,
    text: Text | None = ...,
    image_features: str | Path | np.ndarray | None = ...,
    image_ids: str | Path | Sequence[str] | None = ...,
    validation: ValidationFunction | None = ...,
    callbacks: Sequence[Callback] = ...,
    out: str | Path | None = ...,
    resume: bool = ...,
    allow_changed: bool = ...,
    console: Console | None = ...,
    init_from: str | Path | None = ...,
    dry_run: Literal[False] = ...,
) -> TrainResult: ...
@overload
def train(
    recipe: Reference | Recipe,
    *,
    overrides: Overrides = ...,
    pairs: Pairs | None = ...,
    text: Text | None = ...,
    image_features: str | Path | np.ndarray | None = ...,
    image_ids: str | Path | Sequence[str] | None = ...,
    validation: ValidationFunction | None = ...,
    out: str | Path | None = ...,
    console: Console | None = ...,
    dry_run: Literal[True],
) -> DryRun: ...
def train(
    recipe: Reference | Recipe,
    *,
    overrides: Overrides = (),
    pairs: Pairs | None = None,
    text: Text | None = None,
    image_features: str | Path | np.ndarray | None = None,
    image_ids: str | Path | Sequence[str] | None = None,
    validation: ValidationFunction | None = None,
    callbacks: Sequence[Callback] = (),
    out: str | Path | None = None,
    resume: bool = False,
    allow_changed: bool = False,
    console: Console | None = None,
    init_from: str | Path | None = None,
    dry_run: bool = False,
) -> TrainResult | DryRun:
    """Train a recipe and return where its product is.

    Args:
        recipe: a shipped name, a path, a mapping, or a recipe already loaded.
        overrides: changes to the recipe (see `load_recipe`); not with a loaded recipe.
        pairs: image-caption pairs in place of the recipe's: a path, (image id, caption or captions) items, mappings
            with `image` and `caption` or `captions`, or a `datasets.Dataset` of such rows.
        text: sentences in place of the recipe's: a path, or an iterable of strings.
        image_features: frozen image vectors (images, dimensions) in place of the recipe's: an array, or a path.
        image_ids: the image that each row of `image_features` belongs to; None: the images of `pairs`, in order.
        validation: a function of the student, a SentenceTransformer; higher is better. Called every
            `validation.every` steps and at the end, in place of the recipe's validation score.
        callbacks: objects with `on_step(step, losses, metrics)`; returning True ends the training.
        out: the run folder, new or empty; None makes `runs/NAME-DATE-TIME`.
        resume: resume the run in `out` from its newest intact checkpoint, or start it where it has none. Data,
            validation and callbacks that came as objects are given again.
        allow_changed: resume although recipe, data or versions differ, which `run.json` then says.
        console: where progress goes; None shows it on standard error.
        init_from: a finished run whose weights and heads are begun with, in place of the recipe's student.
        dry_run: only try a batch of each kind and return shapes, terms, memory, and the time that all would take;
            `out` is not touched.

    Raises:
        ConfigError, DataError, ModelFileError, NumericsError, StorageError: each says what to do.
    """
    objects = _Objects.of(pairs, text, image_features, image_ids, validation, callbacks)
    loaded = _loaded(recipe, overrides, objects)
    program = objects.program
    if init_from is not None:
        loaded, program = _begun_with(expanded(init_from, "init_from"), loaded, program)
    if dry_run:
        return try_batches(loaded, console=console or Console(), program=objects.program)
    if (resume or allow_changed) and out is None:
        raise ConfigError(Problem(where="--resume", what="needs the folder of the run: add --out"))
    if restarts()[1] and not (resume and out is not None):
        what = (
            f"the launcher may start all ranks again ({restarts()[1]} times at most), which then resume: add "
            "--resume and --out; --resume also starts a run where there is none"
        )
        raise ConfigError(Problem(where="--max-restarts", what=what))
    if allow_changed and not resume:
        raise ConfigError(Problem(where="--allow-changed", what="goes with --resume"))
    return run(
        loaded,
        out=expanded(out if out is not None else default_run_folder(loaded.name), "out"),
        console=console or Console(),
        resume=Resume(read_recipe=_with_defaults_of_today, allow_changed=allow_changed) if resume else None,
        program=program,
    )


def _begun_with(run: Path, recipe: Recipe, program: FromProgram) -> tuple[Recipe, FromProgram]:
    """A recipe and what goes with it, begun with the weights and heads of a finished run.

    Raises:
        ConfigError: not a finished run.
    """
    if (unsuitable := _unsuitable(run)) is not None:
        raise ConfigError(Problem(where="--init-from", what=unsuitable))
    named = {"model": str(run / "model"), "revision": None, "pooling": None, "num_layers": None}
    recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update=named)})
    return recipe, dataclasses.replace(program, initial_heads=run / "heads.safetensors")


def _unsuitable(run: Path) -> str | None:
    """Why nothing can be begun with what is at `run`, and what to name; None for a finished run."""
    if not exists(run):
        return no_such(run, "run")
    expected = "expected a finished run (run.json, model, heads.safetensors)"
    if not is_dir(run):
        return f"{expected}, found the file {run}; name the folder of a run, such as runs/photos"
    if not is_file(run / "run.json"):
        inside = run_around(run)
        other = f"for a model without heads leave it out: -s student.model={run}"
        return f"{expected}, found {run} without run.json; " + (f"use {inside}" if inside is not None else other)
    if lacking := [name for name in ("model", "heads.safetensors") if not exists(run / name)]:
        resumed = f"train it to its end first: dalr train RECIPE --resume --out {run}"
        return f"{expected}, found {run} without {' and '.join(lacking)}; {resumed}"
    return None


class _Objects:
    """Data of a program, and the keys of a recipe that it takes the place of."""

    def __init__(self, program: FromProgram, keys: Mapping[str, str | None]) -> None:
        self.program, self.keys = program, keys

    @classmethod
    def of(
        cls,
        pairs: Pairs | None,
        text: Text | None,
        image_features: str | Path | np.ndarray | None,
        image_ids: str | Path | Sequence[str] | None,
        validation: ValidationFunction | None,
        callbacks: Sequence[Callback],
    ) -> _Objects:
        """Objects that were read and checked, every problem of all at once.

        Raises:
            DataError, ConfigError: as `train`.
        """
        attempt = Attempts()
        rows = lines = store = None
        if pairs is not None and not isinstance(pairs, str | Path):
            rows = attempt(lambda: captioned_images(pairs))
        if text is not None and not isinstance(text, str | Path):
            lines = attempt(lambda: tuple(sentences(text)))
        if image_features is not None and not isinstance(image_features, str | Path):
            store = attempt(lambda: features_in_memory(image_features, _row_names(image_ids, rows)))
        elif image_ids is not None and not isinstance(image_ids, str | Path):
            what = "a list of image_ids names the rows of an array; with a path give the path of the ids"
            attempt.errors.append(ConfigError(Problem(where="image_ids", what=what)))
        for number, each in enumerate(callbacks):
            if not callable(getattr(each, "on_step", None)):
                what = f"expected an object with on_step(step, losses, metrics), found {each!r:.80}"
                attempt.errors.append(ConfigError(Problem(where=f"callbacks[{number}]", what=what)))
        attempt.require()
        keys: dict[str, str | None] = {}
        if pairs is not None or text is not None:
            keys |= {"data.pairs": _place(pairs), "data.text": _place(text)}
        if pairs is not None or image_features is not None:
            ids_file = str(image_ids) if isinstance(image_ids, str | Path) and store is None else None
            keys |= {"features.image": _place(image_features), "features.image_ids": ids_file}
        data = InMemory(pairs=rows, text=lines, images=store)
        return cls(FromProgram(data=data, validation=validation, callbacks=tuple(callbacks)), keys)

    def changes(self) -> list[Change]:
        """Set before a person's own overrides, which therefore may name files for what is not an object."""
        found = [Change(where=f"train(…): {key}", key=key, value=value) for key, value in self.keys.items()]
        if self.program.validation is not None:
            found.append(Change(where="train(validation=…)", key="validation.kind", value="function"))
        return found


def _row_names(image_ids: str | Path | Sequence[str] | None, rows: CaptionedImages | None) -> list[str]:
    """The image of each row of an array."""
    if isinstance(image_ids, str | Path):
        return read_ids(Path(image_ids))
    if image_ids is not None:
        return list(image_ids)
    if rows is None:
        raise ConfigError(
            Problem(where="image_ids", what="required: the image that each row of image_features belongs to")
        )
    return list(rows.names)


def _place(given: object) -> str | None:
    """What the recipe of the run says in place of an argument."""
    if given is None:
        return None
    return str(given) if isinstance(given, str | Path) else IN_MEMORY


def _loaded(recipe: Reference | Recipe, overrides: Overrides, objects: _Objects) -> Recipe:
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, overrides, changes=objects.changes())
    if overrides:
        raise ConfigError(
            Problem(
                where="overrides",
                what="a recipe that is already loaded cannot be changed; pass them to load_recipe",
            )
        )
    tree = recipe.model_dump(mode="json")
    if changes := objects.changes():
        return load_recipe(tree, changes=changes)
    if found := conflicts(recipe):
        raise ConfigError([Problem(where=".".join(map(str, each.path)), what=each.what) for each in found])
    return recipe


def evaluate(
    model: str | Path | SentenceTransformer,
    *,
    data: str | Path | None = None,
    tasks: str | Sequence[str] = ("sts",),
    graded_pairs: Mapping[str, str | Path] | None = None,
    classifier: str = "senteval",
    pooling: PoolingMode | None = None,
    num_layers: int | None = None,
    prompt: str | None = None,
    precision: ComputePrecision = "fp32",
    console: Console | None = None,
) -> Evaluation:
    """Score a model on tasks; `dalr.evaluation.run.evaluate` has all options, and takes several models.

    Args:
        model: a model folder, a run, a checkpoint, a hub id, or a SentenceTransformer in memory, which is scored
            with its own pooling, before any Normalize module.
        data: a folder in SentEval's `downstream` layout; not needed for retrieval of a run alone.
        tasks: names or groups, such as `sts`, `transfer`, `geometry`, `retrieval`, `STS12`: a list, or one string
            with commas.
        graded_pairs: your own pairs by name, a task each beside `tasks`: a TSV of score, sentence, sentence, or a
            folder of such files, whose scores are averaged by subfolder.
        classifier: `senteval`, `senteval-fast` or `lbfgs`, for transfer tasks.
        precision: what sentence vectors are computed in.
        console: where progress goes; None shows it on standard error.

    Raises:
        ConfigError, DataError, ModelFileError: nothing could be scored. A task that could not is in `failed`.
    """
    request = Request(
        data=expanded(data, "data") if data is not None else None,
        tasks=[name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else list(tasks),
        graded_pairs={name: Path(path) for name, path in (graded_pairs or {}).items()},
        classifier=classifier,
        pooling=pooling,
        num_layers=num_layers,
        prompt=prompt,
        precision=precision,
        console=console or Console(),
    )
    if isinstance(model, str | Path):
        return evaluate_models([str(model)], request).models[0]
    return evaluate_model(model, request)


def _with_defaults_of_today(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of an earlier run as this dalr would write it; as it is, where this dalr does not know it."""
    with suppress(ValidationError):
        return Recipe.model_validate(with_tuples(dict(recipe))).model_dump(mode="json")
    return recipe


def default_run_folder(name: str) -> Path:
    """A new folder under `runs/`, by the recipe's name and the time.

    Raises:
        ConfigError: the name cannot be a folder's: what a recipe says never leads out of `runs/`.
    """
    if not _FOLDER_NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME:
        what = f"{name!r:.80} cannot be the name of a folder in runs/; say --out, or give the recipe another name"
        raise ConfigError(Problem(where="name", what=what))
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
