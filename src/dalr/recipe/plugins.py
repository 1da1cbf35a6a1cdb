"""How is code from outside loaded? Only here, and only what the user named: `--plugin FILE|MODULE`.

A recipe never names code. A plug-in is a Python file or an installed module that registers terms or image encoders
when it is imported (`dalr.register_term`, `dalr.register_image_encoder`); it runs with the rights of the user, as
any program does that one starts. An installed package may offer either by an entry point, which is loaded when
somebody asks for its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any

from dalr.errors import ConfigError, DalrError, Problem
from dalr.io.paths import expanded, is_file, resolve

_MODULE = "dalr_plugin_"


def load_plugins(references: Sequence[str]) -> None:
    """Import each file (a path that ends in .py) or module, once per process.

    Raises:
        ConfigError: with every plug-in that is not there or fails when it is imported.
    """
    problems: list[Problem] = []
    for reference in references:
        try:
            _load(reference)
        except DalrError as error:
            problems.extend(error.problems)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is somebody else's code
            what = f"failed when it was imported: {type(error).__name__}: {error}"
            problems.append(Problem(where=f"--plugin {reference}", what=what))
    if problems:
        raise ConfigError(problems)


def from_entry_points(group: str, name: str) -> Iterator[Any]:
    """What installed packages offer under this name.

    Raises:
        ConfigError: one of them cannot be loaded.
    """
    for point in entry_points(group=group, name=name):
        try:
            found = point.load()
        except Exception as error:
            where = f"entry point {group}: {point.name} = {point.value}"
            raise ConfigError(Problem(where=where, what=f"cannot be loaded: {error!r}")) from error
        yield found


def file_of_plugin(kind: type) -> str | None:
    """The file given with `--plugin` that a class comes from; None where its module can be imported by its name."""
    if not kind.__module__.startswith(_MODULE):
        return None
    return getattr(sys.modules.get(kind.__module__), "__file__", None)


def _load(reference: str) -> None:
    where = f"--plugin {reference}"
    if not reference.endswith(".py"):
        try:
            importlib.import_module(reference)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{reference}.".startswith(f"{error.name}."):
                raise
            what = "no such module is installed; name a file that ends in .py, or an importable module"
            raise ConfigError(Problem(where=where, what=what)) from None
        return
    path = resolve(expanded(reference, "--plugin"), ConfigError)
    if not is_file(path, ConfigError):
        raise ConfigError(Problem(where=where, what=f"no such file: {path}"))
    name = f"{_MODULE}{path.stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(Problem(where=where, what="is not a Python file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and inspect.getsource look classes up here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
