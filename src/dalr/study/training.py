"""How is one run of a study made? Used again, resumed, or trained; and what came of it.

A run whose weights are gone is still known by its record in the study's `results/`, if its key is the same; that is
enough for a trial, and for a final run whose scores are there.

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
from dalr.errors import ConfigError, CorruptFileError, DalrError, StorageError
from dalr.io.console import Console
from dalr.io.paths import entries, exists, is_dir, regular
from dalr.io.records import parse_record
from dalr.study.fingerprint import (
    Failure,
    Fingerprint,
    differences,
    read_fingerprint,
    refuse_other,
    set_aside,
    write_fingerprint,
)
from dalr.study.plan import PlannedRun
from dalr.study.records import Records, RunRecord

_SCORES = ("best_score", "untrained_score")
_ROUNDING = 1e-6
_REMEDY = "restore the file, or remove its folder to train the run again"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that is finished, or failed."""

    run: PlannedRun
    known_by: RunRecord | None = None
    """The record that stands for its folder; None where the folder has its weights, or it failed."""
    validation: float | None = None
    """× 100."""
    record: Mapping[str, Any] | None = None
    """Its `run.json`; None if it failed."""
    failure: Failure | None = None

    @property
    def untrained(self) -> float | None:
        """The validation score before training, × 100."""
        found = (self.record or {}).get("result", {}).get("untrained_score")
        return float(found) if found is not None else None

    @property
    def has_weights(self) -> bool:
        """Whether its model is there, and not just its record."""
        return self.failure is None and self.known_by is None


def settled(run: PlannedRun, fingerprint: Fingerprint, *, replace: bool, console: Console) -> Trained | None:
    """The run if its folder has it finished; a folder of another run is refused, or with `replace` renamed.

    Raises:
        ConfigError: the folder holds another run; with the difference.
    """
    was = read_fingerprint(run.folder)
    if was is not None and was.key != fingerprint.key and exists(run.folder, StorageError):
        if not replace:
            raise refuse_other(run.folder, was, fingerprint)
        aside = set_aside(run.folder, "other")
        console.say(f"{run.name}: renamed to {aside.name} ({'; '.join(differences(was, fingerprint))})")
        return None
    has_it = was is not None and was.key == fingerprint.key and is_dir(run.folder / "model", StorageError)
    return _finished(run) if has_it else None


def recorded(run: PlannedRun, fingerprint: Fingerprint, records: Records) -> Trained | None:
    """The run as the study's `results/` have it, without weights; None if they lack it or have another."""
    found = records.find(run.path, fingerprint.key)
    return _trained(run, {**found.record, "recipe": found.recipe}, found) if found is not None else None


def make(run: PlannedRun, fingerprint: Fingerprint, *, console: Console) -> Trained:
    """Train the run in its folder, or finish it there; a failure is written down and is what comes back.

    What was begun otherwise than it would be today (the study's folder or a library moved on) begins anew.
    """
    try:
        goes_on = _go_on(run.folder, fingerprint)
        write_fingerprint(run.folder, fingerprint)
        try:
            train(run.recipe, out=run.folder, console=console, resume=goes_on)
        except (ConfigError, CorruptFileError) as error:
            if not goes_on:
                raise
            aside = set_aside(run.folder, "unfinished")
            console.say(f"{run.name}: begun anew, what was there is {aside.name} ({error})")
            write_fingerprint(run.folder, fingerprint)
            train(run.recipe, out=run.folder, console=console)
        trained = _finished(run)
        assert trained is not None, "a training that returns has finished"
        return trained
    except DalrError as error:
        return failed(run, fingerprint, error)


def failed(run: PlannedRun, fingerprint: Fingerprint, error: DalrError) -> Trained:
    """Write down why there is no model."""
    found = impossible(run, error)
    write_fingerprint(run.folder, fingerprint.model_copy(update={"failure": found.failure}))
    return found


def impossible(run: PlannedRun, error: DalrError) -> Trained:
    """A run that was not even tried; what its folder holds stays as it is."""
    failure = Failure(reason=str(error), exit_code=error.exit_code)
    return Trained(run=run, failure=failure)


def _go_on(folder: Path, fingerprint: Fingerprint) -> bool:
    """Whether an unfinished training in `folder` goes on from its checkpoint; another run is moved aside."""
    if not entries(folder, StorageError):
        return False
    was = read_fingerprint(folder)
    without_weights = _record(folder).get("status") == "finished"  # with them, the run would not be wanted
    if was is not None and was.key == fingerprint.key and not without_weights:
        return True
    set_aside(folder, "unfinished")
    return False


def _finished(run: PlannedRun) -> Trained | None:
    """What its folder says of the run; None if it is not there or not finished."""
    record = _record(run.folder)
    return _trained(run, record, None) if record.get("status") == "finished" else None


def _trained(run: PlannedRun, record: Mapping[str, Any], known_by: RunRecord | None) -> Trained:
    result = record.get("result")
    scores = {key: result.get(key) for key in _SCORES} if isinstance(result, dict) else {"": result}
    for key, score in scores.items():
        if not _can_be_score(score):
            name = f"result.{key}" if key else "result"
            what = f"{name}: expected a score from -100 to 100 or null, found {score!r:.40}"
            where = run.folder / "run.json" if known_by is None else f"record of {run.name}"
            raise CorruptFileError(f"{where}: {what}; {_REMEDY}")
    return Trained(run=run, known_by=known_by, validation=scores.get("best_score"), record=record)


def _can_be_score(value: object) -> bool:
    """Whether a record's value is a validation score × 100, or none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return abs(value) <= 100 + _ROUNDING


def _record(folder: Path) -> Mapping[str, Any]:
    """`run.json`; empty where there is none that can be read.

    Raises:
        CorruptFileError: it holds a number that is not finite.
    """
    try:
        record = parse_record(regular(folder / "run.json").read_bytes())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    except ValueError as error:
        raise CorruptFileError(f"{folder / 'run.json'}: {error}; {_REMEDY}") from None
    return record if isinstance(record, dict) else {}
