"""What does the service count? A few numbers in the text format that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
Labels = tuple[tuple[str, str], ...]


@dataclass(kw_only=True)
class Counter:
    """Only rises."""

    name: str
    help: str
    values: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))
    lock: Lock = field(default_factory=Lock)

    def add(self, amount: float | int = 1, **labels: str) -> None:
        with self.lock:
            self.values[tuple(labels.items())] += amount

    def lines(self) -> list[str]:
        with self.lock:
            found = sorted(self.values.items())
        return [
            *_head(self.name, self.help, "counter"),
            *(f"{self.name}{_labels(labels)} {_number(value)}" for labels, value in found),
        ]


@dataclass(kw_only=True)
class Histogram:
    """How often a value lay below each bound."""

    name: str
    help: str
    bounds: Sequence[float]
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))
    lock: Lock = field(default_factory=Lock)

    def add(self, value: float | int, **labels: str) -> None:
        key = tuple(labels.items())
        with self.lock:
            self.counts.setdefault(key, [0] * (len(self.bounds) + 1))[bisect_left(self.bounds, value)] += 1
            self.sums[key] += value

    def lines(self) -> list[str]:
        lines = _head(self.name, self.help, "histogram")
        with self.lock:
            found = sorted((key, list(counts), self.sums[key]) for key, counts in self.counts.items())
        for labels, counts, total in found:
            below = 0
            for bound, count in zip([*map(_number, self.bounds), "+Inf"], counts, strict=True):
                below += count
                lines.append(f"{self.name}_bucket{_labels((*labels, ('le', bound)))} {below}")
            lines.append(f"{self.name}_sum{_labels(labels)} {_number(total)}")
            lines.append(f"{self.name}_count{_labels(labels)} {below}")
        return lines


@dataclass(kw_only=True)
class Gauge:
    """What is the case now."""

    name: str
    help: str
    read: Callable[[], float]

    def lines(self) -> list[str]:
        return [*_head(self.name, self.help, "gauge"), f"{self.name} {_number(self.read())}"]


class Metrics:
    """All of them."""

    def __init__(self) -> None:
        self.requests = Counter(name="dalr_requests_total", help="Requests, by path and status.")
        self.seconds = Histogram(
            name="dalr_request_seconds", help="Time from a request to the end of its response.", bounds=_SECONDS
        )
        self.rows = Counter(name="dalr_rows_total", help="Rows that were encoded.")
        self.tokens = Counter(name="dalr_tokens_total", help="Tokens that were encoded.")
        self.cut = Counter(name="dalr_cut_rows_total", help="Rows that were cut at the model's limit.")
        self.batch_rows = Histogram(name="dalr_batch_rows", help="Rows that were encoded at once.", bounds=_ROWS)
        self.batch_seconds = Histogram(name="dalr_batch_seconds", help="Time to encode a batch.", bounds=_SECONDS)
        self.gauges: list[Gauge] = []

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Also report what `read` returns."""
        self.gauges.append(Gauge(name=name, help=help, read=read))

    def text(self) -> str:
        """What `/metrics` answers."""
        counters = (self.requests, self.rows, self.tokens, self.cut)
        histograms = (self.seconds, self.batch_rows, self.batch_seconds)
        found: list[Counter | Histogram | Gauge] = [*counters, *histograms, *self.gauges]
        return "\n".join(line for each in found for line in each.lines()) + "\n"


def _head(name: str, help: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float | int) -> str:
    return f"{value:.12g}"
