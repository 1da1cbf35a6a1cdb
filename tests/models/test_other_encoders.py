"""Encoders that are built otherwise: of T5's kind, static, causal, reading padding, token types or mask tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from dalr.errors import ConfigError, ModelFileError
from dalr.features.store import open_store
from dalr.features.text import write_text_store
from dalr.models.config import EncoderConfig, PoolingMode, StudentConfig
from dalr.models.embedding import embed, reads_padding
from dalr.models.loading import ends_in_normalize, load_encoder
from dalr.models.packing import best_layout, sentence_vectors
from tiny import WORDS, captions, save_tiny_bert

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

SENTENCES = [*captions(6), "red", "a black horse runs in the snow near two white birds and a river", "dog and cat"]
SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")


def word_tokenizer(*, single: str = "[CLS] $A [SEP]", side: str = "right") -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate([*SPECIALS, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[(piece, vocabulary[piece]) for piece in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=40,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        padding_side=side,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save(
    folder: Path, kind: str, *, model: str | None = None, single: str = "[CLS] $A [SEP]", **sizes: Any
) -> Path:
    """A plain folder of a random model of this kind, saved by the class `model`."""
    import transformers

    word_tokenizer(single=single).save_pretrained(folder)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(SPECIALS) + len(WORDS), pad_token_id=0, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made = getattr(transformers, model)(config) if model else transformers.AutoModel.from_config(config)
    made.eval().save_pretrained(folder)
    return folder


T5_SIZES = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 3, "num_heads": 2, "decoder_start_token_id": 0}
BERT_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
QWEN_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40}
CAUSAL = {"gpt2": GPT2_SIZES, "qwen3": QWEN_SIZES, "llama": QWEN_SIZES}
XLNET_SIZES = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48}
FUNNEL_SIZES = {
    "d_model": 32,
    "n_head": 2,
    "d_head": 16,
    "d_inner": 48,
    "block_sizes": [1, 1],
    "num_decoder_layers": 1,
}


def load(folder: Path, pooling: PoolingMode | None = "mean", **settings: Any) -> SentenceTransformer:
    return load_encoder(EncoderConfig(model=str(folder), pooling=pooling, **settings))


def by_library(folder: Path, pooling: str, **processor: Any) -> np.ndarray:
    """Each sentence alone, by sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    modules: list[Any] = [Transformer(str(folder)), Pooling(32, pooling_mode=pooling)]  # type: ignore[arg-type]
    model = SentenceTransformer(modules=modules, device="cpu")
    return np.stack([model.encode([sentence])[0] for sentence in SENTENCES])


@pytest.mark.parametrize("whole", [True, False], ids=["with decoder", "encoder alone"])
@pytest.mark.parametrize(("kind", "name"), [("t5", "T5"), ("mt5", "MT5"), ("umt5", "UMT5")])
def test_encoders_of_the_t5_kind_are_read(tmp_path: Path, kind: str, name: str, whole: bool) -> None:
    model = f"{name}{'ForConditionalGeneration' if whole else 'EncoderModel'}"
    folder = save(tmp_path / kind, kind, model=model, **T5_SIZES)
    encoder = load(folder)
    assert type(encoder.transformers_model).__name__ == f"{name}EncoderModel"
    np.testing.assert_allclose(embed(encoder, SENTENCES), by_library(folder, "mean"), atol=2e-6)
    write_text_store(
        tmp_path / "store",
        encoder=EncoderConfig(model=str(folder), pooling="mean"),
        ids=[str(number) for number in range(len(SENTENCES))],
        sentences=SENTENCES,
    )
    assert open_store(tmp_path / "store").dim == 32


def test_a_t5_encoder_that_lacks_weights_of_its_encoder_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "t5", "t5", model="T5EncoderModel", **T5_SIZES)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match=r"1 parameters have no weights.*encoder\.block\.1"):
        load(folder)


