"""How do ranks find each other? In the key-value store of the launcher, by a number that the first rank gives out.

After a failure, torchrun starts all ranks again, and the store still holds the addresses of those that have
ended. PyTorch tells attempts apart by `TORCHELASTIC_RESTART_COUNT`, which each machine counts for itself: where
only one of them has seen a process fail, they differ, and a rank then waits for an address at which nobody
listens. So every process says hello with a name that nobody else has, and the first rank answers each with the
number of the attempt.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

from torch import distributed as dist

_POLL_SECONDS = 0.05
_CONNECTING = timedelta(minutes=5)


@dataclass(frozen=True)
class Meeting:
    """One attempt at training together: this rank of `world`, and a store for this attempt alone."""

    rank: int
    world: int
    attempt: int
    store: dist.Store

    def other_connection(self) -> dist.Store:
        """The same store for another thread: a connection is blocked while it waits for a key."""
        return _of_attempt(self.attempt, _connected(hosting=False))


def meet(rank: int, world: int, *, patience: timedelta) -> Meeting:
    """Wait until all ranks are there.

    Raises:
        RuntimeError: the store cannot be reached, or a rank did not come for so long.
    """
    hosting = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = _connected(hosting=hosting)
    attempt = _welcome_all(store, world) if rank == 0 else _say_hello(store, rank, patience)
    return Meeting(rank, world, attempt, _of_attempt(attempt, store))


def _connected(*, hosting: bool) -> dist.Store:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=hosting, wait_for_workers=False, timeout=_CONNECTING
    )


def _of_attempt(attempt: int, store: dist.Store) -> dist.Store:
    return dist.PrefixStore(f"dalr/{attempt}", store)  # type: ignore[attr-defined]


def _welcome_all(store: dist.Store, world: int) -> int:
    """Answer whoever says hello, also a process of an earlier attempt, until every rank has heard it."""
    attempt = int(store.add("dalr/attempts", 1))
    answered: set[bytes] = set()
    missing = set(range(1, world))
    while missing:
        for rank in sorted(missing):
            if not store.check([f"dalr/hello/{rank}"]):
                continue
            name = store.get(f"dalr/hello/{rank}")
            if name not in answered:
                store.set(f"dalr/welcome/{name.decode()}", str(attempt))
                answered.add(name)
            if store.check([f"dalr/here/{attempt}/{rank}"]):
                missing.discard(rank)
        time.sleep(_POLL_SECONDS)
    return attempt


def _say_hello(store: dist.Store, rank: int, patience: timedelta) -> int:
    name = uuid.uuid4().hex
    store.set(f"dalr/hello/{rank}", name)
    store.wait([f"dalr/welcome/{name}"], patience)
    attempt = int(store.get(f"dalr/welcome/{name}"))
    store.set(f"dalr/here/{attempt}/{rank}", "")
    return attempt
