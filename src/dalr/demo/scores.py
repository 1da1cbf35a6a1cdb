"""How are the demo's models scored? All on the same graded pairs and the same held-out images.

The gold of the pairs comes from the scenes and from no model. Chance and the untrained student stand in the
table, so that a number can be read; who is ahead is said in words, whoever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int64

from dalr.demo.recipes import METHODS
from dalr.evaluation.retrieval import RetrievalScore, retrieval_score
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import ScoredPairs
from dalr.evaluation.table import markdown

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

UNTRAINED = "untrained student"
LABELS = {"simcse": "SimCSE", "rankcse": "RankCSE", "mcse": "MCSE", "kdmcse": "KDMCSE", "dalr": "DALR"}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Pictures that no training saw, with their captions."""

    images: tuple[str, ...]
    features: Float[np.ndarray, "images w"]
    captions: tuple[str, ...]
    owner: Int64[np.ndarray, " captions"]
    """Index into `images`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. Scores are × 100."""

    name: str
    dev: float
    test: float
    retrieval: RetrievalScore | None = None
    """None where there is no space that holds sentences and pictures."""

    @property
    def label(self) -> str:
        return LABELS.get(self.name, self.name)

    @property
    def is_method(self) -> bool:
        return self.name in METHODS


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What every model is measured on."""

    dev: ScoredPairs
    test: ScoredPairs
    held_out: HeldOut

    def row(self, name: str, model: SentenceTransformer, *, heads: Path | None = None) -> Row:
        """Scores of a text encoder; with the grounding heads in `heads`, of its retrieval too."""
        from dalr.models.embedding import embed
        from dalr.models.heads import ground

        retrieval = None
        if heads is not None:
            sentences, images = ground(
                heads, sentences=embed(model, self.held_out.captions), images=self.held_out.features
            )
            retrieval = retrieval_score(sentences, images, self.held_out.owner)
        return self._row(name, model, retrieval)

    def shared_space_row(self, name: str, model: SentenceTransformer) -> Row:
        """Scores of a text encoder whose vectors are compared with the image features themselves."""
        from dalr.models.embedding import embed

        sentences = embed(model, self.held_out.captions)
        return self._row(name, model, retrieval_score(sentences, self.held_out.features, self.held_out.owner))

    def _row(self, name: str, model: SentenceTransformer, retrieval: RetrievalScore | None) -> Row:
        from dalr.models.embedding import embed

        dev, test = (score_pairs(pairs, embed(model, pairs.sentences())) for pairs in (self.dev, self.test))
        return Row(name=name, dev=dev, test=test, retrieval=retrieval)

    @property
    def chance(self) -> float:
        """R@1 × 100 of guessing; the same in both directions, as every picture has equally many captions."""
        return 100 / len(self.held_out.images)


def table(rows: Sequence[Row], judge: Judge) -> str:
    """The scores as Markdown, with what the numbers are."""
    headers = ["", "STS dev", "STS test", "R@1 text→image", "R@1 image→text"]
    body = [["chance", "0.0", "0.0", f"{judge.chance:.1f}", f"{judge.chance:.1f}"]]
    for row in rows:
        found = row.retrieval
        recall = [f"{found.text_to_image.r1:.1f}", f"{found.image_to_text.r1:.1f}"] if found else ["–", "–"]
        body.append([row.label, f"{row.dev:.1f}", f"{row.test:.1f}", *recall])
    return f"{markdown(headers, body)}\n{explanation(judge)}"


def explanation(judge: Judge) -> str:
    return (
        f"STS: Spearman × 100 over {len(judge.test.first)} graded pairs (dev: {len(judge.dev.first)}). "
        f"R@1: recall × 100 at 1 among {len(judge.held_out.images)} pictures never trained on."
    )


def verdict(rows: Sequence[Row]) -> str:
    """In words: how DALR did against the best of the others, in both tasks."""
    methods = {row.name: row for row in rows if row.is_method}
    dalr = methods.pop("dalr")
    sentences = [_comparison("the graded sentence pairs", dalr.test, {r.label: r.test for r in methods.values()})]
    if dalr.retrieval is not None:
        others = {row.label: row.retrieval.mean_r1 for row in methods.values() if row.retrieval is not None}
        sentences.append(_comparison("retrieval (mean R@1 of both directions)", dalr.retrieval.mean_r1, others))
    return " ".join([*sentences, "This is one seed on a toy world: differences of a point or two are noise."])


def _comparison(task: str, own: float, others: dict[str, float]) -> str:
    rival = max(others, key=others.__getitem__)
    ahead = own - others[rival]
    if round(ahead, 1) == 0:
        return f"On {task}, DALR and {rival} are level at {own:.1f}."
    if ahead > 0:
        return f"On {task}, DALR is ahead: {own:.1f}, {ahead:.1f} above {rival}."
    return f"On {task}, DALR does not win: {rival} is ahead with {others[rival]:.1f}, DALR has {own:.1f}."
