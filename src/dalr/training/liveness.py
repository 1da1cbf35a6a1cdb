"""Which rank has died? Every rank counts, once a second, in the key-value store of the launcher.

A rank that is killed, or whose machine is gone, says nothing. The others wait for it in an all-reduce, and what
the library says then differs: gloo names an address, and only at the ranks that talk to the dead one; NCCL may
wait for its timeout; a machine without power closes no connection. So a thread of each rank counts, and looks
whether the next rank does. After a failed all-reduce, the first rank that claims it finds out who no longer
counts and says so in one line, and all end. A rank that ends with an error of its own claims it too, because its
error is that line.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from dalr.io.console import tell
from dalr.io.environment import launched_by_dalr, local_rank, restarts
from dalr.training.meeting import Meeting

_MISSED = 4
"""Counts that a living rank cannot miss all of."""
_SAYING_SECONDS = 20


class Liveness:
    """What this rank tells the others of itself, and knows of them.

    Args:
        second: time between two counts.
        patience: counts that a rank may miss until it is given up, although nothing else has failed.
    """

    def __init__(self, meeting: Meeting, *, patience: int, second: float = 1.0) -> None:
        self.rank, self.world = meeting.rank, meeting.world
        self.patience, self.second = patience, second
        self._host = socket.gethostname()
        self._ended = threading.Event()
        self._store = meeting.other_connection()
        self._count(0)
        self._thread = threading.Thread(target=self._watch, name="liveness", daemon=True)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count, and look at the next rank, until the body ends."""
        self._thread.start()
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Count no more: this rank is done."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join(self.second * _MISSED)

    def has_spoken(self) -> None:
        """This rank ends with an error of its own; no other says anything of that."""
        with suppress(RuntimeError):
            self._claim()
            self._store.set(f"left/{self.rank}", "")
            self._store.set("said", "")

    def end(self, reason: str) -> NoReturn:
        """End this process after an all-reduce has failed for `reason`, with one line from one of the ranks.

        At once: closing the process group would wait for the answers of ranks that wait for others.
        """
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which a launcher ends the rank that is to say why
        try:
            if self._claim():
                self._say_who(self._dead(), reason)
                self._store.set("said", "")
            self._wait_until_said()  # the store may end with this process
        except RuntimeError:  # it has gone with its machine
            if local_rank() == 0:
                self._say(f"rank {self.rank} cannot reach the others ({reason:.120})")
        os._exit(1)

    def _wait_until_said(self) -> None:
        """Without blocking the connection, on which this rank still counts."""
        for _ in range(_SAYING_SECONDS):
            if self._store.check(["said"]):
                return
            time.sleep(self.second)

    def _watch(self) -> None:
        following = (self.rank + 1) % self.world
        seen, silent, count = "", 0, 0
        try:
            while not self._ended.wait(self.second):
                count += 1
                self._count(count)
                found = self._counted(following)
                silent = silent + 1 if found == seen else 0
                seen = found
                if silent >= self.patience and not self._has_left(following):
                    self._give_up([following])
        except RuntimeError:  # the store is gone; each further call would only make the library say so again
            if not self._ended.wait(self.second * self.patience):
                self._give_up([])

    def _give_up(self, dead: list[int]) -> NoReturn:
        reason = f"for {self.patience * self.second:.0f} s"
        with suppress(RuntimeError):
            if not dead or self._claim():
                self._say_who(dead, reason, by_name=True)
                self._store.set("said", "")
        os._exit(1)

    def _dead(self) -> list[int]:
        """Ranks that have stopped counting without having ended by themselves."""
        others = [rank for rank in range(self.world) if rank != self.rank]
        before = {rank: self._counted(rank) for rank in others}
        time.sleep(_MISSED * self.second)
        still = [rank for rank in others if self._counted(rank) == before[rank]]
        return [rank for rank in still if not self._has_left(rank)]

    def _say_who(self, dead: list[int], reason: str, *, by_name: bool = False) -> None:
        if not dead:
            self._say(f"rank {self.rank} cannot reach the others ({reason:.120})")
        elif by_name or not launched_by_dalr():  # which sees how a process of this machine has ended
            ranks = ", ".join(f"{rank} (on {self._counted(rank).split(' ', 1)[1]})" for rank in dead)
            they = "rank" if len(dead) == 1 else "ranks"
            self._say(f"{they} {ranks} of {self.world} died: killed, out of memory, or the machine is gone")

    def _say(self, what: str) -> None:
        tell(f"error: {what}; {advice()}")

    def _claim(self) -> bool:
        return int(self._store.add("spoken", 1)) == 1

    def _count(self, number: int) -> None:
        self._store.set(f"count/{self.rank}", f"{number} {self._host}")

    def _counted(self, rank: int) -> str:
        found: bytes = self._store.get(f"count/{rank}")
        return found.decode()

    def _has_left(self, rank: int) -> bool:
        return bool(self._store.check([f"left/{rank}"]))


def advice() -> str:
    """What happens next, or what a person does."""
    done, most = restarts()
    if done < most:
        return f"the launcher starts all ranks again from the newest resume point ({most} times at most)"
    return "to resume from the newest resume point, run the same command on every machine with --resume"
