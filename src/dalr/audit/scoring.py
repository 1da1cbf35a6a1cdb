"""Where do the scores of an audit come from? Stored text vectors, an encoder, or a run.

Vectors of one dual encoder are compared as they are. Vectors of a sentence encoder are mapped to the image features
by `cross_fit`. A run has heads of its own, which are used only on images that it never saw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dalr.audit.cross_fit import cross_fit
from dalr.audit.match import ImageEvidence, SharedSpace
from dalr.errors import ConfigError, ModelFileError, Problem
from dalr.evaluation.metrics import unit_rows
from dalr.evaluation.own_photos import OwnSet, photos_of
from dalr.features.source import open_features
from dalr.features.store import FeatureStore
from dalr.io.paths import exists, is_file
from dalr.models.absent import no_such
from dalr.models.config import EncoderConfig
from dalr.models.reference import inside_run

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """What gives the captions their vectors; one of the three."""

    store: Path | None = None
    store_ids: Path | None = None
    model: str | None = None
    run: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        given = [each for each in (self.store, self.model, self.run) if each is not None]
        if len(given) != 1:
            what = (
                "captions need vectors: name one of --text STORE (dalr features text, or a dual encoder's), "
                "--model ENCODER and --run RUN"
            )
            raise ConfigError(Problem(where="--text, --model, --run", what=what))
        if self.store_ids is not None and self.store is None:
            raise ConfigError(Problem(where="--text-ids", what="names the rows of --text; name it too"))

    @property
    def name(self) -> str:
        """The option that was given."""
        named = (("--text", self.store), ("--model", self.model), ("--run", self.run))
        return next(f"{option} {value}" for option, value in named if value is not None)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Vectors of the captions, and what compares captions with images."""

    vectors: Float32[np.ndarray, "captions d"]
    evidence: ImageEvidence
    about: str
    """How the image is compared, in words."""


def open_scoring(
    source: TextSource, found: OwnSet, images: Float32[np.ndarray, "images w"], store: FeatureStore, on: OnProgress
) -> Scoring:
    """Read or compute the vectors of the captions, and choose how they are compared with the images.

    Raises:
        ConfigError: a run that knows some of the images, or has no heads.
        DataError: captions without a vector.
        ModelFileError: a model that cannot be loaded.
    """
    if source.run is not None:
        return _by_run(source.run, source.device, found, images, on)
    if source.store is not None:
        text = open_features(source.store, source.store_ids)
        vectors = text.read(text.rows_of(found.caption_ids, what="caption"))
        shared = _one_model(text.source.get("sha256"), text.dim, store)
    else:
        vectors, sha256 = _embedded(EncoderConfig(model=inside_run(str(source.model))), source.device, found, on)
        shared = sha256 is not None and _one_model(sha256, vectors.shape[1], store)
    if shared:
        evidence = SharedSpace(captions=unit_rows(vectors), images=unit_rows(images))
        return Scoring(vectors=vectors, evidence=evidence, about="cosine of text and image vectors of one model")
    fitted = cross_fit(vectors, images, found.owner, found.names)
    about = "linear map from caption vectors to image features, fitted without both images of a pair"
    return Scoring(vectors=vectors, evidence=fitted, about=about)


def _one_model(sha256: object, dim: int, store: FeatureStore) -> bool:
    """Whether vectors of text are in the space of the images: equally many numbers, and no other model stated."""
    stated = store.source.get("sha256")
    return dim == store.dim and (sha256 is None or stated is None or sha256 == stated)


def _embedded(
    encoder: EncoderConfig, device: str, found: OwnSet, on: OnProgress
) -> tuple[Float32[np.ndarray, "captions d"], str | None]:
    """Vectors by an encoder, and the fingerprint of a model that has a space of images, too."""
    from dalr.models.device import pick_device
    from dalr.models.embedding import embed
    from dalr.models.loading import load_encoder
    from dalr.models.vision import has_text_tower, load_vision_model

    if has_text_tower(encoder.model, encoder.revision):
        vision = load_vision_model(encoder.model, revision=encoder.revision, device=device)
        return vision.embed_texts(found.captions, progress=on), str(vision.source["sha256"])
    model = load_encoder(encoder).to(pick_device(device))
    return embed(model, found.captions, progress=on), None


def _by_run(
    run: Path, device: str, found: OwnSet, images: Float32[np.ndarray, "images w"], on: OnProgress
) -> Scoring:
    from dalr.models.heads import ground

    if not exists(run):
        raise ModelFileError(Problem(where="--run", what=f"{run}: {no_such(run, 'run')}"))
    heads = run / "heads.safetensors"
    if not is_file(heads):
        what = "the run has no heads that compare captions with images; name its encoder with --model"
        raise ConfigError(Problem(where=f"--run {run}", what=what))
    if seen := photos_of(run).seen(found.names):
        what = (
            f"was trained on {len(seen)} of the {len(found.names)} images of {found.where}, the first is "
            f"{seen[0]!r}, or they chose its weights: pairs that it knows cannot be judged by it; name images that "
            f"it held out, or its encoder with --model {run}, which fits a map without them"
        )
        raise ConfigError(Problem(where=f"--run {run}", what=what))
    vectors, _ = _embedded(EncoderConfig(model=inside_run(str(run))), device, found, on)
    captions, shown = ground(heads, sentences=vectors, images=images)
    evidence = SharedSpace(captions=unit_rows(captions), images=unit_rows(shown))
    return Scoring(vectors=vectors, evidence=evidence, about="grounding heads of the run")
