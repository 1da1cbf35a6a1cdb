"""A linear map from caption vectors to image features that never saw the pair it scores.

Images are split into folds. The caption of an image in fold a is compared with an image in fold b by a ridge map
that was fitted without both folds: a map that has seen one of the two would be closer to what it has seen, and own
pairs could not be compared with others. The products that ridge regression needs add up over folds, so all maps
together cost little more than one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from dalr.errors import DataError, Problem
from dalr.evaluation.linear_map import PENALTIES
from dalr.evaluation.metrics import unit_rows

FOLDS = 4
FEWEST = 5 * FOLDS
"""Images that a map can be fitted on at all."""
_BLOCK = 4_096


@dataclass(frozen=True, kw_only=True)
class _Map:
    weights: Float64[np.ndarray, "d w"]
    sentence_mean: Float64[np.ndarray, " d"]
    image_mean: Float64[np.ndarray, " w"]


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What ridge regression needs to know of the captions of one fold."""

    count: int
    sentence: Float64[np.ndarray, " d"]
    image: Float64[np.ndarray, " w"]
    gram: Float64[np.ndarray, "d d"]
    cross: Float64[np.ndarray, "d w"]

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            count=self.count + other.count,
            sentence=self.sentence + other.sentence,
            image=self.image + other.image,
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
        )


@dataclass(frozen=True, kw_only=True)
class CrossFitted:
    """Scores captions against images by maps that were fitted without the images of either."""

    sentences: Float32[np.ndarray, "captions d"]
    images: Float32[np.ndarray, "images w"]
    caption_fold: Int64[np.ndarray, " captions"]
    image_fold: Int64[np.ndarray, " images"]
    maps: dict[tuple[int, int], _Map]
    penalty: float

    def block(self, rows: Int64[np.ndarray, " block"]) -> Float64[np.ndarray, "block images"]:
        """Cosines of these captions with all images, in the centred space of image features."""
        sentences, folds = self.sentences[rows], self.caption_fold[rows]
        out = np.empty((len(sentences), len(self.images)))
        for a in np.unique(folds).tolist():
            captions = np.flatnonzero(folds == a)
            for b in np.unique(self.image_fold).tolist():
                images = np.flatnonzero(self.image_fold == b)
                found = self.maps[min(a, b), max(a, b)]
                mapped = unit_rows((sentences[captions] - found.sentence_mean) @ found.weights)
                out[np.ix_(captions, images)] = _centred_cosines(mapped, self.images[images], found.image_mean)
        return out


def _centred_cosines(
    mapped: Float64[np.ndarray, "n w"], images: Float32[np.ndarray, "m w"], mean: Float64[np.ndarray, " w"]
) -> Float64[np.ndarray, "n m"]:
    """Cosines of unit vectors with images − mean, without a second array of the size of the images."""
    dots = (mapped.astype(np.float32) @ images.T).astype(np.float64) - (mapped @ mean)[:, None]
    squared = np.einsum("mw,mw->m", images, images) - 2 * (images @ mean.astype(np.float32)) + mean @ mean
    cosines: np.ndarray = dots / np.sqrt(np.maximum(squared, 1e-12))
    return cosines


def cross_fit(
    sentences: Float[np.ndarray, "captions d"],
    images: Float[np.ndarray, "images w"],
    owner: Int64[np.ndarray, " captions"],
    names: Sequence[str],
) -> CrossFitted:
    """Fit the maps of all pairs of folds; the penalty is that with which left-out captions find their image best.

    Args:
        names: of the images, which decide their folds: the order of a file does not matter.

    Raises:
        DataError: too few images.
    """
    if len(images) < FEWEST:
        what = (
            f"{len(images)} images are too few to fit a map on, at least {FEWEST} are needed; name text vectors in "
            "the space of the images (--text), or a run (--run)"
        )
        raise DataError(Problem(where="--features", what=what))
    x, y = unit_rows(sentences), unit_rows(images)
    folds = folds_of(names)
    of_caption = folds[owner]
    sums = [_sums(x, y, owner, of_caption == fold) for fold in range(FOLDS)]
    penalty = _best_penalty(x, y, owner, folds, sums)
    left_out = [(a, b) for a in range(FOLDS) for b in range(a, FOLDS)]
    return CrossFitted(
        sentences=x.astype(np.float32),
        images=y.astype(np.float32),
        caption_fold=of_caption,
        image_fold=folds,
        maps={pair: _fitted(_without(sums, pair), (penalty,))[0] for pair in left_out},
        penalty=penalty,
    )


