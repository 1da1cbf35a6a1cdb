"""One's own graded pairs: files averaged by group, as a validation score and as tasks of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dalr
from dalr.errors import ConfigError, DataError
from dalr.evaluation.bootstrap import compare
from dalr.evaluation.graded import check_task_name, group_means, load_graded_pairs, pairs_sha256
from dalr.evaluation.metrics import spearman
from dalr.evaluation.request import Request
from dalr.evaluation.results import Details, Evaluation
from dalr.evaluation.run import load
from dalr.evaluation.similarity import Seen, pair_cosines, score_pairs, score_sts
from dalr.evaluation.sts import ScoredPairs
from dalr.evaluation.table import as_table
from dalr.io.console import Console
from tiny import Outcome, Toys

Cli = Callable[..., Outcome]
QUIET = Console(quiet=True)
FILES = {"jargon/reports": 8, "jargon/tickets": 12, "everyday": 9}


def write(folder: Path, files: dict[str, int] | None = None, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for name, count in (files or FILES).items():
        path = folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        word = name.rpartition("/")[2]
        rows = [f"{random.uniform(0, 5):.2f}\t{word} dog {n}\t{word} cat {n}\n" for n in range(count)]
        path.write_text("".join(rows))
    return folder


def vectors(pairs: ScoredPairs, seed: int = 0) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(seed).normal(size=(2 * len(pairs.gold), 6)).astype(np.float32)
    return found


def naive(pairs: ScoredPairs, cosine: np.ndarray) -> dict[str, float]:
    return {name: 100 * spearman(cosine[rows], pairs.gold[rows]) for name, rows in pairs.subset_rows().items()}


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (write(tmp_path) / "notes.txt").write_text("not pairs")
    (tmp_path / "jargon" / ".hidden.tsv").write_text("nothing")
    pairs = load_graded_pairs(tmp_path, "own words")
    assert (pairs.name, pairs.split, pairs.aggregation) == ("own words", "own", "groups")
    assert dict(pairs.subset_sizes) == {"everyday": 9, "jargon/reports": 8, "jargon/tickets": 12}
    assert pairs.first[9] == "reports dog 0"


def test_a_file_is_one_correlation_over_its_pairs(tmp_path: Path) -> None:
    write(tmp_path)
    pairs = load_graded_pairs(tmp_path / "everyday.tsv", "everyday words")
    assert (pairs.name, pairs.aggregation) == ("everyday words", "all")
    assert dict(pairs.subset_sizes) == {"everyday words": 9}
    assert load_graded_pairs(tmp_path / "everyday.tsv").name == "everyday.tsv"


def test_the_score_of_a_folder_is_the_mean_of_the_means_of_its_groups(tmp_path: Path) -> None:
    pairs = load_graded_pairs(write(tmp_path))
    h = vectors(pairs)
    files = naive(pairs, pair_cosines(pairs, h))
    jargon = (files["jargon/reports"] + files["jargon/tickets"]) / 2
    wanted = (jargon + files["everyday"]) / 2
    assert score_pairs(pairs, h) == pytest.approx(wanted, rel=1e-12)
    result, details = score_sts(pairs, h)
    assert result.spearman == pytest.approx(wanted, rel=1e-12)
    assert result.aggregation == details.aggregation == "groups"
    assert {name: each.spearman for name, each in result.groups.items()} == pytest.approx(
        {"everyday": files["everyday"], "jargon": jargon}
    )
    assert {name: each.spearman for name, each in result.subsets.items()} == pytest.approx(files)
    assert result.interval[0] < result.spearman < result.interval[1]


def test_groups_count_alike_however_many_files_they_have() -> None:
    assert group_means({"a/1": 10.0, "a/2": 20.0, "b": 40.0}) == {"a": 15.0, "b": 40.0}


def test_pairs_with_training_sentences_are_left_out_file_by_file(tmp_path: Path) -> None:
    pairs = load_graded_pairs(write(tmp_path))
    h = vectors(pairs)
    exact = np.zeros(len(pairs.gold), dtype=np.bool_)
    exact[0:8] = True  # one pair of everyday is left, which has no correlation
    exact[10] = True
    result, _ = score_sts(pairs, h, Seen(exact=exact, near=np.zeros_like(exact)))
    keep = ~exact
    cosine = pair_cosines(pairs, h)
    files = [100 * spearman(cosine[rows][keep[rows]], pairs.gold[rows][keep[rows]]) for rows in (
        pairs.subset_rows()["jargon/reports"], pairs.subset_rows()["jargon/tickets"]
    )]  # fmt: skip
    assert result.without_overlap is not None
    assert result.without_overlap.spearman == pytest.approx(np.mean(files), rel=1e-12)
    assert set(result.without_overlap.subsets) == {"jargon/reports", "jargon/tickets"}


def scored(pairs: ScoredPairs, seed: int) -> Evaluation:
    result, details = score_sts(pairs, vectors(pairs, seed))
    return Evaluation(
        model=f"model {seed}",
        created="2026-11-25T00:00:00+00:00",
        dalr="test",
        tasks={pairs.name: result},
        sts_avg=None,
        transfer_avg=None,
        transfer_devavg=None,
        details=Details(sts={pairs.name: details}),
    )


def test_two_models_are_compared_on_the_averaged_score(tmp_path: Path) -> None:
    pairs = load_graded_pairs(write(tmp_path), "own")
    a, b = scored(pairs, 1), scored(pairs, 2)
    [found] = compare((a, b))
    assert found.task == "own"
    assert found.difference == pytest.approx(a.tasks["own"].spearman - b.tasks["own"].spearman)  # type: ignore[union-attr]
    assert found.interval[0] < found.difference < found.interval[1]


def test_other_files_with_the_same_scores_are_not_resampled_together(tmp_path: Path) -> None:
    pairs = load_graded_pairs(write(tmp_path), "own")
    moved = replace(pairs, subset_sizes={"everyday": 9, "jargon/reports": 12, "jargon/tickets": 8})
    assert compare((scored(pairs, 1), scored(moved, 2))) == []
    assert pairs_sha256(pairs) != pairs_sha256(moved)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected files of score, sentence, sentence"):
        load_graded_pairs(tmp_path)
    with pytest.raises(DataError):
        load_graded_pairs(tmp_path / "nothing")


def test_every_bad_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "jargon" / "reports.tsv").write_text("high\ta\tb\n1\tc\td\n")
    (tmp_path / "everyday.tsv").write_text("1\ta\n")
    with pytest.raises(DataError) as refused:
        load_graded_pairs(tmp_path)
    places = [problem.where for problem in refused.value.problems]
    assert [Path(place.rpartition(":")[0]).name for place in places] == ["everyday.tsv", "reports.tsv"]


@pytest.mark.parametrize("name", ["sts", "STS-B", "sts-b-dev", "retrieval", "", "a/b", "-x", "x" * 65])
def test_names_that_say_something_else_are_refused(name: str, tmp_path: Path) -> None:
    assert check_task_name(name) is not None
    request = Request(tasks=(), graded_pairs={name: tmp_path}, console=QUIET)
    with pytest.raises(ConfigError, match="graded-pairs"):
        load(request)


def test_training_chooses_weights_by_a_folder(toys: Toys, tmp_path: Path) -> None:
    folder = write(tmp_path / "validation")
    recipe = toys.recipe(tmp_path, validation={"kind": "tsv", "data": str(folder), "every": 2})
    result = dalr.train(recipe, out=tmp_path / "run", console=QUIET)
    assert result.validation == "validation Spearman"
    pairs = load_graded_pairs(folder)
    evaluated = dalr.evaluate(tmp_path / "run", tasks=(), graded_pairs={"own": folder}, console=QUIET)
    assert result.best_score == pytest.approx(evaluated.tasks["own"].spearman, abs=1e-3)  # type: ignore[union-attr]
    assert evaluated.tasks["own"].pairs_sha256 == pairs_sha256(pairs)  # type: ignore[union-attr]
    table = as_table([evaluated])
    assert "Spearman, mean of groups, own" in table
    assert "Spearman, jargon" in table


def test_the_command_line_takes_several(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    folder = write(tmp_path / "pairs")
    outcome = cli(
        *("evaluate", toys.student, "--pooling", "mean", "--json", tmp_path / "scores.json"),
        *("--graded-pairs", f"both={folder}", "--graded-pairs", f"jargon alone={folder / 'jargon'}"),
    )
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "scores.json").read_text())
    assert list(found["tasks"]) == ["both", "jargon alone"]
    assert set(found["tasks"]["both"]["groups"]) == {"everyday", "jargon"}
    assert set(found["tasks"]["jargon alone"]["groups"]) == {"reports", "tickets"}


def test_what_cannot_be_read_fails_by_itself(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    folder = write(tmp_path / "pairs")
    given = ("--graded-pairs", f"own={folder}", "--graded-pairs", f"lost={tmp_path / 'nothing'}")
    outcome = cli("evaluate", toys.student, "--pooling", "mean", *given)
    assert outcome.code == 3
    assert "mean of groups" in outcome.out
    assert "lost" in outcome.err
    outcome = cli("evaluate", toys.student, "--graded-pairs", "folder")
    assert outcome.code == 2
    assert "expected NAME=PATH" in outcome.err
