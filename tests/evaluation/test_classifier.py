"""Fits side by side give what one fit after the other gives; the converged one has no slope left."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from dalr.errors import DataError, NumericsError
from dalr.evaluation.senteval import converged
from dalr.evaluation.senteval.converged import solve_groups
from dalr.evaluation.senteval.fitting import SENTEVAL, SENTEVAL_FAST, Fit, Group, Matrix, Protocol, fit_groups
from dalr.evaluation.senteval.selection import (
    CLASSIFIERS,
    Classifier,
    cross_validation_then_test,
    fits_needed,
    fixed_splits,
    nested_cross_validation,
)

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))
from sequential_classifier import SequentialClassifier

SHORT = replace(SENTEVAL, folds=3, max_passes=24, penalties=(1e-4, 1e-2))
"""The protocol with less of everything."""


def matrix(rows: int = 150, dim: int = 19, classes: int = 2, seed: int = 0) -> Matrix:
    """Overlapping clouds, one a class."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=rows).astype(np.int32)
    centres = random.normal(size=(classes, dim))
    x = (centres[labels] + 2.5 * random.normal(size=(rows, dim))).astype(np.float32)
    return Matrix(x=x, labels=labels, classes=classes)


def one_by_one(data: Matrix, group: Group, penalty: float, protocol: Protocol) -> tuple[float, np.ndarray]:
    """ValidationScore accuracy and weights of a fit by the plain loop."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.labels.astype(np.int64))
    plain = SequentialClassifier(data.x.shape[1], data.classes, penalty, protocol)
    dev = None if group.dev is None else (x[group.dev], y[group.dev])
    accuracy = plain.fit(x[group.train], y[group.train], dev)
    return accuracy, plain.model.weight.detach().numpy()


@pytest.mark.parametrize("protocol", [SENTEVAL, SENTEVAL_FAST], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize(("classes", "rows", "dim"), [(2, 150, 19), (3, 131, 16), (6, 97, 5), (2, 70, 15)])
def test_fits_side_by_side_are_those_of_the_plain_loop(
    protocol: Protocol, classes: int, rows: int, dim: int
) -> None:
    data = matrix(rows, dim, classes)
    order = np.random.default_rng(1).permutation(rows)
    protocol = replace(protocol, penalties=(1e-5, 1e-3, 1e-2))
    groups = [
        Group(train=order[:-30], dev=order[-30:], penalties=protocol.penalties),
        Group(train=order[7:], dev=None, penalties=(1e-2, 1e-5)),
    ]
    found = fit_groups(data, groups, protocol)
    for group, fits in zip(groups, found, strict=True):
        assert [fit.penalty for fit in fits] == list(group.penalties)
        for fit in fits:
            accuracy, weights = one_by_one(data, group, fit.penalty, protocol)
            assert fit.dev_accuracy == accuracy
            np.testing.assert_allclose(fit.weights, weights, atol=2e-5)


def test_a_fit_does_not_depend_on_those_beside_it() -> None:
    data = matrix()
    rows = np.arange(len(data.x))
    together = fit_groups(data, [Group(train=rows[40:], dev=rows[:40], penalties=(1e-5, 1e-3, 1e-2))] * 3, SENTEVAL)
    alone = fit_groups(data, [Group(train=rows[40:], dev=rows[:40], penalties=(1e-3,))], SENTEVAL)
    for fits in together:
        np.testing.assert_array_equal(fits[1].weights, alone[0][0].weights)


def test_progress_counts_fits_and_ends_at_all_of_them() -> None:
    data = matrix(60)
    rows = np.arange(60)
    seen: list[int] = []
    fit_groups(data, [Group(train=rows[9:], dev=rows[:9], penalties=(1e-3, 1e-2))] * 3, SHORT, progress=seen.append)
    assert seen == [2, 4, 6]


def test_too_few_rows_to_set_some_aside_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected 20 or more training examples, .* found 19"):
        fit_groups(matrix(19), [Group(train=np.arange(19), dev=None, penalties=(1e-3,))], SHORT)


def test_the_global_random_state_is_left_alone() -> None:
    data = matrix(60)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    state = np.random.get_state()[1].copy()
    fit_groups(data, [Group(train=np.arange(50), dev=np.arange(50, 60), penalties=(1e-3,))], SHORT)
    assert torch.equal(torch.rand(3), expected)
    assert (np.random.get_state()[1] == state).all()


class TestSelection:
    """Folds and choices against loops written from the protocol's description."""

    CLASSIFIER = Classifier(name="short", protocol=SHORT)

    def folds(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        splitter = StratifiedKFold(n_splits=SHORT.folds, shuffle=True, random_state=1111)
        return list(splitter.split(np.zeros(len(labels)), labels))

    def best_penalty(self, data: Matrix, rows: np.ndarray) -> tuple[float, float]:
        scores = []
        for penalty in SHORT.penalties:
            accuracies = [
                one_by_one(data, Group(train=rows[a], dev=rows[b], penalties=(penalty,)), penalty, SHORT)[0]
                for a, b in self.folds(data.labels[rows])
            ]
            scores.append(round(100 * float(np.mean(accuracies)), 2))
        best = int(np.argmax(scores))
        return SHORT.penalties[best], scores[best]

    def accuracy(self, data: Matrix, train: np.ndarray, test: np.ndarray, penalty: float) -> float:
        x, y = torch.from_numpy(data.x), torch.from_numpy(data.labels.astype(np.int64))
        plain = SequentialClassifier(data.x.shape[1], data.classes, penalty, SHORT)
        plain.fit(x[train], y[train])
        return round(100 * plain.score(x[test], y[test]), 2)

    def test_nested_cross_validation(self) -> None:
        data = matrix(90, 6, seed=3)
        outcome = nested_cross_validation(data, self.CLASSIFIER)
        dev, test, chosen = [], [], []
        for train, held_out in self.folds(data.labels):
            penalty, score = self.best_penalty(data, train)
            chosen.append(penalty)
            dev.append(score)
            test.append(self.accuracy(data, train, held_out, penalty))
        assert outcome.chosen == tuple(chosen)
        assert outcome.devacc == pytest.approx(np.mean(dev))
        assert outcome.acc == pytest.approx(np.mean(test))
        assert outcome.right.mean() * 100 == pytest.approx(outcome.acc, abs=0.5)

    def test_cross_validation_then_test(self) -> None:
        data = matrix(120, 6, classes=3, seed=4)
        train, test = np.arange(80), np.arange(80, 120)
        outcome = cross_validation_then_test(data, train, test, self.CLASSIFIER)
        penalty, score = self.best_penalty(data, train)
        assert outcome.chosen == (penalty,)
        assert outcome.devacc == score
        assert outcome.acc == self.accuracy(data, train, test, penalty)
        assert len(outcome.right) == 40

    def test_fixed_splits(self) -> None:
        data = matrix(120, 6, seed=5)
        train, dev, test = np.split(np.arange(120), [70, 95])
        outcome = fixed_splits(data, train, dev, test, self.CLASSIFIER)
        fits = {
            penalty: one_by_one(data, Group(train=train, dev=dev, penalties=()), penalty, SHORT)
            for penalty in SHORT.penalties
        }
        best = max(SHORT.penalties, key=lambda penalty: round(100 * fits[penalty][0], 2))
        assert outcome.chosen == (best,)
        assert outcome.devacc == round(100 * fits[best][0], 2)

    def test_of_equal_scores_the_smaller_penalty_wins(self) -> None:
        far = Matrix(
            x=np.array([[-50.0], [50.0]] * 15, np.float32), labels=np.array([0, 1] * 15, np.int32), classes=2
        )
        assert set(nested_cross_validation(far, self.CLASSIFIER).chosen) == {min(SHORT.penalties)}

    def test_a_class_too_small_for_the_folds_is_refused(self) -> None:
        data = Matrix(x=np.ones((9, 2), np.float32), labels=np.array([0] * 7 + [1] * 2, np.int32), classes=2)
        with pytest.raises(
            DataError, match="expected 3 or more examples of every class for 3 folds, found a class"
        ):
            nested_cross_validation(data, self.CLASSIFIER)

    @pytest.mark.parametrize("classifier", CLASSIFIERS.values(), ids=lambda classifier: classifier.name)
    def test_as_many_fits_are_announced_as_are_done(self, classifier: Classifier) -> None:
        protocol = replace(classifier.protocol, folds=3, max_passes=4, penalties=(1e-3, 1e-2))
        classifier = replace(classifier, protocol=protocol)
        data, seen = matrix(60, 3), [0]
        rows = np.split(np.arange(60), [30, 45])
        for kind, arguments in (
            (nested_cross_validation, ()),
            (cross_validation_then_test, rows[:2]),
            (fixed_splits, rows),
        ):
            kind(data, *arguments, classifier, seen.append)
            assert seen[-1] == fits_needed(kind, classifier)


class TestConverged:
    def slope(self, data: Matrix, rows: np.ndarray, fit: Fit) -> np.ndarray:
        """Gradient of mean cross-entropy + ½·penalty·‖W‖² by autograd, in float64."""
        weights = torch.tensor(fit.weights, dtype=torch.float64, requires_grad=True)
        bias = torch.tensor(fit.bias, dtype=torch.float64, requires_grad=True)
        x, y = torch.from_numpy(data.x[rows]).double(), torch.from_numpy(data.labels[rows].astype(np.int64))
        loss = torch.nn.functional.cross_entropy(x @ weights.T + bias, y)
        (loss + 0.5 * fit.penalty * weights.square().sum()).backward()
        assert weights.grad is not None
        return weights.grad.numpy()

    @pytest.mark.parametrize("classes", [2, 3])
    def test_nothing_is_left_to_gain(self, classes: int) -> None:
        data = matrix(200, 8, classes)
        rows = np.arange(150)
        (fits,) = solve_groups(data, [Group(train=rows, dev=np.arange(150, 200), penalties=(1e-3, 1e-1))])
        for fit in fits:
            assert np.abs(self.slope(data, rows, fit)).max() < 2e-4
            right = fit.predict(data.x[150:]) == data.labels[150:]
            assert fit.dev_accuracy == right.mean()

    def test_the_final_fit_sees_all_rows(self) -> None:
        data = matrix(100, 4)
        ((fit,),) = solve_groups(data, [Group(train=np.arange(100), dev=None, penalties=(1e-2,))])
        assert fit.dev_accuracy is None
        assert np.abs(self.slope(data, np.arange(100), fit)).max() < 2e-4

    @pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
    def test_a_fit_that_does_not_converge_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(converged, "_MOST_ITERATIONS", 1)
        data = matrix(100, 4)
        with pytest.raises(NumericsError, match="did not converge in 1 iterations at penalty 1e-05"):
            solve_groups(data, [Group(train=np.arange(100), dev=None, penalties=(1e-5,))])
