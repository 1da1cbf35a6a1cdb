"""How is SentEval's classifier fitted, early stopping included, for many training sets of one matrix?

A fit is defined by its training rows, its validation rows and its penalty; everything else (start, order of
rows, optimiser, rule for stopping) is the same for all. Fits that share their rows form a `Group` and are trained
together; groups are independent and run on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32, Int64

from dalr.errors import DataError, Problem
from dalr.evaluation.senteval.kernel import count_right, train_passes
from dalr.models.device import usable_cores

OnProgress = Callable[[int], None]
"""Called with the number of fits that are done."""

_LANES = 16
"""Rows of the matrix are padded to whole vectors of so many floats."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a classifier is trained and how its penalty is chosen."""

    name: str
    folds: int
    optimizer: Literal["adam", "rmsprop"]
    learning_rate: float
    batch_size: int
    passes_per_check: int
    tenacity: int
    """Checks without improvement that are forgiven, over the whole fit; the next one stops it."""
    max_passes: int = 200
    """No further check is begun once so many passes are over."""
    seed: int = 1111
    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    """L2, added to the gradient before the optimiser sees it."""


SENTEVAL = Protocol(
    name="senteval",
    folds=10,
    optimizer="adam",
    learning_rate=1e-3,
    batch_size=64,
    passes_per_check=4,
    tenacity=5,
)
"""What papers print: the evaluation settings that SentEval's authors recommend."""

