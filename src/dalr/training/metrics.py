"""What did a run write down while it went? The records of its `metrics.jsonl`, as a list and as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.io.frame import data_frame
from dalr.io.text import read_lines

if TYPE_CHECKING:
    import pandas


class Metrics(list[dict[str, Any]]):
    """Records in the order of the steps."""

    def to_frame(self) -> pandas.DataFrame:
        """One row per record; a term's mean is in the column `terms.NAME`.

        Raises:
            ConfigError: pandas is not installed.
        """
        return data_frame(self)


def read_metrics(run: Path) -> Metrics:
    """The records of a run's `metrics.jsonl`.

    Raises:
        DataError: it is not there.
    """
    return Metrics(json.loads(line) for line in read_lines(run / "metrics.jsonl"))