def folds_of(names: Sequence[str]) -> Int64[np.ndarray, " images"]:
    """The fold of each image: equally many in each, by the order of the hashes of their names."""
    digests = [hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in names]
    folds = np.empty(len(names), np.int64)
    folds[sorted(range(len(names)), key=digests.__getitem__)] = np.arange(len(names)) % FOLDS
    return folds


def _sums(
    x: Float64[np.ndarray, "captions d"],
    y: Float64[np.ndarray, "images w"],
    owner: Int64[np.ndarray, " captions"],
    of_fold: Bool[np.ndarray, " captions"],
) -> _Sums:
    d, w = x.shape[1], y.shape[1]
    found = _Sums(count=0, sentence=np.zeros(d), image=np.zeros(w), gram=np.zeros((d, d)), cross=np.zeros((d, w)))
    rows = np.flatnonzero(of_fold)
    for start in range(0, len(rows), _BLOCK):
        chosen = rows[start : start + _BLOCK]
        left, right = x[chosen], y[owner[chosen]]
        found += _Sums(
            count=len(chosen),
            sentence=left.sum(axis=0),
            image=right.sum(axis=0),
            gram=left.T @ left,
            cross=left.T @ right,
        )
    return found


def _without(sums: Sequence[_Sums], folds: Sequence[int]) -> _Sums:
    first, *rest = [each for fold, each in enumerate(sums) if fold not in folds]
    for each in rest:
        first += each
    return first


def _fitted(sums: _Sums, penalties: Sequence[float]) -> list[_Map]:
    """Ridge regression with each penalty, as in `evaluation.linear_map`."""
    sentence_mean, image_mean = sums.sentence / sums.count, sums.image / sums.count
    gram = sums.gram - sums.count * np.outer(sentence_mean, sentence_mean)
    cross = sums.cross - sums.count * np.outer(sentence_mean, image_mean)
    values, axes = np.linalg.eigh(gram)
    rotated = axes.T @ cross
    scale = max(float(values.mean()), 1e-12)
    return [
        _Map(
            weights=axes @ (rotated / (np.maximum(values, 0) + penalty * scale)[:, None]),
            sentence_mean=sentence_mean,
            image_mean=image_mean,
        )
        for penalty in penalties
    ]


def _best_penalty(
    x: Float64[np.ndarray, "captions d"],
    y: Float64[np.ndarray, "images w"],
    owner: Int64[np.ndarray, " captions"],
    folds: Int64[np.ndarray, " images"],
    sums: Sequence[_Sums],
) -> float:
    """By the mean reciprocal rank of own images: the captions of the first fold, among the images of the fold."""
    images = np.flatnonzero(folds == 0)[:_BLOCK]
    place = np.full(len(folds), -1)
    place[images] = np.arange(len(images))
    captions = np.flatnonzero(place[owner] >= 0)[:_BLOCK]
    best, highest = PENALTIES[0], -1.0
    for penalty, found in zip(PENALTIES, _fitted(_without(sums, (0,)), PENALTIES), strict=True):
        mapped = unit_rows((x[captions] - found.sentence_mean) @ found.weights)
        cosines = mapped @ unit_rows(y[images] - found.image_mean).T
        own = cosines[np.arange(len(captions)), place[owner[captions]]]
        score = float(np.mean(1 / (cosines >= own[:, None]).sum(axis=1)))
        if score > highest:
            best, highest = penalty, score
    return best
