"""How is a validation score computed? On STS-B dev, own graded pairs, or retrieval on held-out images."""

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
from dalr.training.callbacks import ValidationFunction
from dalr.training.config import ValidationConfig
from dalr.training.data import TrainingData
from dalr.training.module import TrainingTask


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """A named score × 100 of a task in training; higher is better."""

    name: str
    score: Callable[[TrainingTask], float]
    at_dims: Callable[[TrainingTask], dict[str, float]] | None = None
    """The score at each of several trained dimensions, the largest under `name` itself."""

    def scores(self, task: TrainingTask) -> dict[str, float]:
        """The score by which weights are chosen, as `name`, and those at other dimensions."""
        return self.at_dims(task) if self.at_dims is not None else {self.name: self.score(task)}


_Rate = Callable[[TrainingTask, Float32[np.ndarray, "n d"]], float]
"""The score of sentence vectors."""


def make_validation_score(
    config: ValidationConfig | None,
    data: TrainingData,
    dims: Sequence[int] = (),
    function: ValidationFunction | None = None,
) -> ValidationScore | None:
    """The validation score of a recipe, over inputs that were read and checked.

    Raises:
        ConfigError: a recipe that leaves the score to a program's function, and no function.
    """
    if config is None:
        return None
    if config.kind == "function":
        if function is None:
            what = "this recipe is validated by a function: pass validation= to dalr.train"
            raise ConfigError(Problem(where="validation.kind", what=what))
        return ValidationScore(name="validation", score=lambda task: _scored(function, task))
    if config.kind == "retrieval":
        held_out, images = data.dataset.validation, data.validation_images
        assert held_out is not None
        assert images is not None
        return _at_dims("held-out R@1", held_out.captions, _retrieval(held_out, images), dims)
    pairs = data.validation_pairs
    assert pairs is not None
    sentences = pairs.sentences()
    return _at_dims(f"{pairs.name} Spearman", sentences, lambda _, h: score_pairs(pairs, h), dims)


def _at_dims(name: str, sentences: Sequence[str], rate: _Rate, dims: Sequence[int]) -> ValidationScore:
    largest = max(dims, default=None)

    def at_dims(task: TrainingTask) -> dict[str, float]:
        h = embed(task.student, sentences)
        names = {name if dim == largest else f"{name} @{dim}": dim for dim in dims}
        return {named: rate(task, _leading(h, dim)) for named, dim in names.items()}

    return ValidationScore(
        name=name,
        score=lambda task: rate(task, _leading(embed(task.student, sentences), largest)),
        at_dims=at_dims if dims else None,
    )


def _leading(h: Float32[np.ndarray, "n d"], dim: int | None) -> Float32[np.ndarray, "n d"]:
    """As `losses.matryoshka.leading`: what lies beyond `dim` is 0."""
    if dim is None or dim == h.shape[1]:
        return h
    cut = np.zeros_like(h)
    cut[:, :dim] = h[:, :dim]
    return cut


def _scored(function: ValidationFunction, task: TrainingTask) -> float:
    """A program's score of the student, which it gets ready to encode and may leave as it likes.

    Raises:
        ConfigError: the function returned something else than a number.
    """
    task.student.eval()
    score = function(task.student)
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
            grounded = heads.image_grounding(vectors.to(device)).cpu().numpy()
        return retrieval_score(sentences, grounded, owner).mean_r1

    return rate
