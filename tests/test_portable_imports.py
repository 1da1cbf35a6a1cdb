"""No module needs POSIX to be imported: what only some systems have is reached for inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "dalr"
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "spwd"}
POSIX_OF_OS = {
    *("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getegid", "setsid", "killpg"),
    *("mkfifo", "mknod", "chown", "lchown", "sysconf", "uname", "statvfs", "getloadavg", "sched_getaffinity"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC"),
}


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
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in POSIX_MODULES:
                    found.append(module)
                elif module == "os":
                    found += [each.name for each in names if each.name in POSIX_OF_OS]
            case ast.Attribute(value=ast.Name(id="os"), attr=attribute) if attribute in POSIX_OF_OS:
                found.append(f"os.{attribute}")
            case _:
                pass
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import fcntl", ["fcntl"]),
        ("try:\n    import resource\nexcept ImportError:\n    resource = None", ["resource"]),
        ("from os import fork", ["fork"]),
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
    if path.relative_to(SOURCE).as_posix() == "io/lock.py" and "import fcntl" in path.read_text(encoding="utf-8"):
        pytest.xfail("the lock by fcntl")
    assert needs_posix(path.read_text(encoding="utf-8")) == []
