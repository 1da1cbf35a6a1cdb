"""Which published scores stand below the measured ones in a report?

They lie in `published.json` beside this module, each with its source. They are shown as they were printed: what a
paper gives to one decimal stays at one decimal, and a task that it leaves out is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dalr.errors import CorruptFileError, Problem

TableName = Literal["sts", "transfer", "retrieval"]
AVERAGE = "Avg"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PublishedRow(_Part):
    """One method as a paper, a model card or a leaderboard gives it."""

    table: TableName
    method: str
    backbone: str | None = None
    data: str
    scores: Mapping[str, float]
    """Task (or `Avg`, or `text_to_image_R@1`) -> score × 100."""
    source: str

    @property
    def setting(self) -> str:
        """What was trained on what."""
        return ", ".join(part for part in (self.backbone, self.data) if part)

    @property
    def decimals(self) -> int:
        """Decimals that the source prints: those of its most exact figure."""
        return max(1, *(len(repr(score).partition(".")[2]) for score in self.scores.values()))


class Published(_Part):
    """All rows, and what must be known to read them."""

    note: str
    rows: tuple[PublishedRow, ...]

    def of(self, table: TableName) -> list[PublishedRow]:
        return [row for row in self.rows if row.table == table]

    @property
    def sources(self) -> list[str]:
        """Each source once, in the order of the rows."""
        return list(dict.fromkeys(row.source for row in self.rows))


@cache
def load_published() -> Published:
    """The published scores that come with dalr.

    Raises:
        CorruptFileError: the installed file is not what it should be.
    """
    file = resources.files("dalr.evaluation") / "published.json"
    try:
        return Published.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        what = f"cannot be used ({str(error).splitlines()[0]}); install dalr again"
        raise CorruptFileError(Problem(where=str(file), what=what)) from None
