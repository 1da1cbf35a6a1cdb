"""What a bar says of time: pieces that were there already do not count, and slow ones are seconds a piece."""

from __future__ import annotations

import sys

import pytest

from dalr.io import console as module
from dalr.io.console import Console, duration


class Watch:
    """A clock that a test turns."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found = Watch()
    monkeypatch.setattr(module, "time", found)
    return found


def test_a_line_says_how_fast_and_how_long(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("encode", 100, "sentence") as bar:
        watch.now = 20.0
        bar.update(40, task="STS12")
    assert capsys.readouterr().err == "encode: 40/100 · 2.0 sentence/s · 30 s left · task STS12\n"


def test_pieces_that_were_there_do_not_hasten_the_rest(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("study", 24, "run") as bar:
        for done in range(1, 21):
            bar.skip(1)
            bar.update(done)
        watch.now = 200.0
        bar.update(22)
    assert capsys.readouterr().err == "study: 22/24 · 100 s/run · 3 min left\n"


def test_a_bar_without_work_so_far_promises_nothing(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("study", 24, "run") as bar:
        watch.now = 16.0
        bar.skip(3)
        bar.update(3)
    assert capsys.readouterr().err == "study: 3/24 · – run/s · – left\n"


def test_a_terminal_shows_the_same_pace(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with Console().bar("study", 24, "run") as bar:
        bar.skip(2)
        watch.now = 200.0
        bar.update(4, run="dalr/seed-1")
    shown = capsys.readouterr().err
    assert "4/24" in shown
    assert "100 s/run" in shown
    assert "33 min left" in shown
    assert "run dalr/seed-1" in shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (105.2, "105 s"), (120.0, "2 min"), (5000.0, "83 min"), (5400.0, "1.5 h")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
