"""What the README shows works: every command, the recipe, the study, the Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from dalr.cli.app import app
from dalr.recipe.loading import load_recipe
from dalr.study import load_study, make_plan

ROOT = Path(__file__).parent.parent


def _blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [found[2] for found in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", text) if found[1] == language]


def _commands() -> Iterator[list[str]]:
    """The words of every `dalr ...` in a fenced block, without the comment behind it."""
    for line in "\n".join(_blocks("")).replace("\\\n", " ").splitlines():
        if line.startswith("dalr "):
            yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("words", list(_commands()), ids=" ".join)
def test_every_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    group = typer.main.get_command(app)
    with group.make_context("dalr", list(words)) as context:
        command, rest = group, words
        while hasattr(command, "resolve_command"):
            name, command, rest = command.resolve_command(context, rest)
        assert command.make_context(name, list(rest), parent=context).params


def test_every_piece_of_python_compiles() -> None:
    for code in _blocks("python"):
        compile(code, "README.md", "exec")


def test_the_recipe_is_one(tmp_path: Path) -> None:
    [recipe] = [block for block in _blocks("yaml") if "name: mine" in block]
    (tmp_path / "mine.yaml").write_text(recipe, encoding="utf-8")
    assert load_recipe(str(tmp_path / "mine.yaml")).data.pairs == "captions.jsonl"


def test_the_study_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "my-study"):
        [block] = [block for block in _blocks("yaml") if f"name: {name}\n" in block]
        (tmp_path / f"{name}.yaml").write_text(block, encoding="utf-8")
    plan = make_plan(load_study("my-study.yaml"), tmp_path / "out")
    assert {method: len(trials) for method, trials in plan.trials.items()} == {"one-term": 8, "all-terms": 8}
