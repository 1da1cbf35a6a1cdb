"""What `--help` prints: summaries that are not cut, an example for each command, a word on each option."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from dalr.cli.app import app


def every_command() -> Iterator[tuple[str, Any]]:
    group = typer.main.get_command(app)
    context = group.make_context("dalr", ["cache"])
    stack: list[tuple[str, Any]] = [
        (name, group.get_command(context, name)) for name in group.list_commands(context)
    ]
    while stack:
        path, command = stack.pop(0)
        if hasattr(command, "list_commands"):
            stack += [
                (f"{path} {name}", command.get_command(context, name)) for name in command.list_commands(context)
            ]
        else:
            yield path, command


COMMANDS = dict(every_command())


def test_there_are_commands() -> None:
    assert {"train", "recipe show", "features images"} <= set(COMMANDS)


@pytest.mark.parametrize("group", ["", *sorted({path.split()[0] for path in COMMANDS if " " in path})])
def test_no_summary_is_cut_at_80_columns(group: str) -> None:
    shown = CliRunner().invoke(app, [*group.split(), "--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert [line for line in shown.output.splitlines()[1:] if line.rstrip().endswith("...")] == []
    assert max(map(len, shown.output.splitlines())) <= 80


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_an_example_that_the_command_takes(path: str) -> None:
    _, found, example = (COMMANDS[path].help or "").replace("\b", "").partition("Example:")
    assert found, f"dalr {path} --help has no example"
    lines = [line.strip() for line in example.replace("\\\n", " ").strip().splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        name = ["dalr", *path.split()]
        assert words[: len(name)] == name
        assert COMMANDS[path].make_context(path, words[len(name) :]) is not None


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_and_argument_is_explained(path: str) -> None:
    silent = [each.name for each in COMMANDS[path].params if not getattr(each, "help", None)]
    assert silent == []


def test_summaries_are_one_sentence_in_the_imperative() -> None:
    for path, command in COMMANDS.items():
        first = (command.help or "").strip().splitlines()[0]
        assert first.endswith("."), path
        assert first[0].isupper(), path
