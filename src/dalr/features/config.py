"""What can the `features` section of a recipe say?"""

from __future__ import annotations

from typing import Literal

from dalr.recipe.section import Section

ImageControl = Literal["shuffled", "random"]


class FeaturesConfig(Section):
    """Frozen vectors: feature stores, or `.npy` matrices with files that name their rows."""

    image: str | None = None
    """Image features: a feature store, or an `.npy` matrix with one row per image. Required by every term that
    reads images."""
    image_ids: str | None = None
    """Names the rows of an `image` matrix: a .txt file with one id per line, or .jsonl with the key `image`. A
    store names its own rows."""
    image_control: ImageControl | None = None
    """Control experiment: train without what the images show. `shuffled` exchanges the vectors between images,
    `random` replaces them by Gaussian noise of the same dimension. Held-out images keep their own."""
    clip_text: str | None = None
    """CLIP's text features of the captions, by caption id `IMAGE#k`: a feature store or a matrix. KDMCSE's second
    branch and its filter read them."""
    clip_text_ids: str | None = None
    """Names the rows of a `clip_text` matrix, like `image_ids`."""
