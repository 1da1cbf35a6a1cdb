"""Requests that come at the same time are encoded together, by one thread that alone uses the model.

While it encodes, requests wait, and all that wait are its next batch: under load, batches are large by themselves.
Only if several requests shared the last batch does the next one wait a little for more, so that a single client
never does. A request with many rows is taken in portions, and others have their turn between them. If a batch
fails, each of its requests is encoded alone, so that only the one at fault gets the error.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from dalr.errors import NumericsError, Problem
from dalr.inference.encoders import Encoded
from dalr.serving.limits import Limits
from dalr.serving.metrics import Metrics
from dalr.serving.refusal import RefusalError

CHARACTERS = 1 << 15
"""Of a batch, unless a single row has more: rows may be a hundred times as long as a caption."""
_RECENT = 0.8


@dataclass(kw_only=True)
class _Job:
    """The rows of one request."""

    rows: Sequence[str]
    taken: int = 0
    parts: list[Encoded] = field(default_factory=list)
    future: Future[Encoded] = field(default_factory=Future)

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def take(self, rows: int, characters: int) -> list[str]:
        """The next rows, within these bounds."""
        found: list[str] = []
        for row in self.rows[self.taken : self.taken + rows]:
            characters -= len(row)
            if characters < 0:
                break
            found.append(row)
        self.taken += len(found)
        return found

    def receive(self, part: Encoded) -> None:
        self.parts.append(part)
        if not self.waiting and sum(len(each.vectors) for each in self.parts) == len(self.rows):
            with suppress(InvalidStateError):  # nobody waits for it any longer
                self.future.set_result(_joined(self.parts))

    def fail(self, error: Exception) -> None:
        self.taken = len(self.rows)
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True, kw_only=True)
class _Portion:
    job: _Job
    rows: list[str]


class Batcher:
    """Rows of many requests to vectors.

    Args:
        encode: called by one thread only.
        begin: called first in that thread.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Encoded],
        limits: Limits,
        metrics: Metrics,
        *,
        begin: Callable[[], None] | None = None,
    ) -> None:
        self.encode = encode
        self.limits = limits
        self.metrics = metrics
        self.begin = begin
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._shared = False
        self._seconds_per_row = 0.0
        self._thread = threading.Thread(target=self._work, name="encode", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[str]) -> Future[Encoded]:
        """The vectors of these rows, soon; cancelling it takes them out of the queue.

        Raises:
            RefusalError: too many rows wait already, or the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise RefusalError(503, "the service is stopping", code="stopping", retry_after=5)
            waiting = self._waiting()
            if waiting + len(rows) > self.limits.max_waiting:
                what = f"{waiting} rows are waiting, at most {self.limits.max_waiting} may; try again later"
                raise RefusalError(429, what, code="overloaded", retry_after=self._retry_after(waiting))
            job = _Job(rows=rows)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def waiting(self) -> int:
        """Rows that wait for the model."""
        with self._changed:
            return self._waiting()

    def close(self) -> None:
        """Take no more requests, and return when those that wait are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _waiting(self) -> int:
        self._jobs = deque(job for job in self._jobs if not job.future.done())
        return sum(job.waiting for job in self._jobs)

    def _retry_after(self, rows: int) -> int:
        """Seconds in which the waiting rows will have been encoded."""
        return min(max(math.ceil(rows * self._seconds_per_row), 1), 60)

    def _work(self) -> None:
        if self.begin is not None:
            self.begin()
        while portions := self._next():
            self._answer(portions)

    def _next(self) -> list[_Portion]:
        """The next batch; empty at the end."""
        with self._changed:
            while not self._waiting() and not self._closed:
                self._changed.wait()
            if self._shared:
                self._wait_for_more()
            portions = self._taken()
            self._shared = len(portions) > 1
            return portions

    def _wait_for_more(self) -> None:
        until = time.monotonic() + self.limits.max_wait_ms / 1000
        while not self._closed and self._waiting() < self.limits.max_batch:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _taken(self) -> list[_Portion]:
        """Rows from the front of the queue; what is left of a request goes to its end."""
        portions: list[_Portion] = []
        rows, characters = self.limits.max_batch, CHARACTERS
        unfinished: list[_Job] = []
        while self._jobs and rows:
            job = self._jobs[0]
            taken = job.take(rows, characters if portions else max(characters, len(job.rows[job.taken])))
            if not taken:
                break
            self._jobs.popleft()
            portions.append(_Portion(job=job, rows=taken))
            if job.waiting:
                unfinished.append(job)
            rows -= len(taken)
            characters -= sum(map(len, taken))
        self._jobs.extend(unfinished)
        return portions

    def _answer(self, portions: list[_Portion]) -> None:
        try:
            self._encode(portions)
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests must hear of it, and the thread stay
            if len(portions) == 1:
                portions[0].job.fail(error)
                return
            for portion in portions:
                self._answer([portion])

    def _encode(self, portions: list[_Portion]) -> None:
        start, rows = time.perf_counter(), [row for portion in portions for row in portion.rows]
        encoded = self.encode(rows)
        took = time.perf_counter() - start
        self._seconds_per_row += (took / len(rows) - self._seconds_per_row) * (1 - _RECENT)
        self.metrics.rows.add(len(rows))
        self.metrics.tokens.add(sum(encoded.tokens))
        self.metrics.cut.add(len(encoded.cut))
        self.metrics.batch_rows.add(len(rows))
        self.metrics.batch_seconds.add(took)
        place = 0
        for portion in portions:
            part = _slice(encoded, place, place + len(portion.rows))
            if np.isfinite(part.vectors).all():
                portion.job.receive(part)
            else:
                portion.job.fail(_not_finite(part, portion.job))
            place += len(portion.rows)


def _slice(encoded: Encoded, start: int, end: int) -> Encoded:
    return Encoded(
        vectors=encoded.vectors[start:end],
        cut=tuple(row - start for row in encoded.cut if start <= row < end),
        tokens=encoded.tokens[start:end],
    )


def _joined(parts: Sequence[Encoded]) -> Encoded:
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.vectors) for part in parts)]).tolist()
    return Encoded(
        vectors=np.concatenate([part.vectors for part in parts]),
        cut=tuple(start + row for start, part in zip(starts, parts, strict=False) for row in part.cut),
        tokens=tuple(count for part in parts for count in part.tokens),
    )


def _not_finite(part: Encoded, job: _Job) -> NumericsError:
    bad = int(np.flatnonzero(~np.isfinite(part.vectors).all(axis=1))[0])
    row = bad + sum(len(each.vectors) for each in job.parts)
    return NumericsError(Problem(where=f"input[{row}]", what="the model gave NaN or infinite numbers for it"))
