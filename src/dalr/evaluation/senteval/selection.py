"""How does SentEval choose a penalty, and what does it report, for its three kinds of task?

`acc` is measured on data that chose nothing, `devacc` is the score by which the penalty was chosen: papers print
either. Scores are rounded to two decimals where the protocol rounds them, because ties between penalties, which the
smaller one wins, are decided by that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from dalr.errors import DataError, Problem
from dalr.evaluation.senteval.fitting import (
    SENTEVAL,
    SENTEVAL_FAST,
    Fit,
    Group,
    Matrix,
    OnProgress,
    Protocol,
    fit_groups,
)

Rows = Int64[np.ndarray, " _"]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A way of fitting, and the folds over which its penalty is chosen."""

    name: str
    protocol: Protocol
    converged: bool = False

    def fit(self, matrix: Matrix, groups: Sequence[Group], progress: OnProgress | None) -> list[list[Fit]]:
        if self.converged:
            from dalr.evaluation.senteval.converged import solve_groups

            return solve_groups(matrix, groups, progress=progress)
        return fit_groups(matrix, groups, self.protocol, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Accuracy × 100, and which of the test examples were right (in the order of the rows)."""

    acc: float
    devacc: float
    right: Bool[np.ndarray, " examples"]
    chosen: tuple[float, ...]
    """The penalty of each outer fold, or the one of the task."""


def nested_cross_validation(matrix: Matrix, classifier: Classifier, progress: OnProgress | None = None) -> Outcome:
    """MR, CR, SUBJ, MPQA: each outer fold is tested with the penalty that cross-validation inside the others chose.

    Raises:
        DataError: a class has fewer examples than there are folds.
    """
    folds = classifier.protocol.folds
    outer = _stratified(matrix, np.arange(len(matrix.x)), classifier)
    inner = [group for train, _ in outer for group in _inner_groups(matrix, train, classifier)]
    scores = classifier.fit(matrix, inner, progress)
    done = sum(len(group.penalties) for group in inner)
    best = [_choose(scores[fold * folds : (fold + 1) * folds]) for fold in range(folds)]
    finals = [
        Group(train=train, dev=None, penalties=(penalty,))
        for (train, _), (penalty, _) in zip(outer, best, strict=True)
    ]
    fits = classifier.fit(matrix, finals, _after(progress, done))
    right = np.zeros(len(matrix.x), bool)
    accuracies = []
    for (fit,), (_, test) in zip(fits, outer, strict=True):
        right[test] = fit.predict(matrix.x[test]) == matrix.labels[test]
        accuracies.append(_percent(right[test].mean()))
    return Outcome(
        acc=float(np.mean(accuracies)),
        devacc=float(np.mean([score for _, score in best])),
        right=right,
        chosen=tuple(penalty for penalty, _ in best),
    )


def cross_validation_then_test(
    matrix: Matrix, train: Rows, test: Rows, classifier: Classifier, progress: OnProgress | None = None
) -> Outcome:
    """TREC, MRPC: cross-validation on the training rows chooses the penalty, the test rows are read once."""
    groups = _inner_groups(matrix, train, classifier)
    penalty, score = _choose(classifier.fit(matrix, groups, progress))
    final = Group(train=train, dev=None, penalties=(penalty,))
    done = sum(len(group.penalties) for group in groups)
    ((fit,),) = classifier.fit(matrix, [final], _after(progress, done))
    return _tested(matrix, fit, test, score)


def fixed_splits(
    matrix: Matrix, train: Rows, dev: Rows, test: Rows, classifier: Classifier, progress: OnProgress | None = None
) -> Outcome:
    """SST2: the validation rows stop the fit and choose the penalty. The chosen fit itself is tested: the protocol
    fits it again from the same start, which gives the same weights."""
    (fits,) = classifier.fit(
        matrix, [Group(train=train, dev=dev, penalties=classifier.protocol.penalties)], progress
    )
    penalty, score = _choose([fits])
    return _tested(matrix, next(fit for fit in fits if fit.penalty == penalty), test, score)


def fits_needed(kind: Callable[..., Outcome], classifier: Classifier) -> int:
    """How many fits a kind of task takes."""
    penalties, folds = len(classifier.protocol.penalties), classifier.protocol.folds
    if kind is nested_cross_validation:
        return folds * (folds * penalties + 1)
    return penalties if kind is fixed_splits else folds * penalties + 1


CLASSIFIERS: Mapping[str, Classifier] = {
    each.name: each
    for each in (
        Classifier(name="senteval", protocol=SENTEVAL),
        Classifier(name="senteval-fast", protocol=SENTEVAL_FAST),
        Classifier(name="lbfgs", protocol=SENTEVAL, converged=True),
    )
}


def _tested(matrix: Matrix, fit: Fit, test: Rows, score: float) -> Outcome:
    right = fit.predict(matrix.x[test]) == matrix.labels[test]
    return Outcome(acc=_percent(right.mean()), devacc=score, right=right, chosen=(fit.penalty,))


def _inner_groups(matrix: Matrix, train: Rows, classifier: Classifier) -> list[Group]:
    return [
        Group(train=rows, dev=dev, penalties=classifier.protocol.penalties)
        for rows, dev in _stratified(matrix, train, classifier)
    ]


def _stratified(matrix: Matrix, rows: Rows, classifier: Classifier) -> list[tuple[Rows, Rows]]:
    """(training, held-out) rows of each fold, each class in equal shares."""
    from sklearn.model_selection import StratifiedKFold

    folds, labels = classifier.protocol.folds, matrix.labels[rows]
    smallest = int(np.bincount(labels, minlength=matrix.classes).min())
    if smallest < folds:
        what = f"expected {folds} or more examples of every class for {folds} folds, found a class with {smallest}"
        raise DataError(Problem(where="classifier", what=what))
    splitter = StratifiedKFold(n_splits=folds, shuffle=True, random_state=classifier.protocol.seed)
    return [(rows[train], rows[held_out]) for train, held_out in splitter.split(np.zeros(len(rows)), labels)]


def _choose(folds: Sequence[Sequence[Fit]]) -> tuple[float, float]:
    """The penalty with the best mean validation accuracy, and that accuracy × 100; the smaller one of equals."""
    scores = [
        _percent(np.mean([fit.dev_accuracy for fit in fits if fit.dev_accuracy is not None]))
        for fits in zip(*folds, strict=True)
    ]
    best = int(np.argmax(scores))
    return folds[0][best].penalty, scores[best]


def _percent(share: float | np.floating) -> float:
    return round(100 * float(share), 2)


def _after(progress: OnProgress | None, done: int) -> OnProgress | None:
    if progress is None:
        return None
    return lambda more: progress(done + more)
