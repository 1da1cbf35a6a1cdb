"""Markdown tables: numbers, bold, dashes, escaping."""

from __future__ import annotations

from pathlib import Path

import pytest
from generated import evaluation, three_models
from markdown_it import MarkdownIt

from dalr.evaluation.results import Evaluation, Evaluations, write_results
from dalr.report.markdown import escape, markdown_document
from dalr.report.sources import read_sources
from dalr.report.write import paper_tables

HOSTILE = "a|b *c* _d_ `e` <script> &amp; [f](g) \\ ~~h~~ # i\nj"


def tables(folder: Path, results: Evaluation | Evaluations) -> str:
    write_results(folder / "results.json", results)
    return markdown_document("title", paper_tables(read_sources([folder / "results.json"])))


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.split("\n")
        if line.startswith("| ")
    ]


def test_scores_averages_dashes_and_bold(tmp_path: Path) -> None:
    models = three_models(pairs=60)
    table = rows(tables(tmp_path, models))
    head = table[0]
    found = {row[0]: dict(zip(head, row, strict=True)) for row in table[:6]}
    assert found["dalr"]["Avg"] == f"**{models.models[0].sts_avg:.2f}**"
    assert found["simcse"]["Avg"] == f"{models.models[1].sts_avg:.2f}"
    assert [found["untrained"][name] for name in ("SICK-R", "Avg")] == ["–", "–"]
    assert "*Published, as printed*" in [row[0] for row in table]
    assert "KDMCSE (bert-base-uncased, wiki+flickr)" in [row[0] for row in table]


def test_paired_tests_say_which_model_is_subtracted_from_which(tmp_path: Path) -> None:
    assert [row[0] for row in rows(tables(tmp_path, three_models(pairs=60))) if "minus" in row[0]] == [
        "*dalr minus simcse*"
    ]


@pytest.mark.parametrize("text", [HOSTILE, "$x$", "**", "1. a", "![a](http://b)", "a\\|b"])
def test_escaped_text_reads_as_it_was(text: str) -> None:
    rendered = MarkdownIt("gfm-like", {"linkify": False}).enable("table").render(f"| {escape(text)} |\n|--|\n")
    import html
    import re

    (cell,) = re.findall(r"<th>(.*)</th>", rendered)
    assert html.unescape(cell) == " ".join(text.split())


def test_a_hostile_model_name_stays_in_its_cell(tmp_path: Path) -> None:
    text = tables(tmp_path, evaluation(HOSTILE, pairs=60))
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "<script" not in rendered
    widths = {row.count("<td") for row in rendered.split("<table>")[1].split("</table>")[0].split("<tr>")[2:]}
    assert widths == {10}
