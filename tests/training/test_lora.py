"""LoRA: adapters and heads alone are trained, and what is exported is an ordinary model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import look_inside, record, train
from safetensors.torch import load_file

from dalr.errors import ConfigError
from dalr.models.embedding import embed
from dalr.models.lora import merged
from dalr.recipe.loading import load_recipe
from tiny import Toys, captions, save_tiny_encoder

pytest.importorskip("peft")
LORA = ("student.lora.rank=4", "student.lora.alpha=8", "training.learning_rate=0.01")


def test_adapters_and_heads_are_trained_and_nothing_else(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = look_inside(monkeypatch)
    result = train(toys.recipe(tmp_path), tmp_path / "run", *LORA, "student.lora.dropout=0.1")
    before, after = inside.before, inside.weights()
    parameters = dict(inside.made.task.named_parameters())
    trained = {name for name, p in parameters.items() if p.requires_grad}
    assert {name for name in trained if ".lora_" not in name and not name.startswith("heads.")} == set()
    assert sum(".lora_A." in name for name in trained) == 2 * 6, "query, key, value, and three dense layers"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == trained
    assert record(result.run)["trained_parameters"] == sum(parameters[name].numel() for name in trained)


def test_checkpoint_and_product_are_ordinary_models_that_compute_the_same(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    inside = look_inside(monkeypatch)
    result = train(toys.recipe(tmp_path), tmp_path / "run", *LORA, "validation.every=4")
    student = inside.made.task.student
    sentences = captions(6)
    untrained = load_file(toys.student / "model.safetensors")
    stored = load_file(result.model / "model.safetensors")
    assert stored.keys() == untrained.keys()
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(stored[query], untrained[query])
    assert not any(
        "lora" in path.read_text() for path in result.model.rglob("*.json") if path.stat().st_size < 9999
    )
    assert json.loads((result.model / "config.json").read_bytes())["model_type"] == "bert"
    expected = embed(student, sentences)
    for folder in (result.model, *(result.run / "checkpoints").glob("*/model")):
        encoder = SentenceTransformer(str(folder), local_files_only=True)
        np.testing.assert_allclose(encoder.encode(sentences), expected, atol=2e-6)
    assert AutoModel.from_pretrained(result.model).num_parameters() == sum(t.numel() for t in untrained.values())


def test_merging_leaves_the_adapted_encoder_alone(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = look_inside(monkeypatch)
    train(toys.recipe(tmp_path), tmp_path / "run", *LORA, "student.lora.target_modules=null")
    task = inside.made.task
    before = inside.weights()
    plain = merged(task.student)
    assert plain is not task.student
    assert merged(plain) is plain
    assert all(torch.equal(before[name], tensor) for name, tensor in inside.weights().items())


def test_target_modules_choose_the_layers(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = look_inside(monkeypatch)
    student = {"model": str(toys.student), "pooling": "cls", "lora": {"target_modules": ["query", "value"]}}
    train(toys.recipe(tmp_path, student=student), tmp_path / "run", "training.max_steps=1")
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name in inside.weights() if ".lora_A" in name}
    assert adapted == {"query", "value"}
    student["lora"] = {"target_modules": ["query", "q_proj", "pooler"]}
    with pytest.raises(ConfigError) as refused:
        train(toys.recipe(tmp_path, student=student), tmp_path / "other")
    assert [str(problem) for problem in refused.value.problems] == [
        f"student.lora: target_modules names {name!r}, which no linear layer is called; there are dense, key, "
        "query, value"
        for name in ("q_proj", "pooler")
    ]


def test_any_kind_of_encoder_takes_adapters(toys: Toys, tmp_path: Path) -> None:
    model = save_tiny_encoder(tmp_path / "deberta", "deberta-v2")
    student = {"model": str(model), "pooling": "mean", "lora": {}}
    result = train(toys.recipe(tmp_path, student=student), tmp_path / "run", "training.max_steps=1")
    assert load_file(result.model / "model.safetensors").keys() == load_file(model / "model.safetensors").keys()


def test_lora_freezes_by_itself(toys: Toys, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave freeze_layers and freeze_embeddings out"):
        load_recipe(str(toys.recipe(tmp_path)), ["student.lora.rank=4", "student.freeze_layers=1"])
