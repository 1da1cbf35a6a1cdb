"""The tools that every change passes: ruff over source and tests, mypy in strict mode over the source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


UNDEFINED = ("ruff", "check", "--select", "F821", "--isolated", "--target-version", "py311", "src")
"""Names that are defined nowhere: off in the settings, because shapes of jaxtyping may look like them."""


@pytest.mark.parametrize(
    "tool", [("ruff", "check", "src", "tests"), UNDEFINED, ("mypy",)], ids=["ruff", "undefined", "mypy"]
)
def test_the_code_passes(tool: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
