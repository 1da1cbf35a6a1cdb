"""How are several penalties fitted at once? The inner loop: passes of minibatch gradient descent.

The protocol restarts every fit from the same seed, so the fits of one training set that differ in their penalty
alone see the same rows in the same order. They are trained side by side: a row is read once, where it lies in the
matrix, for the weights of all penalties; nothing is gathered or copied. The weights and moments of one group
(4 penalties × 2 classes × 400 × 3 floats) stay in the first caches. A step of four such fits costs a fraction of
what one costs as a training loop of a tensor library; `benchmarks/evaluation.py` has the figures.

Compiled by numba when first called (about two seconds).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

_BETA1, _BETA2 = 0.9, 0.999
"""Adam's, as its paper has them."""
_ALPHA = 0.99
"""RMSprop's smoothing."""
_EPSILON = np.float32(1e-8)


def _train_passes(
    x: Float32[np.ndarray, "rows dim"],
    labels: Int32[np.ndarray, " rows"],
    order: Int32[np.ndarray, "passes n"],
    weights: Float32[np.ndarray, "columns dim"],
    first_moment: Float32[np.ndarray, "columns dim"],
    second_moment: Float32[np.ndarray, "columns dim"],
    penalties: Float32[np.ndarray, " columns"],
    classes: int,
    used_columns: int,
    batch: int,
    learning_rate: float,
    adam: bool,
    step: int,
) -> int:
    """Train in place over the rows of `x` that each pass of `order` names; gives the number of steps taken so far.

    A column is one class of one penalty; columns are even in number, those from `used_columns` on are zero and
    stay so. The loss is the mean cross-entropy of a batch plus ½·penalty·‖w‖², bias included.
    """
    columns, dim = weights.shape
    n = order.shape[1]
    scores = np.zeros((batch, columns), np.float32)
    gradient = np.zeros((columns, dim), np.float32)
    for index in range(order.shape[0]):
        for start in range(0, n, batch):
            rows = order[index, start : min(start + batch, n)]
            size = len(rows)

            r = 0
            while r + 4 <= size:  # four rows by two columns: what is loaded is used more than once
                i0, i1, i2, i3 = rows[r], rows[r + 1], rows[r + 2], rows[r + 3]
                for k in range(0, columns, 2):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
                    for j in range(dim):
                        wa, wb = weights[k, j], weights[k + 1, j]
                        x0, x1, x2, x3 = x[i0, j], x[i1, j], x[i2, j], x[i3, j]
                        a0 += x0 * wa
                        a1 += x1 * wa
                        a2 += x2 * wa
                        a3 += x3 * wa
                        b0 += x0 * wb
                        b1 += x1 * wb
                        b2 += x2 * wb
                        b3 += x3 * wb
                    scores[r, k], scores[r + 1, k], scores[r + 2, k], scores[r + 3, k] = a0, a1, a2, a3
                    scores[r, k + 1], scores[r + 1, k + 1] = b0, b1
                    scores[r + 2, k + 1], scores[r + 3, k + 1] = b2, b3
                r += 4
            for rest in range(r, size):
                i0 = rows[rest]
                for k in range(columns):
                    a0 = np.float32(0)
                    for j in range(dim):
                        a0 += x[i0, j] * weights[k, j]
                    scores[rest, k] = a0

            share = np.float32(1) / np.float32(size)
            for r in range(size):  # scores become the gradient of the loss: (softmax − one-hot) / rows
                label = labels[rows[r]]
                for first in range(0, used_columns, classes):
                    largest = scores[r, first]
                    for c in range(1, classes):
                        largest = max(largest, scores[r, first + c])
                    total = np.float32(0)
                    for c in range(classes):
                        exponential = math.exp(scores[r, first + c] - largest)
                        scores[r, first + c] = exponential
                        total += exponential
                    for c in range(classes):
                        probability = scores[r, first + c] / total
                        if c == label:
                            probability -= np.float32(1)
                        scores[r, first + c] = probability * share

            for k in range(columns):
                for j in range(dim):
                    gradient[k, j] = penalties[k] * weights[k, j]
            r = 0
            while r + 4 <= size:
                i0, i1, i2, i3 = rows[r], rows[r + 1], rows[r + 2], rows[r + 3]
                for k in range(0, columns, 2):
                    a0, a1, a2, a3 = scores[r, k], scores[r + 1, k], scores[r + 2, k], scores[r + 3, k]
                    b0, b1 = scores[r, k + 1], scores[r + 1, k + 1]
                    b2, b3 = scores[r + 2, k + 1], scores[r + 3, k + 1]
                    for j in range(dim):
                        x0, x1, x2, x3 = x[i0, j], x[i1, j], x[i2, j], x[i3, j]
                        gradient[k, j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                        gradient[k + 1, j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                r += 4
            for rest in range(r, size):
                i0 = rows[rest]
                for k in range(columns):
                    a0 = scores[rest, k]
                    for j in range(dim):
                        gradient[k, j] += a0 * x[i0, j]

            step += 1
            if adam:
                rate = np.float32(learning_rate / (1 - _BETA1**step))
                root = np.float32(math.sqrt(1 - _BETA2**step))
                for k in range(columns):
                    for j in range(dim):
                        slope = gradient[k, j]
                        mean = first_moment[k, j]
                        mean += np.float32(1 - _BETA1) * (slope - mean)
                        square = second_moment[k, j] * np.float32(_BETA2)
                        square += np.float32(1 - _BETA2) * slope * slope
                        first_moment[k, j] = mean
                        second_moment[k, j] = square
                        weights[k, j] -= rate * mean / (np.sqrt(square) / root + _EPSILON)
            else:
                rate = np.float32(learning_rate)
                for k in range(columns):
                    for j in range(dim):
                        slope = gradient[k, j]
                        square = second_moment[k, j] * np.float32(_ALPHA)
                        square += np.float32(1 - _ALPHA) * slope * slope
                        second_moment[k, j] = square
                        weights[k, j] -= rate * slope / (np.sqrt(square) + _EPSILON)
    return step


def _count_right(
    x: Float32[np.ndarray, "rows dim"],
    labels: Int32[np.ndarray, " rows"],
    rows: Int32[np.ndarray, " n"],
    weights: Float32[np.ndarray, "columns dim"],
    classes: int,
    right: Int32[np.ndarray, " fits"],
) -> None:
    """How many of `rows` each fit puts into their class, into `right`; the first of equal scores wins."""
    dim = weights.shape[1]
    scores = np.zeros(classes, np.float32)
    right[:] = 0
    for i in rows:
        for fit in range(len(right)):
            for c in range(classes):
                total = np.float32(0)
                for j in range(dim):
                    total += x[i, j] * weights[fit * classes + c, j]
                scores[c] = total
            if np.argmax(scores) == labels[i]:
                right[fit] += 1


@cache
def train_passes() -> Callable[..., int]:
    """`_train_passes`, compiled; releases the interpreter's lock while it runs."""
    return _compiled(_train_passes)


@cache
def count_right() -> Callable[..., None]:
    """`_count_right`, compiled; releases the interpreter's lock while it runs."""
    return _compiled(_count_right)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    # sums may be formed in any order, so that they can be formed 16 at a time; NaN and infinity keep their meaning
    freedom = {"reassoc", "contract", "nsz", "arcp"}
    compiled: Callable[..., Any] = numba.njit(fastmath=freedom, nogil=True, error_model="numpy")(
        inspect.unwrap(function)
    )
    return compiled
