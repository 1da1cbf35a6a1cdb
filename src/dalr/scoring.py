"""Evaluate what a person names: a model folder, a run, a checkpoint, a hub id; one of them or several.

Everything that a task reads is read and checked before a model is loaded. A run knows which pairs, features and
held-out images it was made with, so retrieval needs no more than the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dalr.config import Recipe
from dalr.console import Console
from dalr.data.dataset import load_dataset, read_pairs
from dalr.data.rows import Pairs
from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.bootstrap import compare
from dalr.evaluation.classifier.selection import CLASSIFIERS
from dalr.evaluation.loaded import LoadedTask, Options, RetrievalTask, without_overlap
from dalr.evaluation.mteb import MtebTask, find_mteb_tasks, score_mteb_tasks
from dalr.evaluation.overlap import training_sentences
from dalr.evaluation.results import (
    Comparison,
    Evaluation,
    Evaluations,
    Failed,
    Settings,
    merged,
    read_results,
    write_results,
)
from dalr.evaluation.run import MapMethod, Subject, load_tasks
from dalr.evaluation.run import evaluate as score
from dalr.evaluation.tasks import RETRIEVAL, resolve_tasks
from dalr.features.source import is_matrix, open_features
from dalr.features.store import FeatureStore
from dalr.models.config import EncoderConfig, PoolingMode
from dalr.models.reference import inside_run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RUN_RESULT = "evaluation.json"
"""What the evaluations of a run leave in its folder, for the report."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the parts of what was named are."""

    name: str
    encoder: EncoderConfig
    heads: Path | None = None
    run: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate on, and how; the options of `dalr evaluate`."""

    data: Path | None = None
    """SentEval's `downstream` layout; not needed for retrieval alone."""
    tasks: Sequence[str] = ("sts",)
    mteb: Sequence[str] = ()
    """Names of tasks of the mteb package."""
    classifier: str = "senteval"
    pooling: PoolingMode | None = None
    num_layers: int | None = None
    heads: Path | None = None
    pairs: Path | None = None
    features: Path | None = None
    image_ids: Path | None = None
    exclude_overlap: Path | None = None
    """Pairs or text whose sentences were trained on; STS is also scored without them."""
    allow_changed_data: bool = False
    map_method: MapMethod = "pca"
    console: Console = field(default_factory=Console)


def evaluate(models: Sequence[str], request: Request) -> Evaluations:
    """Score models on the same tasks; with several, every pair of them is compared.

    Raises:
        ConfigError: an unknown task or classifier, or tasks without what they need.
        DataError: a folder or file that is not there. A task whose files are wrong is only listed as failed.
        ModelFileError: a model that cannot be loaded.
    """
    loaded = load(request)
    evaluations = []
    for place in [locate(model, request) for model in models]:
        evaluations.append(evaluate_one(place, loaded, request))
        if place.run is not None:
            _keep(evaluations[-1], place.run / RUN_RESULT)
    comparisons: list[Comparison] = []
    for index, a in enumerate(evaluations):
        for b in evaluations[index + 1 :]:
            comparisons += compare(a, b)
    return Evaluations(models=tuple(evaluations), comparisons=tuple(comparisons))


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Captions and images for retrieval."""

    captions: tuple[str, ...]
    owner: np.ndarray
    """Row of each caption's image, (captions,) int64."""
    images: np.ndarray
    """Image vectors, (images, width)."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Everything that a request asks for, read and checked; good for any number of models."""

    tasks: Sequence[LoadedTask]
    failed: Sequence[Failed]
    mteb: Sequence[MtebTask]
    pictures: Callable[[Path | None], Pictures] | None
    """For retrieval: captions and images of the request, or those that a run held out."""


def load(request: Request) -> Loaded:
    """Read and check what a request asks for. Retrieval's data may depend on the run: it is read once for each.

    Raises:
        ConfigError, DataError: as `evaluate`.
    """
    names = resolve_tasks(request.tasks)
    mteb = find_mteb_tasks(request.mteb)
    tasks, failed = _load(names, request)

    @cache
    def pictures(run: Path | None) -> Pictures:
        return _pictures(run, request)

    return Loaded(tasks=tasks, failed=failed, mteb=mteb, pictures=pictures if RETRIEVAL in names else None)


def locate(model: str, request: Request) -> Place:
    """The encoder and the heads of a model, a run, or a checkpoint of a run."""
    folder = Path(model)
    encoder = EncoderConfig(model=inside_run(model), pooling=request.pooling, num_layers=request.num_layers)
    heads = folder / "heads.safetensors"
    return Place(
        name=model,
        encoder=encoder,
        heads=request.heads or (heads if heads.is_file() else None),
        run=folder if (folder / "run.json").is_file() else None,
    )


def _load(names: Sequence[str], request: Request) -> tuple[list[LoadedTask], list[Failed]]:
    """All tasks but retrieval, which depends on the model."""
    if request.classifier not in CLASSIFIERS:
        what = f"unknown classifier {request.classifier!r}; known: {', '.join(CLASSIFIERS)}"
        raise ConfigError(Problem(where="--classifier", what=what))
    from_files = [name for name in names if name != RETRIEVAL]
    if not from_files:
        return [], []
    if request.data is None:
        what = f"needed for {', '.join(from_files)}: a folder in SentEval's layout, as `dalr data get` makes one"
        raise ConfigError(Problem(where="--data", what=what))
    if not request.data.is_dir():
        raise DataError(Problem(where="--data", what=f"no such folder: {request.data.absolute()}"))
    options = Options(classifier=CLASSIFIERS[request.classifier], allow_changed_data=request.allow_changed_data)
    tasks, failed = load_tasks(from_files, request.data, options)
    if request.exclude_overlap is not None:
        training = training_sentences(request.exclude_overlap)
        with request.console.bar("overlap", len(training), "sentence") as bar:
            tasks, report = without_overlap(tasks, training, bar.update)
        request.console.say(report.table())
    return tasks, failed


