"""Hooks of the documentation: pages that are generated, and equations as MathML.

The front page is the README and the changelog is CHANGES.md; the reference of recipe keys comes from the schema, that
of the commands from typer. Nothing is fetched.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "src")]

import commands  # noqa: E402
import experiments  # noqa: E402
import keys  # noqa: E402
from equations import Equations  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

_equations = Equations()


def on_files(files: Files, config: Any) -> Files:
    generated = {
        "index.md": _front_page((ROOT / "README.md").read_text(encoding="utf-8")),
        "changelog.md": (ROOT / "CHANGES.md").read_text(encoding="utf-8"),
        "reference/recipe.md": keys.page(),
        "reference/commands.md": commands.page(),
        "experiments/index.md": experiments.page(ROOT / "docs" / "experiments"),
    }
    for name, text in generated.items():
        if (placeholder := files.get_file_from_path(name)) is not None:
            files.remove(
                placeholder
            )  # a page that says where the content comes from, for readers of the repository
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _equations.taken_out(markdown)


def on_page_content(html: str, **_: Any) -> str:
    return _equations.put_back(html)


def _front_page(readme: str) -> str:
    """The README, its links into docs/ seen from inside docs/."""
    inside = re.sub(r"(\]\(|srcset=\"|src=\")docs/", r"\1", readme)
    inside = inside.replace("](CHANGES.md)", "](changelog.md)")
    return re.sub(r"\[([^\]]*)\]\((?:examples/README\.md|CITATION\.cff|CONTRIBUTING\.md)\)", r"\1", inside)
