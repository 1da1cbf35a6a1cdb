"""Which pairs do the STS tasks hold? As SentEval and SimCSE read them, subsets concatenated ("all").

The files are SentEval's `downstream` layout. Rows without a gold score are dropped (STS15 and STS16 have many);
everything else that is out of order is an error, because a shifted line changes a score without a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from dalr.errors import DataError, Problem
from dalr.io.text import read_lines

Embed = Callable[[list[str]], np.ndarray]
"""Sentences to their vectors, row for row."""

Aggregation = Literal["all", "groups"]
"""`all`: the pairs of all subsets together. `groups`: the mean over groups of files (`evaluation/graded.py`)."""

_SUBSETS: Mapping[str, tuple[str, ...]] = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """Sentence pairs with gold similarity, subset after subset."""

    name: str
    split: str
    """`test` or `dev`, or `own` for a user's file."""
    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: Float64[np.ndarray, " pairs"]
    subset_sizes: Mapping[str, int]
    """Pairs of each subset, in order; a task without subsets is its own only one."""
    aggregation: Aggregation = "all"

    def sentences(self) -> list[str]:
        return [*self.first, *self.second]

    def subset_rows(self) -> dict[str, slice]:
        """Subset -> the rows of its pairs."""
        ends = np.cumsum(list(self.subset_sizes.values())).tolist()
        return {
            name: slice(end - size, end) for (name, size), end in zip(self.subset_sizes.items(), ends, strict=True)
        }


def load_sts(data: Path, task: str) -> ScoredPairs:
    """The pairs of one of `STS_TASKS` (or the validation set) under a SentEval folder.

    Raises:
        DataError: files missing, or lines that do not fit together.
    """
    if task in _SUBSETS:
        return _load_year(data / "STS" / f"{task}-en-test", task)
    if task == "SICK-R":
        return _load_sick(data, task)
    return _load_sts_benchmark(data, {"STS-B": "test", "sts-b-dev": "dev"}[task], task)


def load_scored_tsv(path: Path) -> ScoredPairs:
    """A user's own file: score, sentence, sentence, separated by tabs, without a header."""
    rows = _tab_rows(path, columns=3, at_least=False)
    return _pairs(
        path.name, path, [(f"{path}:{number}", row[0], row[1], row[2]) for number, row in rows], split="own"
    )


def _load_year(folder: Path, task: str) -> ScoredPairs:
    rows: dict[str, list[tuple[str, str, str, str]]] = {}
    problems: list[Problem] = []
    for subset in _SUBSETS[task]:
        try:
            rows[subset] = _load_subset(folder, subset)
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(problems)
    sizes = {subset: len(found) for subset, found in rows.items()}
    return _pairs(task, folder, [row for found in rows.values() for row in found], subset_sizes=sizes)


def _load_subset(folder: Path, subset: str) -> list[tuple[str, str, str, str]]:
    inputs = folder / f"STS.input.{subset}.txt"
    gold_file = folder / f"STS.gs.{subset}.txt"
    gold = read_lines(gold_file)
    sentences = _tab_rows(inputs, columns=2, at_least=True)
    if len(sentences) != len(gold):
        what = f"{len(sentences)} sentence pairs, but {gold_file.name} has {len(gold)} scores"
        raise DataError(Problem(where=str(inputs), what=what))
    return [
        (f"{gold_file}:{number}", score, row[0], row[1])
        for score, (number, row) in zip(gold, sentences, strict=True)
        if score.strip()
    ]


def _load_sts_benchmark(data: Path, split: str, task: str) -> ScoredPairs:
    path = data / "STS" / "STSBenchmark" / f"sts-{split}.csv"
    rows = _tab_rows(path, columns=7, at_least=True)
    return _pairs(task, path, [(f"{path}:{number}", row[4], row[5], row[6]) for number, row in rows], split=split)


def _load_sick(data: Path, task: str) -> ScoredPairs:
    path = data / "SICK" / "SICK_test_annotated.txt"
    header, *rows = _tab_rows(path, columns=5, at_least=True)
    if header[1][:4] != ["pair_ID", "sentence_A", "sentence_B", "relatedness_score"]:
        raise DataError(Problem(where=f"{path}:1", what=f"expected SICK's header, found {header[1][:4]}"))
    return _pairs(task, path, [(f"{path}:{number}", row[3], row[1], row[2]) for number, row in rows])


def _tab_rows(path: Path, *, columns: int, at_least: bool) -> list[tuple[int, list[str]]]:
    rows = [(number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1)]
    problems = [
        Problem(
            where=f"{path}:{number}",
            what=f"expected {columns}{' or more' if at_least else ''} tab-separated columns, found {len(row)}",
        )
        for number, row in rows
        if len(row) < columns or (len(row) > columns and not at_least)
    ]
    if problems:
        raise DataError(problems)
    if not rows:
        raise DataError(Problem(where=str(path), what="empty file"))
    return rows


def _pairs(
    name: str,
    place: Path,
    rows: list[tuple[str, str, str, str]],
    *,
    split: str = "test",
    subset_sizes: Mapping[str, int] | None = None,
) -> ScoredPairs:
    gold: list[float] = []
    problems: list[Problem] = []
    for where, score, _, _ in rows:
        try:
            value = float(score)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            problems.append(Problem(where=where, what=f"expected a score, found {score!r}"))
        gold.append(value)
    if not problems and len(set(gold)) < 2:
        what = "all gold scores are equal, or there is only one pair: no correlation can be computed"
        problems.append(Problem(where=str(place), what=what))
    if problems:
        raise DataError(problems)
    return ScoredPairs(
        name=name,
        first=tuple(row[2] for row in rows),
        second=tuple(row[3] for row in rows),
        gold=np.asarray(gold, dtype=np.float64),
        split=split,
        subset_sizes=subset_sizes if subset_sizes is not None else {name: len(rows)},
    )
