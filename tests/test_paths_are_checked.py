"""Nothing in the package looks at a path, opens an input or prints, but through the module that does it safely.

`pathlib` raises some of the system's refusals and swallows others, and `open` waits for ever for a pipe. A look is
allowed where all that it can raise is caught: inside `storage_errors`, or in a `try` that names `OSError` and
`ValueError`.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "dalr"

LOOKS = {"exists", "is_file", "is_dir", "is_symlink", "stat", "lstat", "samefile", "iterdir", "is_mount"}
READS = {"read_bytes", "read_text"}
NEVER = {"resolve", "expanduser"}
"""Also raise RuntimeError, so that the `try` above is not enough."""
STREAMS = {"typer.echo", "sys.stdout.write", "sys.stderr.write", "print", "builtins.print"}

LOOK_FOR_ALL = {"io/paths.py"}
WRITE_UNDER_STORAGE_ERRORS = {"io/atomic.py", "io/lock.py", "io/sealed.py", "io/download.py"}
"""Called by writers inside `storage_errors`."""
READ_WHAT_THEY_MADE = {"demo/report.py", "demo/run.py", "demo/student.py", "features/spool.py"}
"""Files that the same command wrote a moment ago."""
READ_THE_PACKAGE = {"evaluation/published.py"}
"""Files that come with the package."""
PRINT_FOR_ALL = {"io/console.py"}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def covered(stack: list[ast.AST], *, also: str | None = None) -> bool:
    """Whether what a call raises is caught around it."""
    for outer, inner in itertools.pairwise(stack):
        if isinstance(outer, ast.With) and any("storage_errors" in ast.unparse(item) for item in outer.items):
            return True
        if isinstance(outer, ast.Try) and inner in outer.body:
            caught = " ".join(ast.unparse(handler.type) for handler in outer.handlers if handler.type is not None)
            wanted = {"OSError", "ValueError"} | ({also} if also else set())
            if "Exception" in caught.split() or all(each in caught for each in wanted):
                return True
    return False


def walk(node: ast.AST, stack: list[ast.AST]) -> Iterator[tuple[ast.Call, list[ast.AST]]]:
    here = [*stack, node]
    if isinstance(node, ast.Call):
        yield node, here
    for child in ast.iter_child_nodes(node):
        yield from walk(child, here)


def violations(tree: ast.AST) -> Iterator[str]:
    """Bare looks at paths and bare reads of inputs."""
    for call, stack in walk(tree, []):
        function = ast.unparse(call.func)
        receiver, _, method = function.rpartition(".")
        packaged = any(part in receiver for part in ("resources", "package_files", "_place()"))
        if receiver in ("os", "os.path") and method in {"stat", "lstat", "listdir", "scandir", "exists", "isfile"}:
            if not covered(stack):
                yield f"{call.lineno}: {function}"
        elif receiver and not packaged and method in LOOKS and not call.args:
            if not covered(stack):
                yield f"{call.lineno}: {function}()"
        elif receiver and method in NEVER and not call.args:
            if not covered(stack, also="RuntimeError"):
                yield f"{call.lineno}: {function}()"
        elif receiver and method in READS and not packaged and not receiver.startswith("regular("):
            yield f"{call.lineno}: {function}() without regular(...)"
        elif function in ("open", "os.open") and _reads(call) and "regular(" not in ast.unparse(call.args[0]):
            yield f"{call.lineno}: open without regular(...)"


def _reads(call: ast.Call) -> bool:
    mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
    return not any(letter in mode for letter in "wax") and "O_WRONLY" not in mode and "O_RDWR" not in mode


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def found(path: Path) -> list[str]:
    name = name_of(path)
    return [f"{name}:{what}" for what in violations(ast.parse(path.read_text()))]


def test_paths_are_looked_at_and_inputs_opened_through_one_module() -> None:
    allowed = LOOK_FOR_ALL | WRITE_UNDER_STORAGE_ERRORS | READ_WHAT_THEY_MADE | READ_THE_PACKAGE
    assert [what for path in modules() if name_of(path) not in allowed for what in found(path)] == []


def test_everything_that_is_printed_is_escaped_in_one_module() -> None:
    direct = [
        f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)}"
        for path in modules()
        if name_of(path) not in PRINT_FOR_ALL
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in STREAMS
    ]
    assert direct == []


@pytest.mark.parametrize(
    "code",
    [
        "path.exists()",
        "(folder / name).is_dir()",
        "path.stat().st_size",
        "path.resolve()",
        "path.expanduser()",
        "sorted(folder.iterdir())",
        "os.stat(path)",
        "os.path.exists(path)",
        "path.read_bytes()",
        "open(path)",
        "open(path, 'rb')",
        "try:\n    path.exists()\nexcept FileNotFoundError:\n    pass",
        "try:\n    path.resolve()\nexcept (OSError, ValueError):\n    pass",
        "try:\n    pass\nexcept (OSError, ValueError):\n    path.exists()",
    ],
)
def test_the_check_sees_each_bare_look(code: str) -> None:
    assert list(violations(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "is_dir(path)",
        "regular(path).read_bytes()",
        "open(regular(path), 'rb')",
        "open(path, 'wb')",
        "with storage_errors(path):\n    path.exists()",
        "try:\n    path.exists()\nexcept (OSError, ValueError):\n    pass",
        "resources.files('dalr').read_text()",
    ],
)
def test_the_check_lets_safe_looks_through(code: str) -> None:
    assert list(violations(ast.parse(code))) == []
