"""The README's tree names every module, with a phrase, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_ENTRY = re.compile(r"^(?P<indent> *)(?P<name>\S+)(?P<phrase> {2,}\S.*| \S.*)?$")


def _tree() -> dict[str, str]:
    """Path below the root -> phrase, from the fenced block under "What is where"."""
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1].split("```")[1]
    entries: dict[str, str] = {}
    folders: list[str] = []
    for line in block.strip("\n").split("\n"):
        match = _ENTRY.match(line)
        assert match is not None, line
        depth = len(match["indent"]) // 2
        folders[depth:] = [match["name"].rstrip("/")]
        entries["/".join(folders)] = (match["phrase"] or "").strip()
    return entries


def test_every_module_is_in_the_tree() -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    assert modules == {name for name in _tree() if name.endswith(".py")}


def test_every_file_in_the_tree_exists_and_has_a_phrase() -> None:
    for name, phrase in _tree().items():
        assert (ROOT / name).exists(), name
        assert phrase or (ROOT / name).is_dir(), f"{name} has no phrase"


def test_the_tree_names_every_shipped_recipe() -> None:
    listed = {name.strip() for name in _tree()["src/dalr/recipes"].split(",")}
    assert listed == {path.stem for path in (ROOT / "src/dalr/recipes").glob("*.yaml")}
