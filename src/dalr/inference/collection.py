"""What is searched: the captions and image vectors of a run, or others that are named."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from dalr.data.dataset import load_dataset, read_pairs
from dalr.data.reading import Reading
from dalr.data.rows import Pairs
from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.runs import recipe_of_run
from dalr.features.source import is_matrix, open_features
from dalr.features.store import FeatureStore
from dalr.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Captions, and the images that they belong to."""

    pairs: Pairs
    store: FeatureStore | None
    """Vectors of the images; None where there are none."""

    @cached_property
    def images(self) -> list[str]:
        """Names of the images that have a caption."""
        return list(self.pairs.image_names)

    @cached_property
    def owner(self) -> Int64[np.ndarray, " captions"]:
        """Place in `images` of each caption's image."""
        return np.unique(self.pairs.image_of, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def captions_of(self) -> list[list[str]]:
        """The captions of each of `images`."""
        found: list[list[str]] = [[] for _ in self.images]
        for caption, image in zip(self.pairs.captions, self.owner.tolist(), strict=True):
            found[image].append(caption)
        return found

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "images w"]:
        """A vector per image.

        Raises:
            ConfigError: there are none. DataError: an image without a vector.
        """
        store = self.required_store()
        return store.read(store.rows_of(self.images, what="image"))

    def required_store(self) -> FeatureStore:
        """The store of the image vectors; raises ConfigError where there is none."""
        if self.store is None:
            what = "there are no image vectors to search; name --features, or search captions with --in captions"
            raise ConfigError(Problem(where="--features", what=what))
        return self.store


def open_collection(
    run: Path | None,
    *,
    pairs: Path | None = None,
    features: Path | None = None,
    image_ids: Path | None = None,
    reading: Reading | None = None,
    held_out: bool = False,
) -> Collection:
    """What `pairs` and `features` name, or what the run was trained with.

    Args:
        held_out: only the images of the run that were held out for the test.

    Raises:
        ConfigError: neither is there. DataError: files with problems.
    """
    if pairs is not None:
        if held_out:
            raise ConfigError(Problem(where="--held-out", what="is about a run's own images; leave --pairs out"))
        names = image_ids or (pairs if features is not None and is_matrix(features) else None)
        store = open_features(features, names) if features is not None else None
        return Collection(pairs=_read(pairs, reading or Reading()), store=store)
    if features is not None:
        raise ConfigError(Problem(where="--features", what="name the captions of these images with --pairs"))
    if run is None:
        raise ConfigError(Problem(where="--pairs", what="a model alone has nothing to search; name --pairs"))
    recipe = recipe_of_run(run)
    if recipe.data.pairs is None:
        what = "the run was trained without image-caption pairs; name --pairs, and --features for images"
        raise ConfigError(Problem(where=str(run), what=what))
    return Collection(pairs=_of_run(run, recipe, held_out=held_out), store=_store_of(recipe))


def _of_run(run: Path, recipe: Recipe, *, held_out: bool) -> Pairs:
    if not held_out:
        return _read(recipe.data.path(str(recipe.data.pairs)), recipe.data.reading)
    found = load_dataset(recipe.data.model_copy(update={"text": None}), seed=recipe.seed).test
    if found is None:
        raise ConfigError(Problem(where=str(run), what="the run held out no images for a test (data.holdout)"))
    return found


def _store_of(recipe: Recipe) -> FeatureStore | None:
    if recipe.features.image is None:
        return None
    ids = recipe.features.image_ids
    return open_features(
        recipe.data.path(recipe.features.image), recipe.data.path(ids) if ids is not None else None
    )


def _read(path: Path, reading: Reading) -> Pairs:
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {}, on_empty="drop", reading=reading)
    if problems:
        raise DataError(problems)
    if not pairs.captions:
        raise DataError(Problem(where=str(path), what="no captions; there is nothing to search"))
    return pairs
