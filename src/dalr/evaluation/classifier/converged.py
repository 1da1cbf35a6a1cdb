"""The same classifier solved to the end: scikit-learn's L-BFGS in place of early stopping.

SentEval's figures depend on a stopping rule that was tuned for it; this says what the vectors hold without it. The
penalties are the protocol's: mean cross-entropy + ½·penalty·‖W‖². Two differences to SentEval's problem stay: the
bias is not penalised, and no rows are set aside for stopping, so the final fit sees all training rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dalr.errors import NumericsError, Problem
from dalr.evaluation.classifier.fitting import Fit, Group, Matrix, OnProgress

_MOST_ITERATIONS = 2_000


def solve_groups(matrix: Matrix, groups: Sequence[Group], *, progress: OnProgress | None = None) -> list[list[Fit]]:
    """The converged fits of each group, one for each of its penalties.

    Raises:
        NumericsError: a fit did not converge.
    """
    results = []
    done = 0
    for group in groups:
        fits = []
        for penalty in group.penalties:  # the next starts where the last ended: penalties rise, solutions are near
            fits.append(_solve(matrix, group, penalty))
            done += 1
            if progress is not None:
                progress(done)
        results.append(fits)
    return results


def _solve(matrix: Matrix, group: Group, penalty: float) -> Fit:
    from sklearn.linear_model import LogisticRegression

    x, labels = matrix.x[group.train], matrix.labels[group.train]
    # two classes are one weight vector w = w₁ − w₀ there: ½(‖w₀‖² + ‖w₁‖²) = ¼‖w‖² at the optimum
    sides = 2 if matrix.classes == 2 else 1
    solver = LogisticRegression(C=sides / (len(x) * penalty), tol=1e-4, max_iter=_MOST_ITERATIONS)
    solver.fit(x, labels)
    if solver.n_iter_.max() >= _MOST_ITERATIONS:
        what = f"L-BFGS did not converge in {_MOST_ITERATIONS} iterations at penalty {penalty:g}"
        raise NumericsError(Problem(where="classifier", what=what))
    weights, bias = solver.coef_.astype(np.float32), solver.intercept_.astype(np.float32)
    if matrix.classes == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    fit = Fit(penalty=penalty, dev_accuracy=float("nan"), weights=weights, bias=bias)
    if group.dev is None:
        return fit
    right = fit.predict(matrix.x[group.dev]) == matrix.labels[group.dev]
    return Fit(penalty=penalty, dev_accuracy=float(right.mean()), weights=weights, bias=bias)
