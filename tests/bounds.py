"""Ten seconds and 500 MB: what reading a malformed file may cost in a test.

Two seconds is the aim; the tests check the types of arrays at every call, which takes several times as long.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 10.0
MEGABYTES = 500

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@contextmanager
def bounded() -> Iterator[None]:
    """Assert that what is done inside takes less processor time and memory than the bounds."""
    before = _reset_peak()
    started = time.process_time()
    yield
    seconds = time.process_time() - started
    assert seconds < SECONDS, f"took {seconds:.1f} s of processor time"
    if before is not None:
        grown = _kilobytes("VmHWM") / 1024 - before
        assert grown < MEGABYTES, f"took {grown:.0f} MB"


def _reset_peak() -> float | None:
    """Forget the peak of resident memory so far and give what is resident now; None where that cannot be done."""
    try:
        _CLEAR.write_text("5")
        return _kilobytes("VmRSS") / 1024
    except OSError:
        return None


def _kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1])


@contextmanager
def limited_memory(megabytes: int = 2_000) -> Iterator[None]:
    """Refuse memory far beyond the bounds, so that what balloons fails instead of taking the machine down."""
    size = _kilobytes("VmSize") * 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * 2**20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
