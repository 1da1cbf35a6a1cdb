"""Paths of a recipe take environment variables and a home folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalr.data.config import DataConfig
from dalr.errors import ConfigError
from dalr.recipe.paths import expand


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a/b.txt", "a/b.txt"),
        ("$PLACE/b.txt", "/data/b.txt"),
        ("${PLACE}/b.txt", "/data/b.txt"),
        ("${PLACE:-other}/b.txt", "/data/b.txt"),
        ("${ABSENT:-other}/b.txt", "other/b.txt"),
        ("${ABSENT:-}b.txt", "b.txt"),
        ("${EMPTY:-other}/b.txt", "other/b.txt"),
        ("~/b.txt", "/home/me/b.txt"),
        ("price 5$/b.txt", "price 5$/b.txt"),
    ],
)
def test_variables_are_replaced(monkeypatch: pytest.MonkeyPatch, written: str, expected: str) -> None:
    monkeypatch.setenv("PLACE", "/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("ABSENT", raising=False)
    assert expand(written) == Path(expected)


@pytest.mark.parametrize("written", ["$ABSENT/x", "${ABSENT}/x", "${EMPTY}/x"])
def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match=r"environment variable (ABSENT|EMPTY), which is not set"):
        expand(written)


def test_relative_paths_start_at_root_and_absolute_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/data")
    config = DataConfig(root="${PLACE}/flickr")
    assert config.path("train.jsonl") == Path("/data/flickr/train.jsonl")
    assert config.path("/else/train.jsonl") == Path("/else/train.jsonl")
    assert DataConfig().path("train.jsonl") == Path("train.jsonl")
