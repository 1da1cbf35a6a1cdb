"""Readers of the STS files: SentEval's layout, rows without gold dropped, everything else an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dalr.errors import DataError, NumericsError
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import ScoredPairs, load_scored_tsv, load_sts
from dalr.evaluation.tasks import STS_DEV, STS_TASKS
from senteval import SUBSETS, write_senteval


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_senteval(tmp_path / "senteval")


def refused(read: Callable[[], object]) -> list[str]:
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.exit_code == 3
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("task", [*STS_TASKS, STS_DEV])
def test_every_task_is_read(data: Path, task: str) -> None:
    pairs = load_sts(data, task)
    subsets = len(SUBSETS.get(task, ["one"]))
    assert pairs.name == task
    assert len(pairs.first) == len(pairs.second) == len(pairs.gold) == 6 * subsets
    assert pairs.sentences() == [*pairs.first, *pairs.second]
    assert np.isfinite(pairs.gold).all()


def test_a_year_is_its_subsets_in_their_order(data: Path) -> None:
    pairs = load_sts(data, "STS13")
    assert [sentence.split()[0] for sentence in pairs.first] == ["FNWN"] * 6 + ["headlines"] * 6 + ["OnWN"] * 6
    assert pairs.gold[:3].tolist() == [0.0, 0.75, 1.5]


def test_rows_without_gold_are_dropped_with_their_sentences(data: Path) -> None:
    folder = data / "STS" / "STS16-en-test"
    (folder / "STS.gs.plagiarism.txt").write_text("1.5\n\n \n2.5\n\n3.5\n")
    pairs = load_sts(data, "STS16")
    kept = [(s, g) for s, g in zip(pairs.first, pairs.gold, strict=True) if s.startswith("plagiarism")]
    assert [sentence.split()[2] for sentence, _ in kept] == ["0", "3", "5"]
    assert [gold for _, gold in kept] == [1.5, 2.5, 3.5]
    assert len(pairs.gold) == 6 * len(SUBSETS["STS16"]) - 3


def test_a_count_that_differs_is_refused_with_both_numbers(data: Path) -> None:
    (data / "STS" / "STS14-en-test" / "STS.gs.images.txt").write_text("1\n2\n3\n")
    [problem] = refused(lambda: load_sts(data, "STS14"))
    assert "STS.input.images.txt: 6 sentence pairs, but STS.gs.images.txt has 3 scores" in problem


def test_missing_files_of_a_year_come_together(data: Path) -> None:
    folder = data / "STS" / "STS12-en-test"
    (folder / "STS.gs.MSRpar.txt").unlink()
    (folder / "STS.input.MSRvid.txt").unlink()
    problems = refused(lambda: load_sts(data, "STS12"))
    assert problems == [
        f"{folder / 'STS.gs.MSRpar.txt'}: no such file",
        f"{folder / 'STS.input.MSRvid.txt'}: no such file",
    ]


@pytest.mark.parametrize("task", [*STS_TASKS, STS_DEV])
def test_an_empty_folder_is_refused(tmp_path: Path, task: str) -> None:
    assert all("no such file" in problem for problem in refused(lambda: load_sts(tmp_path, task)))


@pytest.mark.parametrize("score", ["high", "nan", "inf", "1,5", "--"])
def test_a_bad_score_is_named_with_its_place(data: Path, score: str) -> None:
    path = data / "STS" / "STS15-en-test" / "STS.gs.belief.txt"
    path.write_text(f"1\n2\n{score}\n4\n5\n0\n")
    [problem] = refused(lambda: load_sts(data, "STS15"))
    assert problem == f"{path}:3: expected a score, found {score!r}"


def test_a_row_without_its_second_sentence_is_named(data: Path) -> None:
    path = data / "STS" / "STS15-en-test" / "STS.input.belief.txt"
    path.write_text("a\tb\nonly one\nc\td\te\n")
    [problem] = refused(lambda: load_sts(data, "STS15"))
    assert problem == f"{path}:2: expected 2 or more tab-separated columns, found 1"


def test_bytes_that_are_not_utf8_are_located(data: Path) -> None:
    path = data / "STS" / "STS15-en-test" / "STS.input.belief.txt"
    path.write_bytes(b"a\tb\nc\tcaf\xe9\n")
    [problem] = refused(lambda: load_sts(data, "STS15"))
    assert problem.startswith(f"{path}:2: byte 6 is 0xe9")


def test_a_line_separator_inside_a_sentence_shifts_nothing(data: Path) -> None:
    path = data / "STS" / "STS15-en-test" / "STS.input.belief.txt"
    path.write_text("".join(f"belief a\u2028 {n}\tbelief b\u0085 {n}\r\n" for n in range(6)), newline="")
    pairs = load_sts(data, "STS15")
    assert "belief a\u2028 3" in pairs.first
    assert "belief b\u0085 3" in pairs.second


def test_the_header_of_sick_is_required(data: Path) -> None:
    path = data / "SICK" / "SICK_test_annotated.txt"
    rows = path.read_text().split("\n")
    path.write_text("\n".join(rows[1:]))
    [problem] = refused(lambda: load_sts(data, "SICK-R"))
    assert f"{path}:1: expected SICK's header" in problem
    path.write_text("")
    assert refused(lambda: load_sts(data, "SICK-R")) == [f"{path}: empty file"]


def test_sts_benchmark_takes_columns_five_to_seven_and_allows_more(data: Path) -> None:
    path = data / "STS" / "STSBenchmark" / "sts-dev.csv"
    path.write_text('g\tf\ty\t1\t2.5\tsays "hello\tb, c\textra\textra\ng\tf\ty\t2\t0\td\te\n')
    pairs = load_sts(data, "sts-b-dev")
    assert pairs.first == ('says "hello', "d")
    assert pairs.second == ("b, c", "e")
    assert pairs.gold.tolist() == [2.5, 0.0]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_own_file_is_score_sentence_sentence(tmp_path: Path) -> None:
    pairs = load_scored_tsv(write(tmp_path / "dev.tsv", "4.5\ta dog\ta hound\n-1\tone\ttwo\n"))
    assert (pairs.name, pairs.first, pairs.second) == ("dev.tsv", ("a dog", "one"), ("a hound", "two"))
    assert pairs.gold.tolist() == [4.5, -1.0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "dev.tsv: empty file"),
        ("1\ta\n", "dev.tsv:1: expected 3 tab-separated columns, found 2"),
        ("1\ta\tb\tc\n", "dev.tsv:1: expected 3 tab-separated columns, found 4"),
        ("1\ta\tb\n\n", "dev.tsv:2: expected 3 tab-separated columns, found 1"),
        ("score\ta\tb\n1\ta\tb\n", "dev.tsv:1: expected a score, found 'score'"),
        ("\ta\tb\n", "dev.tsv:1: expected a score, found ''"),
    ],
)
def test_a_malformed_own_file_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "dev.tsv", text)
    assert refused(lambda: load_scored_tsv(path)) == [f"{tmp_path}/{problem}"]


def pairs_of(gold: list[float]) -> ScoredPairs:
    names = tuple(str(number) for number in range(len(gold)))
    return ScoredPairs(
        name="mine",
        split="own",
        first=names,
        second=names,
        gold=np.asarray(gold, np.float64),
        subset_sizes={"mine": len(gold)},
    )


def test_the_score_is_spearman_of_cosine_and_gold_times_100() -> None:
    angles = np.array([0.1, 0.5, 1.0, 1.5])
    first = np.stack([np.ones(4), np.zeros(4)], axis=1).astype(np.float32)
    second = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    vectors = np.concatenate([first, 5 * second])
    assert score_pairs(pairs_of([4.0, 3.0, 2.0, 1.0]), vectors) == pytest.approx(100)
    assert score_pairs(pairs_of([4.0, 3.0, 1.0, 2.0]), vectors) == pytest.approx(80)


@pytest.mark.parametrize("gold", [[3.0, 3.0, 3.0], [3.0]])
def test_gold_scores_that_are_all_equal_give_no_score(gold: list[float]) -> None:
    vectors = np.random.default_rng(0).normal(size=(2 * len(gold), 4)).astype(np.float32)
    with pytest.raises(NumericsError, match="mine"):
        score_pairs(pairs_of(gold), vectors)


def test_cosines_that_are_all_equal_give_no_score() -> None:
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(NumericsError, match="mine"):
        score_pairs(pairs_of([1.0, 2.0, 3.0]), np.concatenate([vectors, vectors]))


def test_all_that_is_wrong_with_a_year_comes_together(data: Path) -> None:
    """Counts, columns, scores and bytes, in several files."""
    folder = data / "STS" / "STS12-en-test"
    gold, inputs = folder / "STS.gs.MSRpar.txt", folder / "STS.input.MSRvid.txt"
    gold.write_text("x\n" + gold.read_text().split("\n", 1)[1])
    inputs.write_text("alone\n" + inputs.read_text().split("\n", 1)[1])
    (folder / "STS.gs.SMTeuroparl.txt").write_text("1\n")
    (folder / "STS.gs.surprise.OnWN.txt").unlink()
    (folder / "STS.input.surprise.SMTnews.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError) as refused:
        load_sts(data, "STS12")
    said = str(refused.value)
    for expected in (
        f"{gold}:1: expected a score",
        f"{inputs}:1: expected 2 or more tab-separated columns",
        "STS.gs.SMTeuroparl.txt has 1 scores",
        "STS.gs.surprise.OnWN.txt: no such file",
        "STS.input.surprise.SMTnews.txt:1: byte 1 is 0xff",
    ):
        assert expected in said, said


def test_a_row_and_a_score_of_an_own_file_come_together(tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("x\ta\tb\n1\talone\n2\ta\tb\n")
    with pytest.raises(DataError, match=r"own\.tsv:2: expected 3 tab") as refused:
        load_scored_tsv(tmp_path / "own.tsv")
    assert "own.tsv:1: expected a score" in str(refused.value)
