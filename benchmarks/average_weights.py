"""Weights averaged between two models of one architecture: how far forgetting is undone by going half the way back.

python benchmarks/average_weights.py BEFORE AFTER --out FOLDER [--fraction 0.5]

BEFORE is a model folder or `package:NAME/FOLDER`, AFTER a model folder that was trained from it (RUN/model).
FOLDER is AFTER with each weight (1 − fraction) · before + fraction · after; score it with `dalr evaluate`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dalr.errors import ConfigError, DalrError, Problem
from dalr.io.sealed import MANIFEST
from dalr.models.reference import find_model

WEIGHTS = "model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description="Average the weights of two models.")
    parser.add_argument("before", help="the model that training began with")
    parser.add_argument("after", help="the model that came of it")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--fraction", type=float, default=0.5, help="of the way from before to after [default: 0.5]"
    )
    asked = parser.parse_args()
    try:
        average(asked.before, asked.after, asked.out, asked.fraction)
    except DalrError as error:
        sys.exit(f"error: {error}")


def average(before: str, after: str, out: Path, fraction: float) -> None:
    """Write the averaged model.

    Raises:
        ConfigError: `out` is there already, or the models have other weights.
        ModelFileError: there is no such model.
    """
    if out.exists():
        raise ConfigError(Problem(where="--out", what=f"{out} is there already; name a new folder"))
    folders = find_model(before), find_model(after)
    first, second = (load_file(folder / WEIGHTS) for folder in folders)
    found = averaged(first, second, fraction)
    shutil.copytree(folders[1], out, ignore=shutil.ignore_patterns(WEIGHTS, MANIFEST))
    save_file(found, out / WEIGHTS, metadata={"format": "pt"})


def averaged(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], fraction: float
) -> dict[str, torch.Tensor]:
    """Weight by weight; what only `before` has (a pooler that nobody reads) is left out.

    Raises:
        ConfigError: a weight of `after` is not in `before`, or has another shape.
    """
    wrong = [name for name in after if name not in before or before[name].shape != after[name].shape]
    if wrong:
        what = f"expected the weights of one architecture, found {len(wrong)} that differ, such as {wrong[0]}"
        raise ConfigError(Problem(where="after", what=what))
    return {name: torch.lerp(before[name].float(), after[name].float(), fraction) for name in after}


if __name__ == "__main__":
    main()
