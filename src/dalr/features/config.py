"""What can the `features` section of a recipe say?"""

from __future__ import annotations

from typing import Literal

from dalr.recipe.section import Section

ImageControl = Literal["shuffled", "random"]


class FeaturesConfig(Section):
    """A feature store, or an `.npy` matrix with the file that names its rows."""

    image: str | None = None
    image_ids: str | None = None
    """Names the rows of `image` when that is a matrix: .txt, or .jsonl with `image`."""
    image_control: ImageControl | None = None
    """Train without what images know: true vectors shuffled between images under the seed, or Gaussian noise of
    their dimension. Held-out images keep theirs."""
    clip_text: str | None = None
    """CLIP text features of the captions, by caption id (KDMCSE)."""
    clip_text_ids: str | None = None
