"""No module needs POSIX to be imported: what only some systems have is reached for inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "dalr"
POSIX_MODULES = {
    *("fcntl", "resource", "pwd", "grp", "spwd", "crypt", "nis", "termios", "tty", "pty", "syslog", "posix"),
    *("readline", "curses", "ossaudiodev"),
}
PORTABLE = {
    "os": {"PathLike", "environ", "fspath", "getpid", "name", "path", "pathsep", "sep", "stat_result"},
    "signal": {"SIGINT", "SIGTERM", "SIG_DFL", "SIG_IGN", "Signals", "Handlers", "signal"},
    "socket": {"socket", "gaierror", "timeout", "AF_INET", "SOCK_STREAM"},
    "select": {"select"},
    "mmap": {"mmap", "ACCESS_READ"},
    "time": {"time", "monotonic", "perf_counter", "sleep", "struct_time"},
}
"""What every system has of the modules that differ, as far as imports need it; add what is portable."""


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: bodies of functions are left out, their defaults are not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts: list[ast.AST] = [*node.decorator_list, node.args]
        elif isinstance(node, ast.Lambda):
            parts = [node.args]
        else:
            parts = [node]
        for part in parts:
            yield part
            yield from at_import(part)


def needs_posix(source: str) -> list[str]:
    found: list[str] = []
    for node in at_import(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [each.name for each in names if each.name.partition(".")[0] in POSIX_MODULES]
                found += [f"{each.name} as" for each in names if each.name in PORTABLE and each.asname]
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in POSIX_MODULES:
                    found.append(module)
                elif module in PORTABLE:
                    found += [f"{module}.{each.name}" for each in names if each.name not in PORTABLE[module]]
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name not in PORTABLE.get(module, {name}):
                found.append(f"{module}.{name}")
            case _:
                pass
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import fcntl", ["fcntl"]),
        ("try:\n    import resource\nexcept ImportError:\n    resource = None", ["resource"]),
        ("from os import fork", ["os.fork"]),
        ("from os import *", ["os.*"]),
        ("import os as system\nsystem.fork", ["os as"]),
        ("import signal\nclass A:\n    ends = {signal.SIGKILL}", ["signal.SIGKILL"]),
        ("import select\npoll = select.poll()", ["select.poll"]),
        ("import socket\nfamily = lambda kind=socket.AF_UNIX: kind", ["socket.AF_UNIX"]),
        ("import os\nos.register_at_fork(before=print)", ["os.register_at_fork"]),
        ("import os\nclass A:\n    flags = os.O_NOFOLLOW", ["os.O_NOFOLLOW"]),
        ("import os\ndef f(x=os.getuid()): ...", ["os.getuid"]),
        ("import os\ndef f():\n    import fcntl\n    return os.fork()", []),
    ],
)
def test_the_check_sees_what_runs_at_import(source: str, expected: list[str]) -> None:
    assert needs_posix(source) == expected


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_module_needs_posix_to_be_imported(path: Path) -> None:
    assert needs_posix(path.read_text(encoding="utf-8")) == []
