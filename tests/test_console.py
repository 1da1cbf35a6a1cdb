"""What is seen of work: lines off a terminal, bars on one, messages above them, nothing where it is quiet."""

from __future__ import annotations

import re
import sys
import threading
import time
from io import StringIO

import pytest

from dalr.io.console import Bar, Console, duration, show


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    return terminal


def test_the_end_of_a_short_piece_of_work_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("encode", 100, "sentence") as bar:
        time.sleep(0.05)
        bar.update(40)
        bar.update(100, task="STS12")
    shown = capsys.readouterr().err
    assert re.fullmatch(r"encode: 100/100 \[00:00<00:00, [\d.]+sentence/s, task=STS12\]\n", shown)


def test_long_work_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(line_seconds=0.0).bar("train", 3, "step") as bar:
        for step in (1, 2, 3):
            bar.update(step, loss=f"{1 / step:.4f}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" [")[0] for line in lines] == ["train: 1/3", "train: 2/3", "train: 3/3"]
    assert lines[1].endswith("loss=0.5000]")


def test_work_that_never_began_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("encode", 100):
        pass
    assert capsys.readouterr().err == ""


def test_pieces_that_were_there_do_not_hasten_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("study", 4000, "run") as bar:
        bar.skip(2000)
        bar.update(2000)
        time.sleep(0.2)
        bar.update(2001)
    found = re.search(r"2001/4000 \[00:00<(\d\d):\d\d, +([\d.]+)run/s\]", capsys.readouterr().err)
    assert found is not None
    assert float(found[2]) < 5.1, "one run in 0.2 seconds, not 2001"
    assert int(found[1]) >= 6, "the other 1999 take minutes"


def test_a_terminal_shows_a_bar_and_messages_above_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, console = on_a_terminal(monkeypatch), Console()
    with console.bar("study", 24, "run") as bar:
        bar.update(4, run="dalr/seed-1")
        console.say("a message")
        show("a result")
    shown = terminal.getvalue()
    assert re.search(r"study: +\d+%\|.*\| 4/24 .*run/s, run=dalr/seed-1\]", shown)
    before, _, after = shown.partition("a message\n")
    assert re.search(r"\r +\r$", before), "the line of the bar is empty when the message is written"
    assert after.startswith("\rstudy: "), "and the bar is drawn again below it"
    assert capsys.readouterr().out == "a result\n"


def test_a_quiet_console_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with Console(quiet=True).bar("study", 24) as bar:
        bar.update(24, run="x")
    Bar().update(1, run="x")
    Bar().skip(1)
    assert terminal.getvalue() == ""


def test_names_of_others_give_the_terminal_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with Console().bar("train \x1b[2J", 2) as bar:
        bar.update(2, run="\x1b]0;title\x07")
    shown = terminal.getvalue()
    assert "\x1b[2J" not in shown
    assert "\x1b]0" not in shown
    assert "run=\\x1b]0;title\\x07" in shown


def test_a_bar_starts_no_thread() -> None:
    before = threading.active_count()
    with Console().bar("encode", 10) as bar:
        bar.update(10)
        assert threading.active_count() == before


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (105.2, "105 s"), (120.0, "2 min"), (5000.0, "83 min"), (5400.0, "1.5 h")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
