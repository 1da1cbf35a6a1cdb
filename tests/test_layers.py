"""What the source of the package must not hold: import cycles, loaders of foreign code, stray imports.

All imports count, also those for types only and those inside functions: a module that needs another one for its
types does not stand by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "dalr"


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def dotted(path: Path) -> str:
    parts = ("dalr", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, known: frozenset[str]) -> set[str]:
    """The modules of dalr that a module imports, anywhere in it; a package where a name of its own is imported."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found |= {inside if inside in known else str(node.module)} & known
    return found


def graph() -> dict[str, set[str]]:
    known = frozenset(dotted(path) for path in modules())
    return {dotted(path): imported(ast.parse(path.read_text()), known) - {dotted(path)} for path in modules()}


def test_the_imports_of_the_package_form_no_cycle() -> None:
    edges = graph()
    assert len(edges) > 150
    assert edges["dalr"], "the root's imports for types count"
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_a_cycle_would_be_found() -> None:
    tree = ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dalr.data import rows\n")
    assert imported(tree, frozenset({"dalr.data.rows", "dalr.data"})) == {"dalr.data.rows"}


def test_the_package_itself_imports_next_to_nothing_when_imported() -> None:
    top = ast.parse((SOURCE / "__init__.py").read_text()).body
    imports = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) for node in imports} == {"__future__", "typing", "dalr.version"}


FORBIDDEN_MODULES = {
    *("tarfile", "zipfile", "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    *("runpy", "pty"),
}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "shutil.unpack_archive",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "yaml.unsafe_load_all",
    "yaml.full_load_all",
    "torch.jit.load",
    "torch.hub.load",
    "__import__",
    "compile",
    "importlib.import_module",
    "importlib.util.spec_from_file_location",
}
UNSAFE_LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}
MAY_UNPICKLE = {"models/importing/weights.py"}
"""Modules that may call `torch.load`, with `weights_only=True`: the one behind `dalr import`."""
MAY_IMPORT_CODE = "recipe/plugins.py"
"""The module that imports what the user names with `--plugin`."""
MAY_OPEN_ARCHIVES = ("io/unpacking.py", "io/shards.py")
"""What takes listed files out of a tar archive, and what reads and writes tar shards member by member, in place."""
IMPORTS_CODE = ("importlib.import_module()", "importlib.util.spec_from_file_location()")
FORBIDDEN_KEYWORDS = {"shell": True, "allow_pickle": True, "weights_only": False}


def violations(tree: ast.AST) -> Iterator[str]:
    """Ways to run code that comes with data (R35), and remote code (R32)."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            roots = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            yield from (f"{line}: import {name}" for name in roots if name.split(".")[0] in FORBIDDEN_MODULES)
            if isinstance(node, ast.ImportFrom):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                yield from (f"{line}: import {name}" for name in full & {*FORBIDDEN_CALLS, "torch.load"})
        if isinstance(node, ast.Attribute) and node.attr in UNSAFE_LOADERS and ast.unparse(node.value) == "yaml":
            yield f"{line}: yaml.{node.attr}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS:
                yield f"{line}: {called}()"
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if called == "torch.load" and ast.unparse(keywords.get("weights_only", ast.Constant(None))) != "True":
                yield f"{line}: torch.load without weights_only=True"
            if called in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
                yield f"{line}: {called} without allow_pickle=False"
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = [
                (key.value, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            ]
        for key, value in pairs:
            constant = value.value if isinstance(value, ast.Constant) else ...
            if key == "trust_remote_code" and constant is not False:
                yield f"{line}: trust_remote_code={ast.unparse(value)}"
            if key in FORBIDDEN_KEYWORDS and constant in (FORBIDDEN_KEYWORDS[str(key)], ...):
                yield f"{line}: {key}={ast.unparse(value)}"


def test_source_opens_no_archive_and_runs_no_foreign_code() -> None:
    found = [
        f"{name_of(path)}:{what}"
        for path in modules()
        for what in violations(ast.parse(path.read_text()))
        if not (name_of(path) == MAY_IMPORT_CODE and what.endswith(IMPORTS_CODE))
        and not (name_of(path) in MAY_OPEN_ARCHIVES and what.endswith(": import tarfile"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import os.path, pickle",
        "from torch import load",
        "yaml.compose(x, Loader=yaml.UnsafeLoader)",
        "np.load(x)",
        "importlib.import_module(x)",
        "torch.jit.load(x)",
        "SentenceTransformer(x, config_kwargs={'trust_remote_code': 1})",
        "import zipfile as z",
        "from tarfile import open",
        "from shutil import unpack_archive",
        "from os import system",
        "eval('1')",
        "exec(x)",
        "os.system('x')",
        "subprocess.run('x', shell=True)",
        "subprocess.run('x', shell=flag)",
        "yaml.load(x, Loader=L)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "options = {'trust_remote_code': True}",
    ],
)
def test_the_check_sees_each_forbidden_construct(code: str) -> None:
    assert list(violations(ast.parse(code)))


def test_only_the_import_of_published_checkpoints_unpickles() -> None:
    callers = {
        name_of(path)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load"
    }
    assert callers == MAY_UNPICKLE


LOADERS = (".from_pretrained", ".from_config", "SentenceTransformer")


def loads_a_model(node: ast.AST) -> bool:
    """A call that may find code named beside the weights; modules that are there already are no such thing."""
    return isinstance(node, ast.Call) and bool(node.args) and ast.unparse(node.func).endswith(LOADERS)


def test_every_loader_of_models_says_that_remote_code_is_not_trusted() -> None:
    """R32; what it says is held to be False above."""
    calls = [
        (f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)}", {keyword.arg for keyword in node.keywords})
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and loads_a_model(node)
    ]
    assert len(calls) >= 8, "the check finds the loaders"
    assert [place for place, keywords in calls if "trust_remote_code" not in keywords] == []


def test_a_transformer_module_is_built_with_remote_code_off_in_every_part() -> None:
    """`Transformer(folder)` takes it by three dictionaries, so all three must be given."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Transformer":
                given = {keyword.arg for keyword in node.keywords}
                place = f"{name_of(path)}:{node.lineno}"
                assert {"model_kwargs", "processor_kwargs", "config_kwargs"} <= given, place


def test_ray_is_imported_in_one_file_and_only_when_it_is_asked_for() -> None:
    for path in modules():
        tree = ast.parse(path.read_text())
        for where, nodes in (("anywhere", ast.walk(tree)), ("at the top", iter(tree.body))):
            names = {
                name.partition(".")[0]
                for node in nodes
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else [node.module])
            }
            assert "ray" not in names or (name_of(path) == "io/on_ray.py" and where == "anywhere"), path
