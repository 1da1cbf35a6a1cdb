"""What does a study write beside its runs? study.json, study.md, study.tex, study.html."""

from __future__ import annotations

from dalr.io.atomic import storage_errors, write_json, write_text
from dalr.io.console import Console
from dalr.report.drawing import HOW_TO_INSTALL, can_draw
from dalr.report.latex import latex_document
from dalr.report.markdown import markdown_document
from dalr.report.page import render
from dalr.study.page import study_page
from dalr.study.plan import Plan
from dalr.study.result import StudyResult
from dalr.study.tables import study_tables
from dalr.study.verdict import verdict

JSON, MARKDOWN, LATEX, PAGE = "study.json", "study.md", "study.tex", "study.html"


def write_study(result: StudyResult, plan: Plan, console: Console) -> None:
    """Write everything into the study's folder; equal results give equal bytes.

    Without matplotlib there is no page, and none of earlier results is left either.

    Raises:
        StorageError: a file cannot be written.
    """
    out, tables = plan.out, study_tables(result)
    write_json(out / JSON, result.model_dump(mode="json"))
    write_text(out / MARKDOWN, markdown_document(f"Study {result.name}", tables, verdict(result)))
    write_text(out / LATEX, latex_document(tables))
    if can_draw():
        write_text(out / PAGE, render(study_page(result)))
        return
    with storage_errors(out / PAGE):
        (out / PAGE).unlink(missing_ok=True)
    console.say(f"{out / PAGE} is not written: it is drawn by matplotlib, which is not installed; {HOW_TO_INSTALL}")
