"""Which rows make up which batch, and in which order do text and pair batches come?

A batch is all text or all pairs, on every rank in the same step; otherwise any gather in the objective would
wait for ever. Only full batches are trained on. A batch never holds one text twice (a batch of identical
captions costs ln n, all of it false negatives) and, unless `repeat_images` is set, never two captions of one
image: rows that conflict wait for the next batch. What is left over at the end of a pass is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int, Int64
from pydantic import Field

from dalr.data.grouping import Groups, GroupsConfig
from dalr.data.rows import Kind
from dalr.recipe.section import Section
from dalr.seed import generator

_MANY = 1 << 22
"""Rows of a stream of which one pass is kept in memory, and not all."""
_FRESH, _MOST_AT_ONCE = 256, 4096
"""Rows, and batches, that are looked at together."""


class ScheduleConfig(Section):
    """The order of text batches and pair batches."""

    kind: Literal["spread", "every_k"] = "spread"
    """`spread`: batches of both kinds are spread evenly over the epoch, and every row is read exactly once per
    epoch. `every_k`, as in the released code: step t is a pair step when t mod k = 0; a stream that is exhausted
    is reshuffled and read again."""
    k: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """The k of `every_k`; null: ⌊text batches / pair batches⌋, as in the released code, which must be at least
    2."""
    repeat_images: bool = False
    """Allow several captions of one image in a batch; the terms mask them out as negatives. By default a batch has
    one caption per image."""
    groups: GroupsConfig | None = None
    """Put nearest neighbours into the same batch, so that ranking terms have close sentences to rank. Null: batches
    are random."""

    @property
    def meets_images_again(self) -> bool:
        """Whether a batch may hold two captions of one image."""
        grouped = self.groups is not None and self.groups.images is not None and self.groups.captions > 1
        return self.repeat_images or grouped


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Rows of one kind, with what must not meet in a batch."""

    kind: Kind
    text_keys: Int64[np.ndarray, " rows"]
    """Rows with the same sentence have the same number."""
    image_keys: Int[np.ndarray, " rows"] | None = None
    """Rows of the same image have the same number; None where it does not matter."""
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.text_keys)

    def batches(self, size: int, *, seed: int, turn: int) -> Int64[np.ndarray, "batches size"]:
        """One shuffled pass in full batches without conflicts."""
        random = generator(seed, "stream", self.kind, turn)
        order = random.permutation(len(self))
        if self.groups is not None:
            order = self.groups.arranged(order, random)
        keys = [self.text_keys] if self.image_keys is None else [self.text_keys, self.image_keys]
        return _conflict_free(order, keys, size)


