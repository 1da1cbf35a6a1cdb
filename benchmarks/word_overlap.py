"""Baseline without a model: the words that two sentences share, on graded pairs.

python benchmarks/word_overlap.py FOLDER [FOLDER ...]

Prints Spearman × 100 between people's scores and the Jaccard similarity of the two sets of words, file by file, by
group and averaged, as `dalr evaluate --graded-pairs` averages the cosines of a model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dalr.errors import DalrError
from dalr.evaluation.graded import group_means, load_graded_pairs
from dalr.evaluation.metrics import spearman
from dalr.evaluation.sts import ScoredPairs


def main(folders: list[str]) -> None:
    for folder in folders:
        try:
            pairs = load_graded_pairs(Path(folder))
        except DalrError as error:
            sys.exit(f"error: {error}")
        files = scores(pairs)
        groups = group_means(files)
        for name, score in (files | {f"{group}/": mean for group, mean in groups.items()}).items():
            print(f"{folder}: {name:<40} {score:6.2f}")
        print(f"{folder}: {'mean of groups':<40} {float(np.mean(list(groups.values()))):6.2f}")


def scores(pairs: ScoredPairs) -> dict[str, float]:
    """File -> Spearman × 100 of the word overlap."""
    overlap = np.array([jaccard(a, b) for a, b in zip(pairs.first, pairs.second, strict=True)])
    return {name: 100 * spearman(overlap[rows], pairs.gold[rows]) for name, rows in pairs.subset_rows().items()}


def jaccard(first: str, second: str) -> float:
    """Words in common among all words of both, in small letters, split at white space."""
    a, b = set(first.lower().split()), set(second.lower().split())
    return len(a & b) / len(a | b) if a | b else 0.0


if __name__ == "__main__":
    main(sys.argv[1:])
