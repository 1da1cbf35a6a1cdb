"""What do Ctrl-C and SIGTERM do? Training finishes its step and seals a checkpoint first.

A second signal of the same kind has the system's own effect, which ends the process at once, in the middle of
whatever it does; what is sealed stays sealed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from dalr.io.console import Console

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stop:
    """Whether somebody asked to stop, and how."""

    signal: signal.Signals | None = None

    def exception(self) -> BaseException:
        """What ends the process with the code that callers expect: 130 after Ctrl-C, 143 after SIGTERM."""
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt()
        return SystemExit(128 + signal.SIGTERM)


@contextmanager
def asked_to_stop(console: Console, *, announce: bool = True) -> Iterator[Stop]:
    """Listen for signals; outside the main thread, where Python delivers none, nobody ever asks.

    Without `announce` nothing is said of SIGTERM: a launcher also ends with it the ranks that are left when one has
    died, and nothing is saved then.
    """
    stop = Stop()

    def ask(number: int, _: FrameType | None) -> None:
        stop.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
        if not console.quiet and (announce or stop.signal == signal.SIGINT):
            name = _NAMES[stop.signal]
            text = f"\n{name}: finishing this step and saving a checkpoint; send {name} again to stop at once\n"
            with suppress(OSError):
                os.write(2, text.encode())  # a buffered stream may be in use by what was interrupted

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in _NAMES}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
