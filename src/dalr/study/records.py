"""What does a study keep of its runs without their weights? One line per run in `results/STUDY.jsonl`.

A line has what a reader needs to check the tables, redo them, or build on them: recipe, versions and curve of the
run, the scores of a final one, and the key by which a study knows it. No path of the machine is left in it:
prepared models and data are named as the study names them. Cosines of every pair stay in the run's folder, so
differences of runs that are known by their records alone have no interval over items.

Every `*.jsonl` in `results/` is read, so the files of several studies in one folder are the memory of all of them;
a study writes its own alone, the whole file at once, after each run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dalr.errors import DataError, Problem
from dalr.evaluation.results import RUN_RESULT, Details, Evaluation, read_results
from dalr.io.atomic import write_text
from dalr.io.paths import exists, is_file, regular
from dalr.recipe.paths import expand
from dalr.study.fingerprint import Fingerprint, with_prepared_named
from dalr.study.plan import PlannedRun

RESULTS = "results"
_FORMAT, _HEAD = b"dalr-study-run", 200


class RunRecord(BaseModel):
    """A finished run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["dalr-study-run"] = "dalr-study-run"
    version: Literal[1] = 1
    run: str
    """Its folder, inside the study's."""
    key: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, str]
    """What it read -> checksum, or what stands for one."""
    record: Mapping[str, Any]
    """Its `run.json`, without the recipe."""
    metrics: tuple[Mapping[str, Any], ...] = ()
    evaluation: Evaluation | None = None
    """Without what single sentences and pairs got."""

    def line(self) -> str:
        tree = self.model_dump(mode="json", exclude={"evaluation"})
        tree["evaluation"] = (
            self.evaluation.model_dump(mode="json", by_alias=True) if self.evaluation is not None else None
        )
        return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


class Records:
    """The records of a study's folder: read once, written after each run.

    Raises:
        DataError: a line is no record, or one of a later version; the file would be rewritten without it.
    """

    def __init__(self, out: Path, study: str) -> None:
        self.file = out / RESULTS / f"{study}.jsonl"
        self._own = _read(self.file) if exists(self.file) else {}
        self._others: list[Mapping[str, RunRecord]] = [
            _read(path) for path in sorted(self.file.parent.glob("*.jsonl")) if path != self.file
        ]

    def find(self, run: str, key: str) -> RunRecord | None:
        """The record of a run, if one has this key."""
        for records in (self._own, *self._others):
            if run in records and records[run].key == key:
                return records[run]
        return None

    def keep(self, record: RunRecord) -> None:
        """Write a record in the place of what was there of the run; scores stay while the run is the same.

        Raises:
            StorageError: the file cannot be written.
        """
        before = self.find(record.run, record.key)
        if before is not None and record.evaluation is None:
            record = record.model_copy(update={"evaluation": before.evaluation})
        if before == record:
            return
        self._own[record.run] = record
        write_text(self.file, "".join(self._own[run].line() + "\n" for run in sorted(self._own)))


def holds_study(folder: Path) -> bool:
    """Whether a folder holds the runs or the records of a study; a page or a table alone may be somebody else's."""
    if any(folder.glob("runs/*/*.fingerprint.json")):
        return True
    for path in folder.glob(f"{RESULTS}/*.jsonl"):
        try:
            if _FORMAT in regular(path).read_bytes()[:_HEAD]:
                return True
        except (OSError, ValueError):
            continue
    return False


def record_of(
    run: PlannedRun, fingerprint: Fingerprint, finished: Mapping[str, Any], *, overlap_with: str | None
) -> RunRecord:
    """The record of a run that is finished in its folder, whose `run.json` is `finished`."""
    record = {key: value for key, value in finished.items() if key != "recipe"}
    files = {"pairs_file": run.recipe.data.pairs, "text_file": run.recipe.data.text}
    record["data"] = record.get("data", {}) | {key: file for key, file in files.items() if file is not None}
    written = {"name": run.recipe.name, "description": run.recipe.description, **fingerprint.recipe}
    return RunRecord(
        run=run.path,
        key=fingerprint.key,
        recipe=with_prepared_named(written, run.needs),
        inputs=fingerprint.inputs,
        record=record,
        metrics=_metrics(run.folder / "metrics.jsonl"),
        evaluation=_evaluation(run, overlap_with),
    )


def _metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not is_file(path):
        return ()
    return tuple(json.loads(line) for line in _lines(path))


def _lines(path: Path) -> list[str]:
    """Lines as JSONL has them; `splitlines` would also cut at characters inside strings."""
    return regular(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _evaluation(run: PlannedRun, overlap_with: str | None) -> Evaluation | None:
    try:
        (evaluation,), _ = read_results(run.folder / RUN_RESULT)
    except (DataError, ValueError):
        return None  # a trial, or a run whose evaluation failed
    read = evaluation.settings.overlap_with
    if read is not None and (overlap_with is None or read != str(expand(overlap_with))):
        return None  # scored for another purpose, with a file that this study does not name
    settings = evaluation.settings.model_copy(update={"overlap_with": overlap_with if read is not None else None})
    return evaluation.model_copy(update={"details": Details(), "model": run.name, "settings": settings})


def _read(path: Path) -> dict[str, RunRecord]:
    problems: list[Problem] = []
    found: dict[str, RunRecord] = {}
    try:
        lines = _lines(path)
    except OSError as error:
        raise DataError(Problem(where=str(path), what=f"cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise DataError(Problem(where=str(path), what="expected text in UTF-8; move the file away")) from None
    for number, line in enumerate(lines, start=1):
        try:
            record = RunRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            expected = "expected the record of a run as `dalr study` writes it"
            found_at = f"{place or 'the line'}: {first['msg']}"
            remedy = "move the file away, or take the line out, and its run is trained again"
            what = f"{expected}; {found_at}; {remedy}"
            problems.append(Problem(where=f"{path}:{number}", what=what))
            continue
        found[record.run] = record
    if problems:
        raise DataError(problems)
    return found
