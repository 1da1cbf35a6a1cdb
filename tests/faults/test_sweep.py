"""Generated command lines end in success or an error of ours; `sweep.py` says which they are.

A sample in every run, all of them at night.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "every", [pytest.param(80, id="a sample"), pytest.param(1, id="all", marks=pytest.mark.nightly)]
)
def test_generated_command_lines_end_in_success_or_an_error_of_ours(every: int) -> None:
    with tempfile.TemporaryDirectory(prefix="dalr-sweep-", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [sys.executable, HERE / "sweep.py", Path(folder) / "world", str(every)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=3600,
        )
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert records, done.stderr[-3000:]
    *faulty, counts = records
    assert faulty == [], f"{len(faulty)} of {counts}"
    assert "invocations" in counts, done.stderr[-3000:]
    assert counts["invocations"] > 100
    assert counts["codes"]["0"] > 5
