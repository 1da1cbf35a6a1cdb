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
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from dalr.data.grouping import Groups, GroupsConfig
from dalr.data.rows import Kind
from dalr.recipe.section import Section
from dalr.seed import generator


class ScheduleConfig(Section):
    """How text and pair batches are put in order."""

    kind: Literal["spread", "every_k"] = "spread"
    """`spread` [ours]: both streams spread evenly, each read exactly once per epoch. `every_k` [release]: step t
    of an epoch is a pair step when t mod k = 0, streams reshuffled when exhausted."""
    k: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """For `every_k`; None is the release's ⌊text batches / pair batches⌋, which must be at least 2."""
    repeat_images: bool = False
    """Allow two captions of one image in a batch (terms then mask them)."""
    groups: GroupsConfig | None = None
    """Bring neighbours into a batch together [ours]."""

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
    image_keys: Int64[np.ndarray, " rows"] | None = None
    """Rows of the same image have the same number; None where it does not matter."""
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.text_keys)

    def batches(self, size: int, *, seed: int, turn: int) -> list[Int64[np.ndarray, " size"]]:
        """One shuffled pass in full batches without conflicts."""
        random = generator(seed, "stream", self.kind, turn)
        order = random.permutation(len(self))
        if self.groups is not None:
            order = self.groups.arranged(order, random)
        keys = [self.text_keys] if self.image_keys is None else [self.text_keys, self.image_keys]
        return list(_conflict_free(order, keys, size))


class PlannedBatch(NamedTuple):
    """What the sampler yields and the data set reads: the rows of a stream that one step trains on."""

    step: int
    kind: Kind
    rows: Int64[np.ndarray, " size"]


def numbered(names: Sequence[str]) -> Int64[np.ndarray, " rows"]:
    """Equal names get equal numbers."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names))


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
        counts = {stream.kind: len(self._pass(stream, turn)) for stream in self.streams}
        return _kinds(counts, self.schedule)

    def steps(self, epochs: int) -> int:
        return sum(len(self.kinds(epoch)) for epoch in range(epochs))

    def left_over(self) -> dict[Kind, int]:
        """Rows of the first pass that found no place in a full batch, by kind."""
        return {stream.kind: len(stream) - self.batch_size * len(self._pass(stream, 0)) for stream in self.streams}

    def _pass(self, stream: Stream, turn: int) -> list[Int64[np.ndarray, " size"]]:
        key = (stream.kind, turn)
        if key not in self._passes:
            self._passes[key] = stream.batches(self.batch_size, seed=self.seed, turn=turn)
        return self._passes[key]

    @cached_property
    def _passes(self) -> dict[tuple[Kind, int], list[Int64[np.ndarray, " size"]]]:
        return {}

    def _endless(self, stream: Stream) -> Iterator[Int64[np.ndarray, " size"]]:
        for turn in count():
            yield from self._pass(stream, turn)


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

    def __init__(self, columns: list[list[int]]) -> None:
        self.rows: list[int] = []
        self._columns = columns
        self._held: list[set[int]] = [set() for _ in columns]

    def place(self, row: int) -> tuple[int, int] | None:
        """Take the row; or leave it and return (column, key) of what it conflicts with."""
        for column, values in enumerate(self._columns):
            if values[row] in self._held[column]:
                return column, values[row]
        self.rows.append(row)
        for held, values in zip(self._held, self._columns, strict=True):
            held.add(values[row])
        return None


def _conflict_free(
    order: Int64[np.ndarray, " rows"], keys: list[Int64[np.ndarray, " rows"]], size: int
) -> Iterator[Int64[np.ndarray, " size"]]:
    """Full batches in `order` in which no key occurs twice; a row in conflict goes first into a later batch.

    Waiting rows queue by the key they wait for, and a batch looks at the head of each queue once: a text that
    makes up a fifth of a million lines costs one look a batch, not one a row.
    """
    columns = [column.tolist() for column in keys]
    waiting: dict[tuple[int, int], deque[int]] = {}
    fresh = iter(order.tolist())
    while True:
        batch = _Filling(columns)
        for candidate in chain(_heads(waiting), fresh):
            clash = batch.place(candidate)
            if clash is not None:
                waiting.setdefault(clash, deque()).append(candidate)
            if len(batch.rows) == size:
                break
        else:
            return
        yield np.asarray(batch.rows, dtype=np.int64)


def _heads(waiting: dict[tuple[int, int], deque[int]]) -> Iterator[int]:
    """The first of each queue that there is now, taken out as it is asked for."""
    for key in list(waiting):
        queue = waiting[key]
        head = queue.popleft()
        if not queue:
            del waiting[key]
        yield head
