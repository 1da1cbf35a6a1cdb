"""Your own graded pairs: a file of score, sentence, sentence, or a folder of such files whose scores are averaged.

Scores of different files stand on different scales and ask different questions, so their pairs are never put
together: each file has a correlation of its own, a group of files has the mean of these, and the folder the mean of
its groups. A subfolder is a group; a file that lies in the folder itself is a group of its own.

    validation/                     mean of two groups
        jargon/reports.tsv          group jargon: mean of two files
        jargon/tickets.tsv
        everyday.tsv                group everyday
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from dalr.data.rows import sentences_sha256
from dalr.errors import Attempts, DataError, Problem
from dalr.evaluation.sts import ScoredPairs, load_scored_tsv
from dalr.evaluation.tasks import GROUPS, TASKS
from dalr.io.paths import entries, is_dir, is_file

_ENDING = ".tsv"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")


def check_task_name(name: str) -> str | None:
    """What is wrong with a name for graded pairs among the tasks of an evaluation; None if nothing is."""
    if not _NAME.fullmatch(name):
        expected = "up to 64 letters, digits, spaces and . _ + -, starting with a letter or digit"
        return f"expected {expected}, found {name!r}"
    if name.casefold() in {known.casefold() for known in (*TASKS, *GROUPS)}:
        return f"{name!r} is a task of its own; choose another name"
    return None


def load_graded_pairs(path: Path, name: str | None = None) -> ScoredPairs:
    """The pairs of a file, or of every `*.tsv` in a folder and its subfolders; called `name`, or as the path is.

    Raises:
        DataError: nothing there, a folder without such files, or files that are not graded pairs; all of them.
    """
    if not is_dir(path):
        found = load_scored_tsv(path)
        return found if name is None else replace(found, name=name, subset_sizes={name: len(found.gold)})
    files = _files(path)
    if not files:
        what = f"no *{_ENDING} in it or its subfolders; expected files of score, sentence, sentence"
        raise DataError(Problem(where=str(path), what=what))
    attempt = Attempts()
    read = [(subset, attempt(lambda file=file: load_scored_tsv(file))) for subset, file in files.items()]  # type: ignore[misc]
    attempt.require()
    parts = {subset: pairs for subset, pairs in read if pairs is not None}
    return ScoredPairs(
        name=name if name is not None else path.name,
        split="own",
        first=tuple(sentence for pairs in parts.values() for sentence in pairs.first),
        second=tuple(sentence for pairs in parts.values() for sentence in pairs.second),
        gold=np.concatenate([pairs.gold for pairs in parts.values()]),
        subset_sizes={subset: len(pairs.gold) for subset, pairs in parts.items()},
        aggregation="groups",
    )


def group_of(subset: str) -> str:
    """The group of a file, which is named by its path inside the folder."""
    return subset.split("/", 1)[0]


def kept(pairs: ScoredPairs, keep: Bool[np.ndarray, " pairs"]) -> ScoredPairs:
    """Some of the pairs; subsets of which nothing is left are gone."""
    rows = np.flatnonzero(keep).tolist()
    sizes = {name: int(keep[where].sum()) for name, where in pairs.subset_rows().items()}
    return replace(
        pairs,
        first=tuple(pairs.first[row] for row in rows),
        second=tuple(pairs.second[row] for row in rows),
        gold=pairs.gold[keep],
        subset_sizes={name: size for name, size in sizes.items() if size},
    )


def pairs_sha256(pairs: ScoredPairs) -> str:
    """Content key of the sentences, their scores, and how these are averaged."""
    files = [f"{name} {size}" for name, size in pairs.subset_sizes.items()] if pairs.aggregation == "groups" else []
    return sentences_sha256([*pairs.sentences(), *map(repr, pairs.gold.tolist()), *files])


def group_means(scores: Mapping[str, float]) -> dict[str, float]:
    """Group -> mean over its files."""
    members: dict[str, list[float]] = {}
    for subset, score in scores.items():
        members.setdefault(group_of(subset), []).append(score)
    return {group: float(np.mean(each)) for group, each in members.items()}


def mean_of_group_draws(draws: Mapping[str, Float64[np.ndarray, " draws"]]) -> Float64[np.ndarray, " draws"]:
    """The same of resampled scores, draw by draw."""
    members: dict[str, list[np.ndarray]] = {}
    for subset, drawn in draws.items():
        members.setdefault(group_of(subset), []).append(drawn)
    mean: np.ndarray = np.mean([np.mean(each, axis=0) for each in members.values()], axis=0)
    return mean


def _files(folder: Path) -> dict[str, Path]:
    """Path inside the folder, without the ending -> file; in the order of the alphabet."""
    inside = [*entries(folder), *(path for each in entries(folder) if is_dir(each) for path in entries(each))]
    found = [path for path in inside if path.suffix == _ENDING and path.name[0] != "." and is_file(path)]
    return {path.relative_to(folder).as_posix().removesuffix(_ENDING): path for path in sorted(found)}
