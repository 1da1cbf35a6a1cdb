"""What a study leaves: study.json, study.md, study.tex, study.html, and small records of every run.

`results/` has what a reader needs to check the tables, redo them, or build on them: recipe, versions and curves of
every run, scores of the final ones, and the tickets by which a study knows its runs. No path of the machine is left
in them: prepared models and data are named as the study names them. Cosines of every pair stay in the run's folder,
so that differences of runs that are known by their records alone have no interval over items.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from dalr.data.paths import expand
from dalr.errors import DataError
from dalr.evaluation.results import RUN_RESULT, Details, read_results, write_results
from dalr.io.atomic import storage_errors, write_bytes, write_json, write_text
from dalr.io.paths import is_file, regular
from dalr.report.latex import latex_document
from dalr.report.markdown import markdown_document
from dalr.report.page import render
from dalr.study.ledger import read_ticket, with_prepared_named, write_ticket
from dalr.study.page import study_page
from dalr.study.plan import Plan
from dalr.study.result import StudyResult
from dalr.study.tables import study_tables
from dalr.study.training import Trained
from dalr.study.verdict import verdict

JSON, MARKDOWN, LATEX, PAGE = "study.json", "study.md", "study.tex", "study.html"


def write_study(result: StudyResult, plan: Plan, *, runs: Sequence[Trained]) -> None:
    """Write everything into the study's folder; equal results give equal bytes.

    Raises:
        StorageError: a file cannot be written.
    """
    out, tables = plan.out, study_tables(result)
    write_json(out / JSON, result.model_dump(mode="json"))
    write_text(out / MARKDOWN, markdown_document(f"Study {result.name}", tables, verdict(result)))
    write_text(out / LATEX, latex_document(tables))
    write_text(out / PAGE, render(study_page(result)))
    asked = plan.study.config.evaluate
    for each in runs:
        _record(each, overlap_with=asked.exclude_overlap if asked is not None else None)


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study's runs, records or result; a page or a table alone may be somebody else's."""
    if any(folder.glob("runs/*/*.ticket.json")) or any(folder.glob("results/**/*.ticket.json")):
        return True
    try:
        stated = json.loads(regular(folder / JSON).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(stated, dict) and {"name", "dalr"} <= stated.keys()


def _record(trained: Trained, *, overlap_with: str | None) -> None:
    """Write the record of a run that is finished in its folder; what was recorded of another run goes."""
    run = trained.run
    ticket, was = read_ticket(run.folder), read_ticket(run.record)
    if ticket is None:
        return
    if was is not None and was.key != ticket.key:
        with storage_errors(run.record):
            shutil.rmtree(run.record, ignore_errors=True)
    record = dict(trained.record or {})
    files = {"pairs_file": run.recipe.data.pairs, "text_file": run.recipe.data.text}
    record["data"] = record.get("data", {}) | {key: file for key, file in files.items() if file is not None}
    written = {"name": run.recipe.name, "description": run.recipe.description, **ticket.recipe}
    record["recipe"] = with_prepared_named(written, run.needs)
    write_json(run.record / "run.json", record)
    write_ticket(run.record, ticket)
    with storage_errors(run.record):
        if is_file(run.folder / "metrics.jsonl"):
            write_bytes(run.record / "metrics.jsonl", regular(run.folder / "metrics.jsonl").read_bytes())
    try:
        (evaluation,), _ = read_results(run.folder / RUN_RESULT)
    except (DataError, ValueError):
        return  # a trial, or a run whose evaluation failed
    read = evaluation.settings.overlap_with
    if read is not None and (overlap_with is None or read != str(expand(overlap_with))):
        return  # scored for another purpose, with a file that this study does not name
    settings = evaluation.settings.model_copy(update={"overlap_with": overlap_with if read is not None else None})
    left = evaluation.model_copy(update={"details": Details(), "model": run.name, "settings": settings})
    write_results(run.record / RUN_RESULT, left)
