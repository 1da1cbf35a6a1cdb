"""One run of a study: used again, gone on with, or trained; and what came of it.

Our own errors become a failure that is written down, and the study goes on; anything else is a bug or a stop, and
leaves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.api import train
from dalr.console import Console
from dalr.errors import DalrError
from dalr.study.ledger import (
    Failure,
    Ticket,
    differences,
    make_ticket,
    read_ticket,
    refuse_other,
    set_aside,
    write_ticket,
)
from dalr.study.plan import PlannedRun


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that is finished, or failed."""

    run: PlannedRun
    key: str
    development: float | None = None
    """× 100."""
    record: Mapping[str, Any] | None = None
    """Its `run.json`; None if it failed."""
    failure: Failure | None = None


def settled(run: PlannedRun, prepared: Mapping[str, str], *, replace: bool, console: Console) -> Trained | None:
    """The run if its folder has it finished; a folder of another run is refused, or with `replace` renamed.

    `prepared` holds, for each model path that the recipe reads, the key of the run that made it.

    Raises:
        ConfigError: the folder holds another run; with the difference.
    """
    was, now = read_ticket(run.folder), make_ticket(run.recipe, prepared)
    if was is not None and was.key != now.key and run.folder.exists():
        if not replace:
            raise refuse_other(run.folder, was, now)
        aside = set_aside(run.folder, "other")
        console.say(f"{run.name}: renamed to {aside.name} ({'; '.join(differences(was, now))})")
        return None
    record = _record(run.folder) if was is not None and was.key == now.key else None
    return _finished(run, now, record) if record is not None else None


def ensure(run: PlannedRun, prepared: Mapping[str, str], *, replace: bool, console: Console) -> Trained:
    """The run, trained now unless its folder has it finished.

    Raises:
        ConfigError: the folder holds another run.
    """
    found = settled(run, prepared, replace=replace, console=console)
    if found is not None:
        return found
    ticket = make_ticket(run.recipe, prepared)
    goes_on = _go_on(run.folder, ticket)
    write_ticket(run.folder, ticket)
    try:
        train(run.recipe, out=run.folder, console=console, resume=goes_on)
        record = _record(run.folder)
        assert record is not None, "a training that returns has finished"
        return _finished(run, ticket, record)
    except DalrError as error:
        return failed(run, ticket, error)


def failed(run: PlannedRun, ticket: Ticket, error: DalrError) -> Trained:
    """Write down why there is no model."""
    failure = Failure(reason=str(error), exit_code=error.exit_code)
    write_ticket(run.folder, ticket.model_copy(update={"failure": failure}))
    return Trained(run=run, key=ticket.key, failure=failure)


def _go_on(folder: Path, ticket: Ticket) -> bool:
    """Whether an unfinished training in `folder` goes on from its checkpoint; another run is moved aside."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    was = read_ticket(folder)
    if was is not None and was.key == ticket.key:
        return True
    set_aside(folder, "unfinished")
    return False


def _finished(run: PlannedRun, ticket: Ticket, record: Mapping[str, Any]) -> Trained:
    score = record.get("result", {}).get("best_score")
    return Trained(run=run, key=ticket.key, development=score, record=record)


def _record(folder: Path) -> Mapping[str, Any] | None:
    """The `run.json` of a finished run whose model is there."""
    try:
        record = json.loads((folder / "run.json").read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and record.get("status") == "finished" and (folder / "model").is_dir()
    return record if whole else None
