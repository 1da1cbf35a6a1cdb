"""Two processes with one output, and commands that are killed at every change of theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = (
    *("features text", "features images", "features import", "features import (.json)", "features import (.hdf5)"),
    *("import", "evaluate --json", "report", "check --json", "init", "train", "study", "demo"),
)
NOT_KILLED = ("train", "study", "demo", "init")
"""`kill_and_resume.py` kills trainings, studies and demos take minutes, and a recipe is never written over."""
FEW = ("features import (.json)", "report")


def trials(what: str, folder: Path, commands: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What `forked_commands.py` found, by command."""
    script = Path(__file__).with_name("forked_commands.py")
    done = subprocess.run(
        [sys.executable, str(script), what, str(folder), *commands], capture_output=True, text=True, timeout=3600
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["command"] for each in found] == list(commands), done.stderr[-3000:]
    return {each["command"]: each for each in found}


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_is_at_work_and_changes_nothing(tmp_path: Path) -> None:
    for command, found in trials("pairs", tmp_path / "world", COMMANDS).items():
        assert found["wrong"] == [], command
        assert found["trials"] >= 1


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(FEW, marks=pytest.mark.slow, id="few"),
        pytest.param(
            tuple(each for each in COMMANDS if each not in NOT_KILLED), marks=pytest.mark.nightly, id="all"
        ),
    ],
)
def test_a_command_killed_at_any_change_succeeds_when_it_is_started_again(
    tmp_path: Path, commands: tuple[str, ...]
) -> None:
    for command, found in trials("kills", tmp_path / "world", commands).items():
        assert found["wrong"] == [], command
        assert found["trials"] > 5, command
