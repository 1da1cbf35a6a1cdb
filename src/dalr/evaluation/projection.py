"""Where do the sentences of several tasks lie in the plane?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from dalr.evaluation.metrics import unit_rows
from dalr.evaluation.results import EmbeddingMap
from dalr.evaluation.tasks import MapMethod
from dalr.seed import generator

_PER_TASK = 200
"""Sentences drawn of each task: enough to see."""
_LEAST = 3


def embedding_map(
    tasks: Mapping[str, Sequence[str]],
    vectors_of: Callable[[Sequence[str]], Float32[np.ndarray, "n d"]],
    method: MapMethod,
) -> EmbeddingMap | None:
    """L2-normalised vectors of some sentences of each task (task -> its sentences) in two dimensions.

    None where it is not wanted, or where there are too few sentences.
    """
    if method == "none":
        return None
    chosen: list[str] = []
    names: list[str] = []
    for name, sentences in tasks.items():
        distinct = list(dict.fromkeys(sentences))
        random = generator(0, "embedding map", name)
        count = min(_PER_TASK, len(distinct))
        chosen += [distinct[index] for index in random.choice(len(distinct), size=count, replace=False)]
        names += [name] * count
    if len(names) < _LEAST:
        return None
    unit = unit_rows(vectors_of(chosen))
    points = _principal_axes(unit)
    return EmbeddingMap(
        method=method,
        x=tuple(np.round(points[:, 0], 4).tolist()),
        y=tuple(np.round(points[:, 1], 4).tolist()),
        task=tuple(names),
    )


def _principal_axes(unit: np.ndarray) -> np.ndarray:
    centred = unit - unit.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    first = axes[:, -1:-3:-1]
    signs = np.sign(first[np.abs(first).argmax(axis=0), [0, 1]])  # which end is positive is a matter of taste
    points: np.ndarray = centred @ (first * signs)
    return points