def evaluate_one(place: Place, loaded: Loaded, request: Request) -> Evaluation:
    """Score one model on what was loaded."""
    retrieved = [_retrieval(place, loaded.pictures)] if loaded.pictures is not None else []
    subject = _subject(place, request)
    evaluation = score(
        subject,
        [*loaded.tasks, *retrieved],
        failed=loaded.failed,
        map_method=request.map_method,
        console=request.console,
    )
    results, failed = score_mteb_tasks(loaded.mteb, subject, request.console)
    return evaluation.model_copy(
        update={"tasks": {**evaluation.tasks, **results}, "failed": (*evaluation.failed, *failed)}
    )


def _subject(place: Place, request: Request) -> Subject:
    """What is evaluated. For mteb alone the model is loaded with the first sentence: kept scores need none."""
    from dalr.models.embedding import embed
    from dalr.models.loading import encoder_sha256, ends_in_normalize, load_encoder

    console = request.console

    @cache
    def loaded_encoder() -> SentenceTransformer:
        encoder = load_encoder(place.encoder)
        width, longest = encoder.get_embedding_dimension(), encoder.max_seq_length
        console.detail(f"{place.name}: width {width}, at most {longest} tokens")
        return encoder

    if request.tasks:
        loaded_encoder()

    def embed_all(sentences: list[str]) -> np.ndarray:
        if not sentences:
            return np.empty((0, 0), np.float32)
        encoder = loaded_encoder()
        with console.bar("encode", len(sentences), "sentence") as bar:
            return embed(encoder, sentences, progress=lambda done, _: bar.update(done))

    return Subject(
        name=place.name,
        embed=embed_all,
        sha256=encoder_sha256(place.encoder),
        normalized=ends_in_normalize(place.encoder),
        settings=settings_of(request),
    )


def settings_of(request: Request) -> Settings:
    """What a request changes of a score."""
    return Settings(
        pooling=request.pooling,
        num_layers=request.num_layers,
        classifier=request.classifier,
        overlap_with=str(request.exclude_overlap) if request.exclude_overlap else None,
    )


def _retrieval(place: Place, pictures_of: Callable[[Path | None], Pictures]) -> RetrievalTask:
    if place.heads is None:
        what = "retrieval is measured in the grounding space; name the heads of a training run with --heads"
        raise ConfigError(Problem(where=place.name, what=what))
    heads: Path = place.heads
    pictures = pictures_of(place.run)

    def project(sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from dalr.models.heads import ground

        return ground(heads, sentences=sentences, images=pictures.images)

    return RetrievalTask(captions=pictures.captions, owner=pictures.owner, space="grounding", project=project)


def _pictures(run: Path | None, request: Request) -> Pictures:
    """Captions and image vectors from the options, or those that the run held out."""
    pairs, store = _named_pairs(request) if request.pairs is not None else _held_out(run)
    numbers, owner = np.unique(pairs.image_of, return_inverse=True)
    names = [pairs.images[number] for number in numbers]
    images = store.read(store.rows_of(names, what="image"))
    return Pictures(captions=pairs.captions, owner=owner.astype(np.int64), images=images)


def _named_pairs(request: Request) -> tuple[Pairs, FeatureStore]:
    assert request.pairs is not None
    if request.features is None:
        raise ConfigError(Problem(where="--features", what="retrieval needs the image features of --pairs"))
    problems: list[Problem] = []
    pairs = read_pairs(request.pairs, problems, {})
    if problems:
        raise DataError(problems)
    ids = request.image_ids or (request.pairs if is_matrix(request.features) else None)
    return pairs, open_features(request.features, ids)


def _held_out(run: Path | None) -> tuple[Pairs, FeatureStore]:
    remedy = "name --pairs and --features"
    if run is None:
        raise ConfigError(Problem(where="--pairs", what=f"retrieval needs captions and images; {remedy}"))
    recipe = recipe_of_run(run)
    dataset = load_dataset(recipe.data, seed=recipe.seed)
    if dataset.held_out is None or recipe.features.image is None:
        what = f"the run held out no images (data.held_out_images); {remedy}"
        raise ConfigError(Problem(where=str(run), what=what))
    ids = recipe.features.image_ids
    store = open_features(
        recipe.data.path(recipe.features.image), recipe.data.path(ids) if ids is not None else None
    )
    return dataset.held_out, store


def recipe_of_run(run: Path) -> Recipe:
    """The resolved recipe that a run was made with."""
    record = run_record(run)
    try:
        return Recipe.model_validate_json(json.dumps(record["recipe"]))
    except (KeyError, ValueError) as error:
        what = f"its recipe cannot be read by this dalr: {error}"
        raise DataError(Problem(where=str(run / "run.json"), what=what)) from None


def run_record(run: Path) -> dict[str, Any]:
    """What a run's `run.json` says."""
    path = run / "run.json"
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(Problem(where=str(path), what=f"cannot be read: {error}")) from None
    if not isinstance(record, dict):
        raise DataError(Problem(where=str(path), what="not the record of a run"))
    return record


def _keep(evaluation: Evaluation, path: Path) -> None:
    """Add these scores to those that the run's folder already has of the same model and settings."""
    if path.is_file():
        try:
            (earlier,), _ = read_results(path)
            evaluation = merged(earlier, evaluation)
        except (DataError, ValueError):
            pass  # not readable any more: the new scores take its place
    write_results(path, evaluation)
