"""How does a command line become a call, and an error a message and an exit code?

Heavy imports happen inside the commands: `dalr --help` answers at once.

Results go to standard output, everything else to standard error. A known error prints its problems and exits
with its code: 2 configuration, 3 data, 4 model or corrupt file, 5 numerics, 6 storage, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import errno
import inspect
import io
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from dalr.cli import (
    auditing,
    compare,
    data,
    encode,
    evaluation,
    exploring,
    exporting,
    features,
    others,
    recipes,
    search,
    serving,
    training,
)
from dalr.errors import ConfigError, DalrError, Problem, StorageError
from dalr.io.console import BROKEN_PIPE, occupy_standard_streams, show, silence, tell
from dalr.io.paths import expanded
from dalr.version import VERSION

app = typer.Typer(
    name="dalr",
    help="Train sentence encoders on image-caption pairs and plain text; evaluate and use them.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (
    others.demo,
    training.init,
    training.check,
    training.train,
    evaluation.evaluate,
    compare.compare,
    auditing.audit,
    training.study,
    evaluation.report,
    search.search,
    exploring.explore,
    encode.encode,
    search.index,
    serving.serve,
    exporting.export,
    exporting.push,
):
    app.command()(_command)
app.command("import")(others.import_model)
app.command()(others.cache)


def _group(name: str, about: str, **commands: Any) -> None:
    group = typer.Typer(help=about, no_args_is_help=True)
    for each, function in commands.items():
        group.command(each)(function)
    app.add_typer(group, name=name)


_group("recipe", "List, print and explain recipes.", list=recipes.list_recipes, show=recipes.show_recipe)
_group(
    "features",
    "Compute or import the frozen vectors that training reads.",
    images=features.features_of_images,
    text=features.features_of_text,
    merge=features.merge_features,
    **{"import": features.import_features},
)
_group(
    "data",
    "Fetch and verify evaluation data; pack one's own.",
    get=data.get_data,
    verify=data.verify_data,
    pack=data.pack_data,
)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        show(f"dalr {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = None,
) -> None:
    """Holds the options that come before a command."""


def main() -> None:
    """Entry point: run a command, turn our errors into messages and exit codes."""
    occupy_standard_streams()
    try:
        sys.exit(_run(sys.argv[1:]))
    except DalrError as error:
        _show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_STREAMS:
            sys.exit(_internal(error))
        tell(f"error: cannot write to standard output: {error.strerror}; redirect it elsewhere")
        sys.exit(StorageError.exit_code)
    except Exception as error:  # noqa: BLE001 - the last net: whatever comes here is a bug
        sys.exit(_internal(error))


_OF_STREAMS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
"""What a full device says to `--help`; files of ours say it through `StorageError`."""
_USAGE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What typer raises of options that it cannot read; some versions bring their own copy of click."""


def _run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    _refuse_undecodable(arguments)
    _expand_paths(app)
    command = typer.main.get_command(app)
    try:
        return command(arguments, prog_name="dalr", standalone_mode=False) or 0
    except _USAGE as error:
        words = io.StringIO()
        error.show(file=words)
        tell(words.getvalue() + _example_of(error), end="")
        return int(error.exit_code)
    except typer.Abort:
        tell("Aborted!")
        return 1
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        silence(sys.stdout)  # nobody reads the help any longer; click ends with 1
        return BROKEN_PIPE


def _example_of(error: Any) -> str:
    """The example of a command that was called without what it needs, from its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ != "MissingParameter" or context is None:
        return ""
    _, found, example = str(context.command.help or "").partition("Example:\n")
    return f"\nExample:\n{example.rstrip()}\n" if found else ""


def _refuse_undecodable(arguments: list[str]) -> None:
    """What cannot be written down again is refused before the work, not at its end."""
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            what = f"not UTF-8, and records of dalr are: {argument!r:.200}; rename the file, or spell it otherwise"
            raise ConfigError(Problem(where=f"argument {number}", what=what)) from None


def _expand_paths(commands: typer.Typer) -> None:
    """Have every path option and argument, of all commands, read by `expanded`, which is told their names."""
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _expand_paths(group.typer_instance)
    for command in commands.registered_commands:
        function: Any = inspect.unwrap(command.callback) if command.callback is not None else None
        function.__annotations__ = get_type_hints(function, include_extras=True)  # typer would make new ones
        for name, hint in function.__annotations__.items():
            if hasattr(hint, "__metadata__") and Path in (get_args(hint)[0], *get_args(get_args(hint)[0])):
                for said in get_args(hint)[1:]:
                    said.parser = partial(expanded, where=_shown_name(name, said))


def _shown_name(name: str, said: Any) -> str:
    """What a person calls an option or argument; typer keeps the first name given in place of a default."""
    if isinstance(said, typer.models.ArgumentInfo):
        return str(said.metavar or name.upper())
    given = [each for each in (said.default, *(said.param_decls or ())) if str(each).startswith("--")]
    return str(given[0]) if given else f"--{name.replace('_', '-')}"


def _show_error(error: DalrError) -> None:
    """The error's lines; of several ranks that find the same, the first says it."""
    from dalr.io.environment import process_rank

    try:
        rank = process_rank()
    except ConfigError:
        rank = 0  # the error that is shown says so
    note = "".join(getattr(error, "__notes__", []))
    if rank and not note:
        from dalr.training.launch import leave_it_to_the_first_rank

        leave_it_to_the_first_rank()
        note = f"on rank {rank}"
    tell(f"error {note}: {error}" if rank else f"error: {error}")


def _internal(error: Exception) -> int:
    """Say that dalr itself is at fault; the exit code."""
    if {"-v", "--verbose"} & set(sys.argv):
        import traceback

        tell("".join(traceback.format_exception(error)), end="")
    what = " ".join(f"{type(error).__name__}: {error}".split())
    tell(f"internal error: {what:.300}; this is a bug in dalr: please report it with the command (-v says more)")
    return 1
