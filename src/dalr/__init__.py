"""Sentence encoders learned from image–caption pairs and plain text: DALR, its baselines, the field's evaluation.

import dalr
result = dalr.train("recipe.yaml", overrides=["training.learning_rate=1e-4"], out="runs/first")
# SentenceTransformer(result.model) is the product
dalr.evaluate(result.run, data="senteval", tasks=["sts", "transfer"]).sts_avg
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalr.api import DryRun, Evaluation, TrainResult, evaluate, load_recipe, train

__version__ = "0.1.0"
__all__ = ["DryRun", "Evaluation", "TrainResult", "__version__", "evaluate", "load_recipe", "train"]


def __getattr__(name: str) -> object:
    """Import the Python interface when it is first used: `import dalr` itself costs nothing."""
    if name in __all__:
        from dalr import api

        return getattr(api, name)
    raise AttributeError(f"module 'dalr' has no attribute {name!r}")
