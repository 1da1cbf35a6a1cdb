"""Plain models get the vectors of SentenceTransformer without the model libraries; all others are left to those."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from dalr.errors import DalrError
from dalr.inference.encoders import PlainEncoder, TextEncoder, open_text_encoder
from dalr.inference.precision import shortened
from dalr.models.config import EncoderConfig
from dalr.models.plain import open_plain
from tiny import captions, lines, save_tiny_bert, save_tiny_encoder

ODD = ["", " ", "Two  DOGS, éàü!", "a [SEP] b [MASK]", "狗 a dog", "x" * 300, "a dog " * 200, "dog [PAD] <pad> cat"]
ROWS = [*captions(20), *ODD, *lines(5), captions(1)[0]]


def plain(folder: Path, **settings: Any) -> PlainEncoder | None:
    opened = open_text_encoder(EncoderConfig(model=str(folder), **settings), device="cpu", packed=False)
    return opened if isinstance(opened, PlainEncoder) else None


def libraries(folder: Path, **settings: Any) -> TextEncoder:
    opened = open_text_encoder(EncoderConfig(model=str(folder), **settings), device="cpu")
    assert isinstance(opened, TextEncoder)
    return opened


def saved(folder: Path, *behind: Any, base: Path | None = None, **arguments: Any) -> Path:
    transformer = Transformer(str(base or save_tiny_bert(folder.with_name(f"{folder.name}-plain"))))
    model = SentenceTransformer(modules=[transformer, *behind], device="cpu", **arguments)
    model.save(str(folder), create_model_card=False)
    return folder


def save_tiny_roberta(folder: Path) -> Path:
    """A RoBERTa, whose positions start behind padding's, with a byte-level tokenizer."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), "do", "dog", "Ġa"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("d", "o"), ("do", "g"), ("Ġ", "a")]
    RobertaTokenizerFast(vocab=vocabulary, merges=merges, model_max_length=48).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=50,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        RobertaModel(config).save_pretrained(folder)
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    "mean": lambda folder: saved(folder, Pooling(32, pooling_mode="mean")),
    "cls": lambda folder: saved(folder, Pooling(32, pooling_mode="cls")),
    "last": lambda folder: saved(folder, Pooling(32, pooling_mode="lasttoken")),
    "normalize": lambda folder: saved(folder, Pooling(32), Normalize()),
    "dense": lambda folder: saved(folder, Pooling(32), Dense(32, 16), Dense(16, 8, bias=False), Normalize()),
    "prompt": lambda folder: saved(folder, Pooling(32), prompts={"query": "a dog: "}, default_prompt_name="query"),
    "xlm-roberta": lambda folder: saved(
        folder, Pooling(32), base=save_tiny_encoder(folder.with_name("xlm"), "xlm-roberta")
    ),
    "roberta": lambda folder: saved(folder, Pooling(32), base=save_tiny_roberta(folder.with_name("roberta-plain"))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_sentence_transformers(tmp_path: Path, kind: str) -> None:
    folder = KINDS[kind](tmp_path / kind)
    ours = plain(folder)
    assert ours is not None
    found = ours.encode(ROWS)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(ROWS)
    assert theirs.shape[1] == ours.dim
    np.testing.assert_allclose(shortened(found.vectors, dim=None, unit=ours.normalized), theirs, atol=1e-5)
    usual = libraries(folder)
    assert found.cut == usual.encode(ROWS).cut
    assert (dict(ours.source), ours.normalized, ours.dim) == (dict(usual.source), usual.normalized, usual.dim)


@pytest.mark.parametrize("settings", [{"pooling": "cls"}, {"pooling": "last", "num_layers": 1}, {"max_tokens": 7,
    "pooling": "mean"}, {"pooling": "mean", "prompt": "a dog: "}])  # fmt: skip
def test_settings_of_an_encoder_hold(tiny_bert: Path, settings: dict[str, Any]) -> None:
    ours, usual = plain(tiny_bert, **settings), libraries(tiny_bert, **settings)
    assert ours is not None
    found, expected = ours.encode(ROWS), usual.encode(ROWS)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
    assert (found.cut, dict(ours.source)) == (expected.cut, dict(usual.source))


def changed(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


OTHERS: dict[str, Callable[[Path], None]] = {
    "another activation": lambda folder: changed(folder, "config.json", hidden_act="gelu_new"),
    "another architecture": lambda folder: changed(folder, "config.json", model_type="nomic_bert"),
    "relative positions": lambda folder: changed(folder, "config.json", position_embedding_type="relative_key"),
    "a decoder": lambda folder: changed(folder, "config.json", is_decoder=True),
    "more layers than weights": lambda folder: changed(folder, "config.json", num_hidden_layers=9),
    "max pooling": lambda folder: changed(folder, "1_Pooling/config.json", pooling_mode="max"),
    "two poolings": lambda folder: changed(folder, "1_Pooling/config.json", pooling_mode=["cls", "mean"]),
    "lower case by the module": lambda folder: changed(folder, "sentence_bert_config.json", do_lower_case=True),
    "more tokens than positions": lambda folder: changed(folder, "sentence_bert_config.json", max_seq_length=999),
    "a tokenizer of another case": lambda folder: changed(folder, "tokenizer_config.json", do_lower_case=False),
    "another tokenizer": lambda folder: changed(folder, "tokenizer_config.json", tokenizer_class="MPNetTokenizer"),
    "cut on the left": lambda folder: changed(folder, "tokenizer_config.json", truncation_side="left"),
    "damaged weights": lambda folder: (folder / "model.safetensors").write_bytes(b"damaged") and None,
    "no tokenizer.json": lambda folder: (folder / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("change", OTHERS)
def test_other_models_are_left_to_the_libraries(tmp_path: Path, change: str) -> None:
    folder = saved(tmp_path / "model", Pooling(32))
    config = EncoderConfig(model=str(folder))
    assert open_plain(folder, config, prompt="", where="model") is not None
    OTHERS[change](folder)
    assert open_plain(folder, config, prompt="", where="model") is None


def test_a_pooling_without_the_prompt_is_left_to_the_libraries(tmp_path: Path) -> None:
    folder = saved(
        tmp_path / "model",
        Pooling(32, include_prompt=False),
        prompts={"query": "a dog: "},
        default_prompt_name="query",
    )
    assert plain(folder) is None
    assert plain(folder, prompt="") is not None


@pytest.mark.parametrize("architecture", ["mpnet", "distilbert", "modernbert", "deberta-v2"])
def test_other_architectures_are_encoded_by_the_libraries(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_encoder(tmp_path / architecture, architecture)
    assert plain(folder, pooling="mean") is None


def test_unsafe_and_incomplete_folders_are_refused_as_ever(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", Pooling(32))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DalrError, match="pickled"):
        plain(folder)


def test_a_plain_model_needs_no_model_library(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", Pooling(32))
    program = f"""
import sys
from dalr.inference.encoders import open_text_encoder
from dalr.models.config import EncoderConfig
encoder = open_text_encoder(EncoderConfig(model={str(folder)!r}), device="cpu", packed=False)
assert encoder.encode(["a dog"]).vectors.shape == (1, 32)
print([name for name in ("transformers", "sentence_transformers", "sklearn", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
