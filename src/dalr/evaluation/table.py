"""Scores as a plain table for a terminal or a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence

from dalr.evaluation.run import Report
from dalr.evaluation.tasks import STS_TASKS


def as_table(report: Report) -> str:
    """One row of Spearman × 100 (all subsets of a task together), Markdown."""
    headers = ["model", *report.tasks]
    cells = [report.model, *(f"{score.spearman:.2f}" for score in report.tasks.values())]
    if set(STS_TASKS) & set(report.tasks):
        headers.append("STS avg")
        cells.append(f"{report.sts_avg:.2f}" if report.sts_avg is not None else "–")
    return (
        markdown(headers, [cells])
        + "\nSpearman × 100, all subsets of a task concatenated, test sets (sts-b-dev: dev)"
    )


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    table = [list(headers), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|" + "|".join("-" * (widths[0] + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    )
    return "\n".join([line(table[0]), rule, *(line(row) for row in table[1:])])
