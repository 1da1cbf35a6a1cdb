"""Logged values: the mean of a term is over the steps that had it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from dalr.errors import StorageError
from dalr.losses import Losses
from dalr.training.record import MetricsFile, TermMeans


def losses(step: int) -> Losses:
    """One pair step in six; values that fp32 holds exactly."""
    terms = {"infonce": torch.tensor(float(step))}
    if step % 6 == 0:
        terms["grounding"] = torch.tensor(0.5 + step)
    return Losses(total=sum(terms.values(), torch.tensor(0.0)), terms=terms)


def test_a_term_of_one_step_in_six_is_averaged_over_the_steps_that_had_it() -> None:
    means = TermMeans()
    for step in range(60):
        means.add(losses(step))
    loss, terms, counts = means.read()
    pairs = range(0, 60, 6)
    assert counts == {"infonce": 60, "grounding": 10}
    assert terms == {"infonce": sum(range(60)) / 60, "grounding": sum(0.5 + step for step in pairs) / 10}
    assert loss == (sum(range(60)) + sum(0.5 + step for step in pairs)) / 60


def test_reading_starts_anew() -> None:
    means = TermMeans()
    means.add(losses(0))
    means.read()
    means.add(losses(1))
    assert means.read() == (1.0, {"infonce": 1.0}, {"infonce": 1})


def test_nothing_read_is_not_a_number_and_no_zero() -> None:
    loss, terms, counts = TermMeans().read()
    assert math.isnan(loss)
    assert (terms, counts) == ({}, {})


def test_values_keep_no_graph() -> None:
    means = TermMeans()
    value = torch.tensor(1.0, requires_grad=True) * 2
    means.add(Losses(total=value, terms={"infonce": value}))
    assert not any(total.requires_grad for total in means._sums.values())


def test_lines_are_json_and_on_disk_at_once(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("of an earlier run\n")
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write({"step": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    metrics.write({"step": 2})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_folder_that_went_away_is_a_storage_error(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        metrics.write({"step": 1})
