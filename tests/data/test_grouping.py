"""Groups of neighbours: every row once a pass, and close rows together."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dalr.data.grouping import Groups, GroupsConfig
from dalr.data.schedule import Plan, ScheduleConfig, Stream
from dalr.seed import generator


def on_a_line(places: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Nearest by distance on a line, all others listed."""
    distance = np.abs(places[things][:, None] - places[things][None]).astype(np.float64)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, : len(things) - 1]


def groups(thing_of: list[int], *, things: int, rows: int, places: list[float] | None = None) -> Groups:
    count = max(thing_of, default=-1) + 1
    line = np.asarray(places if places is not None else range(count), np.float64)
    return Groups(
        thing_of=np.asarray(thing_of, np.int64),
        things=things,
        rows=rows,
        nearest=lambda found: on_a_line(line, found),
    )


def arranged(made: Groups, seed: int = 0) -> list[int]:
    random = generator(seed, "test")
    return made.arranged(random.permutation(len(made.thing_of)), random).tolist()


@given(
    thing_of=st.lists(st.integers(0, 9), max_size=40),
    things=st.integers(1, 6),
    rows=st.integers(1, 4),
    seed=st.integers(0, 50),
)
def test_every_row_comes_once(thing_of: list[int], things: int, rows: int, seed: int) -> None:
    assert sorted(arranged(groups(thing_of, things=things, rows=rows), seed)) == list(range(len(thing_of)))


def test_clusters_stay_together() -> None:
    """Six clusters of four, far from each other: each is a group, in any order."""
    places = [100.0 * cluster + member for cluster in range(6) for member in range(4)]
    found = arranged(groups(list(range(24)), things=4, rows=1, places=places))
    assert [{row // 4 for row in found[start : start + 4]} for start in range(0, 24, 4)] == [
        {found[start] // 4} for start in range(0, 24, 4)
    ]
    assert found != sorted(found), "clusters come in random order"


def test_a_thing_brings_so_many_of_its_rows_at_a_time() -> None:
    """Three images of five captions: turns of 2, 2 and 1, and a turn's captions side by side."""
    made = groups([row // 5 for row in range(15)], things=1, rows=2)
    found = arranged(made)
    runs: list[list[int]] = []
    for row in found:
        if runs and runs[-1][0] // 5 == row // 5 and len(runs[-1]) < 2:
            runs[-1].append(row)
        else:
            runs.append([row])
    assert Counter(len(run) for run in runs) == {2: 6, 1: 3}


def test_the_order_depends_on_the_seed_alone() -> None:
    made = groups([row // 3 for row in range(60)], things=4, rows=2)
    assert arranged(made, 1) == arranged(made, 1) != arranged(made, 2)


def test_many_things_are_taken_in_parts() -> None:
    seen: list[int] = []
    made = groups(list(range(50)), things=5, rows=1)

    def watched(things: np.ndarray) -> np.ndarray:
        seen.append(len(things))
        return on_a_line(np.arange(50.0), things)

    made = Groups(thing_of=made.thing_of, things=5, rows=1, nearest=watched, largest_part=20)
    assert sorted(arranged(made)) == list(range(50))
    assert seen == [20, 20, 10]


@given(seed=st.integers(0, 20))
def test_batches_of_groups_hold_no_text_twice_and_no_row_twice_a_pass(seed: int) -> None:
    texts = [row % 50 for row in range(60)]
    stream = Stream(
        kind="pair",
        text_keys=np.asarray(texts, np.int64),
        groups=groups([row // 3 for row in range(60)], things=3, rows=2),
    )
    schedule = ScheduleConfig(groups=GroupsConfig(images=3))
    plan = Plan(streams=(stream,), schedule=schedule, batch_size=10, seed=seed)
    batches = stream.batches(10, seed=seed, turn=0)
    assert len(plan.kinds(0)) == len(batches) >= 5
    rows = [row for batch in batches for row in batch.tolist()]
    assert len(rows) == len(set(rows))
    assert all(len({texts[row] for row in batch.tolist()}) == 10 for batch in batches)


def test_captions_of_one_image_may_meet_only_where_images_bring_several() -> None:
    assert not ScheduleConfig().meets_images_again
    assert not ScheduleConfig(groups=GroupsConfig(text=4)).meets_images_again
    assert not ScheduleConfig(groups=GroupsConfig(images=4, captions=1)).meets_images_again
    assert ScheduleConfig(groups=GroupsConfig(images=4)).meets_images_again
    assert ScheduleConfig(repeat_images=True).meets_images_again
