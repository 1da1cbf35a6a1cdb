"""A linear map from an encoder's vectors to image features: what an encoder finds without any training of its own.

Ridge regression of the image features on the caption vectors of the training images; how much it is penalised, and
whether both sides are centred, is chosen on validation images. Most of what trained heads gain over nothing, this
gains too, so it is the baseline of retrieval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from dalr.evaluation.metrics import unit_rows
from dalr.evaluation.retrieval import retrieval_score

PENALTIES = tuple(10.0**power for power in (-3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 2))
"""λ per training caption, over the mean variance of the inputs."""


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """Vectors of captions and of the images that they belong to."""

    sentences: Float[np.ndarray, "captions d"]
    images: Float[np.ndarray, "images w"]
    owner: Int64[np.ndarray, " captions"]


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """Sentence and image vectors into the space of image features."""

    weights: Float64[np.ndarray, "d w"]
    sentence_mean: Float64[np.ndarray, " d"]
    image_mean: Float64[np.ndarray, " w"]
    penalty: float
    centred: bool

    def project(
        self, sentences: Float[np.ndarray, "n d"], images: Float[np.ndarray, "m w"]
    ) -> tuple[Float64[np.ndarray, "n w"], Float64[np.ndarray, "m w"]]:
        """Both, compared by cosine."""
        mapped = (unit_rows(sentences) - self.sentence_mean) @ self.weights
        shown = unit_rows(images)
        return (mapped, shown - self.image_mean) if self.centred else (mapped + self.image_mean, shown)


def fit_linear_map(training: Captioned, validation: Captioned) -> LinearMap:
    """The map with the highest mean R@1 of both directions on the validation images; the first of equal ones."""
    x, y = unit_rows(training.sentences), unit_rows(training.images)[training.owner]
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    values, axes = np.linalg.eigh(x.T @ x)
    rotated = axes.T @ (x.T @ y)
    best: LinearMap | None = None
    highest = -1.0
    for penalty in PENALTIES:
        scaled = penalty * max(float(values.mean()), 1e-12)
        weights = axes @ (rotated / (np.maximum(values, 0) + scaled)[:, None])
        for centred in (False, True):
            found = LinearMap(
                weights=weights, sentence_mean=x_mean, image_mean=y_mean, penalty=penalty, centred=centred
            )
            sentences, images = found.project(validation.sentences, validation.images)
            score = retrieval_score(sentences, images, validation.owner).mean_r1
            if score > highest:
                best, highest = found, score
    assert best is not None
    return best
