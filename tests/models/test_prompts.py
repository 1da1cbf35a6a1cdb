"""A model is used with its own prompt, or with the one that was asked for, as its own `encode` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from packaging.version import Version

from dalr.errors import ConfigError, ModelFileError
from dalr.features.text import text_source
from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.embedding import embed
from dalr.models.export import save_encoder
from dalr.models.loading import encoder_sha256, load_encoder
from dalr.models.packing import Layout, best_layout, sentence_vectors
from dalr.models.prompts import prompt_of
from tiny import captions, save_tiny_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

E5 = {"query": "a red dog : ", "passage": "the grass : "}
SENTENCES = [*captions(5), "red", "", "a black horse runs in the snow near two white birds and a river"]


def save_with_prompts(
    folder: Path,
    *,
    default: str | None = "query",
    pooling: str = "mean",
    include: bool = True,
    kind: str = "modernbert",
) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    plain = save_tiny_encoder(folder.with_name(f"{folder.name}-plain"), kind)
    modules: list[Any] = [Transformer(str(plain)), Pooling(32, pooling_mode=pooling, include_prompt=include)]
    SentenceTransformer(modules=modules, device="cpu", prompts=E5, default_prompt_name=default).save(
        str(folder), create_model_card=False
    )
    return folder


def own(folder: Path, **settings: Any) -> tuple[SentenceTransformer, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model, np.stack([model.encode([sentence], **settings)[0] for sentence in SENTENCES])


@pytest.mark.parametrize(
    ("kind", "include", "pooling"),
    [
        *(
            ("modernbert", include, pooling)
            for include in (True, False)
            for pooling in ("mean", "cls", "lasttoken")
        ),
        *((kind, include, "mean") for kind in ("xlm-roberta", "mpnet") for include in (True, False)),
    ],
)
def test_vectors_are_those_of_the_model_s_own_encode(
    tmp_path: Path, pooling: str, include: bool, kind: str
) -> None:
    folder = save_with_prompts(tmp_path / "model", pooling=pooling, include=include, kind=kind)
    wanted: list[tuple[str | None, dict[str, str]]] = [
        (None, {}),
        ("passage", {"prompt_name": "passage"}),
        ("near two cats ", {"prompt": "near two cats "}),
        ("", {"prompt": ""}),
    ]
    for prompt, settings in wanted:
        found = embed(load_encoder(EncoderConfig(model=str(folder), prompt=prompt)), SENTENCES)
        np.testing.assert_allclose(found, own(folder, **settings)[1], atol=2e-6)


def test_without_a_default_no_prompt_is_used_unless_it_is_asked_for(tmp_path: Path) -> None:
    folder = save_with_prompts(tmp_path / "model", default=None)
    plain, asked = (load_encoder(EncoderConfig(model=str(folder), prompt=prompt)) for prompt in (None, "query"))
    assert [prompt_of(plain), prompt_of(asked)] == ["", E5["query"]]
    np.testing.assert_allclose(embed(plain, SENTENCES), own(folder)[1], atol=2e-6)


@pytest.mark.parametrize(("include", "pooling"), [(True, "mean"), (False, "mean"), (False, "cls")])
def test_packed_rows_leave_the_prompt_out_of_pooling_as_padded_ones_do(
    tmp_path: Path, include: bool, pooling: str
) -> None:
    """Where sentence-transformers (before 6.2) pools packed rows otherwise, they are not packed."""
    import sentence_transformers

    old = Version(sentence_transformers.__version__) < Version("6.2")
    expected: Layout = "bucketed" if old and not include else "packed"
    for kind in ("modernbert", "xlm-roberta"):
        folder = save_with_prompts(tmp_path / kind, include=include, pooling=pooling, kind=kind)
        encoder = load_encoder(EncoderConfig(model=str(folder)))
        assert best_layout(encoder) == expected
        batch = encoder.tokenizer(
            [prompt_of(encoder) + each for each in SENTENCES], padding=True, return_tensors="pt"
        )
        lengths = batch["attention_mask"].sum(1).tolist()
        with torch.no_grad():
            found = sentence_vectors(
                encoder, batch["input_ids"], batch["attention_mask"], lengths=lengths, layout=expected
            )
        np.testing.assert_allclose(found.numpy(), embed(encoder, SENTENCES), atol=2e-6)


def test_the_prompt_is_part_of_content_keys_and_of_how_a_store_was_made(tmp_path: Path) -> None:
    folder = str(save_with_prompts(tmp_path / "model"))
    configs = {
        prompt: EncoderConfig(model=folder, prompt=prompt) for prompt in (None, "query", "passage", "", "so: ")
    }
    keys = {prompt: encoder_sha256(config) for prompt, config in configs.items()}
    assert keys[None] == keys["query"]
    assert len(set(keys.values())) == 4
    assert text_source(configs[None])["prompt"] == E5["query"]
    assert "prompt" not in text_source(configs[""])


@pytest.mark.parametrize("prompt", [None, "passage", "so: ", ""])
def test_an_export_keeps_the_prompt_that_it_was_trained_with(tmp_path: Path, prompt: str | None) -> None:
    folder = save_with_prompts(tmp_path / "model")
    student = load_encoder(StudentConfig(model=str(folder), prompt=prompt))
    save_encoder(student, tmp_path / "product")
    again, vectors = own(tmp_path / "product")
    assert (again.prompts["query"], again.prompts["passage"]) == (E5["query"], E5["passage"])
    np.testing.assert_allclose(vectors, embed(student, SENTENCES), atol=2e-6)


@pytest.mark.parametrize("word", ["qeury", "nothing", "web-search"])
def test_one_word_that_names_no_prompt_is_refused(tmp_path: Path, word: str) -> None:
    folder = save_with_prompts(tmp_path / "model")
    with pytest.raises(
        ConfigError, match=f"'{word}' is not the name of one of its prompts.*known: .*passage, query"
    ):
        load_encoder(EncoderConfig(model=str(folder), prompt=word))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"prompts": ["query: "]}', "expected texts by name"),
        (b'{"prompts": {"query": 3}}', "expected texts by name"),
        (b'{"prompts": {}, "default_prompt_name": "passage"}', "default_prompt_name is 'passage', expected one of"),
        (b'{"prompts": {}, "default_prompt_name": []}', r"default_prompt_name is \[\], expected one of"),
    ],
)
def test_a_damaged_file_of_prompts_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = save_with_prompts(tmp_path / "model")
    (folder / "config_sentence_transformers.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=reason):
        load_encoder(EncoderConfig(model=str(folder)))


def test_prompts_may_be_null(tmp_path: Path) -> None:
    folder = save_with_prompts(tmp_path / "model")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"query": None}, "default_prompt_name": "query"}))
    assert prompt_of(load_encoder(EncoderConfig(model=str(folder)))) == ""
