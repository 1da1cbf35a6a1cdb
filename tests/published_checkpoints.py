"""Checkpoints as SimCSE, MCSE and their relatives leave them, small: written by classes of the same shape.

Each layout is a module with the attributes that the released classes have, so its names come from PyTorch and not
from this file. The encoder inside is plain transformers, and so is what the tests compare with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tiny import save_tiny_bert

SENTENCES = ["a red dog runs on the grass", "two cat", "the first snow of the year in the city", "dog"]
DIM = 32


class Head(nn.Module):
    """tanh(W x + b)."""

    def __init__(self, inputs: int = DIM, outputs: int = DIM) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x))


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint folder, the encoder that is in it, and its sentence head."""

    folder: Path
    encoder: nn.Module
    head: Head

    def states(self) -> tuple[Tensor, Tensor]:
        """Last hidden states and mask of `SENTENCES`, by transformers alone."""
        from transformers import AutoTokenizer

        tokens = AutoTokenizer.from_pretrained(self.folder)(SENTENCES, padding=True, return_tensors="pt")
        with torch.inference_mode():
            return self.encoder(**tokens).last_hidden_state, tokens["attention_mask"]

    def cls(self) -> Tensor:
        return self.states()[0][:, 0]

    def weights(self) -> dict[str, Tensor]:
        return torch.load(self.folder / "pytorch_model.bin", weights_only=True)  # type: ignore[no-any-return]

    def change(self, change: Callable[[dict[str, Tensor]], Mapping[str, Any]]) -> None:
        """Write the weights again, changed."""
        torch.save(dict(change(self.weights())), self.folder / "pytorch_model.bin")


def simcse(folder: Path, *, mlm: bool = False) -> Published:
    """`bert.*` without a pooler, `mlp.dense`, with a language-model head beside it if it trained on that too."""
    encoder, head = _bert(folder, pooler=False), Head()
    model = nn.Module()
    model.bert = encoder
    if mlm:
        model.lm_head = nn.Sequential(nn.Linear(DIM, DIM), nn.LayerNorm(DIM))
    model.mlp = head
    weights = model.state_dict()
    # what releases of 2021 stored beside their parameters
    weights["bert.embeddings.position_ids"] = torch.arange(48).expand((1, -1)).clone()
    return _save(folder, weights, encoder, head)


def simcse_converted(folder: Path) -> Published:
    """What SimCSE's converter makes of it for the hub: no prefix, the head under the pooler's name."""
    encoder, head = _bert(folder, pooler=True), Head()
    encoder.pooler.dense.load_state_dict(head.dense.state_dict())
    return _save(folder, encoder.state_dict(), encoder, head)


def mcse(folder: Path) -> Published:
    """MCSE, KDMCSE, DALR: `bert.*` with its pretraining's pooler, the head as `pooler`, the rest in mcse.pt."""
    encoder, head = _bert(folder, pooler=True), Head()
    model = nn.Module()
    model.bert, model.pooler = encoder, head
    heads = {"visn_model": {"mlp": Head(16, 8).state_dict()}, "grounding": Head(DIM, 8).state_dict()}
    torch.save(heads, folder / "mcse.pt")
    return _save(folder, model.state_dict(), encoder, head)


def mcse_whole(folder: Path) -> Published:
    """The whole objective of KDMCSE or DALR, saved from data-parallel training."""
    encoder, head = _bert(folder, pooler=True), Head()
    objective = nn.Module()
    objective.lang_model = nn.Module()
    objective.lang_model.bert, objective.lang_model.pooler = encoder, head
    objective.visn_model = nn.Module()
    objective.visn_model.vmlp, objective.visn_model.tmlp = Head(16, 8), Head(16, 8)
    objective.grounding = Head(DIM, 8)
    return _save(folder, {f"module.{name}": value for name, value in objective.state_dict().items()}, encoder, head)


def roberta(folder: Path) -> Published:
    """`roberta.*`, byte-level tokens as a vocabulary and merges, half precision, the old file format."""
    from transformers import RobertaConfig, RobertaModel

    folder.mkdir(parents=True)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = RobertaConfig(
        vocab_size=len(pieces),
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=50,
        type_vocab_size=1,
        pad_token_id=1,
    )
    config.save_pretrained(folder)
    model, head = nn.Module(), Head()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = RobertaModel(config, add_pooling_layer=False).eval()
    for module in (encoder, head):
        module.half().float()  # as it comes back from half precision
    model.roberta, model.mlp = encoder, head
    weights = {name: value.half() for name, value in model.state_dict().items()}
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return Published(folder=folder, encoder=encoder, head=head)


LAYOUTS: dict[str, Callable[[Path], Published]] = {
    "simcse": simcse,
    "simcse-mlm": lambda folder: simcse(folder, mlm=True),
    "simcse-converted": simcse_converted,
    "mcse": mcse,
    "mcse-whole": mcse_whole,
    "roberta": roberta,
}


def _bert(folder: Path, *, pooler: bool) -> Any:
    """A tiny BERT, its configuration and tokenizer in `folder`."""
    from transformers import BertConfig, BertModel

    save_tiny_bert(folder, dim=DIM)
    (folder / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=pooler).eval()


def _save(folder: Path, weights: Mapping[str, Tensor], encoder: Any, head: Head) -> Published:
    torch.save(dict(weights), folder / "pytorch_model.bin")
    torch.save({"lr": 3e-5}, folder / "training_args.bin")
    return Published(folder=folder, encoder=encoder, head=head)


def copy_of(published: Published, folder: Path) -> Published:
    shutil.copytree(published.folder, folder)
    return Published(folder=folder, encoder=published.encoder, head=published.head)
