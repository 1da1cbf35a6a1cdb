"""Forwards over real tokens give what padded ones give: vectors and gradients, whatever the architecture."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dalr.models import packing
from dalr.models.config import EncoderConfig
from dalr.models.loading import load_encoder
from dalr.models.packing import Layout, best_layout, buckets, pack, sentence_vectors
from tiny import save_tiny_bert

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

VOCABULARY, DIM = 60, 32
LENGTHS = (7, 2, 12, 7, 3, 20, 12, 7)
PACKED = ("bert", "roberta", "xlm-roberta", "modernbert", "distilbert", "electra")
BUCKETED = ("mpnet", "deberta", "deberta-v2")


def random_model(kind: str) -> torch.nn.Module:
    import transformers as t

    usual: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": DIM,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
    ends = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match kind:
            case "bert":
                return t.BertModel(t.BertConfig(**usual))
            case "roberta":
                return t.RobertaModel(t.RobertaConfig(**usual | {"pad_token_id": 1}))
            case "xlm-roberta":
                return t.XLMRobertaModel(t.XLMRobertaConfig(**usual | {"pad_token_id": 1}))
            case "modernbert":
                return t.ModernBertModel(
                    t.ModernBertConfig(**usual | ends, local_attention=8, attention_dropout=0.1)
                )
            case "distilbert":
                names = {"dim": DIM, "n_layers": 3, "n_heads": 2, "hidden_dim": 48}
                return t.DistilBertModel(t.DistilBertConfig(vocab_size=VOCABULARY, pad_token_id=0, **names))
            case "electra":
                return t.ElectraModel(t.ElectraConfig(**usual, embedding_size=16))
            case "mpnet":
                return t.MPNetModel(t.MPNetConfig(**usual | {"pad_token_id": 1}))
            case "deberta":
                return t.DebertaModel(t.DebertaConfig(**usual | relative))
            case _:
                return t.DebertaV2Model(t.DebertaV2Config(**usual | relative))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("packing") / "bert")


@pytest.fixture(scope="module")
def encoders(folder: Path) -> dict[str, SentenceTransformer]:
    """By architecture: random weights behind a tokenizer that is asked for its padding only."""
    made = {}
    for kind in (*PACKED, *BUCKETED):
        made[kind] = load_encoder(EncoderConfig(model=str(folder), pooling="mean"))
        made[kind][0].model = random_model(kind).eval()
    return made


def tokens(kind: str, lengths: tuple[int, ...] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    pad_id = 1 if kind in ("roberta", "xlm-roberta", "mpnet") else 0
    drawn = torch.randint(5, VOCABULARY, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    return torch.where(mask == 1, drawn, pad_id), mask


def vectors_and_gradients(
    encoder: SentenceTransformer, kind: str, layout: Layout
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ids, mask = tokens(kind)
    encoder.zero_grad()
    vectors = sentence_vectors(encoder, ids, mask, lengths=LENGTHS, layout=layout)
    (
        vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(vectors.dtype)
    ).sum().backward()
    gradients = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    return vectors.detach(), gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", [*PACKED, *BUCKETED])
def test_vectors_and_gradients_are_those_of_padded_rows(
    encoders: dict[str, SentenceTransformer], kind: str, pooling: str, dtype: torch.dtype, tolerance: float
) -> None:
    encoder = encoders[kind].to(dtype)
    encoder[1].pooling_mode = pooling
    before = encoder.transformers_model.config._attn_implementation
    layouts: tuple[Layout, ...] = ("packed", "bucketed") if kind in PACKED else ("bucketed",)
    expected, expected_gradients = vectors_and_gradients(encoder, kind, "padded")
    for layout in layouts:
        found, gradients = vectors_and_gradients(encoder, kind, layout)
        assert (found - expected).abs().max() < tolerance
        assert gradients.keys() == expected_gradients.keys()
        for name, gradient in gradients.items():
            scale = expected_gradients[name].abs().max().clamp_min(1)
            assert (gradient - expected_gradients[name]).abs().max() < tolerance * 10 * scale, (layout, name)
    assert encoder.transformers_model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("kind", "pooling", "rows"),
    [
        ("bert", "cls", 8),
        ("xlm-roberta", "cls", 8),
        ("bert", "mean", sum(LENGTHS)),
        ("modernbert", "cls", sum(LENGTHS)),
    ],
)
def test_the_last_feed_forward_runs_on_what_pooling_reads(
    encoders: dict[str, SentenceTransformer], kind: str, pooling: str, rows: int
) -> None:
    encoder = encoders[kind].float()
    encoder[1].pooling_mode = pooling
    seen = []
    stack = next(module for module in encoder.modules() if isinstance(module, torch.nn.ModuleList))
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out.shape[1])) for layer in stack]
    ids, mask = tokens(kind)
    sentence_vectors(encoder, ids, mask, lengths=LENGTHS, layout="packed")
    for hook in hooks:
        hook.remove()
    assert seen == [sum(LENGTHS)] * 2 + [rows]
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in stack.modules())


@pytest.mark.parametrize("kind", [*PACKED, *BUCKETED])
def test_the_layout_is_found_by_trying(encoders: dict[str, SentenceTransformer], kind: str) -> None:
    encoder = encoders[kind].float().eval()
    encoder.tokenizer.pad_token = "[UNK]" if kind in ("roberta", "xlm-roberta", "mpnet") else "[PAD]"
    state = torch.get_rng_state()
    assert best_layout(encoder) == ("packed" if kind in PACKED else "bucketed")
    assert not encoder.training
    assert torch.equal(torch.get_rng_state(), state), "trying it out drew from the training's numbers"


def test_an_encoder_whose_packed_vectors_are_wrong_gets_buckets(
    encoders: dict[str, SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders["bert"].float().eval()
    encoder.tokenizer.pad_token = "[PAD]"
    monkeypatch.setattr(packing, "_first_position", lambda backbone: 1)
    assert best_layout(encoder) == "bucketed"


def test_a_packed_sentence_depends_on_no_other(encoders: dict[str, SentenceTransformer]) -> None:
    encoder = encoders["bert"].double().eval()
    ids, mask = tokens("bert")
    changed = ids.clone()
    changed[1:] = (changed[1:] + 1) % VOCABULARY
    one, other = (sentence_vectors(encoder, x, mask, lengths=LENGTHS, layout="packed") for x in (ids, changed))
    assert (one[0] - other[0]).abs().max() < 1e-12
    assert ((one[1:] - other[1:]).abs().amax(1) > 1e-4).all()


def test_dropout_is_drawn_token_by_token(encoders: dict[str, SentenceTransformer]) -> None:
    encoder = encoders["bert"].float().train()
    ids, mask = (part.repeat(2, 1) for part in tokens("bert"))
    torch.manual_seed(0)
    first = sentence_vectors(encoder, ids, mask, lengths=LENGTHS * 2, layout="packed")
    torch.manual_seed(0)
    again = sentence_vectors(encoder, ids, mask, lengths=LENGTHS * 2, layout="packed")
    encoder.eval()
    assert torch.equal(first, again)
    n = len(LENGTHS)
    assert ((first[:n] - first[n:]).abs().amax(1) > 1e-3).all()


def test_tokens_are_laid_out_by_rising_length() -> None:
    _, mask = tokens("bert", (3, 1, 2, 1))
    packed = pack(mask, (3, 1, 2, 1))
    assert packed.order.tolist() == [1, 3, 2, 0]
    assert packed.row.tolist() == [0, 1, 2, 2, 3, 3, 3]
    assert packed.position.tolist() == [0, 0, 0, 1, 0, 1, 2]
    assert packed.bounds.tolist() == [0, 1, 2, 4, 7]
    assert packed.groups == ((2, 1), (1, 2), (1, 3))
    assert packed.longest == 3


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), price=st.integers(0, 40))
def test_buckets_are_the_cheapest(lengths: list[int], price: int) -> None:
    found = buckets(lengths, price=price)
    assert sum(rows for rows, _ in found) == len(lengths)
    cost = sum(rows * dim + price for rows, dim in found)
    distinct = sorted(Counter(lengths))
    every = []
    for cuts in range(len(distinct)):
        for ends in combinations(distinct[:-1], cuts):
            dims = [*ends, distinct[-1]]
            every.append(sum(min(w for w in dims if w >= length) for length in lengths) + price * len(dims))
    assert cost == min(every)
