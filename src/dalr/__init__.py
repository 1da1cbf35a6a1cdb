"""Sentence encoders learned from image–caption pairs and plain text: DALR, its baselines, the field's evaluation.

import dalr
result = dalr.train("recipe.yaml", overrides={"training.learning_rate": 1e-4}, out="runs/first")
# SentenceTransformer(result.model) is the product
dalr.evaluate(result.run, data="senteval", tasks="sts,transfer").sts_avg
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalr.version import VERSION

if TYPE_CHECKING:
    from dalr.api import DryRun, Evaluation, TrainResult, evaluate, load_recipe, train
    from dalr.errors import (
        ConfigError,
        CorruptFileError,
        DalrError,
        DataError,
        ModelFileError,
        NumericsError,
        StorageError,
    )
    from dalr.objectives import Inputs, Need, Objective, Term, register_term
    from dalr.schema import Recipe
    from dalr.training.callbacks import Callback

__version__ = VERSION
__all__ = [
    "Callback",
    "ConfigError",
    "CorruptFileError",
    "DalrError",
    "DataError",
    "DryRun",
    "Evaluation",
    "Inputs",
    "ModelFileError",
    "Need",
    "NumericsError",
    "Objective",
    "Recipe",
    "StorageError",
    "Term",
    "TrainResult",
    "__version__",
    "evaluate",
    "load_recipe",
    "register_term",
    "train",
]

_HOMES = {
    "dalr.errors": (
        "ConfigError",
        "CorruptFileError",
        "DalrError",
        "DataError",
        "ModelFileError",
        "NumericsError",
        "StorageError",
    ),
    "dalr.objectives": ("Inputs", "Need", "Objective", "Term", "register_term"),
    "dalr.schema": ("Recipe",),
    "dalr.training.callbacks": ("Callback",),
    "dalr.api": ("DryRun", "Evaluation", "TrainResult", "evaluate", "load_recipe", "train"),
}


def __getattr__(name: str) -> object:
    """Import the Python interface when it is first used: `import dalr` itself costs nothing."""
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'dalr' has no attribute {name!r}")
