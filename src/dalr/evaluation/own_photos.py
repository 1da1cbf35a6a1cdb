"""One's own images as a run knows them: which captions it trained on, which chose its weights, which are the test.

What `RUN/split.jsonl` says holds, whatever the data has become since: a run is scored on the images that it never
saw, also when the pairs file has grown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from dalr.data.dataset import load_dataset
from dalr.data.holdout import SPLIT, hash_of, read_sides
from dalr.data.rows import Pairs
from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.runs import recipe_of_run
from dalr.features.source import open_features
from dalr.features.store import FeatureStore
from dalr.io.paths import is_file
from dalr.recipe.schema import Recipe

_MOST_FITTED = 50_000
"""Captions that a linear map is fitted on; more change nothing that can be seen."""


@dataclass(frozen=True, kw_only=True)
class OwnSet:
    """Captions of some images."""

    where: str
    """Whose they are, for messages."""
    split: str
    captions: tuple[str, ...]
    caption_ids: tuple[str, ...]
    names: tuple[str, ...]
    """Of the images."""
    owner: Int64[np.ndarray, " captions"]
    """Place in `names` of each caption's image."""

    @property
    def items(self) -> str:
        """Fingerprint of the images and captions."""
        told = json.dumps([self.names, self.captions, self.owner.tolist()], ensure_ascii=False)
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def has_images_of_several_captions(self) -> bool:
        """Whether a caption has another of its image to find."""
        return len(np.unique(self.owner)) < len(self.owner)

    def told(self) -> str:
        """In a few words, with the first image."""
        first = f", the first {self.names[0]!r}" if self.names else ""
        return f"{len(self.captions)} captions of {len(self.names)} images ({self.split}{first})"

    def vectors(self, store: FeatureStore) -> Float32[np.ndarray, "images w"]:
        """The features of the images.

        Raises:
            DataError: images that the store does not have.
        """
        return store.read(store.rows_of(self.names, what="image"))


