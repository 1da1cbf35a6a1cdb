"""The order in which parts of the package may depend on each other, and what its source must not contain.

The parts and their levels are those of `docs/design.md`. All imports count, also those for types only and those
inside functions: a layer that needs a higher one for its types does not stand by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "dalr"

LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("io", "seed", "section", "console", "document"),
    ("data", "features", "models", "objectives"),
    ("training", "evaluation", "encode"),
    ("config", "report", "integrations"),
    ("recipe",),
    ("api", "scoring", "demo", "check", "starter", "study"),
    ("cli",),
    ("__main__",),
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def part_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_parts(tree: ast.AST) -> set[str]:
    """The parts of dalr that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            names = [f"dalr.{alias.name}" for alias in node.names] if module == "dalr" else [module]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            part = rest.partition(".")[0]
            if first == "dalr" and (SOURCE / part).exists() | (SOURCE / f"{part}.py").exists() and part:
                found.add(part)
    return found


def graph() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for path in modules():
        if path != SOURCE / "__init__.py":
            edges.setdefault(part_of(path), set()).update(imported_parts(ast.parse(path.read_text())))
    return edges


def test_every_part_of_the_package_has_a_level() -> None:
    parts = {part_of(path) for path in modules()} - {"__init__"}
    assert parts <= set(LEVEL_OF), f"give these parts a level: {sorted(parts - set(LEVEL_OF))}"


def test_imports_point_downwards() -> None:
    upwards = [
        f"{name_of(path)} imports {other}"
        for path in modules()
        if path != SOURCE / "__init__.py"
        for other in sorted(imported_parts(ast.parse(path.read_text())))
        if LEVEL_OF[other] > LEVEL_OF[part_of(path)]
    ]
    assert upwards == []


def test_the_package_itself_imports_nothing_when_imported() -> None:
    top = ast.parse((SOURCE / "__init__.py").read_text()).body
    imports = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) for node in imports} == {"__future__", "typing"}


def test_parts_of_one_level_form_no_cycle() -> None:
    edges = graph()
    for parts in LEVELS:
        inside = {part: edges.get(part, set()) & set(parts) - {part} for part in parts}
        while inside:
            leaves = [part for part, others in inside.items() if not others & set(inside)]
            assert leaves, f"cycle among {sorted(inside)}: {inside}"
            for part in leaves:
                del inside[part]


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
}
UNSAFE_LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}
MAY_UNPICKLE = {"models/published_weights.py"}
"""Modules that may call `torch.load`, with `weights_only=True`: the one behind `dalr import`."""
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
    found = [f"{name_of(path)}:{what}" for path in modules() for what in violations(ast.parse(path.read_text()))]
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
