"""Which settings are tried: grids whole, draws that cover their ranges and are the same for every method."""

from __future__ import annotations

from typing import Any

import pytest

from dalr.study.config import MethodConfig, Range, SearchConfig
from dalr.study.search import Setting, problems_of, trials_of


def tried(kind: str, trials: int | None = None, *, seed: int = 0, **space: Any) -> list[Setting]:
    search = SearchConfig.model_validate({"kind": kind, "space": space})
    return trials_of(MethodConfig(recipe="r", search=search), trials, seed=seed)


def test_a_grid_is_every_combination_in_order() -> None:
    assert tried("grid", a=(1, 2), b=("x", "y")) == [
        *({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"})
    ]


def test_a_method_without_a_search_has_no_trials() -> None:
    assert trials_of(MethodConfig(recipe="r"), 8, seed=0) == []


def test_each_piece_of_a_logarithmic_range_is_met_once() -> None:
    values = sorted(setting["lr"] for setting in tried("random", 8, lr=Range(low=1e-5, high=1e-1, log=True)))
    for number, value in enumerate(values):
        assert 0.999 * 10 ** (-5 + number / 2) <= value <= 1.001 * 10 ** (-5 + (number + 1) / 2)


def test_each_piece_of_a_plain_range_is_met_once() -> None:
    values = sorted(setting["x"] for setting in tried("random", 10, x=Range(low=0, high=10)))
    assert [int(value) for value in values] == list(range(10))


def test_whole_numbers_stay_whole_and_within() -> None:
    values = {setting["n"] for setting in tried("random", 4, n=Range(low=2, high=5, integer=True))}
    assert values == {2, 3, 4, 5}


def test_lists_are_drawn_without_repetition() -> None:
    found = tried("random", 6, a=(1, 2, 3), b=(1, 2))
    assert len({tuple(setting.items()) for setting in found}) == 6


def test_two_methods_meet_the_same_values_of_a_key_that_both_search() -> None:
    rates = Range(low=1e-5, high=1e-3, log=True)
    alone = tried("random", 8, lr=rates)
    with_weight = tried("random", 8, weight=Range(low=0, high=1), lr=rates)
    assert [each["lr"] for each in alone] == [each["lr"] for each in with_weight]


def test_the_seed_decides() -> None:
    space = {"x": Range(low=0, high=1)}
    assert tried("random", 4, **space) == tried("random", 4, **space) != tried("random", 4, seed=1, **space)


@pytest.mark.parametrize(
    ("kind", "trials", "space", "words"),
    [
        ("grid", None, {"x": {"low": 0, "high": 1}}, "a range is for kind: random"),
        ("grid", 3, {"x": (1, 2)}, "a grid of 2 combinations, but trials is 3"),
        ("random", 3, {"x": {"low": 1, "high": 1}}, "low 1 is not below high 1"),
        ("random", 3, {"x": {"low": 0, "high": 1, "log": True}}, "starts above 0"),
        ("random", None, {"x": (1, 2)}, "needs a number of trials"),
        ("random", 3, {"x": (1, 2)}, "3 trials, but only 2 combinations"),
        ("random", 3, {"x": {"low": 1, "high": 2, "integer": True}}, "3 trials, but only 2 combinations"),
        ("random", 2, {"x": (1, 1, 2)}, "a list of different values"),
        ("random", 2, {"x": ()}, "a list of different values"),
        ("random", 2, {}, "at least one key"),
    ],
)
def test_a_search_that_cannot_be(kind: str, trials: int | None, space: dict[str, Any], words: str) -> None:
    search = SearchConfig.model_validate({"kind": kind, "space": space})
    [(_, what)] = problems_of(search, trials)
    assert words in what
