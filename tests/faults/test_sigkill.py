"""R1 with real kills: 50 of 50 are resumed to the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "trials", [pytest.param(20, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.nightly)]
)
def test_killed_trainings_end_in_the_same_bits(tmp_path: Path, trials: int) -> None:
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "kills"), str(trials)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=3600,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["trials"], found["same"]) == (trials, trials), done.stdout
    assert found["killed"] >= trials // 2, "those that are killed at a time may end before it, the others cannot"
    assert len(set(found["steps"])) > 3, "they went on from different places"
