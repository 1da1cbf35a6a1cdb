"""The published scores that come with dalr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dalr.evaluation.published import AVERAGE, load_published
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS


def test_the_rows_are_those_that_were_collected(shared: Path) -> None:
    collected = json.loads((shared / "published.json").read_text(encoding="utf-8"))["rows"]
    assert [row.model_dump(exclude_none=True) for row in load_published().rows] == collected


def test_every_row_has_a_source_and_known_tasks() -> None:
    known = {"sts": {*STS_TASKS, AVERAGE}, "transfer": {*TRANSFER_TASKS, AVERAGE}}
    for row in load_published().rows:
        assert row.source
        if row.table in known:
            assert set(row.scores) <= known[row.table]


@pytest.mark.parametrize("table", ["sts", "transfer"])
def test_averages_are_means_of_the_seven_as_far_as_rounding_allows(table: str) -> None:
    for row in load_published().rows:
        if row.table == table and AVERAGE in row.scores:
            tasks = [score for name, score in row.scores.items() if name != AVERAGE]
            assert len(tasks) == 7
            assert sum(tasks) / 7 == pytest.approx(row.scores[AVERAGE], abs=0.11), (row.method, row.setting)


def test_figures_keep_the_decimals_of_their_source() -> None:
    found = {(row.method, row.setting): row.decimals for row in load_published().of("sts")}
    assert found["DALR", "bert-base-uncased, wiki+flickr"] == 1
    assert found["RankCSE ListMLE", "bert-base-uncased, wiki"] == 2