class PlannedBatch(NamedTuple):
    """What the sampler yields and the data set reads: the rows of a stream that one step trains on."""

    step: int
    kind: Kind
    rows: Int64[np.ndarray, " size"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The batches of a whole training, made epoch by epoch and the same for the same seed."""

    streams: Sequence[Stream]
    schedule: ScheduleConfig
    batch_size: int
    seed: int

    def batches(self) -> Iterator[PlannedBatch]:
        """Batches without end."""
        endless = {stream.kind: self._endless(stream) for stream in self.streams}
        step = 0
        for epoch in count():
            for kind in self.kinds(epoch):
                yield PlannedBatch(step, kind, next(endless[kind]))
                step += 1

    def kinds(self, epoch: int) -> list[Kind]:
        """The kinds of the batches of an epoch in order. Its length is the steps of the epoch.

        With `spread`, an epoch has what one pass over each stream gives (passes differ by a batch where many
        rows conflict); with `every_k`, all epochs are as the first.
        """
        turn = epoch if self.schedule.kind == "spread" else 0
        counts = {stream.kind: self._passes.length(stream, turn) for stream in self.streams}
        return _kinds(counts, self.schedule)

    def steps(self, epochs: int) -> int:
        return sum(len(self.kinds(epoch)) for epoch in range(epochs))

    def left_over(self) -> dict[Kind, int]:
        """Rows of the first pass that found no place in a full batch, by kind."""
        return {
            stream.kind: len(stream) - self.batch_size * self._passes.length(stream, 0) for stream in self.streams
        }

    @cached_property
    def _passes(self) -> _Passes:
        return _Passes(self.batch_size, self.seed)

    def _endless(self, stream: Stream) -> Iterator[Int64[np.ndarray, " size"]]:
        for turn in count():
            yield from self._passes.of(stream, turn)


class _Passes:
    """Passes over the streams: all of them where they are small, otherwise the last one of each stream."""

    def __init__(self, batch_size: int, seed: int) -> None:
        self._batch_size, self._seed = batch_size, seed
        self._kept: dict[tuple[Kind, int], Int64[np.ndarray, "batches size"]] = {}
        self._lengths: dict[tuple[Kind, int], int] = {}

    def of(self, stream: Stream, turn: int) -> Int64[np.ndarray, "batches size"]:
        key = (stream.kind, turn)
        if key not in self._kept:
            if len(stream) > _MANY:
                self._kept = {other: batches for other, batches in self._kept.items() if other[0] != stream.kind}
            self._kept[key] = stream.batches(self._batch_size, seed=self._seed, turn=turn)
            self._lengths[key] = len(self._kept[key])
        return self._kept[key]

    def length(self, stream: Stream, turn: int) -> int:
        """Batches of a pass."""
        known = self._lengths.get((stream.kind, turn))
        return known if known is not None else len(self.of(stream, turn))


def pair_interval(text_batches: int, pair_batches: int) -> int:
    """The release's k = ⌊text batches / pair batches⌋; 1 or less means that text would never be read."""
    return text_batches // max(pair_batches, 1)


def _kinds(counts: dict[Kind, int], schedule: ScheduleConfig) -> list[Kind]:
    text, pair = counts.get("text", 0), counts.get("pair", 0)
    total = text + pair
    if schedule.kind == "every_k" and text and pair:
        k = schedule.k or pair_interval(text, pair)
        return [_kind(step % k == 0) for step in range(total)]
    # step t is a pair step when the number of pair batches due, pair/total of the steps so far, has grown by one
    return [_kind((step + 1) * pair // total > step * pair // total) for step in range(total)]


def _kind(is_pair: bool) -> Kind:
    return "pair" if is_pair else "text"


class _Filling:
    """A batch that is being filled, and the keys that it holds."""

    def __init__(self, columns: int) -> None:
        self.rows: list[int] = []
        self._held: list[set[int]] = [set() for _ in range(columns)]

    def place(self, row: int, keys: tuple[int, ...]) -> tuple[int, int] | None:
        """Take the row; or leave it and return (column, key) of what it conflicts with."""
        for column, key in enumerate(keys):
            if key in self._held[column]:
                return column, key
        self.rows.append(row)
        for held, key in zip(self._held, keys, strict=True):
            held.add(key)
        return None


_Row: TypeAlias = tuple[int, tuple[int, ...]]
"""A row with its keys."""


def _conflict_free(
    order: Int64[np.ndarray, " rows"], keys: list[Int[np.ndarray, " rows"]], size: int
) -> Int64[np.ndarray, "batches size"]:
    """Full batches in `order` in which no key occurs twice; a row in conflict goes first into a later batch.

    Waiting rows queue by the key they wait for, and a batch looks at the head of each queue once: a text that
    makes up a fifth of a million lines costs one look per batch, not one per row. While nobody waits, batches are
    taken as they come, many at once, up to the first with a conflict: most have none where rows are many.
    """
    taken = np.empty((len(order) // size, size), np.int64)
    count = start = 0
    waiting: dict[tuple[int, int], deque[_Row]] = {}
    at_once = 1
    while True:
        if not waiting:
            block = order[start : start + at_once * size]
            free = _without_conflict(block[: len(block) // size * size].reshape(-1, size), keys)
            taken[count : count + free] = block[: free * size].reshape(-1, size)
            count, start = count + free, start + free * size
            at_once = min(2 * at_once, _MOST_AT_ONCE) if free == at_once else 1
            if free:
                continue
        batch = _Filling(len(keys))
        fresh = _Fresh(order, keys, start)
        for candidate in chain(_heads(waiting), fresh):
            clash = batch.place(*candidate)
            if clash is not None:
                waiting.setdefault(clash, deque()).append(candidate)
            if len(batch.rows) == size:
                break
        else:
            return taken[:count].copy() if count < len(taken) else taken
        taken[count] = batch.rows
        count, start = count + 1, fresh.place


def _without_conflict(batches: Int64[np.ndarray, "n size"], keys: list[Int[np.ndarray, " rows"]]) -> int:
    """How many of these batches, from the first on, hold no key twice."""
    conflict = np.zeros(len(batches), bool)
    for column in keys:
        held = np.sort(column[batches], axis=1)
        conflict |= (held[:, 1:] == held[:, :-1]).any(axis=1)
    return int(conflict.argmax()) if conflict.any() else len(batches)


class _Fresh:
    """Rows in order, each with its keys, and how far they were read."""

    def __init__(self, order: Int64[np.ndarray, " rows"], keys: list[Int[np.ndarray, " rows"]], start: int) -> None:
        self._order, self._keys, self.place = order, keys, start

    def __iter__(self) -> Iterator[_Row]:
        while self.place < len(self._order):
            rows = self._order[self.place : self.place + _FRESH]
            columns = [column[rows].tolist() for column in self._keys]
            for row, *of_row in zip(rows.tolist(), *columns, strict=True):
                self.place += 1
                yield row, tuple(of_row)


def _heads(waiting: dict[tuple[int, int], deque[_Row]]) -> Iterator[_Row]:
    """The first of each queue that there is now, taken out as it is asked for."""
    for key in list(waiting):
        queue = waiting[key]
        head = queue.popleft()
        if not queue:
            del waiting[key]
        yield head
