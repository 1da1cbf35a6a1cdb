"""Rows of many requests are encoded together, and nobody's vectors depend on who shares the batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dalr.errors import NumericsError
from dalr.inference.encoders import Encoded
from dalr.serving.batching import Batcher
from dalr.serving.limits import Limits
from dalr.serving.metrics import Metrics
from dalr.serving.refusal import RefusalError


class Gate:
    """An encoder of numbers that waits to be let through, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.passes = threading.Semaphore(0)
        self.open = False

    def __call__(self, rows: Sequence[str]) -> Encoded:
        self.batches.append(list(rows))
        self.entered.release()
        if not self.open:
            assert self.passes.acquire(timeout=20)
        if "bad" in rows:
            raise ValueError("this row")
        vectors = np.asarray([[np.nan if row == "nan" else float(row)] for row in rows], np.float32)
        return Encoded(
            vectors=vectors, cut=tuple(i for i, row in enumerate(rows) if row == "7"), tokens=(2,) * len(rows)
        )

    def let_all_through(self) -> None:
        self.open = True
        for _ in range(50):
            self.passes.release()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher]:
    made = Batcher(gate, Limits(max_rows=10, max_waiting=10, max_batch=4, max_wait_ms=0.0), Metrics())
    yield made
    gate.let_all_through()
    made.close()


def rows(first: int, count: int) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def busy(batcher: Batcher, gate: Gate) -> None:
    """Keep the encoder busy with a row, so that what comes next waits."""
    batcher.submit(["0"])
    assert gate.entered.acquire(timeout=20)


def test_requests_that_wait_share_the_next_batch(batcher: Batcher, gate: Gate) -> None:
    busy(batcher, gate)
    futures = [batcher.submit([str(number)]) for number in (5, 6, 7)]
    gate.let_all_through()
    found = [future.result(timeout=20) for future in futures]
    assert gate.batches == [["0"], ["5", "6", "7"]]
    assert [each.vectors.tolist() for each in found] == [[[5.0]], [[6.0]], [[7.0]]]
    assert [each.cut for each in found] == [(), (), (0,)]
    assert [each.tokens for each in found] == [(2,), (2,), (2,)]


def test_a_request_of_many_rows_lets_others_in_between(batcher: Batcher, gate: Gate) -> None:
    busy(batcher, gate)
    many, one = batcher.submit(rows(1, 9)), batcher.submit(["50"])
    gate.let_all_through()
    assert many.result(timeout=20).vectors[:, 0].tolist() == list(range(1, 10))
    assert many.result().cut == (6,)
    assert one.result(timeout=20).vectors.tolist() == [[50.0]]
    assert gate.batches[1:] == [rows(1, 4), ["50", *rows(5, 3)], rows(8, 2)]


def test_long_rows_make_small_batches(gate: Gate) -> None:
    gate.open = True
    batcher = Batcher(gate, Limits(max_batch=4), Metrics())
    long = [
        number.zfill(characters) for number, characters in (("1", 20_000), ("2", 20_000), ("3", 40_000), ("4", 1))
    ]
    assert batcher.submit(long).result(timeout=20).vectors[:, 0].tolist() == [1, 2, 3, 4]
    batcher.close()
    assert [len(batch) for batch in gate.batches] == [1, 1, 1, 1]


def test_beyond_the_limit_of_waiting_rows_requests_are_told_to_come_back(batcher: Batcher, gate: Gate) -> None:
    busy(batcher, gate)
    waiting = batcher.submit(rows(1, 8))
    with pytest.raises(RefusalError, match="8 rows are waiting, at most 10 may") as refused:
        batcher.submit(rows(20, 3))
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) >= 1
    assert batcher.submit(["30", "31"])
    assert batcher.waiting() == 10
    waiting.cancel()
    assert batcher.waiting() == 2
    batcher.submit(rows(20, 3))


def test_rows_of_a_client_that_left_are_not_encoded(batcher: Batcher, gate: Gate) -> None:
    busy(batcher, gate)
    left, stays = batcher.submit(["1"]), batcher.submit(["2"])
    left.cancel()
    gate.let_all_through()
    assert stays.result(timeout=20).vectors.tolist() == [[2.0]]
    assert gate.batches == [["0"], ["2"]]


def test_only_the_request_at_fault_fails(batcher: Batcher, gate: Gate) -> None:
    busy(batcher, gate)
    good, bad, also = batcher.submit(["1"]), batcher.submit(["bad"]), batcher.submit(["2"])
    gate.let_all_through()
    assert good.result(timeout=20).vectors.tolist() == [[1.0]]
    assert also.result(timeout=20).vectors.tolist() == [[2.0]]
    with pytest.raises(ValueError, match="this row"):
        bad.result(timeout=20)
    many = batcher.submit([*rows(1, 6), "bad", *rows(1, 2)])
    with pytest.raises(ValueError, match="this row"):
        many.result(timeout=20)
    assert batcher.submit(["9"]).result(timeout=20).vectors.tolist() == [[9.0]]


def test_numbers_that_are_none_are_said_of_their_row_alone(batcher: Batcher, gate: Gate) -> None:
    busy(batcher, gate)
    good, bad = batcher.submit(["1"]), batcher.submit([*rows(1, 5), "nan"])
    gate.let_all_through()
    assert good.result(timeout=20).vectors.tolist() == [[1.0]]
    with pytest.raises(NumericsError, match=r"input\[5\]: the model gave NaN"):
        bad.result(timeout=20)


def test_closing_answers_what_was_accepted_and_refuses_the_rest(gate: Gate) -> None:
    batcher = Batcher(gate, Limits(max_batch=2), Metrics())
    busy(batcher, gate)
    accepted = [batcher.submit([str(number)]) for number in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher._closed:
        pass
    with pytest.raises(RefusalError, match="stopping"):
        batcher.submit(["1"])
    gate.let_all_through()
    closing.join(timeout=20)
    assert [future.result(timeout=1).vectors.tolist() for future in accepted] == [[[float(n)]] for n in range(5)]


def test_after_a_shared_batch_the_next_waits_a_little_for_more(gate: Gate) -> None:
    batcher = Batcher(gate, Limits(max_batch=3, max_wait_ms=10_000.0), Metrics())
    busy(batcher, gate)
    shared = [batcher.submit([str(number)]) for number in (1, 2)]
    gate.let_all_through()
    for future in shared:
        future.result(timeout=20)
    later = [batcher.submit([str(number)]) for number in (3, 4, 5)]
    for future in later:
        future.result(timeout=20)
    assert gate.batches == [["0"], ["1", "2"], ["3", "4", "5"]]
    batcher.close()


def test_many_threads_get_their_own_rows(gate: Gate) -> None:
    gate.open = True
    batcher = Batcher(gate, Limits(max_batch=8), Metrics())

    def ask(number: int) -> bool:
        asked = rows(number * 10, number % 7 + 1)
        found = batcher.submit(asked).result(timeout=20).vectors[:, 0]
        return found.tolist() == [float(row) for row in asked]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))
    batcher.close()
