"""How busy was a device, and how long were the gaps between its kernels?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

TOP = 20
GAPS_US = (1, 2, 5, 10, 20, 50, 100, 1_000)
"""Gaps are counted up to each of these lengths, in microseconds."""


def timeline(events: Sequence[tuple[str, float, float]], steps: int) -> dict[str, Any]:
    """Busy time, gaps and the longest kernels of (name, start, end) in microseconds; overlaps count once."""
    if not events:
        return {"kernels": 0}
    spent: dict[str, float] = defaultdict(float)
    for name, start, end in events:
        spent[name] += end - start
    gaps, busy, reached = [], 0.0, min(start for _, start, _ in events)
    for _, start, end in sorted(events, key=lambda event: event[1]):
        if start > reached:
            gaps.append(start - reached)
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    span = reached - min(start for _, start, _ in events)
    counted = Counter(next((limit for limit in GAPS_US if gap <= limit), "more") for gap in gaps)
    longest = sorted(spent.items(), key=lambda item: -item[1])[:TOP]
    return {
        "kernels per step": len(events) / steps,
        "milliseconds per step": span / steps / 1e3,
        "busy": busy / span if span else 1.0,
        "gaps per step, ms": sum(gaps) / steps / 1e3,
        "gaps up to so many µs": {str(limit): counted[limit] for limit in (*GAPS_US, "more")},
        "kernels by time, ms per step": {name[:120]: time / steps / 1e3 for name, time in longest},
    }
