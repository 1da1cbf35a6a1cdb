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
    from dalr.inference.encode import encode
    from dalr.inference.searcher import Searcher
    from dalr.losses import Inputs, Need, Objective, Term, register_term
    from dalr.models.image_encoder import ImageEncoder, register_image_encoder
    from dalr.recipe.schema import Recipe
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
    "ImageEncoder",
    "Inputs",
    "ModelFileError",
    "Need",
    "NumericsError",
    "Objective",
    "Recipe",
    "Searcher",
    "StorageError",
    "Term",
    "TrainResult",
    "__version__",
    "encode",
    "evaluate",
    "load_recipe",
    "register_image_encoder",
    "register_term",
    "train",
]

_ERRORS = {name for name in __all__ if name.endswith("Error")}


def __getattr__(name: str) -> object:
    """Import the Python interface when it is first used: `import dalr` itself costs nothing."""
    if name in _ERRORS:
        from dalr import errors

        return getattr(errors, name)
    if name in ("Inputs", "Need", "Objective", "Term", "register_term"):
        from dalr import losses

        return getattr(losses, name)
    if name in ("ImageEncoder", "register_image_encoder"):
        from dalr.models import image_encoder

        return getattr(image_encoder, name)
    if name == "Recipe":
        from dalr.recipe.schema import Recipe

        return Recipe
    if name == "Callback":
        from dalr.training.callbacks import Callback

        return Callback
    if name == "encode":
        from dalr.inference.encode import encode

        return encode
    if name == "Searcher":
        from dalr.inference.searcher import Searcher

        return Searcher
    if name in __all__:
        from dalr import api

        return getattr(api, name)
    raise AttributeError(f"module 'dalr' has no attribute {name!r}")
