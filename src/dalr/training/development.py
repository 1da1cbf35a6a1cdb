"""Development scores: STS-B dev, the user's own scored pairs, or retrieval on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from dalr.data.dataset import Dataset
from dalr.evaluation.metrics import require_usable
from dalr.evaluation.retrieval import retrieval_score
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import ScoredPairs
from dalr.features.store import FeatureStore
from dalr.models.embedding import embed
from dalr.training.config import DevelopmentConfig
from dalr.training.inputs import Inputs
from dalr.training.task import TrainingTask


@dataclass(frozen=True, kw_only=True)
class Development:
    """A named score × 100 of a task in training; higher is better."""

    name: str
    score: Callable[[TrainingTask], float]


def make_development(config: DevelopmentConfig | None, inputs: Inputs) -> Development | None:
    """The development score of a recipe, over inputs that were read and checked."""
    if config is None:
        return None
    if config.kind == "retrieval":
        assert inputs.images is not None
        return _retrieval(inputs.dataset, inputs.images)
    assert inputs.development_pairs is not None
    return _similarity(inputs.development_pairs)


def _similarity(pairs: ScoredPairs) -> Development:
    def score(task: TrainingTask) -> float:
        return score_pairs(pairs, embed(task.student, pairs.sentences()))

    return Development(name=f"{pairs.name} Spearman", score=score)


def _retrieval(dataset: Dataset, store: FeatureStore) -> Development:
    held_out = dataset.held_out
    assert held_out is not None
    numbers = np.unique(held_out.image_of)
    names = [held_out.images[number] for number in numbers]
    vectors = torch.from_numpy(store.read(store.rows_of(names, what="held-out image")))
    owner = np.searchsorted(numbers, held_out.image_of)

    def score(task: TrainingTask) -> float:
        heads = task.heads
        assert heads.text_grounding is not None
        assert heads.image_grounding is not None
        h = embed(task.student, held_out.captions)
        require_usable(h, "retrieval")
        with torch.inference_mode():
            device = task.student.device
            sentences = heads.text_grounding(torch.from_numpy(h).to(device)).cpu().numpy()
            pictures = heads.image_grounding(vectors.to(device)).cpu().numpy()
        return retrieval_score(sentences, pictures, owner).mean_r1

    return Development(name="held-out R@1", score=score)
