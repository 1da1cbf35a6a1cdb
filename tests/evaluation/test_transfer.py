"""The transfer tasks: SentEval's files, in SentEval's order, with errors where lines are not theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dalr.errors import DataError, NumericsError
from dalr.evaluation.senteval.selection import CLASSIFIERS
from dalr.evaluation.tasks import TRANSFER_TASKS
from dalr.evaluation.transfer import load_transfer
from senteval import BINARY, EXAMPLES, write_transfer

FAST = CLASSIFIERS["senteval-fast"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_transfer(tmp_path / "senteval")


def problems_of(data: Path, task: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_transfer(data, task)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("task", TRANSFER_TASKS)
def test_every_task_is_read(data: Path, task: str) -> None:
    loaded = load_transfer(data, task)
    splits = {"SST2": 3, "TREC": 2, "MRPC": 2}.get(task, 1)
    classes = 6 if task == "TREC" else 2
    assert len(loaded.splits) == splits
    assert loaded.classes == classes
    for split in loaded.splits:
        assert np.bincount(split.labels).tolist() == [EXAMPLES] * classes
        assert all(len(side) == len(split.labels) for side in split.sentences)
    assert len(loaded.sentences()) == splits * classes * EXAMPLES * (2 if task == "MRPC" else 1)


@pytest.mark.parametrize("task", TRANSFER_TASKS)
def test_examples_are_sorted_by_words_then_class_and_stay_in_file_order_otherwise(data: Path, task: str) -> None:
    for split in load_transfer(data, task).splits:
        keys = [
            (*(len(side.split()) for side in sides), label)
            for *sides, label in zip(*split.sentences, split.labels.tolist(), strict=True)
        ]
        assert keys == sorted(keys)


def test_equal_keys_keep_the_order_of_the_file(data: Path) -> None:
    (split,) = load_transfer(data, "MR").splits
    short = [s for s, label in zip(split.sentences[0], split.labels, strict=True) if label and len(s.split()) == 4]
    assert short == [f"fine film number {n}" for n in range(0, EXAMPLES, 4)]


def test_words_are_joined_by_one_space(data: Path) -> None:
    path = data / "CR" / "custrev.pos"
    path.write_text("  a \t fine   phone \n" + "\n" + path.read_text())
    (split,) = load_transfer(data, "CR").splits
    assert "a fine phone" in split.sentences[0]
    assert split.sentences[0][0] == "", "an empty line is an example, as in CR's own files"


def test_trec_is_latin_1_unless_it_is_utf_8(data: Path) -> None:
    as_it_is = load_transfer(data, "TREC")
    assert any("café" in sentence for sentence in as_it_is.sentences())
    for path in (data / "TREC").iterdir():
        path.write_text(path.read_bytes().decode("latin-1"), encoding="utf-8")
    assert load_transfer(data, "TREC").sentences() == as_it_is.sentences()


class TestRefused:
    def test_files_that_are_missing_come_together(self, data: Path) -> None:
        for name in BINARY["MR"]:
            (data / "MR" / name).unlink()
        assert [problem.rpartition(": ")[2] for problem in problems_of(data, "MR")] == ["no such file"] * 2

    def test_an_empty_file(self, data: Path) -> None:
        (data / "SUBJ" / "subj.objective").write_text("")
        assert problems_of(data, "SUBJ") == [f"{data}/SUBJ/subj.objective: empty file"]

    @pytest.mark.parametrize(
        ("task", "file", "line", "words"),
        [
            ("SST2", "SST/binary/sentiment-dev", "no label", "expected sentence<TAB>0 or 1, found 'no label'"),
            ("SST2", "SST/binary/sentiment-dev", "fine\t2", "expected sentence<TAB>0 or 1, found 'fine\\t2'"),
            ("TREC", "TREC/TREC_10.label", "WHO:x who ?", "expected CLASS:kind question, CLASS one of ABBR"),
            ("TREC", "TREC/TREC_10.label", "HUM", "expected CLASS:kind question"),
            ("MRPC", "MRPC/msr_paraphrase_test.txt", "1\t2\t3\tone side", "separated by tabs; found '1\\t2"),
            ("MRPC", "MRPC/msr_paraphrase_test.txt", "yes\t2\t3\ta\tb", "expected 0 or 1, two ids and two"),
        ],
    )
    def test_a_line_that_is_not_of_the_task(self, data: Path, task: str, file: str, line: str, words: str) -> None:
        path = data / file
        rows = path.read_bytes().count(b"\n")
        path.write_bytes(path.read_bytes() + line.encode() + b"\n")
        [problem] = problems_of(data, task)
        assert problem.startswith(f"{path}:{rows + 1}: ")
        assert words in problem

    def test_mrpc_without_its_header(self, data: Path) -> None:
        path = data / "MRPC" / "msr_paraphrase_train.txt"
        path.write_text("1\t2\t3\ta\tb\n" + path.read_text(encoding="utf-8-sig").partition("\n")[2])
        [problem] = problems_of(data, "MRPC")
        assert "expected the header ('Quality', '#1 ID'" in problem


class TestScores:
    def vectors(self, sentences: list[str]) -> np.ndarray:
        """Whether a sentence has each of some words, and noise."""
        words = ["fine", "drab", "what", "how", "which", "who", "where", "many", "rain", "dog"]
        known = np.array([[word in sentence.split() for word in words] for sentence in sentences], np.float32)
        return known + 0.01 * np.random.default_rng(0).normal(size=known.shape).astype(np.float32)

    @pytest.mark.parametrize("task", TRANSFER_TASKS)
    def test_what_can_be_told_apart_is_told_apart(self, data: Path, task: str) -> None:
        loaded = load_transfer(data, task)
        outcome = loaded.score(self.vectors(loaded.sentences()), FAST)
        assert outcome.acc > 80
        assert outcome.devacc > 80
        assert len(outcome.right) == len(loaded.splits[-1].labels)

    def test_a_pair_is_its_difference_and_its_product(self, data: Path) -> None:
        loaded = load_transfer(data, "MRPC")
        same = np.ones((len(loaded.sentences()), 3), np.float32)
        same[0] = 2  # not constant
        outcome = loaded.score(same, FAST)
        assert outcome.acc == pytest.approx(50, abs=2), "|u − v| and u·v of equal sentences say nothing"

    @pytest.mark.parametrize(
        ("value", "words"), [(np.nan, "embeddings are not finite"), (1.0, "constant embeddings")]
    )
    def test_vectors_without_a_score_name_the_task(self, data: Path, value: float, words: str) -> None:
        loaded = load_transfer(data, "TREC")
        with pytest.raises(NumericsError, match=f"TREC: .*{words}"):
            loaded.score(np.full((len(loaded.sentences()), 3), value, np.float32), FAST)
