"""Students of other kinds than BERT, from training to scores: T5's encoder as in sentence-t5, and FNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import look_inside, metrics, train

import dalr
from dalr.errors import ConfigError
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder
from tiny import WORDS, Toys, captions
from tiny import _word_tokenizer as word_tokenizer


def save(folder: Path, kind: str, model: str, **sizes: Any) -> Path:
    """A plain folder of a random model of this kind."""
    import torch
    import transformers

    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    word_tokenizer(vocabulary, roberta=False).save_pretrained(folder)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(vocabulary), pad_token_id=0, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        getattr(transformers, model)(config).eval().save_pretrained(folder)
    return folder


def save_sentence_t5(folder: Path, kind: str = "t5", model: str = "T5EncoderModel") -> Path:
    """Mean pooling, a projection without a bias, Normalize: the modules of sentence-t5 and gtr."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from torch import nn

    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    plain = save(folder.with_name(f"{folder.name}-plain"), kind, model, **sizes)
    projection = Dense(32, 24, bias=False, activation_function=nn.Identity())
    modules: list[Any] = [Transformer(str(plain)), Pooling(32, pooling_mode="mean"), projection, Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.mark.parametrize(("kind", "model"), [("t5", "T5EncoderModel"), ("mt5", "MT5EncoderModel")])
def test_a_t5_student_is_trained_resumed_scored_and_read_by_its_library(
    toys: Toys, tmp_path: Path, kind: str, model: str
) -> None:
    from sentence_transformers import SentenceTransformer

    student = save_sentence_t5(tmp_path / "student", kind, model)
    recipe = toys.recipe(tmp_path, student={"model": str(student)})
    steps = ("training.max_steps=6", "training.save_every=2")
    result = train(recipe, tmp_path / "run", *steps)
    lines = [line for line in metrics(tmp_path / "run") if "loss" in line]
    assert lines
    assert all(np.isfinite(line["loss"]) for line in lines)
    before = load_encoder(EncoderConfig(model=str(student)))
    after = load_encoder(EncoderConfig(model=str(result.model)))
    names = {name for name, _ in before.named_parameters()}
    assert names == {name for name, _ in after.named_parameters()}
    moved = {name for name, value in before.named_parameters() if not (value == after.get_parameter(name)).all()}
    assert any("SelfAttention" in name for name in moved)
    assert any("linear.weight" in name for name in moved), "the projection is trained with the rest"
    sentences = captions(6)
    product = SentenceTransformer(str(result.model), local_files_only=True)
    vectors = embed(after, sentences)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    theirs = product.encode(sentences)
    np.testing.assert_allclose(unit, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=2e-6)

    class Stop:
        def on_step(self, step: int, losses: Any, metrics: Any) -> None:
            if step == 3:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"overrides": list(steps), "out": tmp_path / "cut", "console": Console(quiet=True)}
    with pytest.raises(KeyboardInterrupt):
        dalr.train(recipe, callbacks=[Stop()], **options)
    resumed = dalr.train(recipe, resume=True, **options)
    weights = "model.safetensors"
    assert (resumed.model / weights).read_bytes() == (result.model / weights).read_bytes()


def test_a_t5_product_is_evaluated(cli: Callable[..., Any], toys: Toys, tmp_path: Path) -> None:
    from senteval import write_senteval

    recipe = toys.recipe(tmp_path, student={"model": str(save_sentence_t5(tmp_path / "student"))})
    train(recipe, tmp_path / "run", "training.max_steps=2")
    data = write_senteval(tmp_path / "senteval")
    outcome = cli(
        *("evaluate", tmp_path / "run", "--data", data, "--tasks", "STS-B", "--allow-changed-data", "-q"),
        *("--map", "none", "--json", tmp_path / "scores.json"),
    )
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["failed"] == []
    assert set(found["tasks"]) == {"STS-B"}


FNET = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 40}


@pytest.mark.parametrize("padding", ["bucketed", "padded", "packed"])
def test_a_student_that_would_read_padding_refuses_layouts_that_have_some(
    toys: Toys, tmp_path: Path, padding: str
) -> None:
    fnet = save(tmp_path / "fnet", "fnet", "FNetModel", use_tpu_fourier_optimizations=False, **FNET)
    recipe = toys.recipe(tmp_path, student={"model": str(fnet), "pooling": "mean"})
    with pytest.raises(ConfigError, match=r"training\.padding.*use auto"):
        train(recipe, tmp_path / "run", f"training.padding={padding}")
    assert not (tmp_path / "run" / "model").exists()


def test_such_a_student_is_trained_without_padding(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fnet = save(tmp_path / "fnet", "fnet", "FNetModel", use_tpu_fourier_optimizations=False, **FNET)
    inside = look_inside(monkeypatch)
    train(toys.recipe(tmp_path, student={"model": str(fnet), "pooling": "mean"}), tmp_path / "run")
    assert inside.made.task.layout == "equal"
