"""Captions and images of one's own for the tasks on them: those that the options name, or the test of a run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from dalr.data.dataset import read_pairs
from dalr.data.rows import Pairs
from dalr.errors import ConfigError, DataError, ModelFileError, Problem
from dalr.evaluation.linear_map import Captioned, fit_linear_map
from dalr.evaluation.loaded import CaptionsTask, RetrievalTask
from dalr.evaluation.own_photos import OwnSet, RunPhotos, own_set, photos_of
from dalr.evaluation.request import Place, Request
from dalr.features.source import is_matrix, open_features
from dalr.features.store import FeatureStore, open_store
from dalr.io.paths import is_file, refusal, regular
from dalr.models.config import EncoderConfig

if TYPE_CHECKING:
    from dalr.models.vision import VisionModel

_REMEDY = "name --pairs and --features"


@dataclass(kw_only=True)
class OwnData:
    """The images and captions of a request, or of the runs that are evaluated; each is read once."""

    request: Request
    common: Path | None = None
    """The run whose test images all models are scored on, where no pairs are named."""
    _runs: dict[Path, RunPhotos] = field(default_factory=dict)

    def photos(self, run: Path) -> RunPhotos:
        if run not in self._runs:
            self._runs[run] = photos_of(run)
        return self._runs[run]

    def captions(self, place: Place) -> OwnSet:
        """The captions that a model is scored on.

        Raises:
            ConfigError: none are named, and no run has any.
            DataError: files with problems.
        """
        if self.request.pairs is not None:
            return self._named
        run = self.common or place.run
        if run is None:
            what = f"the tasks on your own images need captions and images; {_REMEDY}, or a run that held some out"
            if self.request.heads is not None or place.heads is not None:
                what = f"retrieval needs captions and images; {_REMEDY}"
            raise ConfigError(Problem(where="--pairs", what=what))
        return self.photos(run).require_test()

    def images(self, place: Place, found: OwnSet) -> Float32[np.ndarray, "images w"]:
        """Features of the images for the heads of a place: those of its own run, or of the common one."""
        if self.request.pairs is not None:
            return found.vectors(self._store)
        run = place.run or self.common
        assert run is not None
        return found.vectors(self.photos(run).features())

    @cached_property
    def _named(self) -> OwnSet:
        assert self.request.pairs is not None
        split = self.request.reading.split
        said = "" if split in (None, "all") else f", {split if isinstance(split, str) else '+'.join(split or ())}"
        pairs = _read(self.request.pairs, self.request)
        return own_set(pairs, str(self.request.pairs), f"{self.request.pairs.name}{said}")

    @cached_property
    def _store(self) -> FeatureStore:
        request = self.request
        assert request.pairs is not None
        if request.features is None:
            raise ConfigError(Problem(where="--features", what="retrieval needs the image features of --pairs"))
        ids = request.image_ids or (request.pairs if is_matrix(request.features) else None)
        return open_features(request.features, ids)


def captions_task(place: Place, own: OwnData) -> CaptionsTask:
    """Captions that find the others of their image.

    Raises:
        DataError: no image has two.
    """
    return captions_of(own.captions(place))


def captions_of(found: OwnSet) -> CaptionsTask:
    """The same of one set; raises DataError alike."""
    if not found.has_images_of_several_captions:
        what = f"no image ({found.split}) has two captions, so that none can find another of its image"
        raise DataError(Problem(where=found.where, what=f"{what}; leave task captions out"))
    return CaptionsTask(captions=found.captions, owner=found.owner, split=found.split, items=found.items)


def text_retrieval(place: Place, own: OwnData) -> RetrievalTask:
    """Retrieval of a text encoder: by its trained heads, or by a linear map where a run gives one training images.

    Raises:
        ConfigError: neither is there, or the heads were trained with another encoder.
        ModelFileError: they cannot be read.
    """
    if place.heads is not None:
        return _grounded(place, place.heads, own)
    if own.request.pairs is None and (run := own.common or place.run) is not None:
        return linear_map_retrieval(own.captions(place), own.photos(run))
    what = "retrieval is measured in the grounding space; name the heads of a training run with --heads"
    run = Path(place.encoder.model).parent
    if is_file(run / "heads.safetensors"):
        what += f", or the run itself: {run}"
    raise ConfigError(Problem(where=place.name, what=what))


def _grounded(place: Place, heads: Path, own: OwnData) -> RetrievalTask:
    from dalr.models.heads import ground, stated_space

    try:
        regular(heads)
    except (OSError, ValueError) as error:
        raise refusal(heads, error, ModelFileError) from None
    found = own.captions(place)
    images = own.images(place, found)
    _require_own_heads(place, heads)

    def project(sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ground(heads, sentences=sentences, images=images)

    return RetrievalTask(
        captions=found.captions,
        owner=found.owner,
        space=stated_space(heads),
        project=project,
        split=found.split,
        items=found.items,
    )


def _require_own_heads(place: Place, heads: Path) -> None:
    """Refuse heads that were trained with another encoder: they take its vectors and make numbers of them."""
    from dalr.models.heads import student_of
    from dalr.models.loading import encoder_sha256

    trained_with, encoder = student_of(heads), place.encoder
    if trained_with is None or place.in_memory or encoder.num_layers is not None or encoder.pooling is not None:
        return
    found = encoder_sha256(EncoderConfig(model=encoder.model, revision=encoder.revision))
    if found != trained_with:
        what = (
            f"{heads} were trained with another encoder (sha256 {trained_with[:12]}…) than {place.name} "
            f"({found[:12]}…); `dalr compare RUN {place.name}` gives it a linear map of its own"
        )
        raise ConfigError(Problem(where="--heads", what=what))


def linear_map_retrieval(found: OwnSet, photos: RunPhotos) -> RetrievalTask:
    """Retrieval by a linear map that is fitted on the training images of a run.

    Raises:
        ConfigError, DataError, CorruptFileError: the run's image features.
    """
    store = photos.features()
    training, validation = photos.fitting()
    images = found.vectors(store)
    borders = np.cumsum([len(found.captions), len(training.captions)])

    def project(sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own, fitted, chosen = np.split(sentences, borders)
        linear = fit_linear_map(
            Captioned(sentences=fitted, images=training.vectors(store), owner=training.owner),
            Captioned(sentences=chosen, images=validation.vectors(store), owner=validation.owner),
        )
        return linear.project(own, images)

    return RetrievalTask(
        captions=found.captions,
        owner=found.owner,
        space="linear map",
        project=project,
        split=found.split,
        items=found.items,
        also=(*training.captions, *validation.captions),
    )


def zero_training_retrieval(vision: VisionModel, own: OwnData, place: Place) -> RetrievalTask:
    """Retrieval in the own space of a multimodal model: its vectors of the captions and of the images.

    Raises:
        ConfigError: no images are named, or vectors that another model made.
    """
    request = own.request
    needed = f"{vision.reference} is multimodal: retrieval needs --pairs, and --images or --features made with it"
    if request.pairs is None and own.common is None:
        raise ConfigError(Problem(where="--pairs", what=needed))
    found = own.captions(place)
    if request.pairs is not None and request.features is None:
        if request.images is None:
            raise ConfigError(Problem(where="--pairs", what=needed))
        images = _computed(vision, found, request)
    else:
        store = own._store if request.pairs is not None else own.photos(_known(own.common)).features()
        made_with = store.source.get("sha256")
        if made_with not in (None, vision.source["sha256"]):
            what = f"made with {store.source.get('model')!r} (sha256 {made_with}), not with {vision.reference!r}"
            raise ConfigError(Problem(where=str(request.features or store.folder), what=what))
        images = found.vectors(store)
    return RetrievalTask(
        captions=found.captions,
        owner=found.owner,
        space="model",
        project=lambda sentences: (sentences, images),
        split=found.split,
        items=found.items,
    )


def _known(run: Path | None) -> Path:
    assert run is not None
    return run


def _computed(vision: VisionModel, found: OwnSet, request: Request) -> Float32[np.ndarray, "images w"]:
    """Vectors that are computed now and not kept."""
    from dalr.features.images import write_image_store

    assert request.images is not None
    with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
        store = Path(folder) / "images"
        write_image_store(
            store,
            ids=found.names,
            root=request.images,
            model=vision,
            follow_links=request.follow_links,
            console=request.console,
        )
        return found.vectors(open_store(store))


def _read(path: Path, request: Request) -> Pairs:
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {}, reading=request.reading)
    if problems:
        raise DataError(problems)
    return pairs
