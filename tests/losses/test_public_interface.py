"""The objective as a library: what is public says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import dalr.losses


def undocumented() -> list[str]:
    missing = []
    for found in pkgutil.iter_modules(dalr.losses.__path__):
        module = importlib.import_module(f"dalr.losses.{found.name}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
            if not own or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if not inspect.getdoc(value):
                missing.append(f"{module.__name__}.{name}")
            members = vars(value).items() if inspect.isclass(value) else ()
            for member, what in members:
                if member.startswith(("_", "model_")) or not isinstance(what, property | type(undocumented)):
                    continue
                if not any(inspect.getdoc(vars(base)[member]) for base in value.__mro__ if member in vars(base)):
                    missing.append(f"{module.__name__}.{name}.{member}")
    return missing


def test_every_public_class_function_and_method_has_a_docstring() -> None:
    assert undocumented() == []


def test_every_name_that_is_offered_is_there() -> None:
    for name in dalr.losses.__all__:
        assert getattr(dalr.losses, name) is not None


def test_terms_and_recipes_of_them_need_no_torch() -> None:
    code = "import sys, dalr.losses as o; o.Objective(infonce=o.InfoNCE()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
