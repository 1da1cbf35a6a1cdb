"""Logged values: the mean of a term is over the steps that had it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dalr.errors import StorageError
from dalr.losses import Losses
from dalr.training.record import Means, MetricsFile, TermMeans, gradient_shares


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
    found = means.read()
    pairs = range(0, 60, 6)
    assert found.counts == {"infonce": 60, "grounding": 10}
    assert found.terms == {"infonce": sum(range(60)) / 60, "grounding": sum(0.5 + step for step in pairs) / 10}
    assert found.loss == (sum(range(60)) + sum(0.5 + step for step in pairs)) / 60
    assert found.gradient_norms == {}


def test_reading_starts_anew() -> None:
    means = TermMeans()
    means.add(losses(0))
    means.read()
    means.add(losses(1))
    assert means.read() == Means(loss=1.0, terms={"infonce": 1.0}, counts={"infonce": 1}, gradient_norms={})


def test_nothing_read_is_not_a_number_and_no_zero() -> None:
    found = TermMeans().read()
    assert math.isnan(found.loss)
    assert (found.terms, found.counts) == ({}, {})


def test_values_keep_no_graph() -> None:
    means = TermMeans()
    value = torch.tensor(1.0, requires_grad=True) * 2
    means.add(Losses(total=value, terms={"infonce": value}))
    assert not any(total.requires_grad for total in means._sums.values())


def test_gradient_norms_stand_beside_the_terms_and_are_counted_apart() -> None:
    means = TermMeans()
    means.add(replace(losses(0), gradient_norms={"infonce": torch.tensor(3.0), "grounding": torch.tensor(1.0)}))
    assert means.has_gradient_norms
    means.add(losses(1))
    found = means.read()
    assert found.gradient_norms == {"infonce": 3.0, "grounding": 1.0}
    assert found.counts == {"infonce": 2, "grounding": 1}
    assert not means.has_gradient_norms


def test_shares_are_means_over_the_lines_that_were_measured() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "validation": {}},
        {"step": 1, "gradient_norms": {"infonce": 3.0, "grounding": 1.0}},
        {"step": 2, "gradient_norms": {"infonce": 1.0, "grounding": 1.0}},
        {"step": 3, "gradient_norms": {"infonce": 0.0, "grounding": 0.0}},
    ]
    assert gradient_shares(lines) == {"infonce": 0.625, "grounding": 0.375}
    assert gradient_shares([]) == {}


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
