"""Batches: every tensor of a step, by row; what is random in them comes from (seed, step)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dalr.data.dataset import read_pairs
from dalr.data.schedule import PlannedBatch
from dalr.data.tokens import TokenStream
from dalr.features.source import open_features
from dalr.features.store import FeatureStore, open_store, write_store
from dalr.training.batch import Batch, BatchDataset, StoredVectors, StreamData, TokenBatch, TokenRows, derangement
from tiny import IMAGES, TinyData


def draw(groups: list[int], seed: int = 0) -> np.ndarray | None:
    return derangement(np.asarray(groups, np.int64), np.random.default_rng(seed))


@given(groups=st.lists(st.integers(0, 8), min_size=0, max_size=40), seed=st.integers(0, 100))
def test_a_derangement_is_a_permutation_that_avoids_the_own_group_and_exists_whenever_one_can(
    groups: list[int], seed: int
) -> None:
    found = draw(groups, seed)
    largest = max(Counter(groups).values(), default=0)
    possible = len(groups) >= 2 and 2 * largest <= len(groups)
    assert (found is not None) is possible
    if found is not None:
        assert sorted(found.tolist()) == list(range(len(groups)))
        assert all(groups[row] != groups[other] for row, other in enumerate(found.tolist()))


def test_derangements_of_distinct_rows_reach_every_partner() -> None:
    partners = Counter(int(draw([0, 1, 2, 3], seed)[0]) for seed in range(300))  # type: ignore[index]
    assert set(partners) == {1, 2, 3}
    assert min(partners.values()) > 50


def test_derangements_depend_on_the_generator_alone() -> None:
    groups = [row // 2 for row in range(32)]
    first, same, other = draw(groups, 1), draw(groups, 1), draw(groups, 2)
    assert first is not None
    assert same is not None
    assert other is not None
    assert first.tolist() == same.tolist() != other.tolist()


def tokens(rows: list[list[int]], pad_id: int = 0) -> TokenRows:
    lengths = [len(row) for row in rows]
    stream = TokenStream(
        tokens=np.asarray([token for row in rows for token in row], np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        truncated=0,
    )
    return TokenRows(stream=stream, pad_id=pad_id)


@pytest.fixture
def images(tiny_data: TinyData, fresh_cache: Path) -> FeatureStore:
    return open_features(tiny_data.matrix, tiny_data.ids)


@pytest.fixture
def teacher(tmp_path: Path) -> FeatureStore:
    """StoredVectors [row, 1] of 72 captions."""
    matrix = np.stack([np.arange(72, dtype=np.float32), np.ones(72, np.float32)], axis=1)
    write_store(tmp_path / "teacher", ids=[str(n) for n in range(72)], blocks=[matrix], source={}, origin="teacher")
    return open_store(tmp_path / "teacher")


@pytest.fixture
def dataset(tiny_data: TinyData, images: FeatureStore, teacher: FeatureStore) -> BatchDataset:
    pairs = read_pairs(tiny_data.pairs, [], {})
    text = StreamData(
        row_ids=[str(number) for number in range(1, 81)],
        tokens=tokens([[2, *range(10, 11 + row % 4), 3] for row in range(80)]),
        teachers=(StoredVectors(store=teacher, rows=np.arange(80, dtype=np.int64) % 72),),
    )
    pair = StreamData(
        row_ids=pairs.caption_ids,
        tokens=tokens([[2, row, 3] for row in range(72)]),
        images=pairs.image_of,
        image=StoredVectors(store=images, rows=pairs.image_of),
        clip_text=StoredVectors(store=teacher, rows=np.arange(72, dtype=np.int64)[::-1].copy()),
        teachers=(StoredVectors(store=teacher, rows=np.arange(72, dtype=np.int64)),),
        teacher_tokens=(tokens([[row] * (1 + row % 3) for row in range(72)], pad_id=7),),
    )
    return BatchDataset(streams={"text": text, "pair": pair}, seed=3)


def planned(kind: Kind, rows: list[int], step: int = 5) -> PlannedBatch:
    return PlannedBatch(step, kind, np.asarray(rows, np.int64))


def test_a_text_batch_has_tokens_and_teachers_and_nothing_of_images(dataset: BatchDataset) -> None:
    batch = dataset[planned("text", [3, 0, 17, 4])]
    assert (batch.kind, batch.step) == ("text", 5)
    assert batch.row_ids == ("4", "1", "18", "5")
    assert batch.tokens.ids.tolist() == [
        [2, 10, 11, 12, 13, 3],
        [2, 10, 3, 0, 0, 0],
        [2, 10, 11, 3, 0, 0],
        [2, 10, 3, 0, 0, 0],
    ]
    assert batch.tokens.mask.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert sorted(batch.targets.tie_order.tolist()) == [0, 1, 2, 3]
    assert [row[0] for row in batch.targets.teachers[0].tolist()] == [3, 0, 17, 4]
    assert (
        batch.targets.image
        is batch.targets.clip_text
        is batch.targets.same_image
        is batch.targets.unmatched
        is None
    )
    assert batch.teacher_tokens == ()


def test_a_pair_batch_has_everything_by_row(dataset: BatchDataset, tiny_data: TinyData) -> None:
    rows = [0, 1, 30, 71, 15, 16]
    batch = dataset[planned("pair", rows)]
    owners = [row // 3 for row in rows]
    assert batch.row_ids == tuple(f"{owner:03d}.jpg#{row % 3}" for owner, row in zip(owners, rows, strict=True))
    assert batch.targets.image is not None
    assert np.array_equal(batch.targets.image.numpy(), tiny_data.features[owners].astype(np.float16))
    assert batch.targets.image.dtype == torch.float32
    assert batch.targets.clip_text is not None
    assert batch.targets.clip_text[:, 0].tolist() == [71 - row for row in rows]
    assert batch.targets.teachers[0][:, 0].tolist() == rows
    assert batch.targets.same_image is not None
    assert batch.targets.same_image.tolist() == [[a == b for b in owners] for a in owners]
    assert batch.targets.unmatched is not None
    assert all(owners[row] != owners[other] for row, other in enumerate(batch.targets.unmatched.tolist()))
    assert batch.teacher_tokens[0].ids.tolist()[0] == [0, 7, 7], "a teacher pads with its own token"
    assert batch.teacher_tokens[0].mask.tolist()[0] == [1, 0, 0]


def test_a_batch_of_one_image_has_no_unmatched_partner(dataset: BatchDataset) -> None:
    assert dataset[planned("pair", [0, 1, 2])].targets.unmatched is None


def test_what_is_random_depends_on_the_seed_and_the_step_alone(dataset: BatchDataset) -> None:
    def drawn(step: int, seed: int = 3) -> tuple[list[int], list[int]]:
        made = BatchDataset(streams=dataset.streams, seed=seed)
        batch = made[planned("pair", list(range(0, 3 * IMAGES, 3)), step)]
        assert batch.targets.unmatched is not None
        return batch.targets.tie_order.tolist(), batch.targets.unmatched.tolist()

    assert drawn(5) == drawn(5)
    assert drawn(5)[0] != drawn(6)[0]
    assert drawn(5)[1] != drawn(6)[1]
    assert drawn(5)[0] != drawn(5, seed=4)[0]
    np.random.seed(1)
    torch.manual_seed(1)
    assert drawn(5) == drawn(5)


def test_a_batch_moves_with_all_its_tensors(dataset: BatchDataset) -> None:
    batch: Batch = dataset[planned("pair", [0, 5, 9, 20])].to("meta")
    assert batch.targets.image is not None
    assert batch.targets.same_image is not None
    moved = [
        batch.tokens.ids,
        batch.tokens.mask,
        batch.targets.tie_order,
        batch.targets.image,
        batch.targets.same_image,
        *batch.targets.teachers,
    ]
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert all(isinstance(teacher, TokenBatch) and teacher.ids.is_meta for teacher in batch.teacher_tokens)
    assert (batch.kind, batch.step, len(batch.row_ids)) == ("pair", 5, 4)


def test_candidates_are_the_images_of_the_batch_and_others_each_once(dataset: BatchDataset) -> None:
    pair = dataset.streams["pair"]
    assert pair.images is not None
    assert pair.image is not None
    drawn = BatchDataset(streams={"pair": dataclasses.replace(pair, candidates=12)}, seed=3)
    batch = drawn[planned("pair", [0, 1, 30, 50])]
    assert batch.targets.image is not None
    assert batch.targets.candidates is not None
    assert batch.targets.own_candidate is not None
    assert len(batch.targets.candidates) == 12
    assert len({tuple(row) for row in batch.targets.candidates.tolist()}) == 12, "distinct"
    assert torch.equal(batch.targets.candidates[batch.targets.own_candidate], batch.targets.image), (
        "its own image is among them"
    )
    again = drawn[planned("pair", [0, 1, 30, 50])]
    other = drawn[planned("pair", [0, 1, 30, 50], step=6)]
    assert torch.equal(batch.targets.candidates, again.targets.candidates)
    assert not torch.equal(batch.targets.candidates, other.targets.candidates), "drawn for the step"


@pytest.mark.parametrize(("candidates", "found"), [(2, 3), (1000, IMAGES)])
def test_candidates_are_at_least_those_of_the_batch_and_at_most_all(
    dataset: BatchDataset, candidates: int, found: int
) -> None:
    drawn = BatchDataset(
        streams={"pair": dataclasses.replace(dataset.streams["pair"], candidates=candidates)}, seed=3
    )
    batch = drawn[planned("pair", [0, 3, 6])]
    assert batch.targets.candidates is not None
    assert len(batch.targets.candidates) == found


def test_without_candidates_none_are_read(dataset: BatchDataset) -> None:
    batch = dataset[planned("pair", [0, 3, 6])]
    assert batch.targets.candidates is batch.targets.own_candidate is None


@pytest.mark.parametrize("gather", [True, False])
def test_a_rank_reads_the_tokens_of_its_own_rows(dataset: BatchDataset, gather: bool) -> None:
    """Frozen vectors it reads of all rows whose vectors meet in the objective."""
    rows = [3, 0, 17, 4, 9, 30, 41, 2]
    read: list[list[int]] = []
    for rank in range(4):
        counted = CountedRows(**vars(dataset.streams["pair"].tokens.stream))
        stream = dataclasses.replace(dataset.streams["pair"], tokens=TokenRows(stream=counted, pad_id=0))
        of_rank = dataclasses.replace(dataset, streams={"pair": stream}, rank=rank, world=4, gather=gather)
        batch = of_rank[planned("pair", rows)]
        read.append(counted.read)
        assert batch.targets.image is not None
        assert len(batch.targets.image) == (8 if gather else 2)
    assert read == [rows[:2], rows[2:4], rows[4:6], rows[6:]]


@dataclasses.dataclass(frozen=True)
class CountedRows(TokenStream):
    """Notes which rows are read."""

    read: list[int] = dataclasses.field(default_factory=list)

    def row(self, index: int) -> np.ndarray:
        self.read.append(index)
        return super().row(index)
