"""Sentences to vectors: one row each, in order, whatever the batches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from dalr.models import embedding
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed, pad, pooled
from dalr.models.loading import load_encoder
from tiny import captions, lines

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SENTENCES = [*captions(30), *lines(10), "dog", "a cat", *captions(5), "the city " * 30, "http://host/x.jpg", "😀"]


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> SentenceTransformer:
    return load_encoder(EncoderConfig(model=str(tiny_bert), pooling="mean"))


def test_rows_are_those_of_the_library_in_the_order_given(bert: SentenceTransformer) -> None:
    expected = bert.encode(SENTENCES, batch_size=4)
    assert np.abs(embed(bert, SENTENCES) - expected).max() < 1e-5
    assert embed(bert, SENTENCES).dtype == np.float32


@pytest.mark.parametrize("budget", [1, 50, 333, 100_000])
def test_the_batch_budget_changes_nothing(bert: SentenceTransformer, budget: int) -> None:
    assert np.abs(embed(bert, SENTENCES, tokens_per_batch=budget) - embed(bert, SENTENCES)).max() < 1e-5


def test_the_same_list_gives_the_same_bits(bert: SentenceTransformer) -> None:
    assert np.array_equal(embed(bert, SENTENCES), embed(bert, SENTENCES))


def test_shuffled_sentences_give_shuffled_rows(bert: SentenceTransformer) -> None:
    order = list(range(len(SENTENCES)))
    random.Random(0).shuffle(order)
    shuffled = embed(bert, [SENTENCES[index] for index in order])
    assert np.abs(shuffled - embed(bert, SENTENCES)[order]).max() < 1e-5


def test_each_distinct_sentence_is_encoded_once_and_equal_ones_get_equal_rows(bert: SentenceTransformer) -> None:
    seen: list[tuple[int, int]] = []
    rows = embed(bert, SENTENCES, tokens_per_batch=64, progress=lambda done, total: seen.append((done, total)))
    distinct = len(set(SENTENCES))
    assert distinct < len(SENTENCES)
    assert seen[-1] == (distinct, distinct)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert np.array_equal(rows[:5], rows[42:47])


def test_none_and_one_sentence(bert: SentenceTransformer) -> None:
    assert embed(bert, []).shape == (0, 32)
    assert embed(bert, ["a dog"]).shape == (1, 32)


def test_chunks_of_tokenising_change_nothing(bert: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embed(bert, SENTENCES)
    monkeypatch.setattr(embedding, "_TOKENISE_CHUNK", 7)
    assert np.array_equal(embed(bert, SENTENCES), whole)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_dropout_is_off_meanwhile(bert: SentenceTransformer, training: bool) -> None:
    bert.train(training)
    try:
        first, second = embed(bert, SENTENCES), embed(bert, SENTENCES)
        assert bert.training is training
        assert bert[0].training is training
    finally:
        bert.eval()
    assert np.array_equal(first, second)


def test_the_mode_is_restored_after_a_failure(bert: SentenceTransformer) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    bert.train()
    try:
        with pytest.raises(KeyboardInterrupt):
            embed(bert, SENTENCES, progress=stop)
        assert bert.training
    finally:
        bert.eval()


def test_long_input_is_cut_at_the_limit(bert: SentenceTransformer) -> None:
    long = "the city and the river " * 50
    short, shorter = embed(bert, [long, "a dog"], max_tokens=4), embed(bert, ["the city", "a dog"])
    assert np.abs(short - shorter).max() < 1e-5
    assert embed(bert, ["dog " * 100_000]).shape == (1, 32)


def test_vectors_are_taken_before_a_normalize_module(tiny_teacher: Path) -> None:
    from sentence_transformers import SentenceTransformer

    whole = SentenceTransformer(str(tiny_teacher), device="cpu")
    ids = torch.tensor([[2, 5, 6, 3]])
    h = pooled(whole, ids, torch.ones_like(ids))
    z = whole({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"]
    assert abs(h.norm().item() - 1) > 0.1
    torch.testing.assert_close(h / h.norm(), z)


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
