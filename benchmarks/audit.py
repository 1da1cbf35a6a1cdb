"""Do the scores of `dalr audit` agree with people? Flickr8k's expert judgements, beside simple baselines.

python benchmarks/audit.py DATA TEXT_STORE [--json FILE]

DATA holds `flickr8k-cnn` and `flickr8k-judgements`; TEXT_STORE is `dalr features text` of flickr8k-cnn's captions.
Judged are captions #2 with images of the official test set. A pair matches where the mean of its three grades is at
least 3; pairs of a caption with its own image are left out. Nothing of the audit was chosen on the judgements.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dalr.audit.cross_fit import cross_fit
from dalr.audit.match import Match, OtherCaptions, match
from dalr.data.dataset import read_pairs
from dalr.data.reading import Reading
from dalr.errors import DalrError, Problem
from dalr.evaluation.metrics import spearman, unit_rows
from dalr.evaluation.own_photos import OwnSet, own_set
from dalr.features.source import open_features
from dalr.features.store import open_store
from dalr.io.text import read_lines
from dalr.seed import generator

MATCHES = 3.0
RESAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Pairs of an image and a caption of another image, with the mean of their grades."""

    images: list[str]
    captions: list[str]
    grades: np.ndarray

    @property
    def matching(self) -> np.ndarray:
        found: np.ndarray = self.grades >= MATCHES
        return found


