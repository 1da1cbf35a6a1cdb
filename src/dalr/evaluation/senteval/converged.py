"""What does the classifier reach when it is solved to convergence? scikit-learn's L-BFGS.

SentEval's figures depend on a stopping rule that was tuned for it; this says what the vectors hold without it. The
penalties are the protocol's: mean cross-entropy + ½·penalty·‖W‖². Two differences to SentEval's problem stay: the
bias is not penalised, and no rows are set aside for stopping, so the final fit sees all training rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dalr.errors import NumericsError, Problem
from dalr.evaluation.senteval.fitting import Fit, Group, Matrix, OnProgress, in_threads

_MOST_ITERATIONS = 2_000
_TOLERANCE = 1e-4
"""Of the largest component of the gradient, scikit-learn's own."""


def solve_groups(matrix: Matrix, groups: Sequence[Group], *, progress: OnProgress | None = None) -> list[list[Fit]]:
    """The converged fits of each group, one for each of its penalties.

    Raises:
        NumericsError: a fit did not converge.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # the cores are taken by the groups
        return in_threads(lambda group: _solve_group(matrix, group), groups, progress)


def _solve_group(matrix: Matrix, group: Group) -> list[Fit]:
    """From the largest penalty down, each fit starting where the last ended."""
    from sklearn.linear_model import LogisticRegression

    x, labels = matrix.x[group.train], matrix.labels[group.train]
    solver = LogisticRegression(tol=_TOLERANCE, max_iter=_MOST_ITERATIONS, warm_start=True)
    fits: dict[float, Fit] = {}
    for penalty in sorted(group.penalties, reverse=True):
        # two classes are one weight vector w = w₁ − w₀ there: ½(‖w₀‖² + ‖w₁‖²) = ¼‖w‖² at the optimum
        solver.C = (2 if matrix.classes == 2 else 1) / (len(x) * penalty)
        solver.fit(x, labels)
        if solver.n_iter_.max() >= _MOST_ITERATIONS:
            what = f"L-BFGS did not converge in {_MOST_ITERATIONS} iterations at penalty {penalty:g}"
            raise NumericsError(Problem(where="classifier", what=what))
        fits[penalty] = _as_fit(solver.coef_, solver.intercept_, matrix, group, penalty)
    return [fits[penalty] for penalty in group.penalties]


def _as_fit(weights: np.ndarray, bias: np.ndarray, matrix: Matrix, group: Group, penalty: float) -> Fit:
    weights, bias = weights.astype(np.float32), bias.astype(np.float32)
    if matrix.classes == 2:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    fit = Fit(penalty=penalty, dev_accuracy=None, weights=weights, bias=bias)
    if group.dev is None:
        return fit
    right = fit.predict(matrix.x[group.dev]) == matrix.labels[group.dev]
    return Fit(penalty=penalty, dev_accuracy=float(right.mean()), weights=weights, bias=bias)
