"""What can the `data` section of a recipe say?

Relative paths are taken from the current folder, or from `root` when it is given; `$NAME` and `${NAME:-default}`
are replaced from the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dalr.data.choices import FormatName
from dalr.data.formats.arrow import HUB
from dalr.data.formats.collecting import Columns
from dalr.data.holdout import HoldoutConfig
from dalr.data.reading import Reading
from dalr.recipe.paths import expand
from dalr.recipe.section import LEFT_OUT_IF_NONE, Section


class DataConfig(Section):
    """Where captions and text are, and how they are read."""

    root: str | None = None
    """Folder that relative paths of this recipe start from."""
    pairs: str | None = None
    """Image-caption pairs: a file of one of `FORMATS`, a saved data set, or `hf:OWNER/NAME`."""
    format: FormatName | None = None
    """What `pairs` is; None tells it by the name and the content."""
    columns: Columns = Columns()
    """What the columns of a table and the keys of JSON lines are called."""
    split: str | tuple[str, ...] | None = None
    """Which split of the pairs is used: one name, several, or `all`; needed where a file has more than one."""
    text: str | None = None
    """Plain text, one sentence a line."""
    holdout: Annotated[HoldoutConfig | None, LEFT_OUT_IF_NONE] = None
    """Images that are kept out of training, for validation and for the test (`data/holdout.py`); None: none."""
    on_empty: Literal["error", "drop"] = "error"
    """What an empty caption or line is."""
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] = 32
    """Longest training sentence in tokens of the student; longer ones are cut and counted."""
    captions_per_image: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["all"] = "all"
    """How many captions of an image are trained on, drawn once under the seed."""
    pairing_control: Literal["broken"] | None = None
    """Train without what pairs know: training captions are dealt out to the images at random, under the seed."""

    @property
    def reading(self) -> Reading:
        """How `pairs` is read."""
        return Reading(format=self.format, columns=self.columns, split=self.split)

    def path(self, value: str) -> Path:
        """A path of the recipe as it stands on this machine; `hf:` names are no paths."""
        if value.startswith(HUB):
            return Path(value)
        root = expand(self.root) if self.root is not None else Path()
        return root / expand(value)
