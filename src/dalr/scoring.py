"""Evaluate what a person names: a model folder, a run, a checkpoint, a hub id; one of them or several.

Everything that a task reads is read and checked before a model is loaded. A run knows which pairs, features and
held-out images it was made with, so retrieval needs no more than the run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from dalr.evaluation.sts import Embed
from dalr.evaluation.tasks import RETRIEVAL, resolve_tasks
from dalr.features.source import is_matrix, open_features
from dalr.features.store import FeatureStore, open_store
from dalr.models.config import EncoderConfig, PoolingMode
from dalr.models.reference import inside_run

if TYPE_CHECKING:
    from dalr.models.embedding import OnProgress
    from dalr.models.vision import VisionModel

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
    classifier: str = "senteval"
    pooling: PoolingMode | None = None
    num_layers: int | None = None
    heads: Path | None = None
    pairs: Path | None = None
    features: Path | None = None
    image_ids: Path | None = None
    images: Path | None = None
    """Folder of the pictures of `pairs`, for a multimodal model."""
    device: str = "auto"
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
    names = resolve_tasks(request.tasks)
    places = [locate(model, request) for model in models]
    loaded, failed = _load(names, request)
    evaluations = [_evaluate_one(place, loaded, failed, RETRIEVAL in names, request) for place in places]
    comparisons: list[Comparison] = []
    for index, a in enumerate(evaluations):
        for b in evaluations[index + 1 :]:
            comparisons += compare(a, b)
    return Evaluations(models=tuple(evaluations), comparisons=tuple(comparisons))


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


def _evaluate_one(
    place: Place, tasks: list[LoadedTask], failed: list[Failed], retrieval: bool, request: Request
) -> Evaluation:
    from dalr.models.vision import has_text_tower, load_vision_model

    if has_text_tower(place.encoder.model):
        vision = load_vision_model(place.encoder.model, device=request.device)
        retrieved = [_zero_training(vision, request)] if retrieval else []
        subject = _multimodal_subject(place, vision, request)
    else:
        retrieved = [_grounded(place, request)] if retrieval else []
        subject = _text_subject(place, request)
    evaluation = score(
        subject,
        [*tasks, *retrieved],
        failed=failed,
        map_method=request.map_method,
        console=request.console,
    )
    if place.run is not None:
        _keep(evaluation, place.run / RUN_RESULT)
    return evaluation


def _text_subject(place: Place, request: Request) -> Subject:
    from dalr.models.device import pick_device
    from dalr.models.embedding import embed
    from dalr.models.loading import encoder_sha256, load_encoder

    encoder = load_encoder(place.encoder).to(pick_device(request.device))
    width, longest = encoder.get_embedding_dimension(), encoder.max_seq_length
    request.console.detail(f"{place.name}: width {width}, at most {longest} tokens, on {encoder.device}")
    return Subject(
        name=place.name,
        embed=_with_bar(lambda sentences, progress: embed(encoder, sentences, progress=progress), request.console),
        sha256=encoder_sha256(place.encoder),
        settings=_settings(request),
    )


def _multimodal_subject(place: Place, vision: VisionModel, request: Request) -> Subject:
    """A model of the CLIP kind by its text tower."""
    return Subject(
        name=place.name,
        embed=_with_bar(
            lambda sentences, progress: vision.embed_texts(sentences, progress=progress), request.console
        ),
        sha256=str(vision.source["sha256"]),
        settings=_settings(request),
    )


def _with_bar(embed: Callable[[list[str], OnProgress], np.ndarray], console: Console) -> Embed:
    def embed_all(sentences: list[str]) -> np.ndarray:
        with console.bar("encode", len(sentences), "sentence") as bar:
            vectors: np.ndarray = embed(sentences, lambda done, _: bar.update(done))
            return vectors

    return embed_all


def _settings(request: Request) -> Settings:
    return Settings(
        pooling=request.pooling,
        num_layers=request.num_layers,
        classifier=request.classifier,
        overlap_with=str(request.exclude_overlap) if request.exclude_overlap else None,
    )


def _grounded(place: Place, request: Request) -> RetrievalTask:
    """Retrieval by trained heads, on the pairs of the options or on those that the run held out."""
    if place.heads is None:
        what = "retrieval is measured in the grounding space; name the heads of a training run with --heads"
        raise ConfigError(Problem(where=place.name, what=what))
    heads: Path = place.heads
    pairs, store = _named_features(request) if request.pairs is not None else _held_out(place)
    owner, images = _images_of(pairs, store)

    def project(sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from dalr.models.heads import ground

        return ground(heads, sentences=sentences, images=images)

    return RetrievalTask(captions=pairs.captions, owner=owner, space="grounding", project=project)


def _zero_training(vision: VisionModel, request: Request) -> RetrievalTask:
    """Retrieval in the own space of a multimodal model: its vectors of the captions and of the pictures."""
    if request.pairs is None or (request.images is None and request.features is None):
        what = f"{vision.reference} is multimodal: retrieval needs --pairs, and --images or --features made with it"
        raise ConfigError(Problem(where="--pairs", what=what))
    if request.features is not None:
        pairs, store = _named_features(request)
        made_with = store.source.get("sha256")
        if made_with not in (None, vision.source["sha256"]):
            what = f"made with {store.source.get('model')!r} (sha256 {made_with}), not with {vision.reference!r}"
            raise ConfigError(Problem(where=str(request.features), what=what))
        owner, images = _images_of(pairs, store)
    else:
        pairs = _named_pairs(request.pairs)
        owner, images = _computed(vision, pairs, request.images, request.console)
    return RetrievalTask(
        captions=pairs.captions, owner=owner, space="model", project=lambda sentences: (sentences, images)
    )


def _computed(
    vision: VisionModel, pairs: Pairs, pictures: Path | None, console: Console
) -> tuple[np.ndarray, np.ndarray]:
    """As `_images_of`, of vectors that are computed now and not kept."""
    from dalr.features.images import write_image_store

    assert pictures is not None
    with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
        store = Path(folder) / "images"
        write_image_store(store, ids=pairs.images, root=pictures, model=vision, console=console)
        return _images_of(pairs, open_store(store))


def _images_of(pairs: Pairs, store: FeatureStore) -> tuple[np.ndarray, np.ndarray]:
    """Image of each caption, as a row of the second: the vectors of the images that have captions."""
    numbers, owner = np.unique(pairs.image_of, return_inverse=True)
    names = [pairs.images[number] for number in numbers]
    return owner.astype(np.int64), store.read(store.rows_of(names, what="image"))


def _named_pairs(path: Path) -> Pairs:
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {})
    if problems:
        raise DataError(problems)
    return pairs


def _named_features(request: Request) -> tuple[Pairs, FeatureStore]:
    assert request.pairs is not None
    if request.features is None:
        raise ConfigError(Problem(where="--features", what="retrieval needs the image features of --pairs"))
    pairs = _named_pairs(request.pairs)
    ids = request.image_ids or (request.pairs if is_matrix(request.features) else None)
    return pairs, open_features(request.features, ids)


def _held_out(place: Place) -> tuple[Pairs, FeatureStore]:
    remedy = "name --pairs and --features"
    if place.run is None:
        raise ConfigError(Problem(where="--pairs", what=f"retrieval needs captions and images; {remedy}"))
    recipe = recipe_of_run(place.run)
    dataset = load_dataset(recipe.data, seed=recipe.seed)
    if dataset.held_out is None or recipe.features.image is None:
        what = f"the run held out no images (data.held_out_images); {remedy}"
        raise ConfigError(Problem(where=str(place.run), what=what))
    ids = recipe.features.image_ids
    store = open_features(
        recipe.data.path(recipe.features.image), recipe.data.path(ids) if ids is not None else None
    )
    return dataset.held_out, store


def recipe_of_run(run: Path) -> Recipe:
    """The resolved recipe that a run was made with."""
    record = _run_record(run)
    try:
        return Recipe.model_validate_json(json.dumps(record["recipe"]))
    except (KeyError, ValueError) as error:
        what = f"its recipe cannot be read by this dalr: {error}"
        raise DataError(Problem(where=str(run / "run.json"), what=what)) from None


def _run_record(run: Path) -> dict[str, Any]:
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
