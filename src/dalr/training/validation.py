"""Development scores: STS-B dev, the user's own scored pairs, or retrieval on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from dalr.data.rows import Pairs
from dalr.errors import ConfigError, Problem
from dalr.evaluation.metrics import require_usable
from dalr.evaluation.retrieval import retrieval_score
from dalr.evaluation.similarity import score_pairs
from dalr.features.store import StoredVectors
from dalr.models.embedding import embed
from dalr.training.callbacks import Validation
from dalr.training.config import DevelopmentConfig
from dalr.training.data import TrainingData
from dalr.training.module import TrainingTask


@dataclass(frozen=True, kw_only=True)
class Development:
    """A named score × 100 of a task in training; higher is better."""

    name: str
    score: Callable[[TrainingTask], float]
    at_widths: Callable[[TrainingTask], dict[str, float]] | None = None
    """The score at each of several trained widths, the widest under `name` itself."""

    def scores(self, task: TrainingTask) -> dict[str, float]:
        """The score by which weights are chosen, as `name`, and those of other widths."""
        return self.at_widths(task) if self.at_widths is not None else {self.name: self.score(task)}


_Rate = Callable[[TrainingTask, Float32[np.ndarray, "n d"]], float]
"""The score of sentence vectors."""


def make_development(
    config: DevelopmentConfig | None,
    data: TrainingData,
    dimensions: Sequence[int] = (),
    validation: Validation | None = None,
) -> Development | None:
    """The development score of a recipe, over inputs that were read and checked.

    Raises:
        ConfigError: a recipe that leaves the score to a program's function, and no function.
    """
    if config is None:
        return None
    if config.kind == "function":
        if validation is None:
            what = "the score of this recipe is a function of a program: pass validation= to dalr.train"
            raise ConfigError(Problem(where="development.kind", what=what))
        return Development(name="validation", score=lambda task: _scored(validation, task))
    if config.kind == "retrieval":
        held_out, images = data.dataset.validation, data.validation_images
        assert held_out is not None
        assert images is not None
        return _development("held-out R@1", held_out.captions, _retrieval(held_out, images), dimensions)
    pairs = data.development_pairs
    assert pairs is not None
    sentences = pairs.sentences()
    return _development(f"{pairs.name} Spearman", sentences, lambda _, h: score_pairs(pairs, h), dimensions)


def _development(name: str, sentences: Sequence[str], rate: _Rate, dimensions: Sequence[int]) -> Development:
    widest = max(dimensions, default=None)

    def at_widths(task: TrainingTask) -> dict[str, float]:
        h = embed(task.student, sentences)
        names = {name if width == widest else f"{name} @{width}": width for width in dimensions}
        return {named: rate(task, _leading(h, width)) for named, width in names.items()}

    return Development(
        name=name,
        score=lambda task: rate(task, _leading(embed(task.student, sentences), widest)),
        at_widths=at_widths if dimensions else None,
    )


def _leading(h: Float32[np.ndarray, "n d"], width: int | None) -> Float32[np.ndarray, "n d"]:
    """As `objectives.widths.leading`: what lies beyond the width is 0."""
    if width is None or width == h.shape[1]:
        return h
    cut = np.zeros_like(h)
    cut[:, :width] = h[:, :width]
    return cut


def _scored(validation: Validation, task: TrainingTask) -> float:
    """A program's score of the student, which it gets ready to encode and may leave as it likes.

    Raises:
        ConfigError: the function returned something else than a number.
    """
    task.student.eval()
    score = validation(task.student)
    try:
        return float(score.item() if hasattr(score, "item") else score)
    except (TypeError, ValueError):
        what = f"expected a number, higher is better, found {score!r:.80}"
        raise ConfigError(Problem(where="validation", what=what)) from None


def _retrieval(held_out: Pairs, images: StoredVectors) -> _Rate:
    numbers = held_out.image_numbers
    vectors = torch.from_numpy(images.read(np.arange(len(numbers))))
    owner = np.searchsorted(numbers, held_out.image_of)

    def rate(task: TrainingTask, h: Float32[np.ndarray, "n d"]) -> float:
        heads = task.heads
        assert heads.text_grounding is not None
        assert heads.image_grounding is not None
        require_usable(h, "retrieval")
        with torch.inference_mode():
            device = task.student.device
            sentences = heads.text_grounding(torch.from_numpy(h).to(device)).cpu().numpy()
            pictures = heads.image_grounding(vectors.to(device)).cpu().numpy()
        return retrieval_score(sentences, pictures, owner).mean_r1

    return rate
