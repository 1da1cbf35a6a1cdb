"""The benchmarks that build on training's own functions still run, at a size that measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["--steps", "1", "--rounds", "1", "--profile"], ["--schedule", "--steps", "8"]],
)
def test_the_benchmark_of_training_runs(tmp_path: Path, arguments: list[str]) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, ROOT / "benchmarks" / "training.py", "--models", "tiny", "--batch", "8"]
    command += ["--generated", "--out", out]
    done = subprocess.run(
        [*map(str, command), *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())
