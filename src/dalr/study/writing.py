"""What a study leaves: study.json, study.md, study.tex, study.html, and small copies of every run's record.

`results/` has what a reader needs to check or redo the tables: recipe, versions and curves of every run, scores of
the final ones. What only pictures need (cosines of every pair) stays in the run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dalr.errors import DataError
from dalr.evaluation.results import RUN_RESULT, Details, read_results, write_results
from dalr.io.atomic import storage_errors, write_bytes, write_json, write_text
from dalr.report.latex import latex_document
from dalr.report.markdown import markdown_document
from dalr.report.page import render
from dalr.study.page import study_page
from dalr.study.plan import PlannedRun
from dalr.study.result import StudyResult
from dalr.study.tables import study_tables

JSON, MARKDOWN, LATEX, PAGE, RESULTS = "study.json", "study.md", "study.tex", "study.html", "results"
_COPIED = ("run.json", "metrics.jsonl")


def write_study(result: StudyResult, out: Path, *, runs: Sequence[PlannedRun]) -> None:
    """Write everything into `out`; equal results give equal bytes.

    Raises:
        StorageError: a file cannot be written.
    """
    tables = study_tables(result)
    write_json(out / JSON, result.model_dump(mode="json"))
    write_text(out / MARKDOWN, markdown_document(f"Study {result.name}", tables))
    write_text(out / LATEX, latex_document(tables))
    write_text(out / PAGE, render(study_page(result)))
    for run in runs:
        _copy(run.folder, out / RESULTS / run.folder.relative_to(out))


def _copy(run: Path, to: Path) -> None:
    with storage_errors(to):
        for name in _COPIED:
            if (run / name).is_file():
                write_bytes(to / name, (run / name).read_bytes())
    try:
        (evaluation,), _ = read_results(run / RUN_RESULT)
    except (DataError, ValueError):
        return  # a trial, or a run whose evaluation failed
    write_results(to / RUN_RESULT, evaluation.model_copy(update={"details": Details()}))
