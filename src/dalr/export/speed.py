"""How fast are PyTorch, the exported graph and its int8 form on this processor? Measured side by side, in turns.

Alternating runs on the same batch make the ratios hold although the machine does other work meanwhile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

_ROUNDS = 7
ROWS, LENGTH = 32, 24
"""A batch of captions."""


def seconds_of(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, by name."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}
