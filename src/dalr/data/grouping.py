"""Which rows come into a batch together? Close ones, so that a batch holds something to rank.

Sentences drawn at random have next to nothing in common: all but a row's own similarities are noise around 0. A
group is a few neighbours, a batch many groups: close rows are compared within a group, distant ones across groups.
A pass still holds each row exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Int, Int64
from pydantic import Field

from dalr.recipe.section import Section

Nearest = Callable[[Int64[np.ndarray, " n"]], Int64[np.ndarray, "n k"]]
"""For each of n things its nearest ones among them, as places in the list, closest first and itself left out."""


class GroupsConfig(Section):
    """How many neighbours share a batch; a stream whose key is null is shuffled row by row."""

    text: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Lines per group of text batches: nearest neighbours by the teachers' similarity. Null: no groups of text."""
    images: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Images per group of pair batches: nearest neighbours by their features. Null: no groups of images."""
    captions: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    """Captions that each image of a group contributes; captions of one image are masked out as negatives."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """How the rows of a stream are grouped."""

    thing_of: Int[np.ndarray, " rows"]
    """What is near or far: the image of a caption, a line of text itself."""
    things: int
    """Things a group."""
    rows: int
    """Rows that a thing brings at a time."""
    nearest: Nearest
    largest_part: int = 16_384
    """Things among which neighbours are looked for: of a million lines, each finds its neighbours among so many."""

    def arranged(
        self, order: Int64[np.ndarray, " rows"], random: np.random.Generator
    ) -> Int64[np.ndarray, " rows"]:
        """The rows of `order`, group after group; groups in random order."""
        groups = [group for part in self._parts(order) for group in self._groups_of(part)]
        places = random.permutation(len(groups)).tolist()
        return np.asarray([row for place in places for row in groups[place]], dtype=np.int64)

    def _parts(self, order: Int64[np.ndarray, " rows"]) -> Iterator[dict[int, list[int]]]:
        """Thing -> its rows of one turn, for so many things at a time; turns go on until all rows are used."""
        of_thing: dict[int, list[int]] = {}
        for row, thing in zip(order.tolist(), self.thing_of[order].tolist(), strict=True):
            of_thing.setdefault(thing, []).append(row)
        turn = 0
        while True:
            start = turn * self.rows
            present = {thing: rows[start : start + self.rows] for thing, rows in of_thing.items() if rows[start:]}
            if not present:
                return
            things = list(present)
            for first in range(0, len(things), self.largest_part):
                yield {thing: present[thing] for thing in things[first : first + self.largest_part]}
            turn += 1

    def _groups_of(self, part: dict[int, list[int]]) -> Iterator[list[int]]:
        """Things in their order, each with its nearest that are in no group yet."""
        rows = list(part.values())
        nearest = self.nearest(np.fromiter(part, np.int64, len(part))).tolist()
        free = [True] * len(rows)
        for place in range(len(rows)):
            if not free[place]:
                continue
            free[place] = False
            together = [place, *_first_free(nearest[place], free, self.things - 1)]
            yield [row for member in together for row in rows[member]]


def _first_free(places: Sequence[int], free: list[bool], count: int) -> list[int]:
    """The first `count` of `places` that are free, which then are no longer."""
    taken: list[int] = []
    for place in places:
        if len(taken) == count:
            break
        if free[place]:
            free[place] = False
            taken.append(place)
    return taken
