"""Small things to test on, made on the spot: a BERT of two layers, a SentenceTransformer, data, a recipe.

Nothing here imports torch at the top, so that tests of reading and checking stay fast.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

COLOURS = ("red", "blue", "green", "black", "white", "brown")
ANIMALS = ("dog", "cat", "horse", "bird", "cow", "sheep")
DEEDS = ("runs", "sleeps", "jumps", "eats", "plays", "swims")
PLACES = ("grass", "sand", "snow", "street", "beach", "hill")
OTHERS = ("a", "the", "on", "in", "near", "two", "and", "was", "built", "city", "year", "river", "first")
WORDS = (*COLOURS, *ANIMALS, *DEEDS, *PLACES, *OTHERS)

IMAGES, CAPTIONS_PER_IMAGE, LINES, IMAGE_WIDTH = 24, 3, 80, 16


def save_tiny_bert(folder: Path, *, seed: int = 0, dim: int = 32, layers: int = 2, limit: int = 48) -> Path:
    """A plain Hugging Face folder: a random BERT with dropout, and a WordPiece tokenizer over `WORDS`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"bdehilmnoprstuvwy0123456789,."]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    BertTokenizerFast(vocab=vocabulary, model_max_length=limit).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=limit,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


ARCHITECTURES = ("modernbert", "mpnet", "deberta-v2", "xlm-roberta", "distilbert")


