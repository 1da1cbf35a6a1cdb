"""What can the `data` section of a recipe say?

Relative paths start at the folder of the recipe's file, or at `root` when it is given (`recipe/paths.py`); `$NAME`
and `${NAME:-default}` are replaced from the environment.
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
    """Folder that the relative paths of the recipe start from; null: the folder of the file that says them. `$NAME`
    and `${NAME:-default}` in paths are replaced from the environment."""
    pairs: str | None = None
    """Image-caption pairs: a file in one of the formats, a folder that `datasets` saved, or `hf:OWNER/NAME`, a data
    set on the Hugging Face hub. Null: train on text alone."""
    format: FormatName | None = None
    """Format of `pairs`; null: recognised by file name and content."""
    columns: Columns = Columns()
    """Names of the columns of a table, or of the keys of JSON lines."""
    split: str | tuple[str, ...] | None = None
    """Split or splits of the pairs to train on, or `all`; required where the file has more than one."""
    text: str | None = None
    """Plain text file, one sentence per line. Null: train on pairs alone."""
    holdout: Annotated[HoldoutConfig | None, LEFT_OUT_IF_NONE] = None
    """Images that are kept out of training, for validation and for the test. Null: none."""
    on_empty: Literal["error", "drop"] = "error"
    """What to do about empty captions and lines: stop with an error, or drop and count them."""
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] = 32
    """Longest training sentence in tokens of the student; longer ones are truncated and counted. The exported model
    keeps its own limit."""
    captions_per_image: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["all"] = "all"
    """How many captions per image are trained on, drawn once under the seed; `all` uses every caption."""
    pairing_control: Literal["broken"] | None = None
    """Control experiment. `broken`: captions are assigned to images at random, so that pairs carry no
    information."""

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
