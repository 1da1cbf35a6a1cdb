"""How well does a caption fit an image? By the image itself, and by what the image's other captions say.

Both are cosines, measured from the mean of pairs that do not belong together in units of their standard deviation,
and then averaged. How much the image counts is what finds the most captions their own image; no person's judgement
is used for it. The result is scaled so that 0 is a pair by chance and 1 a typical caption with its own image. A
caption is compared with the other captions of its own image, never with itself; where there is no other, the image
alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int64

from dalr.errors import DataError, Problem
from dalr.evaluation.metrics import unit_rows

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""How much the image counts; the other captions get the rest."""
_SAMPLE = 2_048
"""Captions that the weight and the scale are found on."""


@runtime_checkable
class ImageEvidence(Protocol):
    """Scores captions against images."""

    def block(self, rows: Int64[np.ndarray, " block"]) -> Float64[np.ndarray, "block images"]: ...


@dataclass(frozen=True, kw_only=True)
class SharedSpace:
    """Cosines of captions and images of one space: a dual encoder's, or that of grounding heads."""

    captions: Float64[np.ndarray, "captions g"]
    images: Float64[np.ndarray, "images g"]

    def block(self, rows: Int64[np.ndarray, " block"]) -> Float64[np.ndarray, "block images"]:
        found: np.ndarray = self.captions[rows] @ self.images.T
        return found


@dataclass(frozen=True, kw_only=True)
class OtherCaptions:
    """Mean cosine of a caption with the captions of an image, itself left out."""

    unit: Float64[np.ndarray, "captions d"]
    owner: Int64[np.ndarray, " captions"]
    sums: Float64[np.ndarray, "images d"]
    counts: Int64[np.ndarray, " images"]

    @classmethod
    def of(
        cls, vectors: Float[np.ndarray, "captions d"], owner: Int64[np.ndarray, " captions"], images: int
    ) -> OtherCaptions:
        unit = unit_rows(vectors)
        sums = np.zeros((images, unit.shape[1]))
        np.add.at(sums, owner, unit)
        return cls(unit=unit, owner=owner, sums=sums, counts=np.bincount(owner, minlength=images))

    def block(self, rows: Int64[np.ndarray, " block"]) -> Float64[np.ndarray, "block images"]:
        """Undefined, 0, where a caption is the only one of its image."""
        captions, owner = self.unit[rows], self.owner[rows]
        found: Float64[np.ndarray, "block images"] = (captions @ self.sums.T) / self.counts
        own = np.einsum("nd,nd->n", captions, self.sums[owner]) - 1
        others = self.counts[owner] - 1
        found[np.arange(len(owner)), owner] = np.divide(own, others, out=np.zeros(len(own)), where=others > 0)
        return found

    def disagreement(self) -> Float64[np.ndarray, " images"]:
        """1 − mean cosine of two captions of an image, as a fraction of that of any two captions; NaN for one."""
        n, total = self.counts, len(self.unit)
        pairs = np.where(n > 1, n * (n - 1), 1)
        within = ((self.sums**2).sum(axis=1) - n) / pairs
        anywhere = ((self.sums.sum(axis=0) ** 2).sum() - total) / max(total * (total - 1), 1)
        found: Float64[np.ndarray, " images"] = np.where(n > 1, (1 - within) / max(1 - anywhere, 1e-12), np.nan)
        return found


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Mean and standard deviation of pairs that do not belong together."""

    mean: float
    deviation: float

    def __call__(self, found: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
        scaled: Float64[np.ndarray, "n m"] = (found - self.mean) / self.deviation
        return scaled


@dataclass(frozen=True, kw_only=True)
class Match:
    """Scores every caption against every image."""

    evidence: ImageEvidence
    captions: OtherCaptions
    image_scale: _Scale
    caption_scale: _Scale
    weight: float
    typical: float
    """Median of own pairs, before it became 1."""
    typical_alone: float
    """The same for captions that are the only one of their image."""

    def block(self, rows: Int64[np.ndarray, " block"]) -> Float64[np.ndarray, "block images"]:
        image = self.image_scale(self.evidence.block(rows))
        alone = self.captions.counts[self.captions.owner[rows]] < 2
        if alone.all():
            return image / self.typical_alone
        both = self.weight * image
        if self.weight < 1:
            both += (1 - self.weight) * self.caption_scale(self.captions.block(rows))
        return np.where(alone[:, None], image / self.typical_alone, both / self.typical)


def match(evidence: ImageEvidence, captions: OtherCaptions, where: str) -> Match:
    """Find the weight and the scale of the scores.

    Raises:
        DataError: captions fit their own images no better than others, so that the two do not belong together.
    """
    sample, owner = _sampled(evidence, captions)
    image, caption, alone = sample.image, sample.caption, captions.counts[owner] < 2
    own = np.zeros(image.shape, bool)
    own[np.arange(len(owner)), owner] = True
    image_scale, caption_scale = _scale(image[~own]), _scale(caption[~own])
    image, caption = image_scale(image), caption_scale(caption)
    with_others = ~alone
    weight = (
        _best_weight(image[with_others], caption[with_others], owner[with_others]) if with_others.any() else 1.0
    )
    both = weight * image + (1 - weight) * caption
    found = Match(
        evidence=evidence,
        captions=captions,
        image_scale=image_scale,
        caption_scale=caption_scale,
        weight=weight,
        typical=float(np.median(both[own & with_others[:, None]])) if with_others.any() else 1.0,
        typical_alone=float(np.median(image[own & alone[:, None]])) if alone.any() else 1.0,
    )
    if min(found.typical, found.typical_alone) <= 0:
        what = (
            "captions fit their own images no better than any others; expected vectors of these images and "
            "captions: check the ids"
        )
        raise DataError(Problem(where=where, what=what))
    return found


@dataclass(frozen=True, kw_only=True)
class _Sample:
    image: Float64[np.ndarray, "sample images"]
    caption: Float64[np.ndarray, "sample images"]


def _sampled(evidence: ImageEvidence, captions: OtherCaptions) -> tuple[_Sample, Int64[np.ndarray, " sample"]]:
    """Captions at equal distances, so that every part of a file has its fraction."""
    total = len(captions.owner)
    rows = np.unique(np.linspace(0, total - 1, min(_SAMPLE, total)).astype(np.int64))
    return _Sample(image=evidence.block(rows), caption=captions.block(rows)), captions.owner[rows]


def _scale(others: Float64[np.ndarray, " n"]) -> _Scale:
    return _Scale(mean=float(others.mean()), deviation=max(float(others.std()), 1e-12))


def _best_weight(
    image: Float64[np.ndarray, "n images"],
    caption: Float64[np.ndarray, "n images"],
    owner: Int64[np.ndarray, " n"],
) -> float:
    """The weight with the highest mean reciprocal rank of own images; the first of equal ones."""

    def found(weight: float) -> float:
        score = weight * image + (1 - weight) * caption
        own = score[np.arange(len(owner)), owner]
        return float(np.mean(1 / (score >= own[:, None]).sum(axis=1)))

    return max(WEIGHTS, key=found)
