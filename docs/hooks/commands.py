"""The reference of the commands: usage, help, arguments and options, read from the command line's own definition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer.main

from dalr.cli.app import app

_HEAD = """# Commands

What `dalr COMMAND --help` prints. Exit codes, completion and what all commands have in common stand in
[the command line](../guides/command-line.md).
"""


def page() -> str:
    group = typer.main.get_command(app)
    context = group.make_context("dalr", ["recipe", "list"])
    parts = [_HEAD]
    for path, command in _commands(group, context, ()):
        parts += [f"## `dalr {' '.join(path)}`\n", *_described(path, command, context)]
    return "\n".join(parts)


def _commands(group: Any, context: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, context, (*path, name))
        else:
            yield (*path, name), command


def _described(path: tuple[str, ...], command: Any, context: Any) -> Iterator[str]:
    words, example = _split(command.help or "")
    yield words + "\n"
    own = type(context)(command, info_name=command.name, parent=None)
    usage = command.collect_usage_pieces(own)
    yield f"```text\ndalr {' '.join([*path, *usage])}\n```\n"
    if example:
        yield f"Example:\n\n```\n{example}\n```\n"
    rows = [_row(each, own) for each in command.get_params(own)]
    shown = [row for row in rows if row is not None]
    if shown:
        yield "\n".join(["| option | meaning | default, limits |", "|---|---|---|", *shown]) + "\n"


def _split(text: str) -> tuple[str, str]:
    """The words of a help text, and the lines of its example."""
    words, _, example = text.replace("\b", "").partition("Example:")
    lines = [line.strip() for line in example.strip().splitlines()]
    return " ".join(words.split()), "\n".join(lines)


def _row(parameter: Any, context: Any) -> str | None:
    record = parameter.get_help_record(context)
    if record is None:
        argument = getattr(parameter, "human_readable_name", parameter.name)
        record = (argument, getattr(parameter, "help", None) or "")
    name, meaning = (" ".join(str(part).split()) for part in record)
    if "--help" in name:
        return None
    default = re.search(r"\s*\[(default: [^\]]*|required[^\]]*|[^\]]*<=x[^\]]*)\]\s*$", meaning)
    words = meaning[: default.start()] if default else meaning
    limits = re.sub(r";? ?\d+<=x<=\d{4,}", "", default[1]) if default else ""
    return f"| `{name}` | {_safe(words)} | {_safe(limits)} |".replace("\n", " ")


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")
