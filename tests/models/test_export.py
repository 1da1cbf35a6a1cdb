"""The product: a folder that SentenceTransformer and AutoModel load, with the weights it was saved with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.embedding import embed
from dalr.models.export import save_encoder
from dalr.models.loading import load_encoder
from tiny import captions

SENTENCES = captions(20)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("layers", [None, 1])
def test_an_export_loads_with_the_same_weights_and_vectors(
    tmp_path: Path, tiny_bert: Path, pooling: str, layers: int | None
) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    student = load_encoder(EncoderConfig(model=str(tiny_bert), pooling=pooling, num_layers=layers))
    save_encoder(student, tmp_path / "model")
    expected = embed(student, SENTENCES)

    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    weights, before = loaded.state_dict(), student.state_dict()
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert np.abs(loaded.encode(SENTENCES) - expected).max() < 1e-6
    assert loaded[1].pooling_mode == pooling

    plain = AutoModel.from_pretrained(tmp_path / "model").eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = plain(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    vectors = states[:, 0] if pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
    assert np.abs(vectors.numpy() - expected).max() < 1e-6
    assert plain.config.num_hidden_layers == (layers or 2)


def test_an_export_has_no_normalize_and_no_model_card(tmp_path: Path, tiny_teacher: Path) -> None:
    save_encoder(load_encoder(EncoderConfig(model=str(tiny_teacher))), tmp_path / "model")
    files = sorted(path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*"))
    assert not any("Normalize" in name or "README" in name for name in files)
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert "model.safetensors" in files


def test_an_export_keeps_the_encoders_own_length(tmp_path: Path, tiny_bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    save_encoder(load_encoder(EncoderConfig(model=str(tiny_bert), pooling="cls")), tmp_path / "model")
    assert SentenceTransformer(str(tmp_path / "model"), device="cpu").max_seq_length == 48


def test_an_export_can_be_a_student_again_without_stating_its_pooling(tmp_path: Path, tiny_bert: Path) -> None:
    student = load_encoder(StudentConfig(model=str(tiny_bert), pooling="cls"))
    save_encoder(student, tmp_path / "model")
    again = load_encoder(StudentConfig(model=str(tmp_path / "model")))
    assert np.array_equal(embed(again, SENTENCES), embed(student, SENTENCES))
