"""With how many CPU threads is a run resumed? As many as before: the order of sums depends on it.

On a GPU the count changes no number of the training, and is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dalr.errors import CorruptFileError
from dalr.io.console import Console

_MOST = 4096


@contextmanager
def threads_of(earlier: Mapping[str, Any] | None, console: Console) -> Iterator[None]:
    """Inside, torch has the threads that the record `earlier` states; afterwards those that it had before.

    Raises:
        CorruptFileError: the record states no possible count.
    """
    import torch

    from dalr.models.device import pick_device

    stated = _stated(earlier) if earlier is not None else None
    before = torch.get_num_threads()
    if stated in (None, before) or pick_device("auto").type != "cpu":
        yield
        return
    console.say(f"note: using {stated} CPU threads, with which the run was begun, instead of {before}")
    torch.set_num_threads(stated)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stated(earlier: Mapping[str, Any]) -> int | None:
    machine = earlier.get("machine")
    count = machine.get("threads") if isinstance(machine, Mapping) else None
    if count is None:  # killed before it stated its machine
        return None
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST:
        what = f"expected a count of threads from 1 to {_MOST}, found {count!r:.40}; start anew with another --out"
        raise CorruptFileError(f"run.json: machine.threads: {what}")
    return count