@dataclass(frozen=True, kw_only=True)
class RunPhotos:
    """The captions on each side of a run."""

    run: Path
    recipe: Recipe
    training: OwnSet
    validation: OwnSet | None
    test: OwnSet | None

    def require_test(self) -> OwnSet:
        """Raises ConfigError where the run has no test images."""
        if self.test is None:
            what = (
                "the run held out no images for a test (data.holdout with test_fraction, file or last); "
                "name --pairs and --features"
            )
            raise ConfigError(Problem(where=str(self.run), what=what))
        return self.test

    def features(self) -> FeatureStore:
        """The image features that the run's recipe names.

        Raises:
            ConfigError: it names none.
            DataError, CorruptFileError: they cannot be read.
        """
        named, ids = self.recipe.features.image, self.recipe.features.image_ids
        if named is None:
            what = (
                "the run read no image features, so that it has no space to find images in; "
                "name --pairs and --features"
            )
            raise ConfigError(Problem(where=str(self.run), what=what))
        data = self.recipe.data
        return open_features(data.path(named), data.path(ids) if ids is not None else None)

    def seen(self, images: Sequence[str]) -> list[str]:
        """Those of the images that the run was trained on or that chose its weights."""
        known = {*self.training.names, *(self.validation.names if self.validation is not None else ())}
        return [image for image in images if image in known]

    def fitting(self) -> tuple[OwnSet, OwnSet]:
        """What a linear map is fitted on, and what chooses its penalty: validation images of their own, or a tenth
        of the training images."""
        training, validation = self.training, self.validation
        if validation is None or len(validation.names) < _FEWEST:
            order = sorted(training.names, key=hash_of)
            chosen = set(order[: max(len(order) // 10, min(_FEWEST, len(order) // 2))])
            validation = _part(training, chosen, "validation")
            training = _part(training, set(training.names) - chosen, "train")
        if len(training.captions) > _MOST_FITTED:
            most = int(_MOST_FITTED / len(training.captions) * len(training.names))
            training = _part(training, set(sorted(training.names, key=hash_of)[:most]), "train")
        return training, validation


_FEWEST = 10
"""Validation images that a penalty is chosen on."""


def photos_of(run: Path) -> RunPhotos:
    """The captions of a run's images, each on the side that the run has them on.

    Raises:
        DataError: the data or the run's record cannot be read, or test images are no longer in the data.
        ConfigError: the run trained on no pairs.
    """
    recipe = recipe_of_run(run)
    if recipe.data.pairs is None:
        raise ConfigError(Problem(where=str(run), what="the run read no image-caption pairs (data.pairs)"))
    name = str(run)
    if not is_file(run / SPLIT):
        dataset = load_dataset(recipe.data, seed=recipe.seed)
        assert dataset.pairs is not None
        same = dataset.validation is dataset.test
        return RunPhotos(
            run=run,
            recipe=recipe,
            training=own_set(dataset.pairs, name, "train"),
            validation=own_set(dataset.validation, name, "validation")
            if dataset.validation is not None and not same
            else None,
            test=own_set(dataset.test, name, _test_name(recipe)) if dataset.test is not None else None,
        )
    whole = recipe.data.model_copy(update={"holdout": None, "captions_per_image": "all", "pairing_control": None})
    pairs = load_dataset(whole, seed=0).pairs
    assert pairs is not None
    sides = read_sides(run / SPLIT)
    _require_still_there(run, [image for image, side in sides.items() if side == "test"], pairs)

    def side(wanted: str, split: str) -> OwnSet | None:
        of_side = np.array([sides.get(image) == wanted for image in pairs.images])
        kept = np.flatnonzero(of_side[pairs.image_of])
        return own_set(pairs.subset(kept), name, split) if len(kept) else None

    training = side("train", "train")
    assert training is not None
    return RunPhotos(
        run=run,
        recipe=recipe,
        training=training,
        validation=side("validation", "validation"),
        test=side("test", _test_name(recipe)),
    )


def own_set(pairs: Pairs, where: str, split: str) -> OwnSet:
    """Pairs as a set."""
    numbers, owner = np.unique(pairs.image_of, return_inverse=True)
    return OwnSet(
        where=where,
        split=split,
        captions=tuple(pairs.captions),
        caption_ids=tuple(pairs.caption_ids),
        names=tuple(pairs.images.take(numbers)),
        owner=owner.astype(np.int64),
    )


def require_one_set(sets: Sequence[OwnSet]) -> None:
    """Refuse to put scores on different images into one table.

    Raises:
        ConfigError: naming the first two sets that differ.
    """
    for other in sets[1:]:
        if other.items != sets[0].items:
            problems = [Problem(where=each.where, what=f"has {each.told()}") for each in (sets[0], other)]
            what = (
                "different images are not scored in one table; `dalr compare RUN RUN` scores both on those of the "
                "first, or name --pairs and --features"
            )
            raise ConfigError([*problems, Problem(where="--tasks", what=what)])


def _test_name(recipe: Recipe) -> str:
    """What the images that are scored are called: with `holdout.last` they may have chosen the weights too."""
    if recipe.data.holdout is None or recipe.data.holdout.last is None:
        return "test"
    chose = recipe.validation is not None and recipe.validation.kind == "retrieval"
    return "held out, also chose the weights" if chose else "held out"


def _require_still_there(run: Path, images: Sequence[str], pairs: Pairs) -> None:
    there = set(pairs.images)
    gone = [image for image in images if image not in there]
    if gone:
        what = (
            f"{len(gone)} of the {len(images)} test images of {run} are no longer in the data, the first is "
            f"{gone[0]!r}; put them back, or train a new run"
        )
        raise DataError(Problem(where=str(run / SPLIT), what=what))


def _part(whole: OwnSet, names: set[str], split: str) -> OwnSet:
    """The captions of these images."""
    rows = [row for row, image in enumerate(whole.owner.tolist()) if whole.names[image] in names]
    numbers, owner = np.unique(whole.owner[rows], return_inverse=True)
    return OwnSet(
        where=whole.where,
        split=split,
        captions=tuple(whole.captions[row] for row in rows),
        caption_ids=tuple(whole.caption_ids[row] for row in rows),
        names=tuple(whole.names[number] for number in numbers.tolist()),
        owner=owner.astype(np.int64),
    )
