"""What are the demo's text encoders before training? A small BERT with random weights and its own vocabulary."""

from __future__ import annotations

from pathlib import Path

from dalr.models.loading import quiet_libraries
from dalr.seed import derive_seed

DIM, LAYERS, HEADS, LONGEST = 64, 2, 4, 64


def write_student(folder: Path, vocabulary: Path, *, seed: int, name: str = "demo student") -> None:
    """Write a Hugging Face folder of an untrained BERT (2 layers of dimension 64) and its WordPiece tokenizer.

    `name` names the stream of random numbers: the student and each teacher begin with weights of their own.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    words = vocabulary.read_text(encoding="utf-8").split("\n")
    tokens = {word: number for number, word in enumerate(words) if word}
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, name))
        config = BertConfig(
            vocab_size=len(tokens),
            hidden_size=DIM,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * DIM,
            max_position_embeddings=LONGEST,
        )
        BertModel(config).save_pretrained(folder)
        BertTokenizer(vocab=tokens, do_lower_case=True, model_max_length=LONGEST).save_pretrained(folder)
