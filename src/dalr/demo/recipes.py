"""Which recipes does the demo train? Written as files beside its world, so that anyone can train them again.

Every method starts from the same student and sees the same batches for the same number of steps. Learning rate
and one weight (or temperature) of each method were chosen in eight trials per method, on the dev pairs of a world
with another seed than those that are reported (docs/experiments).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dalr.demo.world import WorldFiles
from dalr.io.atomic import write_text

METHODS = ("simcse", "rankcse", "mcse", "kdmcse", "dalr")
STEPS = 300
GROUNDING_DIM = 96
_HOLDOUT = {"near_duplicates": 1.0}
"""Scenes of few things are alike by nature: only equal images count as copies of each other."""

_INFONCE = {"temperature": 0.05}
_RANKING = {"weight": 3.0, "temperature": 0.1, "teacher_temperature": 0.1, "on_text": True}
_OBJECTIVES: dict[str, dict[str, dict[str, Any]]] = {
    "simcse": {"infonce": {"temperature": 0.1}},
    "rankcse": {
        "infonce": _INFONCE,
        "list_net": _RANKING,
        "consistency_js": {"weight": 1.0, "on_text": True},
    },
    "mcse": {"infonce": _INFONCE, "grounding": {"weight": 1.0, "soft_margin": False}},
    "kdmcse": {
        "infonce": {**_INFONCE, "margin": 0.1},
        "grounding": {"weight": 0.3, "margin": 0.1, "clip_text_branch": True},
    },
    "dalr": {
        "infonce": {**_INFONCE, "margin": 0.1},
        "grounding": {"weight": 1.0, "margin": 0.1},
        "consistency": {"weight": 0.01},
        "cross_modal_alignment": {"weight": 0.3},
        "list_net": _RANKING,
        "intra_modal_alignment": {"weight": 0.2},
    },
}
_LEARNING_RATES = {"simcse": 1e-2, "rankcse": 1e-2, "mcse": 3e-3, "kdmcse": 3e-3, "dalr": 1e-2}
_IMAGES = ("mcse", "kdmcse", "dalr")
_CLIP_TEXT = ("kdmcse",)
_TEACHERS = ("rankcse", "dalr")


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What the recipes name, beside the files of the world."""

    student: Path
    image_store: Path
    clip_text_store: Path
    teacher_stores: tuple[Path, ...]


def write_recipes(
    folder: Path, world: WorldFiles, ingredients: Ingredients, *, held_out: int, steps: int, seed: int
) -> dict[str, Path]:
    """Write one recipe file per method; returns the files by name.

    Paths are absolute, so that `dalr train RECIPE` works from any folder.
    """
    files = {name: folder / f"{name}.yaml" for name in METHODS}
    for name, file in files.items():
        recipe = _recipe(name, world, ingredients, held_out=held_out, steps=steps, seed=seed)
        write_text(file, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return files


def _recipe(
    name: str, world: WorldFiles, ingredients: Ingredients, *, held_out: int, steps: int, seed: int
) -> Mapping[str, Any]:
    recipe: dict[str, Any] = {
        "name": f"demo-{name}",
        "description": f"{name} on the demo's world",
        "seed": seed,
        "data": {"pairs": _path(world.pairs), "text": _path(world.text), "holdout": dict(_HOLDOUT, last=held_out)},
        "student": {"model": _path(ingredients.student), "pooling": "mean"},
        "heads": {"sentence": False, "grounding_dim": GROUNDING_DIM, "aligner_dim": GROUNDING_DIM},
        # copies, because YAML would write an object met twice as an alias, which recipes do not have
        "objective": {term: dict(fields) for term, fields in _OBJECTIVES[name].items()},
        "training": {
            "batch_size": 64,
            "max_steps": steps,
            "learning_rate": _LEARNING_RATES[name],
            "schedule": {"kind": "every_k", "k": 2},
            "precision": "fp32",
            "log_every": 10,
        },
        "validation": {"kind": "tsv", "data": _path(world.sts_dev), "every": 50},
    }
    if name in _IMAGES:
        recipe["features"] = {"image": _path(ingredients.image_store)}
    if name in _CLIP_TEXT:
        recipe["features"]["clip_text"] = _path(ingredients.clip_text_store)
    if name in _TEACHERS:
        share = 1 / len(ingredients.teacher_stores)
        recipe["teachers"] = [{"features": _path(store), "weight": share} for store in ingredients.teacher_stores]
    return recipe


def _path(path: Path) -> str:
    return str(path.absolute())
