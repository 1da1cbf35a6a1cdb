"""What are the seven transfer tasks? Sentences with classes, in the order of SentEval's protocol.

The order matters to the second decimal, since folds and batches are drawn by position: positives before negatives,
then sorted by (number of words, class), stably. Files are SentEval's `downstream` layout; its text is split at
white space and joined by single spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64

from dalr.errors import DataError, Problem
from dalr.evaluation.metrics import require_usable
from dalr.evaluation.senteval.fitting import Matrix, OnProgress
from dalr.evaluation.senteval.selection import (
    Classifier,
    Outcome,
    cross_validation_then_test,
    fits_needed,
    fixed_splits,
    nested_cross_validation,
)
from dalr.io.text import read_lines

Row = tuple[tuple[str, ...], int]
"""Its sentence, or its two, and its class."""

_TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
_MRPC_HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The examples of one split: one sentence each, or two (MRPC)."""

    sentences: tuple[tuple[str, ...], ...]
    """One tuple of sentences for each side."""
    labels: Int32[np.ndarray, " examples"]


@dataclass(frozen=True, kw_only=True)
class TransferTask:
    """A loaded task: its splits in the order of the protocol, and how its penalty is chosen."""

    name: str
    splits: tuple[Labelled, ...]
    classes: int
    kind: Callable[..., Outcome]

    def sentences(self) -> list[str]:
        return [sentence for split in self.splits for side in split.sentences for sentence in side]

    def fits(self, classifier: Classifier) -> int:
        """How many fits `score` will report as progress."""
        return fits_needed(self.kind, classifier)

    def split_name(self, classifier: Classifier) -> str:
        """What `acc` is measured on."""
        if self.kind is nested_cross_validation:
            return f"{classifier.protocol.folds}-fold cross-validation"
        return "test"

    def score(
        self,
        vectors: Float32[np.ndarray, "sentences dim"],
        classifier: Classifier,
        progress: OnProgress | None = None,
    ) -> Outcome:
        """Accuracy of `classifier` on `vectors`, those of `sentences()`.

        Raises:
            NumericsError: vectors that are not finite or all the same, or a solver that does not converge.
            DataError: too few examples of a class.
        """
        require_usable(vectors, self.name)
        features, start = [], 0
        for split in self.splits:
            count = len(split.labels)
            sides = [vectors[start + k * count : start + (k + 1) * count] for k in range(len(split.sentences))]
            features.append(_features(sides))
            start += count * len(split.sentences)
        matrix = Matrix(
            x=np.ascontiguousarray(np.concatenate(features), dtype=np.float32),
            labels=np.concatenate([split.labels for split in self.splits]),
            classes=self.classes,
        )
        if self.kind is nested_cross_validation:
            return nested_cross_validation(matrix, classifier, progress)
        return self.kind(matrix, *self._rows(), classifier, progress)

    def _rows(self) -> list[Int64[np.ndarray, " n"]]:
        borders = np.cumsum([0, *(len(split.labels) for split in self.splits)])
        return [np.arange(first, last) for first, last in pairwise(borders)]


def load_transfer(data: Path, task: str) -> TransferTask:
    """One of `TRANSFER_TASKS` under a SentEval folder.

    Raises:
        DataError: files missing, or lines that are not what the task's files hold.
    """
    return _LOADERS[task](data, task)


def _features(sides: Sequence[Float32[np.ndarray, "n dim"]]) -> Float32[np.ndarray, "n features"]:
    """The vector of a sentence; |u − v| and u·v of a pair."""
    if len(sides) == 1:
        return sides[0]
    u, v = sides
    pair: np.ndarray = np.concatenate([np.abs(u - v), u * v], axis=1)
    return pair


def _binary(folder: str, positive: str, negative: str) -> Callable[[Path, str], TransferTask]:
    def load(data: Path, task: str) -> TransferTask:
        problems: list[Problem] = []
        rows: list[Row] = []
        for label, name in ((1, positive), (0, negative)):
            path = data / folder / name
            rows += [((_words(line),), label) for _, line in _lines(path, problems)]
        return _task(task, [rows], 2, nested_cross_validation, problems)

    return load


