"""Prompts on the way of a user: training, the product, scores and stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import look_inside, train

from dalr.features.store import open_store
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder
from dalr.models.prompts import prompt_of
from tiny import Toys, captions, save_tiny_bert


def save_with_prompts(folder: Path, *, default: str | None = "query") -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    plain = save_tiny_bert(folder.with_name(f"{folder.name}-plain"), seed=4)
    modules: list[Any] = [Transformer(str(plain)), Pooling(32, pooling_mode="mean")]
    prompts = {"query": "a red dog . ", "passage": "the grass . "}
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name=default).save(
        str(folder), create_model_card=False
    )
    return folder


@pytest.mark.parametrize(("prompt", "expected"), [(None, "a red dog . "), ("passage", "the grass . "), ("", "")])
def test_a_student_is_trained_with_its_prompt_and_keeps_it(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str | None, expected: str
) -> None:
    from sentence_transformers import SentenceTransformer

    model = save_with_prompts(tmp_path / "model")
    student = {"model": str(model)} | ({"prompt": prompt} if prompt is not None else {})
    inside = look_inside(monkeypatch)
    recipe = toys.recipe(tmp_path, student=student)
    result = train(recipe, tmp_path / "run", "training.max_steps=2")
    tokens = inside.made.dataset.streams["text"].tokens.stream
    tokenizer = inside.made.task.student.tokenizer
    wanted = tokenizer([expected + toys.data.lines[0]], truncation=True, max_length=16)["input_ids"][0]
    assert tokens.row(0).tolist() == wanted
    product = SentenceTransformer(str(result.model), local_files_only=True)
    again = load_encoder(EncoderConfig(model=str(result.model)))
    assert prompt_of(again) == expected
    np.testing.assert_allclose(product.encode(captions(3)), embed(again, captions(3)), atol=2e-6)


def test_teacher_vectors_of_another_prompt_are_made_anew(toys: Toys, tmp_path: Path) -> None:
    from dalr.features.text import cached_text_store

    model = str(save_with_prompts(tmp_path / "model"))
    stores = [
        cached_text_store(encoder=EncoderConfig(model=model, prompt=prompt), ids=["a", "b"], sentences=captions(2))
        for prompt in (None, "passage", "", "query")
    ]
    read = [store.read(np.arange(2)) for store in stores]
    assert stores[0].folder == stores[3].folder
    assert not np.allclose(read[0], read[1], atol=1e-3)
    assert not np.allclose(read[0], read[2], atol=1e-3)


def test_the_options_of_the_command_line(toys: Toys, tmp_path: Path, cli: Any) -> None:
    model, text = save_with_prompts(tmp_path / "model"), tmp_path / "lines.txt"
    text.write_text("".join(f"{line}\n" for line in captions(3)))
    command = ("features", "text", "--text", str(text), "--model", str(model), "--out")
    found = {}
    for name, options in {"own": [], "named": ["--prompt", "passage"], "none": ["--prompt", ""]}.items():
        out = tmp_path / name
        outcome = cli(*command, str(out), *options)
        assert outcome.code == 0, outcome.err
        found[name] = open_store(out).read(np.arange(3))
    encoder = load_encoder(EncoderConfig(model=str(model), prompt="passage"))
    np.testing.assert_allclose(found["named"], embed(encoder, captions(3)), rtol=2e-3, atol=2e-3)
    assert not np.allclose(found["own"], found["none"], atol=1e-2)
    outcome = cli(*command, str(tmp_path / "own"), "--prompt", "passage")
    assert outcome.code == 2
    assert "prompt" in outcome.err
    outcome = cli(*command, str(tmp_path / "x"), "--prompt", "pasage")
    assert outcome.code == 2
    assert "did you mean 'passage'" in outcome.err
