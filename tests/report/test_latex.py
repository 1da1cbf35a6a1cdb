"""LaTeX tables: what they hold, that they escape, that they compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from generated import evaluation, three_models
from hypothesis import given
from hypothesis import strategies as st

from dalr.evaluation.results import Evaluation, Evaluations, StsResult, write_results
from dalr.report.latex import escape, latex_document
from dalr.report.sources import read_sources
from dalr.report.write import paper_tables

HOSTILE = "100% of $x_1$ & {#2} ~^\\input{/etc/passwd} <a|b> \"c\" 'd' `e` -- naïve 漢字 \u202e[x] 🙂"


def tables(folder: Path, results: Evaluation | Evaluations) -> str:
    write_results(folder / "results.json", results)
    return latex_document(paper_tables(read_sources([folder / "results.json"])))


def hostile() -> Evaluation:
    return evaluation(HOSTILE, pairs=60, without=("CR",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", r"a\_b"),
        ("50 %", r"50 \%"),
        ("\\", r"\textbackslash{}"),
        ("{~^}", r"\{\textasciitilde{}\textasciicircum{}\}"),
        ("−1.5 – 2", "$-$1.5 -- 2"),
        ("a--b", "a-{}-b"),
        ("é", "é"),
        ("ﬁ", "fi"),
        ("漢", "[U+6F22]"),
        ("a\n\tb", "a b"),
    ],
)
def test_text_is_set_as_it_is(text: str, expected: str) -> None:
    assert escape(text) == expected


@given(st.text())
def test_no_text_leaves_a_special_character_or_an_open_brace(text: str) -> None:
    written = escape(text)
    bare = re.sub(r"\\(?:[a-z]+\{\}|[{}$&#%_])", "", written)  # our commands and escaped characters
    bare = re.sub(r"\$(?:-|\\[A-Za-z]+|\^2)\$", "", bare).replace("{}", "").replace("~", "")
    assert not set(bare) & set('\\{}$&#%_^"<>|`') or set(bare) & set('\\{}$&#%_^"<>|`') <= {"`"}
    assert "\n" not in written


def test_rows_columns_rules_and_bold_are_right(tmp_path: Path) -> None:
    models = three_models(pairs=60)
    text = tables(tmp_path, models)
    for block in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, flags=re.DOTALL):
        width = len(re.match(r"\\begin\{tabular\}\{([lr]*)\}", block)[1])  # type: ignore[index]
        rows = [line for line in block.split("\n") if line.endswith(r"\\") and "multicolumn" not in line]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {width - 1}
        assert block.count(r"\toprule") == block.count(r"\bottomrule") == 1
    assert r"{\emph{dalr minus simcse}} \\" in text
    sts = text[: text.index(r"\end{table*}")]
    first = models.models[0].tasks["STS12"]
    assert isinstance(first, StsResult)
    assert rf"\textbf{{{first.spearman:.2f}}}" in sts
    assert (
        sts.index("untrained &") < sts.index(r"\midrule", sts.index("untrained &")) < sts.index("RankCSE ListNet")
    )
    (untrained,) = [line for line in sts.split("\n") if line.startswith("{}untrained &")]
    assert untrained.count("--") == 2


def test_hostile_names_compile_to_balanced_groups(tmp_path: Path) -> None:
    text = tables(tmp_path, hostile())
    assert r"\input" not in text
    assert text.isascii() or set(re.findall(r"[^\x00-\x7f]", text)) <= set("ï")
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for name in ("table*", "tabular", "minipage"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_sets_the_tables_without_an_error(tmp_path: Path) -> None:
    models = three_models(pairs=60)
    everything = Evaluations(models=(*models.models, hostile()), comparisons=models.comparisons)
    (tmp_path / "tables.tex").write_text(tables(tmp_path, everything), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{textcomp,booktabs,graphicx}\n"
        "\\begin{document}\\input{tables}\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull" not in log
