"""Captions and pictures for retrieval: those that the options name, or those that a run held out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64

from dalr.data.dataset import load_dataset, read_pairs
from dalr.data.rows import Pairs
from dalr.errors import ConfigError, DataError, ModelFileError, Problem
from dalr.evaluation.loaded import RetrievalTask
from dalr.evaluation.request import Place, Request
from dalr.evaluation.runs import recipe_of_run
from dalr.features.source import is_matrix, open_features
from dalr.features.store import FeatureStore, open_store
from dalr.io.paths import refusal, regular

if TYPE_CHECKING:
    from dalr.models.vision import VisionModel


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Captions, and vectors of the images that they belong to."""

    captions: tuple[str, ...]
    owner: Int64[np.ndarray, " captions"]
    """Row of each caption's image."""
    images: Float32[np.ndarray, "images width"]


def pictures_for_heads(run: Path | None, request: Request) -> Pictures:
    """Those of `--pairs` and `--features`, or those that the run held out.

    Raises:
        ConfigError: neither is there.
        DataError: files with problems.
    """
    if request.pairs is not None:
        return _of_store(*_named(request))
    remedy = "name --pairs and --features"
    if run is None:
        raise ConfigError(Problem(where="--pairs", what=f"retrieval needs captions and images; {remedy}"))
    recipe = recipe_of_run(run)
    dataset = load_dataset(recipe.data, seed=recipe.seed)
    if recipe.features.image is None:
        what = f"the run read no image features, so that it has no space to find images in; {remedy}"
        raise ConfigError(Problem(where=str(run), what=what))
    if dataset.test is None:
        what = f"the run held out no images for a test (data.holdout); {remedy}"
        raise ConfigError(Problem(where=str(run), what=what))
    path, ids = recipe.data.path(recipe.features.image), recipe.features.image_ids
    return _of_store(dataset.test, open_features(path, recipe.data.path(ids) if ids is not None else None))


def grounded_retrieval(place: Place, pictures_of: Callable[[Path | None], Pictures]) -> RetrievalTask:
    """Retrieval by trained heads.

    Raises:
        ConfigError: there are none.
        ModelFileError: they cannot be read.
    """
    if place.heads is None:
        what = "retrieval is measured in the grounding space; name the heads of a training run with --heads"
        raise ConfigError(Problem(where=place.name, what=what))
    heads: Path = place.heads
    try:
        regular(heads)
    except (OSError, ValueError) as error:
        raise refusal(heads, error, ModelFileError) from None
    pictures = pictures_of(place.run)

    def project(sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from dalr.models.heads import ground

        return ground(heads, sentences=sentences, images=pictures.images)

    return RetrievalTask(captions=pictures.captions, owner=pictures.owner, space="grounding", project=project)


def zero_training_retrieval(vision: VisionModel, request: Request) -> RetrievalTask:
    """Retrieval in the own space of a multimodal model: its vectors of the captions and of the pictures.

    Raises:
        ConfigError: no pictures are named, or vectors that another model made.
    """
    if request.pairs is None or (request.images is None and request.features is None):
        what = f"{vision.reference} is multimodal: retrieval needs --pairs, and --images or --features made with it"
        raise ConfigError(Problem(where="--pairs", what=what))
    if request.features is not None:
        pairs, store = _named(request)
        made_with = store.source.get("sha256")
        if made_with not in (None, vision.source["sha256"]):
            what = f"made with {store.source.get('model')!r} (sha256 {made_with}), not with {vision.reference!r}"
            raise ConfigError(Problem(where=str(request.features), what=what))
        pictures = _of_store(pairs, store)
    else:
        pictures = _computed(vision, _read(request.pairs, request), request)
    return RetrievalTask(
        captions=pictures.captions,
        owner=pictures.owner,
        space="model",
        project=lambda sentences: (sentences, pictures.images),
    )


def _computed(vision: VisionModel, pairs: Pairs, request: Request) -> Pictures:
    """With vectors that are computed now and not kept."""
    from dalr.features.images import write_image_store

    assert request.images is not None
    with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
        store = Path(folder) / "images"
        write_image_store(
            store,
            ids=pairs.images,
            root=request.images,
            model=vision,
            follow_links=request.follow_links,
            console=request.console,
        )
        return _of_store(pairs, open_store(store))


def _of_store(pairs: Pairs, store: FeatureStore) -> Pictures:
    numbers, owner = np.unique(pairs.image_of, return_inverse=True)
    names = [pairs.images[number] for number in numbers]
    return Pictures(
        captions=pairs.captions,
        owner=owner.astype(np.int64),
        images=store.read(store.rows_of(names, what="image")),
    )


def _named(request: Request) -> tuple[Pairs, FeatureStore]:
    assert request.pairs is not None
    if request.features is None:
        raise ConfigError(Problem(where="--features", what="retrieval needs the image features of --pairs"))
    ids = request.image_ids or (request.pairs if is_matrix(request.features) else None)
    return _read(request.pairs, request), open_features(request.features, ids)


def _read(path: Path, request: Request) -> Pairs:
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {}, reading=request.reading)
    if problems:
        raise DataError(problems)
    return pairs
