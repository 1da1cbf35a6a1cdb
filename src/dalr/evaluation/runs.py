"""What does a run record about itself that its evaluation needs?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dalr.errors import DataError, Problem
from dalr.io.paths import regular
from dalr.io.records import parse_record
from dalr.recipe.document import with_tuples
from dalr.recipe.schema import Recipe


def recipe_of_run(run: Path) -> Recipe:
    """The resolved recipe that a run was made with.

    Raises:
        DataError: `run.json` cannot be read, or holds no recipe that this dalr knows.
    """
    record = run_record(run)
    try:
        return Recipe.model_validate(with_tuples(record["recipe"]))
    except (KeyError, ValueError, RecursionError) as error:
        what = f"its recipe cannot be read by this dalr: {error}"
        raise DataError(Problem(where=str(run / "run.json"), what=what)) from None


def run_record(run: Path) -> dict[str, Any]:
    """What a run's `run.json` says.

    Raises:
        DataError: it cannot be read.
    """
    path = run / "run.json"
    try:
        record = parse_record(regular(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(Problem(where=str(path), what=f"cannot be read: {error}")) from None
    if not isinstance(record, dict):
        raise DataError(Problem(where=str(path), what="not the record of a run"))
    return record