@pytest.mark.parametrize(("kind", "name"), [("t5", "T5"), ("umt5", "UMT5")])
def test_a_projection_behind_the_pooling_is_used_as_by_sentence_t5(tmp_path: Path, kind: str, name: str) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    plain = save(tmp_path / "plain", kind, model=f"{name}EncoderModel", **T5_SIZES)
    modules: list[Any] = [Transformer(str(plain)), Pooling(32), Dense(32, 24, bias=False), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu").eval()
    model.save(str(tmp_path / "model"), create_model_card=False)
    student = load_encoder(StudentConfig(model=str(tmp_path / "model"), num_layers=2, dropout=0.2, freeze_layers=1))
    assert {module.p for module in student.modules() if isinstance(module, torch.nn.Dropout)} == {0.2}
    vectors = embed(load(tmp_path / "model", None), SENTENCES)
    assert vectors.shape == (len(SENTENCES), 24)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, model.encode(SENTENCES), atol=2e-6)


def save_static(folder: Path, *, normalize: bool = True, model2vec: bool = False, listed: bool = True) -> Path:
    """Vectors per token, as sentence-transformers or as model2vec writes them."""
    import json

    from safetensors.torch import save_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    tokenizer = word_tokenizer()
    weights = torch.randn(len(tokenizer), 24, generator=torch.Generator().manual_seed(2))
    if not model2vec:
        modules: list[Any] = [StaticEmbedding(tokenizer, embedding_weights=weights)]
        modules += [Normalize()] if normalize else []
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
        return folder
    folder.mkdir()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": normalize}))
    kinds = [(".", "StaticEmbedding"), *([("1_Normalize", "Normalize")] if normalize else [])]
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    if listed:
        (folder / "modules.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("model2vec", [True, False])
def test_static_embeddings_give_what_their_own_encode_gives(
    tmp_path: Path, model2vec: bool, normalize: bool
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = save_static(tmp_path / "static", model2vec=model2vec, normalize=normalize)
    several = [*SENTENCES, "", "unseen"]
    vectors = embed(load(folder, None), several)
    assert ends_in_normalize(EncoderConfig(model=str(folder))) == normalize
    if normalize:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    np.testing.assert_allclose(vectors, SentenceTransformer(str(folder), device="cpu").encode(several), atol=2e-6)
    write_text_store(
        tmp_path / "store", encoder=EncoderConfig(model=str(folder)), ids=["a", "b"], sentences=SENTENCES[:2]
    )
    assert open_store(tmp_path / "store").dim == 24
    assert len(embed(load(folder, None), [])) == 0


def test_static_embeddings_are_no_student(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a student is a transformer, found static embeddings"):
        load_encoder(StudentConfig(model=str(save_static(tmp_path / "static"))))


@pytest.mark.parametrize("setting", [{"num_layers": 1}, {"pooling": "avg_first_last"}])
def test_static_embeddings_have_no_layers_to_choose(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="has no transformer, so"):
        load_encoder(EncoderConfig(model=str(save_static(tmp_path / "static")), **setting))


@pytest.mark.parametrize("kind", CAUSAL)
def test_the_last_token_pools_causal_models(tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path / kind, kind, **CAUSAL[kind])
    encoder = load(folder, "last")
    vectors = embed(encoder, SENTENCES)
    np.testing.assert_allclose(vectors, by_library(folder, "lasttoken"), atol=2e-6)
    with torch.no_grad():
        states = encoder.transformers_model(
            **encoder.tokenizer([SENTENCES[0]], return_tensors="pt")
        ).last_hidden_state
    np.testing.assert_allclose(vectors[0], states[0, -1].numpy(), atol=2e-6)


def test_a_tokenizer_that_pads_on_the_left_changes_no_vector(tmp_path: Path) -> None:
    folder = save(tmp_path / "qwen", "qwen3", **QWEN_SIZES)
    right = embed(load(folder, "last"), SENTENCES)
    word_tokenizer(side="left").save_pretrained(folder)
    np.testing.assert_allclose(embed(load(folder, "last"), SENTENCES), right, atol=2e-6)


def test_packed_rows_give_the_last_token_s_state(tmp_path: Path) -> None:
    encoder = load(save_tiny_bert(tmp_path / "bert"), "last")
    assert best_layout(encoder) == "packed"
    batch = encoder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    with torch.no_grad():
        found = sentence_vectors(
            encoder, batch["input_ids"], batch["attention_mask"], lengths=lengths, layout="packed"
        )
    np.testing.assert_allclose(found.numpy(), embed(encoder, SENTENCES), atol=2e-6)


@pytest.mark.parametrize("layers", [None, 1])
def test_avg_first_last_is_the_mean_of_embeddings_and_last_layer(tmp_path: Path, layers: int | None) -> None:
    encoder = load(save_tiny_bert(tmp_path / "bert"), "avg_first_last", num_layers=layers)
    vectors = embed(encoder, SENTENCES)
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        with torch.no_grad():
            states = encoder.transformers_model(
                **encoder.tokenizer([sentence], return_tensors="pt"), output_hidden_states=True
            ).hidden_states
        assert len(states) == (layers or 2) + 1
        np.testing.assert_allclose(vector, ((states[0] + states[-1]) / 2)[0].mean(0).numpy(), atol=2e-6)


def test_avg_first_last_is_for_frozen_encoders() -> None:
    with pytest.raises(ValueError, match="avg_first_last is for frozen encoders; a student is exported with cls"):
        StudentConfig(model="bert", pooling="avg_first_last")


def test_a_model_that_treats_mask_tokens_otherwise_is_not_packed(tmp_path: Path) -> None:
    """ESM scales a row by its share of mask tokens, and a packed batch is one row."""
    settings = {"token_dropout": True, "mask_token_id": 4, "position_embedding_type": "rotary"}
    encoder = load(save(tmp_path / "esm", "esm", **BERT_SIZES, **settings))
    assert best_layout(encoder) == "bucketed"
    plain = load(save(tmp_path / "plain", "esm", **BERT_SIZES, **settings | {"token_dropout": False}))
    assert best_layout(plain) in ("packed", "bucketed")
    ids = torch.tensor([[1, 9, 4, 4, 12, 2], [1, 7, 8, 9, 2, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        expected = sentence_vectors(encoder, ids, mask, lengths=[6, 5], layout="padded")
        found = sentence_vectors(encoder, ids, mask, lengths=[6, 5], layout=best_layout(encoder))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-6)


def test_a_model_without_an_attention_mask_gets_no_padding(tmp_path: Path) -> None:
    folder = save(tmp_path / "fnet", "fnet", **BERT_SIZES | {"use_tpu_fourier_optimizations": False})
    encoder = load(folder)
    assert reads_padding(encoder)
    assert best_layout(encoder) == "equal"
    alone = np.concatenate([embed(encoder, [sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(embed(encoder, SENTENCES), alone, atol=2e-6)
    np.testing.assert_allclose(alone, by_library(folder, "mean"), atol=2e-6)
    batch = encoder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    with torch.no_grad():
        found = sentence_vectors(
            encoder, batch["input_ids"], batch["attention_mask"], lengths=lengths, layout="equal"
        )
    np.testing.assert_allclose(found.numpy(), alone, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "sizes", "single"),
    [
        ("bert", BERT_SIZES | {"type_vocab_size": 3}, "[CLS]:2 $A:0 [SEP]:0"),
        ("bert", BERT_SIZES | {"type_vocab_size": 2}, "[CLS]:1 $A:1 [SEP]:1"),
        ("bert", BERT_SIZES | {"type_vocab_size": 3}, "[CLS]:0 $A:1 [SEP]:2"),
        ("xlnet", XLNET_SIZES, "$A:0 [SEP]:0 [CLS]:2"),
        ("funnel", FUNNEL_SIZES, "[CLS]:2 $A:0 [SEP]:0"),
    ],
)
def test_token_types_are_passed_as_the_tokenizer_gives_them(
    tmp_path: Path, kind: str, sizes: dict[str, Any], single: str
) -> None:
    folder = save(tmp_path / kind, kind, model="FunnelModel" if kind == "funnel" else None, single=single, **sizes)
    encoder = load(folder)
    expected = by_library(folder, "mean")
    np.testing.assert_allclose(embed(encoder, SENTENCES), expected, atol=5e-6)
    batch = encoder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    with torch.no_grad():
        found = sentence_vectors(
            encoder, batch["input_ids"], batch["attention_mask"], lengths=lengths, layout=best_layout(encoder)
        )
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-6)
