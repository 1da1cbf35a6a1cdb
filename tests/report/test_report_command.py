"""`dalr report` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generated import evaluation, run_folder

from dalr.evaluation.results import write_results
from tiny import Outcome


def test_it_writes_the_page_and_the_tables_and_says_where(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    write_results(tmp_path / "teacher.json", evaluation("teacher", pairs=60, extras=False))
    page, markdown, latex = (tmp_path / "out" / name for name in ("report.html", "tables.md", "tables.tex"))
    outcome = cli(
        "report", run, tmp_path / "teacher.json", "--out", page, "--markdown", markdown, "--latex", latex, "-q"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert [line.split(": ")[0] for line in outcome.out.splitlines()] == [str(p) for p in (page, markdown, latex)]
    assert "<title>run, teacher</title>" in page.read_text(encoding="utf-8")
    assert markdown.read_text(encoding="utf-8").startswith("# run, teacher\n")
    assert r"\toprule" in latex.read_text(encoding="utf-8")


def test_a_file_that_is_no_result_exits_with_3_and_leaves_nothing(
    cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "scores.json").write_text('{"model": "m"}')
    outcome = cli("report", tmp_path / "scores.json", "--out", tmp_path / "report.html")
    assert outcome.code == 3
    assert "expected a file that `dalr evaluate --json` wrote" in outcome.err
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written_exits_with_6(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    outcome = cli("report", run, "--out", run / "run.json" / "report.html", "-q")
    assert outcome.code == 6
    assert "Traceback" not in outcome.err
