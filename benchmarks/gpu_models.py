"""Random encoders of the shapes that the GPU checks need, as folders that dalr loads, and batches for them.

Nothing that is checked or timed depends on what a model has learned, so no weights have to be fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from training_world import CAPTIONS, WIKI, World, generated, stream

ARCHITECTURES = ("bert", "roberta", "mpnet", "modernbert")
VOCABULARY = 30_522


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of an encoder, and the rows of the batch it is checked on."""

    dim: int
    layers: int
    heads: int
    inner: int
    rows: int


SIZES = {
    "base": Size(dim=768, layers=12, heads=12, inner=3072, rows=16),
    "tiny": Size(dim=32, layers=2, heads=2, inner=64, rows=6),
}


def world_of(folder: Path, architecture: str, size: Size, device: torch.device, *, rows: int = 512) -> World:
    """An encoder of this kind and generated sentences of real lengths."""
    save_encoder(folder / architecture, architecture, size)
    drawn = {"text": generated(WIKI, rows), "pair": generated(CAPTIONS, rows)}
    return World(
        folder=folder,
        model=architecture,
        batch=size.rows,
        device=device,
        sentences={},
        tokens={kind: stream(rows_) for kind, rows_ in drawn.items()},  # type: ignore[misc]
    )


def save_encoder(place: Path, architecture: str, size: Size) -> None:
    import transformers as t

    roberta = architecture in ("roberta", "mpnet")  # positions are counted from behind the padding's id
    usual: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": size.dim,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner,
        "max_position_embeddings": 66 if roberta else 64,
        "pad_token_id": 1 if roberta else 0,
        "initializer_range": size.dim**-0.5,  # at the usual 0.02 all sentences get almost the same vector
    }
    ends = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    torch.manual_seed(0)
    match architecture:
        case "bert":
            model: Any = t.BertModel(t.BertConfig(**usual))
        case "roberta":
            model = t.RobertaModel(t.RobertaConfig(**usual))
        case "mpnet":
            model = t.MPNetModel(t.MPNetConfig(**usual))
        case _:  # a window below the longest sentence, so that local attention is local
            model = t.ModernBertModel(t.ModernBertConfig(**usual | ends, local_attention=16))
    model.save_pretrained(place)
    tokenizer_of_words(padding_first=not roberta).save_pretrained(place)


def tokenizer_of_words(*, padding_first: bool) -> Any:
    """Whole words by number; asked for its special tokens only."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]"] if padding_first else ["[UNK]", "[PAD]"]
    words = [*specials, "[CLS]", "[SEP]", *(f"w{number}" for number in range(4, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
