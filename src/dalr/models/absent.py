"""What lies beside a run or model that is not there? A slip of the pen gets the names that are.

Every command that takes a run or a model asks here, so that the same slip has the same answer everywhere.
"""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

from dalr.errors import ConfigError, ModelFileError, Problem
from dalr.io.paths import entries, exists, is_dir, is_file
from dalr.recipe.paths import expand

_SHOWN = 10
_RUN, _FOLDER = 0.6, 0.7
"""How near a name must be: among runs the name of one is expected, elsewhere it may be a model of the hub."""


def require_there(reference: str) -> None:
    """Refuse a name beside runs that is none of them: it is no model of the hub.

    Raises:
        ModelFileError: with the runs that are there.
    """
    if not reference.strip() or reference.startswith("package:"):
        return
    path = expand(reference)
    if exists(path, ModelFileError):
        return
    missing = _first_missing(path)
    if str(missing.parent) != "." and (runs := _runs(missing.parent)):
        what = f"no such run or model; {_did_you_mean(path, missing, runs, _RUN)}{_listed(runs)}"
        raise ModelFileError(Problem(where=reference, what=what))


def no_such(path: Path, expected: str) -> str:
    """What to say where a path that names a run, or something made of one, is not there.

    Args:
        expected: `run`, or `run or result file`, for the message.
    """
    missing = _first_missing(path)
    runs = _runs(missing.parent)
    beside = (runs or _folders(missing.parent)) + _files_like(missing)
    listed = _listed(runs) if runs else "name the folder of a run, such as runs/photos"
    return f"no such {expected}; {_did_you_mean(path, missing, beside, _RUN)}{listed}"


def refuse_swapped(first: str | None, second: str | None, where: str, command: str) -> None:
    """Refuse a run or model as the second argument, where the first is none.

    Args:
        where: what the first argument is called.
        command: how it is called, with `{}` for both in their right order.

    Raises:
        ConfigError: with the command as it was meant.
    """
    if first is None or second is None or _is_model(first) or not _is_model(second):
        return
    meant = command.format(shlex.quote(second), shlex.quote(first))
    raise ConfigError(Problem(where=where, what=f"the arguments are in the wrong order; expected: {meant}"))


def _is_model(name: str) -> bool:
    """Whether a name is the folder of a run or a model."""
    try:
        path = expand(name)
        return any(is_file(path / each, ModelFileError) for each in ("run.json", "modules.json", "config.json"))
    except (ConfigError, ModelFileError):
        return False  # a sentence is no path


def near_folder(reference: str) -> str:
    """`did you mean FOLDER? `, with the space after it, where a folder's name is nearly that of the reference."""
    try:
        path = expand(reference)
        missing = _first_missing(path)
        return _did_you_mean(path, missing, _folders(missing.parent), _FOLDER)
    except (ConfigError, ModelFileError):
        return ""


def _first_missing(path: Path) -> Path:
    """The part of a path at which it leaves what is there."""
    while path != path.parent and not exists(path.parent, ModelFileError):
        path = path.parent
    return path


def _did_you_mean(path: Path, missing: Path, beside: list[Path], cutoff: float) -> str:
    """The path with the nearest of the folders `beside` in place of its missing part, and the rest as it is."""
    close = difflib.get_close_matches(missing.name, [each.name for each in beside], n=1, cutoff=cutoff)
    if not close:
        return ""
    there = missing.with_name(close[0])
    meant = there / path.relative_to(missing)
    if exists(meant, ModelFileError):
        return f"did you mean {meant}? "
    further = _first_missing(meant)
    return _did_you_mean(meant, further, _folders(further.parent), cutoff) or f"did you mean {there}? "


def _listed(runs: list[Path]) -> str:
    return f"runs there: {', '.join(map(str, runs[:_SHOWN]))}" + (", …" if len(runs) > _SHOWN else "")


def _runs(folder: Path) -> list[Path]:
    try:
        return [each for each in _folders(folder) if exists(each / "run.json", ModelFileError)]
    except ModelFileError:
        return []


def _files_like(path: Path) -> list[Path]:
    """Files beside `path` with its ending."""
    try:
        return [each for each in entries(path.parent, ModelFileError) if path.suffix and each.suffix == path.suffix]
    except ModelFileError:
        return []


def _folders(folder: Path) -> list[Path]:
    try:
        return [each for each in entries(folder, ModelFileError) if is_dir(each, ModelFileError)]
    except ModelFileError:
        return []  # nothing to say about what cannot be looked at
