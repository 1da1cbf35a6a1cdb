"""The page of `dalr compare`: the verdict first, then the tables and tests that it rests on."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from dalr.evaluation.photo_comparison import PhotoComparison
from dalr.evaluation.results import write_results
from dalr.io.atomic import remedy, write_text
from dalr.report.drawing import require_drawing
from dalr.report.evaluation_page import evaluation_page
from dalr.report.page import Page, Prose, Section, render
from dalr.report.sources import read_sources


def write_comparison_page(found: PhotoComparison, out: Path) -> None:
    """Write the page.

    Raises:
        ConfigError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    require_drawing()
    with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
        results = Path(folder) / "comparison.json"
        write_results(results, found.results())
        page = evaluation_page(read_sources([results]), title=f"Is {found.models[0].model} better?")
    with remedy("choose another --html file"):
        write_text(out, render(_with_verdict(page, found)))


def _with_verdict(page: Page, found: PhotoComparison) -> Page:
    chance = ", ".join(f"{name} {value:.2f}" for name, value in found.chance.items())
    rest = tuple(Prose(text=sentence) for sentence in found.verdict[1:])
    verdict = Section(
        name="verdict", title="Verdict", blocks=(*rest, Prose(text=f"By chance: {chance}.", small=True))
    )
    return replace(page, lead=Prose(text=found.verdict[0]), sections=(verdict, *page.sections))
