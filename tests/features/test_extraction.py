"""Teacher vectors: each distinct sentence once, before any Normalize, kept in the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dalr.errors import ConfigError, DataError, ModelFileError
from dalr.features import text as extraction
from dalr.features.store import FeatureStore, open_store
from dalr.features.text import cached_text_store, write_text_store
from dalr.io.cache import cache_folder
from dalr.models.config import EncoderConfig
from stores import as_matrix
from tiny import captions

SENTENCES = [*captions(12), *captions(5), "the long river near the first city and the hill"]
IDS = [f"x#{number}" for number in range(len(SENTENCES))]


@pytest.fixture
def teacher(tiny_teacher: Path) -> EncoderConfig:
    return EncoderConfig(model=str(tiny_teacher))


def test_each_distinct_sentence_is_encoded_once(tmp_path: Path, teacher: EncoderConfig) -> None:
    seen: list[tuple[int, int]] = []
    write_text_store(
        tmp_path / "s", encoder=teacher, ids=IDS, sentences=SENTENCES, progress=lambda d, n: seen.append((d, n))
    )
    assert seen[-1] == (13, 13)
    store = open_store(tmp_path / "s")
    rows = as_matrix(store)
    assert store.ids == tuple(IDS)
    assert np.array_equal(rows[12:17], rows[:5])


def test_vectors_are_those_before_normalize(tmp_path: Path, teacher: EncoderConfig, tiny_teacher: Path) -> None:
    from sentence_transformers import SentenceTransformer

    write_text_store(tmp_path / "s", encoder=teacher, ids=IDS, sentences=SENTENCES)
    rows = as_matrix(open_store(tmp_path / "s"))
    normalised = SentenceTransformer(str(tiny_teacher), device="cpu").encode(SENTENCES)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(norms - 1).min() > 0.1
    assert np.allclose(rows / norms, normalised, atol=2e-3)


def test_the_store_says_what_it_was_made_from(tmp_path: Path, teacher: EncoderConfig) -> None:
    write_text_store(tmp_path / "s", encoder=teacher, ids=IDS, sentences=SENTENCES)
    source = open_store(tmp_path / "s").source
    assert source["encoder"]["model"] == teacher.model
    assert source["normalized"] is False
    assert len(source["sha256"]) == 64


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sentences each use of an encoder was given."""
    calls: list[int] = []
    embed = extraction.embed

    def counted(encoder: object, sentences: list[str], **options: object) -> np.ndarray:
        calls.append(len(sentences))
        return embed(encoder, sentences, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(extraction, "embed", counted)
    return calls


def cached(encoder: EncoderConfig, ids: list[str] = IDS, sentences: list[str] = SENTENCES) -> FeatureStore:
    return cached_text_store(encoder=encoder, ids=ids, sentences=sentences)


def test_a_cached_store_is_reused(fresh_cache: Path, teacher: EncoderConfig, work: list[int]) -> None:
    first = cached(teacher)
    second = cached(teacher)
    assert second.folder == first.folder
    assert np.array_equal(as_matrix(first), as_matrix(second))
    assert work == [len(set(SENTENCES))]


def test_whatever_changes_the_vectors_changes_the_entry(
    fresh_cache: Path, teacher: EncoderConfig, tiny_bert: Path
) -> None:
    folders = [
        cached(encoder, ids, sentences).folder
        for encoder, ids, sentences in [
            (teacher, IDS, SENTENCES),
            (teacher.model_copy(update={"pooling": "cls"}), IDS, SENTENCES),
            (teacher.model_copy(update={"num_layers": 1}), IDS, SENTENCES),
            (teacher.model_copy(update={"max_tokens": 4}), IDS, SENTENCES),
            (EncoderConfig(model=str(tiny_bert), pooling="cls"), IDS, SENTENCES),
            (teacher, IDS[::-1], SENTENCES),
            (teacher, IDS, SENTENCES[::-1]),
        ]
    ]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", ["ids.jsonl", "manifest.json"])
def test_a_damaged_entry_is_made_again(
    fresh_cache: Path, teacher: EncoderConfig, work: list[int], name: str
) -> None:
    expected = as_matrix(cached(teacher))
    [entry] = cache_folder("teachers").iterdir()
    (entry / name).write_bytes(b"")
    assert np.array_equal(as_matrix(cached(teacher)), expected)
    assert work == [len(set(SENTENCES))] * 2


def test_limits_of_tokens_and_layers_take_effect(tmp_path: Path, teacher: EncoderConfig) -> None:
    stores = {}
    for name, change in {"all": {}, "short": {"max_tokens": 4}, "shallow": {"num_layers": 1}}.items():
        encoder = teacher.model_copy(update=change)
        write_text_store(tmp_path / name, encoder=encoder, ids=IDS, sentences=SENTENCES)
        stores[name] = as_matrix(open_store(tmp_path / name))
    assert not np.allclose(stores["all"], stores["short"], atol=1e-2)
    assert not np.allclose(stores["all"], stores["shallow"], atol=1e-2)


def test_a_missing_teacher_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        write_text_store(
            tmp_path / "s", encoder=EncoderConfig(model="/nowhere/teacher"), ids=["a"], sentences=["x"]
        )
    assert list(tmp_path.iterdir()) == []


def test_a_plain_teacher_needs_a_pooling(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match="pooling"):
        write_text_store(tmp_path / "s", encoder=EncoderConfig(model=str(tiny_bert)), ids=["a"], sentences=["x"])


def test_vectors_of_a_broken_teacher_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.LayerNorm.weight"] = torch.full_like(weights["embeddings.LayerNorm.weight"], float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="expected finite numbers"):
        write_text_store(
            tmp_path / "s", encoder=EncoderConfig(model=str(broken), pooling="cls"), ids=["a"], sentences=["x"]
        )
    assert not (tmp_path / "s").exists()