def _load_sst2(data: Path, task: str) -> TransferTask:
    problems: list[Problem] = []
    splits: list[list[Row]] = []
    for name in ("train", "dev", "test"):
        rows: list[Row] = []
        for where, line in _lines(data / "SST" / "binary" / f"sentiment-{name}", problems):
            sentence, tab, label = line.rstrip().rpartition("\t")
            if not tab or label not in ("0", "1"):
                problems.append(Problem(where=where, what=f"expected sentence<TAB>0 or 1, found {line!r:.80}"))
                continue
            rows.append(((_words(sentence),), int(label)))
        splits.append(rows)
    return _task(task, splits, 2, fixed_splits, problems)


def _load_trec(data: Path, task: str) -> TransferTask:
    problems: list[Problem] = []
    splits: list[list[Row]] = []
    for name in ("train_5500.label", "TREC_10.label"):
        rows: list[Row] = []
        for where, line in _lines(data / "TREC" / name, problems, else_latin_1=True):
            label, colon, rest = line.strip().partition(":")
            _fine, space, question = rest.partition(" ")
            if not colon or not space or label not in _TREC_CLASSES:
                what = f"expected CLASS:kind question, CLASS one of {', '.join(_TREC_CLASSES)}, found {line!r:.80}"
                problems.append(Problem(where=where, what=what))
                continue
            rows.append(((_words(question),), _TREC_CLASSES.index(label)))
        splits.append(rows)
    return _task(task, splits, len(_TREC_CLASSES), cross_validation_then_test, problems)


def _load_mrpc(data: Path, task: str) -> TransferTask:
    problems: list[Problem] = []
    splits: list[list[Row]] = []
    for name in ("train", "test"):
        path = data / "MRPC" / f"msr_paraphrase_{name}.txt"
        lines = _lines(path, problems)
        if lines and tuple(lines[0][1].split("\t")) != _MRPC_HEADER:
            found = lines[0][1].split("\t")
            problems.append(Problem(where=lines[0][0], what=f"expected the header {_MRPC_HEADER}, found {found}"))
        rows: list[Row] = []
        for where, line in lines[1:]:
            columns = line.strip().split("\t")
            if len(columns) != 5 or columns[0] not in ("0", "1"):
                what = f"expected 0 or 1, two ids and two sentences, separated by tabs; found {line!r:.80}"
                problems.append(Problem(where=where, what=what))
                continue
            sides = (_words(columns[3]), _words(columns[4]))
            rows.append((sides, int(columns[0])))
        splits.append(rows)
    return _task(task, splits, 2, cross_validation_then_test, problems)


_LOADERS: dict[str, Callable[[Path, str], TransferTask]] = {
    "MR": _binary("MR", "rt-polarity.pos", "rt-polarity.neg"),
    "CR": _binary("CR", "custrev.pos", "custrev.neg"),
    "SUBJ": _binary("SUBJ", "subj.objective", "subj.subjective"),
    "MPQA": _binary("MPQA", "mpqa.pos", "mpqa.neg"),
    "SST2": _load_sst2,
    "TREC": _load_trec,
    "MRPC": _load_mrpc,
}


def _lines(path: Path, problems: list[Problem], *, else_latin_1: bool = False) -> list[tuple[str, str]]:
    """(file:line, text) of each line; a file that cannot be read is a problem."""
    try:
        lines = read_lines(path, else_latin_1=else_latin_1)
    except DataError as error:
        problems.extend(error.problems)
        return []
    if not lines:
        problems.append(Problem(where=str(path), what="empty file"))
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, start=1)]


def _words(text: str) -> str:
    """The words, one space apart. CR's own files have four lines without any; the protocol keeps them."""
    return " ".join(text.split())


def _task(
    name: str,
    splits: Sequence[list[Row]],
    classes: int,
    kind: Callable[..., Outcome],
    problems: list[Problem],
) -> TransferTask:
    if problems:
        raise DataError(problems)
    ordered = [sorted(rows, key=lambda row: (*(len(side.split()) for side in row[0]), row[1])) for rows in splits]
    return TransferTask(
        name=name,
        splits=tuple(
            Labelled(
                sentences=tuple(zip(*(sides for sides, _ in rows), strict=True)),
                labels=np.array([label for _, label in rows], dtype=np.int32),
            )
            for rows in ordered
        ),
        classes=classes,
        kind=kind,
    )
