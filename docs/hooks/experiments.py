"""The index of the experiments: one dated page per question, newest first, each with its verdict."""

from __future__ import annotations

from pathlib import Path

_HEAD = """# Experiments

What was measured: one page per question, with the command, the table and the verdict, failures included. Unless a page
says otherwise: two cores of an AMD EPYC (AVX512-BF16, no AMX), 24 GB, torch 2.13.0 (CPU), one seed. `$DALR_SHARED` is a
folder of real data; the pages say what each command reads from it.

| date | question | verdict |
|---|---|---|
"""


def page(folder: Path) -> str:
    rows = [_row(path) for path in sorted(folder.glob("20*.md"), reverse=True)]
    return _HEAD + "\n".join(rows) + "\n"


def _row(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    title = text.splitlines()[0].removeprefix("# ")
    verdict = next(line for line in text.splitlines() if line.startswith("**Verdict.**"))
    return f"| {path.name[:10]} | [{title}]({path.name}) | {verdict.removeprefix('**Verdict.** ')} |"