def save_tiny_encoder(folder: Path, architecture: str, *, seed: int = 3, dim: int = 32, layers: int = 3) -> Path:
    """A plain Hugging Face folder of a random encoder of another kind, with the special tokens of its kind."""
    import torch
    from transformers import AutoConfig, AutoModel

    roberta = architecture in ("mpnet", "xlm-roberta")  # pad is 1, and positions start behind it
    specials = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {piece: number for number, piece in enumerate([*specials, *WORDS])}
    _word_tokenizer(vocabulary, roberta=roberta).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * dim,
        "max_position_embeddings": 50 if roberta else 48,
        "pad_token_id": vocabulary[specials[1] if roberta else specials[0]],
    }
    if architecture == "distilbert":
        sizes = {"vocab_size": len(vocabulary), "dim": dim, "n_layers": layers, "n_heads": 2}
        sizes |= {"hidden_dim": 2 * dim, "max_position_embeddings": 48}
    if architecture == "modernbert":
        ends = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        sizes |= ends | {
            "local_attention": 8,
            "mlp_dropout": 0.1,
            "embedding_dropout": 0.1,
            "attention_dropout": 0.1,
        }
    if architecture == "deberta-v2":
        sizes |= {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
        sizes |= {"position_biased_input": False, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(AutoConfig.for_model(architecture, **sizes)).save_pretrained(folder)
    return folder


def _word_tokenizer(vocabulary: dict[str, int], *, roberta: bool) -> Any:
    """A word a token, between the special tokens of its kind."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    start, end, pad, unknown = (
        ("<s>", "</s>", "<pad>", "<unk>") if roberta else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    )
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    names = {"cls_token": start, "sep_token": end, "pad_token": pad, "unk_token": unknown}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=48, **names)


def save_tiny_sentence_transformer(
    folder: Path, *, seed: int = 1, dim: int = 24, pooling: str = "mean", normalize: bool = True
) -> Path:
    """A SentenceTransformer folder, with a Normalize module at its end as all-MiniLM-L6-v2 has."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    plain = save_tiny_bert(folder.with_name(f"{folder.name}-plain"), seed=seed, dim=dim)
    modules = [Transformer(str(plain)), Pooling(dim, pooling_mode=pooling)]
    if normalize:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def captions(count: int) -> list[str]:
    """Distinct short sentences, always the same."""
    everything = itertools.product(COLOURS, DEEDS, PLACES, ANIMALS)
    return [f"a {colour} {animal} {deed} on the {place}" for colour, deed, place, animal in everything][:count]


def lines(count: int) -> list[str]:
    """Other distinct sentences."""
    everything = itertools.product(PLACES, COLOURS, ANIMALS, DEEDS)
    return [f"the {place} near two {colour} {animal} {deed}" for place, colour, animal, deed in everything][:count]


@dataclass(frozen=True, kw_only=True)
class TinyData:
    """A folder with `pairs.jsonl`, `text.txt`, `images.npy`, `images.txt` and `dev.tsv`."""

    folder: Path
    images: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]
    features: np.ndarray

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs.jsonl"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    @property
    def matrix(self) -> Path:
        return self.folder / "images.npy"

    @property
    def ids(self) -> Path:
        return self.folder / "images.txt"

    @property
    def validation(self) -> Path:
        return self.folder / "dev.tsv"


def write_data(folder: Path, *, images: int = IMAGES, text: int = LINES, dim: int = IMAGE_WIDTH) -> TinyData:
    """The files of a whole training."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{number:03d}.jpg" for number in range(images))
    flat = captions(images * CAPTIONS_PER_IMAGE)
    grouped = tuple(tuple(flat[number::images]) for number in range(images))
    random = np.random.default_rng(0)
    data = TinyData(
        folder=folder,
        images=names,
        captions=grouped,
        lines=tuple(lines(text)),
        features=random.normal(size=(images, dim)).astype(np.float32),
    )
    write_pairs(data.pairs, names, grouped)
    data.text.write_text("".join(f"{line}\n" for line in data.lines))
    np.save(data.matrix, data.features)
    data.ids.write_text("".join(f"{name}\n" for name in names))
    scored = captions(60)
    data.validation.write_text(
        "".join(f"{random.uniform(0, 5):.3f}\t{scored[i]}\t{scored[-1 - i]}\n" for i in range(30))
    )
    return data


def write_pairs(path: Path, images: Sequence[str], captions: Sequence[Sequence[str]]) -> Path:
    rows = [{"image": image, "captions": list(several)} for image, several in zip(images, captions, strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_tree(data: TinyData, student: Path | str) -> dict[str, Any]:
    """A recipe that trains the tiny BERT on text and pairs with grounding, in a second or two."""
    return {
        "name": "tiny",
        "data": {"pairs": str(data.pairs), "text": str(data.text), "max_tokens": 16},
        "features": {"image": str(data.matrix), "image_ids": str(data.ids)},
        "student": {"model": str(student), "pooling": "cls"},
        "heads": {"grounding_dim": 8, "aligner_dim": 8},
        "objective": {"infonce": {"temperature": 0.05}, "grounding": {"weight": 0.1}},
        "training": {
            "batch_size": 8,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "precision": "fp32",
            "log_every": 1,
            "schedule": {"kind": "every_k", "k": 2},
        },
        "validation": {"kind": "tsv", "data": str(data.validation), "every": 2},
    }


def write_recipe(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True)
class Toys:
    """Everything a toy recipe may name."""

    data: TinyData
    student: Path
    teacher: Path

    def recipe(self, folder: Path, **sections: Any) -> Path:
        """The toy recipe with these sections in place of its own."""
        return write_recipe(folder / "recipe.yaml", recipe_tree(self.data, self.student) | sections)

    def method(self, folder: Path, name: str) -> Path:
        """A shipped method on the toy data, its arithmetic untouched."""
        dim = 32 if name == "dalr-release" else 16
        random = np.random.default_rng(1)
        np.save(folder / "images.npy", random.normal(size=(len(self.data.images), dim)).astype(np.float32))
        captions = [f"{image}#{k}" for image in self.data.images for k in range(3)]
        np.save(folder / "clip_text.npy", random.normal(size=(len(captions), dim)).astype(np.float32))
        (folder / "captions.txt").write_text("".join(f"{caption}\n" for caption in captions))
        second = save_tiny_bert(folder / "second-teacher", seed=5)
        changes: dict[str, Any] = {
            "extends": name,
            "name": f"toy-{name}",
            "data": {"root": str(folder), "text": str(self.data.text)},
            "student": {"model": str(self.student)},
            "training": {"batch_size": 8, "max_steps": 6, "log_every": 1, "precision": "fp32"},
            "validation": {"kind": "tsv", "data": str(self.data.validation), "every": 3},
        }
        if name not in ("simcse", "rankcse"):
            changes["data"]["pairs"] = str(self.data.pairs)
            changes["features"] = {"image": "images.npy", "image_ids": str(self.data.ids)}
        if name == "kdmcse":
            changes["features"] |= {"clip_text": "clip_text.npy", "clip_text_ids": "captions.txt"}
        if name in ("rankcse", "dalr", "dalr-release"):
            first = self.student if name == "dalr-release" else self.teacher
            pooling = "cls" if name == "dalr-release" else None
            changes["teachers"] = [
                {"model": str(first), "pooling": pooling, "weight": 0.33},
                {"model": str(second), "pooling": "cls", "weight": 0.67},
            ]
        if name == "dalr-release":
            changes["training"]["schedule"] = {"k": 2}
        return write_recipe(folder / "recipe.yaml", changes)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str
