"""Which rows make up a batch and in which order batches come."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalr.data.rows import Kind
from dalr.data.schedule import Plan, PlannedBatch, ScheduleConfig, Stream, pair_interval
from dalr.io.strings import keys_of
from dalr.seed import generator


def stream(kind: Kind, texts: list[int], images: list[int] | None = None) -> Stream:
    return Stream(
        kind=kind,
        text_keys=np.asarray(texts, np.int64),
        image_keys=np.asarray(images, np.int64) if images is not None else None,
    )


def distinct(kind: Kind, rows: int, captions_per_image: int | None = None) -> Stream:
    images = [row // captions_per_image for row in range(rows)] if captions_per_image else None
    return stream(kind, list(range(rows)), images)


def plan(*streams: Stream, size: int = 8, seed: int = 0, **schedule: object) -> Plan:
    return Plan(streams=streams, schedule=ScheduleConfig(**schedule), batch_size=size, seed=seed)


def epoch(batches: Iterator[PlannedBatch], made: Plan, number: int) -> list[PlannedBatch]:
    return list(itertools.islice(batches, len(made.kinds(number))))


def rows_of(batches: Iterable[PlannedBatch]) -> list[tuple[Kind, int]]:
    return [(batch.kind, row) for batch in batches for row in batch.rows.tolist()]


def kinds(batches: list[PlannedBatch]) -> str:
    return "".join(batch.kind[0] for batch in batches)


def require_no_repetition(batch: PlannedBatch, streams: dict[str, Stream]) -> None:
    rows = batch.rows.tolist()
    source = streams[batch.kind]
    assert len(set(rows)) == len(rows)
    assert len(set(source.text_keys[rows].tolist())) == len(rows), "a repeated text"
    if source.image_keys is not None:
        assert len(set(source.image_keys[rows].tolist())) == len(rows), "a repeated image"


def test_batches_are_full_of_one_kind_and_numbered_by_step() -> None:
    made = plan(distinct("text", 83), distinct("pair", 30, 3))
    for step, batch in enumerate(itertools.islice(made.batches(), 60)):
        assert len(batch.rows) == 8
        assert batch.step == step


def test_spread_reads_each_row_at_most_once_per_epoch_and_misses_only_what_is_left_over() -> None:
    made = plan(distinct("text", 83), distinct("pair", 60, 3))
    assert made.left_over() == {"text": 83 % 8, "pair": 60 % 8}
    batches = made.batches()
    for number in range(3):
        seen: Counter[tuple[str, int]] = Counter(rows_of(epoch(batches, made, number)))
        assert set(seen.values()) == {1}
        assert sum(kind == "text" for kind, _ in seen) == 83 - made.left_over()["text"]
        assert sum(kind == "pair" for kind, _ in seen) == 60 - made.left_over()["pair"]


def test_rows_that_are_left_over_change_from_epoch_to_epoch() -> None:
    made = plan(distinct("text", 83))
    batches = made.batches()
    missing = [set(range(83)) - {row for _, row in rows_of(epoch(batches, made, number))} for number in range(4)]
    assert len(set(map(frozenset, missing))) == 4


@given(text=st.integers(1, 60), pair=st.integers(1, 60))
def test_spread_is_even(text: int, pair: int) -> None:
    """In any stretch from the start, the number of pair batches is what is due, to less than one."""
    made = plan(distinct("text", 2 * text), distinct("pair", 2 * pair), size=2)
    found = made.kinds(0)
    assert Counter(found) == {"text": text, "pair": pair}
    for step in range(1, len(found) + 1):
        due = step * pair / (text + pair)
        assert 0 <= due - found[:step].count("pair") < 1


def test_steps_are_those_of_all_epochs() -> None:
    made = plan(distinct("text", 83), distinct("pair", 60, 3))
    assert made.steps(1) == 10 + 7
    assert made.steps(3) == sum(len(made.kinds(number)) for number in range(3)) == 51


@pytest.mark.parametrize(("text", "pair", "k"), [(24, 10, 2), (30, 10, 3), (39, 10, 3), (100, 7, 14)])
def test_every_k_is_the_rule_of_the_release(text: int, pair: int, k: int) -> None:
    """Step t of an epoch of (text + pair) steps is a pair step when t mod k = 0, k = ⌊text / pair⌋."""
    made = plan(distinct("text", 4 * text), distinct("pair", 4 * pair), size=4, kind="every_k")
    assert pair_interval(text, pair) == k
    found = made.kinds(0)
    assert found == ["pair" if step % k == 0 else "text" for step in range(text + pair)]
    assert made.kinds(3) == found


def test_every_2_reads_pairs_1_7_times_and_text_0_7_times() -> None:
    """method.md §3: at k = 2 (2.4 times as much text) 1.7 passes over pairs and 0.7 over text per epoch."""
    made = plan(distinct("text", 240), distinct("pair", 100), size=1, kind="every_k")
    counts = Counter(made.kinds(0))
    assert counts["pair"] / 100 == pytest.approx(1.7)
    assert counts["text"] / 240 == pytest.approx(0.7, abs=0.01)
    rows = Counter(row for kind, row in rows_of(epoch(made.batches(), made, 0)) if kind == "pair")
    assert set(rows.values()) == {1, 2}, "the stream is reshuffled when it is exhausted, not before"


def test_every_k_takes_its_k_from_the_recipe() -> None:
    made = plan(distinct("text", 16), distinct("pair", 16), kind="every_k", k=4)
    assert made.kinds(0) == ["pair", "text", "text", "text"]


def test_every_k_goes_on_in_a_stream_over_the_edge_of_an_epoch() -> None:
    made = plan(distinct("text", 240), distinct("pair", 100), size=1, kind="every_k")
    text = [int(b.rows[0]) for b in itertools.islice(made.batches(), 2 * 340) if b.kind == "text"]
    assert len(set(text[:240])) == 240, "no text is read twice before all of it was read once"


def test_no_batch_of_many_holds_a_text_or_an_image_twice() -> None:
    """R21, over 10,000 batches: 5 captions an image, many equal sentences."""
    random = np.random.default_rng(0)
    text = stream("text", random.integers(0, 900, 2000).tolist())
    pair = stream("pair", random.integers(0, 700, 1000).tolist(), [row // 5 for row in range(1000)])
    made = plan(text, pair, size=16)
    batches = made.batches()
    for batch in itertools.islice(batches, 10_000):
        require_no_repetition(batch, {"text": text, "pair": pair})


@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=60),
    size=st.integers(2, 7),
    seed=st.integers(0, 5),
)
def test_a_pass_is_conflict_free_whatever_repeats(rows: list[tuple[int, int]], size: int, seed: int) -> None:
    source = stream("pair", [text for text, _ in rows], [image for _, image in rows])
    made = plan(source, size=size, seed=seed)
    batches = source.batches(size, seed=seed, turn=0)
    seen: Counter[int] = Counter()
    for batch in batches:
        require_no_repetition(PlannedBatch(0, "pair", batch), {"pair": source})
        seen.update(batch.tolist())
    assert set(seen.values()) <= {1}
    assert made.left_over()["pair"] == len(rows) - size * len(batches)
    missing = [row for row in range(len(rows)) if row not in seen]
    left_texts, left_images = {rows[row][0] for row in missing}, {rows[row][1] for row in missing}
    assert len(missing) == made.left_over()["pair"]
    assert not (len(missing) >= size and len(left_texts) == len(left_images) == len(missing)), (
        "what is left over would have made another batch"
    )


def one_by_one(order: list[int], keys: list[list[int]], size: int) -> list[list[int]]:
    """The batches by their definition, row by row: who conflicts waits, and one of each key tries every batch."""
    waiting: dict[tuple[int, int], list[int]] = {}
    fresh = iter(order)

    def candidates() -> Iterator[int]:
        for key in list(waiting):
            row = waiting[key].pop(0)
            if not waiting[key]:
                del waiting[key]
            yield row
        yield from fresh

    found = []
    while True:
        batch: list[int] = []
        for row in candidates():
            clashes = [(n, of[row]) for n, of in enumerate(keys) if of[row] in [of[other] for other in batch]]
            if clashes:
                waiting.setdefault(clashes[0], []).append(row)
            else:
                batch.append(row)
            if len(batch) == size:
                break
        else:
            return found
        found.append(batch)


@given(
    texts=st.lists(st.integers(0, 40), min_size=1, max_size=80),
    per_image=st.integers(1, 6),
    size=st.integers(1, 7),
)
def test_batches_taken_many_at_once_are_those_taken_one_by_one(texts: list[int], per_image: int, size: int) -> None:
    images = [row // per_image for row in range(len(texts))]
    order = generator(3, "stream", "pair", 1).permutation(len(texts)).tolist()
    made = stream("pair", texts, images).batches(size, seed=3, turn=1)
    assert made.tolist() == one_by_one(order, [texts, images], size)


def test_two_captions_of_an_image_may_meet_where_images_do_not_matter() -> None:
    source = distinct("pair", 64)
    repeats = plan(Stream(kind="pair", text_keys=source.text_keys), size=64)
    [batch] = list(itertools.islice(repeats.batches(), 1))
    assert len(batch.rows) == 64


def as_text(made: Plan, batches: int) -> str:
    return repr(rows_of(itertools.islice(made.batches(), batches)))


def test_the_seed_decides() -> None:
    def made(seed: int) -> str:
        return as_text(plan(distinct("text", 83), distinct("pair", 60, 3), seed=seed), 50)

    assert made(0) == made(0)
    assert made(0) != made(1)


def test_text_and_pairs_are_shuffled_apart() -> None:
    made = plan(distinct("text", 64), distinct("pair", 64))
    rows = {
        kind: [row for its, row in rows_of(epoch(made.batches(), made, 0)) if its == kind]
        for kind in ("text", "pair")
    }
    assert rows["text"] != rows["pair"]


def test_a_plan_can_be_read_again_from_its_start() -> None:
    made = plan(distinct("text", 83), distinct("pair", 60, 3))
    assert as_text(made, 40) == as_text(made, 40)


IN_A_CHILD = """
import hashlib, itertools, numpy as np
from dalr.data.rows import Kind
from dalr.data.schedule import Plan, ScheduleConfig, Stream
from dalr.io.strings import keys_of
from dalr.seed import generator
texts = keys_of([f"sentence {n % 50}" for n in range(83)])
made = Plan(streams=(Stream(kind="text", text_keys=texts),), schedule=ScheduleConfig(), batch_size=8, seed=7)
rows = [row for batch in itertools.islice(made.batches(), 40) for row in batch.rows.tolist()]
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


def test_the_order_does_not_depend_on_the_hash_seed_or_the_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", IN_A_CHILD],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=tmp_path_factory.mktemp("cwd"),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    texts = keys_of([f"sentence {n % 50}" for n in range(83)])
    here = plan(Stream(kind="text", text_keys=texts), seed=7)
    rows = [row for batch in itertools.islice(here.batches(), 40) for row in batch.rows.tolist()]
    assert digests == {hashlib.sha256(repr(rows).encode()).hexdigest() + "\n"}