SENTEVAL_FAST = Protocol(
    name="senteval-fast",
    folds=5,
    optimizer="rmsprop",
    learning_rate=1e-2,
    batch_size=128,
    passes_per_check=2,
    tenacity=3,
)
"""SentEval's settings for validation."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Vectors and classes that all fits of a task choose their rows from."""

    x: Float32[np.ndarray, "rows dim"]
    labels: Int32[np.ndarray, " rows"]
    classes: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """Fits that differ in their penalty alone."""

    train: Int64[np.ndarray, " n"]
    """Rows of the matrix, in the order that the protocol sees them."""
    dev: Int64[np.ndarray, " m"] | None
    """Rows that decide when to stop; None draws the first 5 % of a permutation of `train` for it."""
    penalties: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The best weights of one fit by its validation rows."""

    penalty: float
    dev_accuracy: float | None
    """0 to 1; None for a fit without validation rows."""
    weights: Float32[np.ndarray, "classes dim"]
    bias: Float32[np.ndarray, " classes"]

    def predict(self, x: Float32[np.ndarray, "n dim"]) -> Int64[np.ndarray, " n"]:
        """The class of each row; the first of equal scores."""
        best: np.ndarray = (x @ self.weights.T + self.bias).argmax(axis=1)
        return best


def fit_groups(
    matrix: Matrix, groups: Sequence[Group], protocol: Protocol, *, progress: OnProgress | None = None
) -> list[list[Fit]]:
    """The fits of each group, one for each of its penalties.

    Raises:
        DataError: a group has too few rows to set some aside.
    """
    padded = _with_bias_column(matrix.x)
    start = _first_weights(matrix.x.shape[1], matrix.classes, protocol.seed)
    return in_threads(lambda group: _fit_group(padded, matrix, group, protocol, start), groups, progress)


def in_threads(
    fit: Callable[[Group], list[Fit]], groups: Sequence[Group], progress: OnProgress | None
) -> list[list[Fit]]:
    """`fit` of every group, in order, on as many threads as there are cores; `fit` must release the lock."""
    done = 0
    results: list[list[Fit]] = []
    with ThreadPoolExecutor(max_workers=max(1, min(usable_cores(), len(groups)))) as pool:
        try:
            for fits in pool.map(fit, groups):
                results.append(fits)
                done += len(fits)
                if progress is not None:
                    progress(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _fit_group(
    x: Float32[np.ndarray, "rows padded"],
    matrix: Matrix,
    group: Group,
    protocol: Protocol,
    start: Float32[np.ndarray, "classes dim_and_bias"],
) -> list[Fit]:
    orders = np.random.RandomState(protocol.seed)
    train, dev = group.train, group.dev
    if dev is None:
        permutation = orders.permutation(len(train))
        border = int(0.05 * len(train))
        train, dev = train[permutation[border:]], train[permutation[:border]]
    if not len(dev):
        what = f"expected 20 or more training examples, of which 5 % decide when to stop; found {len(group.train)}"
        raise DataError(Problem(where="classifier", what=what))
    train, dev = train.astype(np.int32), dev.astype(np.int32)
    state = _State(start, matrix.classes, len(group.penalties), x.shape[1])
    running = list(range(len(group.penalties)))
    patience = [protocol.tenacity] * len(running)
    best_right = [-1] * len(running)
    best: list[np.ndarray] = [start] * len(running)
    step = passes = 0
    while running and passes <= protocol.max_passes:
        step = train_passes()(
            x,
            matrix.labels,
            np.stack([train[orders.permutation(len(train))] for _ in range(protocol.passes_per_check)]),
            state.weights,
            state.first_moment,
            state.second_moment,
            state.by_column([group.penalties[fit] for fit in running]),
            matrix.classes,
            state.used_columns,
            protocol.batch_size,
            protocol.learning_rate,
            protocol.optimizer == "adam",
            step,
        )
        passes += protocol.passes_per_check
        right = np.zeros(len(running), np.int32)
        count_right()(x, matrix.labels, dev, state.weights, matrix.classes, right)
        keep = []
        for place, fit in enumerate(running):
            if right[place] > best_right[fit]:
                best_right[fit], best[fit] = int(right[place]), state.of_fit(place)
            else:
                patience[fit] -= 1
            if patience[fit] >= 0:
                keep.append(place)
        if len(keep) < len(running):
            running = [running[place] for place in keep]
            state = state.only(keep)
    dim = matrix.x.shape[1]
    return [
        Fit(
            penalty=penalty,
            dev_accuracy=best_right[fit] / len(dev),
            weights=np.ascontiguousarray(best[fit][:, :dim]),
            bias=best[fit][:, dim].copy(),
        )
        for fit, penalty in enumerate(group.penalties)
    ]


class _State:
    """Weights and moments of the fits of a group that still run: `classes` columns a fit, an even number in all."""

    def __init__(self, start: np.ndarray, classes: int, fits: int, dim: int) -> None:
        self.classes = classes
        self.used_columns = fits * classes
        columns = self.used_columns + self.used_columns % 2
        self.weights = np.zeros((columns, dim), np.float32)
        self.weights[: self.used_columns, : start.shape[1]] = np.tile(start, (fits, 1))
        self.first_moment = np.zeros_like(self.weights)
        self.second_moment = np.zeros_like(self.weights)

    def by_column(self, values: Sequence[float]) -> Float32[np.ndarray, " columns"]:
        spread = np.zeros(len(self.weights), np.float32)
        spread[: self.used_columns] = np.repeat(values, self.classes)
        return spread

    def of_fit(self, place: int) -> Float32[np.ndarray, "classes padded"]:
        return self.weights[place * self.classes : (place + 1) * self.classes].copy()

    def only(self, places: Sequence[int]) -> _State:
        """The state of some of the fits."""
        smaller = _State(np.zeros((self.classes, 1), np.float32), self.classes, len(places), self.weights.shape[1])
        for name in ("weights", "first_moment", "second_moment"):
            for new, old in enumerate(places):
                target = slice(new * self.classes, (new + 1) * self.classes)
                source = slice(old * self.classes, (old + 1) * self.classes)
                getattr(smaller, name)[target] = getattr(self, name)[source]
        return smaller


def _first_weights(dim: int, classes: int, seed: int) -> Float32[np.ndarray, "classes dim_and_bias"]:
    """torch's start of a linear layer after `manual_seed`, the bias as the last column."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(dim, classes)
    start: np.ndarray = np.concatenate(
        [layer.weight.detach().numpy(), layer.bias.detach().numpy()[:, None]], axis=1
    )
    return start


def _with_bias_column(x: Float32[np.ndarray, "rows dim"]) -> Float32[np.ndarray, "rows padded"]:
    """x with a column of ones, then zeros up to whole vectors: the bias is then a weight like any other."""
    rows, dim = x.shape
    padded = np.zeros((rows, -(-(dim + 1) // _LANES) * _LANES), np.float32)
    padded[:, :dim] = x
    padded[:, dim] = 1
    return padded
