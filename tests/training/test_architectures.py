"""Students that are no BERT: trained, cut and exported with either pooling; and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import look_inside, train

from dalr.errors import ConfigError, ModelFileError
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder
from tiny import ARCHITECTURES, Toys, captions, save_tiny_encoder


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_steps_and_an_export(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, pooling: str
) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    model = save_tiny_encoder(tmp_path / architecture, architecture)
    student = {"model": str(model), "pooling": pooling, "num_layers": 2, "dropout": 0.1}
    inside = look_inside(monkeypatch)
    recipe = toys.recipe(tmp_path, student=student, teachers=[{"model": str(toys.teacher)}])
    result = train(recipe, tmp_path / "run", "training.max_steps=2", "objective.intra_modal_alignment.weight=0.5")
    before, after = inside.before, inside.weights()
    layers = {name.split("layer")[1].split(".")[1] for name in after if "layer" in name and ".weight" in name}
    assert {"0", "1"} <= layers
    assert "2" not in layers
    trained = {name for name, p in inside.made.task.named_parameters() if p.requires_grad}
    moved = {name for name in trained if not torch.equal(before[name], after[name])}
    assert len(moved) > 0.7 * len(trained)

    reloaded = SentenceTransformer(str(result.model), local_files_only=True)
    sentences = [*captions(3), "red"]
    vectors = reloaded.encode(sentences)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors.round(5), axis=0)) == 4
    again = embed(load_encoder(EncoderConfig(model=str(result.model))), sentences)
    np.testing.assert_allclose(vectors, again, atol=2e-6)
    assert AutoModel.from_pretrained(result.model).config.num_hidden_layers == 2
    if result.best_step == 2:
        np.testing.assert_allclose(vectors, embed(inside.made.task.student, sentences), atol=2e-6)


def test_padding_changes_no_vector(tmp_path: Path) -> None:
    for architecture in ARCHITECTURES:
        folder = save_tiny_encoder(tmp_path / architecture, architecture)
        for pooling in ("cls", "mean"):
            encoder = load_encoder(EncoderConfig(model=str(folder), pooling=pooling))  # type: ignore[arg-type]
            together = embed(encoder, ["red", captions(1)[0]])
            np.testing.assert_allclose(together[:1], embed(encoder, ["red"]), atol=2e-6)


def test_a_student_of_the_roberta_kind_has_two_positions_less_than_it_states(toys: Toys, tmp_path: Path) -> None:
    model = save_tiny_encoder(tmp_path / "xlm", "xlm-roberta")
    data = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "max_tokens": 49}
    recipe = toys.recipe(tmp_path, student={"model": str(model), "pooling": "cls"}, data=data)
    with pytest.raises(ConfigError, match="49 tokens, but the student has 48 positions"):
        train(recipe, tmp_path / "run")


def save_other(folder: Path, kind: str) -> Path:
    """A model that is no encoder, or only half of one."""
    import transformers

    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
    }
    small: dict[str, tuple[Any, dict[str, Any]]] = {
        "gpt2": (transformers.GPT2Model, {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 60}),
        "qwen2": (
            transformers.Qwen2Model,
            {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "vocab_size": 60,
            },
        ),
        "bart": (
            transformers.BartModel,
            {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 60} | heads,
        ),
        "t5": (transformers.T5Model, {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}),
    }
    save_tiny_encoder(folder, "distilbert")  # its tokenizer
    model, sizes = small[kind]
    model(transformers.AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "pooling", "reason"),
    [
        ("bart", "mean", "expected an encoder, found BartModel, an encoder with a decoder"),
        ("gpt2", "cls", "found GPT2Model, whose first token sees itself alone"),
        ("qwen2", "cls", "found Qwen2Model, whose first token sees itself alone"),
    ],
)
def test_what_gives_no_sentence_vectors_is_refused(tmp_path: Path, kind: str, pooling: str, reason: str) -> None:
    folder = save_other(tmp_path / kind, kind)
    with pytest.raises(ModelFileError, match=reason):
        load_encoder(EncoderConfig(model=str(folder), pooling=pooling))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "t5"])
def test_a_mean_over_tokens_is_taken_of_any_model_that_gives_states(tmp_path: Path, kind: str) -> None:
    encoder = load_encoder(EncoderConfig(model=str(save_other(tmp_path / kind, kind)), pooling="mean"))
    vectors = embed(encoder, captions(2))
    assert vectors.shape == (2, 16)
    assert not np.allclose(vectors[0], vectors[1])


def test_a_teacher_of_another_tokenizer_and_language(toys: Toys, tmp_path: Path) -> None:
    multilingual = save_tiny_encoder(tmp_path / "xlm", "xlm-roberta", dim=40)
    teachers = [
        {"model": str(multilingual), "pooling": "mean", "weight": 0.5},
        {"model": str(toys.teacher), "weight": 0.5},
    ]
    objective = {"infonce": {}, "list_net": {"on_text": True}, "grounding": {"weight": 0.1}}
    result = train(toys.recipe(tmp_path, teachers=teachers, objective=objective), tmp_path / "run")
    assert result.steps == 4
