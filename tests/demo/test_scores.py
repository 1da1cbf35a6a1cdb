"""The demo says who is ahead, whoever it is."""

from __future__ import annotations

import numpy as np
import pytest

from dalr.demo.scores import Row, verdict
from dalr.evaluation.results import Recall
from dalr.evaluation.retrieval import RetrievalScore


def recall(value: float) -> RetrievalScore:
    recall = Recall(r1=value, r5=value, r10=value, median_rank=1.0)
    ranks = np.zeros(1, dtype=np.int64)
    return RetrievalScore(text_to_image=recall, image_to_text=recall, text_ranks=ranks, image_ranks=ranks)


def rows(*, dalr: float, mcse: float, dalr_recall: float, mcse_recall: float) -> list[Row]:
    return [
        Row(name="untrained student", dev=1.0, test=99.0, retrieval=recall(99.0)),
        Row(name="simcse", dev=1.0, test=10.0),
        Row(name="mcse", dev=1.0, test=mcse, retrieval=recall(mcse_recall)),
        Row(name="dalr", dev=1.0, test=dalr, retrieval=recall(dalr_recall)),
    ]


@pytest.mark.parametrize(
    ("dalr", "mcse", "says"),
    [
        (70.0, 60.0, "DALR is ahead: 70.0, 10.0 above MCSE"),
        (60.0, 70.5, "DALR does not win: MCSE is ahead with 70.5, DALR has 60.0"),
        (70.01, 70.0, "DALR and MCSE are level at 70.0"),
    ],
)
def test_both_tasks_are_judged_among_the_methods_alone(dalr: float, mcse: float, says: str) -> None:
    pairs = verdict(rows(dalr=dalr, mcse=mcse, dalr_recall=1.0, mcse_recall=2.0)).split("On retrieval")
    assert says in pairs[0]
    assert "DALR does not win" in pairs[1]
    retrieval = verdict(rows(dalr=1.0, mcse=2.0, dalr_recall=dalr, mcse_recall=mcse)).split("On retrieval")
    assert says in retrieval[1]