def read_judgements(path: Path) -> Judged:
    rows = [line.split("\t") for line in read_lines(path)]
    cross = [row for row in rows if row[1].rpartition("#")[0] != row[0]]
    grades = np.array([np.mean([int(grade) for grade in row[2:]]) for row in cross])
    print(f"{len(rows)} judged pairs, {len(rows) - len(cross)} with the own image; {len(cross)} others, ", end="")
    print(f"of which {int((grades >= MATCHES).sum())} match")
    return Judged(images=[row[0] for row in cross], captions=[row[1] for row in cross], grades=grades)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    try:
        results = compare(options.data, options.text)
    except DalrError as error:
        sys.exit(f"error: {error}")
    for name, found in results.items():
        low, high = found["interval"]
        print(
            f"{name:<52} AP {found['ap']:5.1f} ({low:.1f} to {high:.1f})  best F1 {found['f1']:5.1f} "
            f"(P {found['precision']:.0f}, R {found['recall']:.0f})  P at R 50 {found['p_at_50']:5.1f}  "
            f"P at R 80 {found['p_at_80']:5.1f}  Spearman {found['spearman']:5.1f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def compare(data: Path, text: Path) -> dict[str, dict[str, object]]:
    """Every way to score a pair -> how well it finds the pairs that people call matching."""
    judged = read_judgements(data / "flickr8k-judgements" / "expert.tsv")
    results: dict[str, dict[str, object]] = {}
    for name, split in (("1,000 test images", "test"), ("all 8,091 images", "all")):
        problems: list[Problem] = []
        found = own_set(
            read_pairs(data / "flickr8k-cnn" / "captions.jsonl", problems, {}, reading=Reading(split=split)),
            "flickr8k",
            split,
        )
        vectors, images = _vectors(data, text, found)
        fitted = cross_fit(vectors, images, found.owner, found.names)
        captions = OtherCaptions.of(vectors, found.owner, len(found.names))
        scores = match(fitted, captions, "flickr8k")
        print(f"{name}: penalty {fitted.penalty:.2g}, weight of the image {scores.weight:g}")
        pairs = Pairs(found, judged)
        results[f"audit, {name}"] = measured(pairs.of(scores.block), judged)
        results[f"image alone (cross-fitted map), {name}"] = measured(pairs.of(fitted.block), judged)
        _flagged(pairs, scores, judged, name)
        if split == "test":
            results[f"other captions alone, {name}"] = measured(pairs.of(captions.block), judged)
            results |= baselines(found, vectors, images, pairs, judged)
    return results


@dataclass(frozen=True)
class Pairs:
    """The judged pairs as rows and columns of a set."""

    found: OwnSet
    judged: Judged

    def rows(self) -> np.ndarray:
        place = {name: row for row, name in enumerate(self.found.caption_ids)}
        return np.array([place[name] for name in self.judged.captions])

    def columns(self) -> np.ndarray:
        place = {name: column for column, name in enumerate(self.found.names)}
        return np.array([place[name] for name in self.judged.images])

    def of(self, block: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The scores of the judged pairs."""
        distinct, place = np.unique(self.rows(), return_inverse=True)
        scores: np.ndarray = block(distinct)[place, self.columns()]
        return scores

    def own(self, block: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """For each judged pair the score of its caption with its own image."""
        distinct, place = np.unique(self.rows(), return_inverse=True)
        scores: np.ndarray = block(distinct)[np.arange(len(distinct)), self.found.owner[distinct]][place]
        return scores


def _vectors(data: Path, text: Path, found: OwnSet) -> tuple[np.ndarray, np.ndarray]:
    store, folder = open_store(text), data / "flickr8k-cnn"
    features = open_features(folder / "efficientnet_lite0.npy", folder / "captions.jsonl")
    return store.read(store.rows_of(found.caption_ids, what="caption")), found.vectors(features)


def _flagged(pairs: Pairs, scores: Match, judged: Judged, name: str) -> None:
    score, own = pairs.of(scores.block), pairs.own(scores.block)
    rules = {
        "at least its own image's score": score >= own,
        "at least a typical own pair's (1)": score >= 1,
        "both: what the audit calls a false negative": (score >= own) & (score >= 1),
    }
    for rule, flagged in rules.items():
        hits = int(judged.matching[flagged].sum())
        precision, recall = 100 * hits / max(flagged.sum(), 1), 100 * hits / judged.matching.sum()
        print(f"  {name}: {rule}: {int(flagged.sum())} pairs, precision {precision:.1f}, recall {recall:.1f}")


def baselines(
    found: OwnSet, vectors: np.ndarray, images: np.ndarray, pairs: Pairs, judged: Judged
) -> dict[str, dict[str, object]]:
    """What needs no map and no audit."""
    unit, shown, rows, columns = unit_rows(vectors), unit_rows(images), pairs.rows(), pairs.columns()
    place = {name: row for row, name in enumerate(found.caption_ids)}
    same = np.array([place[f"{image}#2"] for image in judged.images])
    centred = unit_rows(shown - shown.mean(axis=0))
    words = [set(caption.lower().split()) for caption in found.captions]
    shared = [len(words[a] & words[b]) / len(words[a] | words[b]) for a, b in zip(rows, same, strict=True)]
    own = found.owner[rows]
    several = {
        "caption–caption (#2 of both images)": np.einsum("nd,nd->n", unit[rows], unit[same]),
        "image–image, CNN features": np.einsum("nd,nd->n", shown[columns], shown[own]),
        "image–image, CNN features centred": np.einsum("nd,nd->n", centred[columns], centred[own]),
        "word overlap (#2 of both images)": np.array(shared),
        "random": generator(0, "audit").random(len(rows)),
    }
    return {name: measured(score, judged) for name, score in several.items()}


def measured(score: np.ndarray, judged: Judged) -> dict[str, object]:
    """Precision and recall of the pairs in falling order of their scores, × 100."""
    right = judged.matching[np.argsort(-score, kind="stable")]
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(right) + 1), hits / right.sum()
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1.argmax())
    return {
        "ap": average_precision(score, judged.matching),
        "interval": _interval(score, judged),
        "f1": 100 * float(f1[best]),
        "precision": 100 * float(precision[best]),
        "recall": 100 * float(recall[best]),
        "p_at_50": 100 * float(precision[np.searchsorted(recall, 0.5)]),
        "p_at_80": 100 * float(precision[np.searchsorted(recall, 0.8)]),
        "spearman": 100 * spearman(score, judged.grades),
    }


def average_precision(score: np.ndarray, matching: np.ndarray) -> float:
    """Mean precision at each matching pair × 100; ties in the order of the file."""
    right = matching[np.argsort(-score, kind="stable")]
    return 100 * float((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean())


def _interval(score: np.ndarray, judged: Judged) -> tuple[float, float]:
    """95 % bootstrap interval of the average precision over images."""
    images = np.unique(judged.images, return_inverse=True)[1]
    of_image = [np.flatnonzero(images == number) for number in range(images.max() + 1)]
    random = generator(0, "audit bootstrap")
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([of_image[number] for number in random.integers(len(of_image), size=len(of_image))])
        found.append(average_precision(score[drawn], judged.matching[drawn]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main(sys.argv[1:])
