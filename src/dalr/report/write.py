"""What does `dalr report` do? It reads results and run folders, and writes the page and the paper's tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from dalr.errors import ConfigError, Problem
from dalr.io.atomic import remedy, write_text
from dalr.io.console import Console
from dalr.io.output_file import LATEX, MARKDOWN, PAGE, Kind, claimed_file
from dalr.report import diagnostic_tables, score_tables
from dalr.report.drawing import require_drawing
from dalr.report.evaluation_page import SECTIONS, evaluation_page
from dalr.report.latex import latex_document
from dalr.report.markdown import markdown_document
from dalr.report.page import render
from dalr.report.sources import Sources, read_sources
from dalr.report.tables import Table


def write_report(
    paths: Sequence[Path],
    *,
    out: Path,
    markdown: Path | None = None,
    latex: Path | None = None,
    title: str | None = None,
    console: Console | None = None,
) -> None:
    """Report on `paths` (run folders or files of `dalr evaluate --json`) in one HTML file, `out`.

    The same input gives the same bytes. `markdown` and `latex` get the score tables alone.

    Raises:
        ConfigError: nothing was named, or something twice; or matplotlib is not installed.
        DataError: what was named cannot be read; all problems at once, and nothing is written.
        StorageError: a file cannot be written, is somebody else's, or is being written by another process.
    """
    wanted = [("--out", out, PAGE), ("--markdown", markdown, MARKDOWN), ("--latex", latex, LATEX)]
    named = [(option, path, kind) for option, path, kind in wanted if path is not None]
    _refuse_one_file_twice(named)
    with ExitStack() as held:
        for option, path, kind in named:
            held.enter_context(claimed_file(path, kind, option))
        _write(paths, out, markdown, latex, title, console or Console())


def _refuse_one_file_twice(named: Sequence[tuple[str, Path, Kind]]) -> None:
    seen: dict[str, str] = {}
    for option, path, _ in named:
        place = os.path.realpath(path)
        if place in seen:
            what = f"{path} is the file of {seen[place]}, too; name another"
            raise ConfigError(Problem(where=option, what=what))
        seen[place] = option


def _write(
    paths: Sequence[Path],
    out: Path,
    markdown: Path | None,
    latex: Path | None,
    title: str | None,
    console: Console,
) -> None:
    require_drawing()
    sources = read_sources(paths)
    heading = title if title is not None else _title([each.label for each in sources.models])
    with console.bar("report", len(SECTIONS), "section") as bar:
        page = evaluation_page(sources, title=heading, progress=lambda done: bar.update(done))
    with remedy("choose another --out file"):
        write_text(out, render(page))
    tables = paper_tables(sources)
    if markdown is not None:
        with remedy("choose another --markdown file"):
            write_text(markdown, f"{markdown_document(heading, tables)}\n{MARKDOWN.mark.decode()}\n")
    if latex is not None:
        with remedy("choose another --latex file"):
            write_text(latex, f"{latex_document(tables)}{LATEX.mark.decode()}\n")


def _title(labels: Sequence[str]) -> str:
    """The models' names, where they make a heading."""
    if len(labels) > 3:
        return f"{len(labels)} models: {labels[0]} to {labels[-1]}"
    return ", ".join(labels)


def paper_tables(sources: Sources) -> list[Table]:
    """All tables that go into a paper: those for which there is a number, in reading order."""
    candidates = [
        score_tables.sts_table(sources),
        score_tables.transfer_table(sources),
        score_tables.retrieval_table(sources),
        score_tables.captions_table(sources),
        diagnostic_tables.geometry_table(sources),
        score_tables.mteb_table(sources),
        diagnostic_tables.comparison_table(sources.comparisons),
        diagnostic_tables.failed_table(sources),
    ]
    return [each for each in candidates if each is not None]
