"""How does a BERT or RoBERTa encode without the model libraries? From its files, by tokenizers and torch alone.

Importing transformers and sentence-transformers takes longer than all else in the search for one sentence. Most
students are of one plain kind: BERT's layers, a pooling, perhaps Dense modules. Those are computed here, over rows
of equal length, so that there is no padding and no mask. Whatever the files say that is not known here gives None,
and the model is loaded by the libraries, which also say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dalr.errors import ModelFileError
from dalr.io.paths import is_file, regular
from dalr.models.config import EncoderConfig
from dalr.models.json_object import peek_object
from dalr.models.limits import UNLIMITED
from dalr.models.module_list import ModuleEntry, module_entries

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from tokenizers import Tokenizer
    from torch import Tensor

Mode = Literal["cls", "mean", "last"]

_COUNTS_FROM_PADDING = {"bert": False, "roberta": True, "xlm-roberta": True}
"""Architectures that are computed here, and whether positions start behind the padding token's number."""
_AS_THE_FILE = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Tokenizer classes that take tokenizer.json as it is; the others build themselves anew from parts of it."""
_BERT, _ROBERTA = ("BertTokenizer", "BertTokenizerFast"), ("RobertaTokenizer", "RobertaTokenizerFast")
_POOLINGS: Mapping[str, Mode] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_ACTIVATIONS = {"Tanh": True, "Identity": False}
_TRANSFORMER_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "do_lower_case": (False,),
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "unpad_inputs": (None, False),
}
"""What sentence_bert_config.json may say, beside the longest input."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What BERT's forward needs of config.json."""

    layers: int
    heads: int
    epsilon: float
    padding: int | None
    """The padding token, from behind whose number RoBERTa counts positions; None counts from 0."""
    positions: int
    """How many tokens have one."""

    @property
    def table(self) -> int:
        """Rows of the table of positions."""
        return self.positions + (0 if self.padding is None else self.padding + 1)


@dataclass(frozen=True, kw_only=True)
class PlainModel:
    """The weights and the tokenizer of a plain model, on their device."""

    weights: Mapping[str, Tensor]
    shape: Shape
    pooling: Mode
    dense: tuple[tuple[Tensor, Tensor | None, bool], ...]
    """Weight, bias, and whether tanh follows, of each Dense module."""
    tokenizer: Tokenizer
    max_tokens: int
    device: torch.device
    truncation_side = "right"

    @property
    def dim(self) -> int:
        return int(self.dense[-1][0].shape[0] if self.dense else self.weights[_WORDS].shape[1])

    def to(self, device: torch.device) -> PlainModel:
        """The same on another device."""
        dense = tuple((w.to(device), None if b is None else b.to(device), tanh) for w, b, tanh in self.dense)
        weights = {name: tensor.to(device) for name, tensor in self.weights.items()}
        return replace(self, weights=weights, dense=dense, device=device)

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_: Any) -> Mapping[str, Sequence[int]]:
        """Token ids as a tokenizer of transformers gives them, for `within_tokens`."""
        return {"input_ids": self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special tokens included, however long."""
        return [each.ids for each in self.tokenizer.encode_batch_fast(list(texts))]

    def cut(self, ids: list[int]) -> list[int]:
        """The ids within the limit; the special token at their end stays there."""
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    def vectors(self, ids: Int[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Sentence vectors of rows of one length, before any Normalize module."""
        from torch.nn import functional as F

        states = self._states(ids)
        pooled = {"cls": states[:, 0], "mean": states.mean(1), "last": states[:, -1]}[self.pooling]
        for weight, bias, tanh in self.dense:
            pooled = F.linear(pooled, weight, bias)
            pooled = pooled.tanh() if tanh else pooled
        return pooled

    def _states(self, ids: Int[Tensor, "n l"]) -> Float[Tensor, "n l d"]:
        from torch.nn import functional as F

        x = self.weights[_WORDS][ids] + self.weights[_TYPES][0]
        x = self._norm("embeddings", x + self.weights[_POSITIONS][self._positions(ids)])
        for number in range(self.shape.layers):
            layer = f"encoder.layer.{number}"
            q, k, v = (self._by_head(self._linear(f"{layer}.attention.self.{part}", x)) for part in _QKV)
            attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = self._norm(
                f"{layer}.attention.output", self._linear(f"{layer}.attention.output.dense", attended) + x
            )
            inner = F.gelu(self._linear(f"{layer}.intermediate.dense", x))
            x = self._norm(f"{layer}.output", self._linear(f"{layer}.output.dense", inner) + x)
        return x

    def _positions(self, ids: Int[Tensor, "n l"]) -> Int[Tensor, "#n l"]:
        import torch

        if (padding := self.shape.padding) is None:
            return torch.arange(ids.shape[1], device=ids.device)[None]
        real = (ids != padding).long()  # a sentence may spell out the padding token
        return real.cumsum(1) * real + padding

    def _by_head(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n h l e"]:
        return x.view(*x.shape[:2], self.shape.heads, -1).transpose(1, 2)

    def _linear(self, name: str, x: Float[Tensor, "n l i"]) -> Float[Tensor, "n l o"]:
        from torch.nn import functional as F

        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n l d"]:
        from torch.nn import functional as F

        weight, bias = self.weights[f"{name}.LayerNorm.weight"], self.weights[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, (x.shape[2],), weight, bias, self.shape.epsilon)


_WORDS, _POSITIONS, _TYPES = (f"embeddings.{each}_embeddings.weight" for each in ("word", "position", "token_type"))
_QKV = ("query", "key", "value")


def open_plain(folder: Path, config: EncoderConfig, *, prompt: str, where: str) -> PlainModel | None:
    """The model in a folder whose files have been checked, on the CPU; None where it is not of the plain kind.

    Args:
        prompt: what is put before each sentence.
    """
    entries = module_entries(folder, where) or [ModuleEntry(kind="Transformer", folder=folder)]
    kinds = [entry.kind for entry in entries]
    while kinds[-1] == "Normalize":
        kinds.pop()
    pooled = kinds[1:2] == ["Pooling"]
    if kinds[0] != "Transformer" or any(kind != "Dense" for kind in kinds[2 if pooled else 1 :]):
        return None
    pooling = _pooling(entries[1].folder if pooled else None, config, prompt)
    place = entries[0].folder
    stated = peek_object(place / "config.json") or {}
    shape = _shape(stated, config.num_layers)
    if pooling is None or shape is None or (len(kinds) > 1 and not pooled):
        return None
    tokenizer = _tokenizer(place)
    limit = _limit(place, shape, config.max_tokens)
    weights = _weights(place, shape)
    dense = [_dense(entry.folder) for entry, kind in zip(entries, kinds, strict=False) if kind == "Dense"]
    if tokenizer is None or limit is None or weights is None or None in dense:
        return None
    if max(tokenizer.get_vocab().values(), default=0) >= len(weights[_WORDS]):
        return None
    return PlainModel(
        weights=weights,
        shape=shape,
        pooling=pooling,
        dense=tuple(each for each in dense if each is not None),
        tokenizer=tokenizer,
        max_tokens=limit,
        device=weights[_WORDS].device,
    )


def _pooling(folder: Path | None, config: EncoderConfig, prompt: str) -> Mode | None:
    """How token states become a vector; None for what is not computed here."""
    stated = {} if folder is None else peek_object(folder / "config.json") or {}
    if prompt and stated.get("include_prompt") is False:
        return None
    if config.pooling is not None:
        return config.pooling if config.pooling != "avg_first_last" else None
    named = stated.get("pooling_mode")
    if isinstance(named, str):
        return _POOLINGS.get(named)
    true = [key.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens") for key in stated
            if key.startswith("pooling_mode_") and stated[key] is True]  # fmt: skip
    return _POOLINGS.get(true[0]) if len(true) == 1 and named is None else None


def _shape(config: Mapping[str, Any], num_layers: int | None) -> Shape | None:
    kind, usual = config.get("model_type"), config.get("hidden_act") == "gelu"
    usual = usual and config.get("position_embedding_type") in (None, "absolute")
    usual = usual and not config.get("is_decoder") and not config.get("add_cross_attention")
    try:
        layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        padding = int(config.get("pad_token_id") or 0)
        epsilon, positions = float(config.get("layer_norm_eps", 1e-12)), int(config["max_position_embeddings"])
    except (KeyError, TypeError, ValueError):
        return None
    if not usual or kind not in _COUNTS_FROM_PADDING or (num_layers or 0) > layers or heads < 1:
        return None
    return Shape(
        layers=num_layers or layers,
        heads=heads,
        epsilon=epsilon,
        padding=padding if _COUNTS_FROM_PADDING[kind] else None,
        positions=positions - (padding + 1 if _COUNTS_FROM_PADDING[kind] else 0),
    )


def _limit(folder: Path, shape: Shape, wanted: int | None) -> int | None:
    """The longest input in tokens; None where what is stated is more than the model has positions."""
    settings = peek_object(folder / "sentence_bert_config.json") or {}
    own = settings.pop("max_seq_length", None)
    if any(key not in _TRANSFORMER_SETTINGS or value not in _TRANSFORMER_SETTINGS[key]
           for key, value in settings.items()):  # fmt: skip
        return None
    of_tokenizer = (peek_object(folder / "tokenizer_config.json") or {}).get("model_max_length")
    given = [limit for limit in (wanted, own, of_tokenizer) if limit is not None]
    if any(isinstance(limit, bool) or not isinstance(limit, int | float) for limit in given):
        return None
    limits = [int(limit) for limit in given if limit < UNLIMITED]
    if any(limit > shape.positions for limit in limits) or any(limit < 3 for limit in limits):
        return None
    return min([*limits, shape.positions])


def _weights(folder: Path, shape: Shape) -> dict[str, Tensor] | None:
    found = _tensors(folder / "model.safetensors")
    if found is None:
        return None
    parts = [f"attention.self.{part}" for part in _QKV]
    parts += ["attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense"]
    parts += ["output.LayerNorm"]
    modules = [f"encoder.layer.{number}.{part}" for number in range(shape.layers) for part in parts]
    modules.append("embeddings.LayerNorm")
    names = [f"{name}.{kind}" for name in modules for kind in ("weight", "bias")] + [_WORDS, _POSITIONS, _TYPES]
    if any(name not in found for name in names):
        return None
    weights = {name: found[name].float() for name in names}
    fits = weights[_WORDS].shape[1] % shape.heads == 0
    return weights if fits and len(weights[_POSITIONS]) == shape.table else None


def _tensors(path: Path) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not is_file(path, ModelFileError):
        return None
    try:
        return load_file(regular(path))
    except (OSError, ValueError, SafetensorError):
        return None  # the libraries say what is wrong with it


def _dense(folder: Path) -> tuple[Tensor, Tensor | None, bool] | None:
    stated = peek_object(folder / "config.json") or {}
    activation = str(stated.get("activation_function")).rpartition(".")[2]
    names = {stated.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")}
    tensors = _tensors(folder / "model.safetensors") or {}
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if activation not in _ACTIVATIONS or names - {"sentence_embedding", None} or weight is None:
        return None
    if (bias is None) == bool(stated.get("bias", True)):
        return None
    return weight.float(), None if bias is None else bias.float(), _ACTIVATIONS[activation]


def _tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of tokenizer.json, where the class that transformers would take gives the same tokens."""
    stated = peek_object(folder / "tokenizer.json")
    config = peek_object(folder / "tokenizer_config.json")
    if stated is None or config is None or config.get("truncation_side", "right") != "right":
        return None
    named = config.get("tokenizer_class")
    same = named in _AS_THE_FILE
    same = same or (named in _BERT and _is_bert_s(stated, config))
    same = same or (named in _ROBERTA and _is_roberta_s(stated, config))
    if not same or not _same_added(stated, config):
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(regular(folder / "tokenizer.json")))
    except Exception:  # noqa: BLE001 - the library raises nothing more exact; transformers says what is wrong
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = tokenizer.encode("a").special_tokens_mask
    return tokenizer if len(special) > 1 and special[0] + special[-1] == sum(special) == 2 else None


def _same_added(stated: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether tokenizer_config.json says of added tokens what tokenizer.json says, as far as it says anything."""
    added = {str(token.get("id")): token for token in stated.get("added_tokens") or []}
    said = config.get("added_tokens_decoder") or {}
    return all(added.get(number) == {"id": int(number), **token} for number, token in said.items())


def _is_bert_s(stated: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "strip_accents": config.get("strip_accents"),
        "lowercase": config.get("do_lower_case", True),
    }
    model = stated.get("model") or {}
    pieces = model.get("type", "WordPiece") == "WordPiece" and model.get("continuing_subword_prefix") == "##"
    pieces = pieces and model.get("unk_token") == config.get("unk_token", "[UNK]")
    pieces = pieces and model.get("max_input_chars_per_word", 100) == 100
    ends = [config.get("cls_token", "[CLS]"), config.get("sep_token", "[SEP]")]
    return (
        pieces
        and stated.get("normalizer") == normalizer
        and stated.get("pre_tokenizer") == {"type": "BertPreTokenizer"}
        and _template(stated) == [ends[0], "A", ends[1]]
    )


def _template(stated: Mapping[str, Any]) -> list[Any]:
    single = (stated.get("post_processor") or {}).get("single") or []
    return [inner.get("id") for part in single for inner in part.values()]


def _is_roberta_s(stated: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    from tokenizers.pre_tokenizers import ByteLevel

    model, before = stated.get("model") or {}, stated.get("pre_tokenizer") or {}
    vocabulary, behind = model.get("vocab") or {}, stated.get("post_processor") or {}
    plain = model.get("type", "BPE") == "BPE" and not any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    )
    ends = [[config.get(key), vocabulary.get(config.get(key))] for key in ("cls_token", "sep_token")]
    return (
        plain
        and not model.get("ignore_merges")
        and set(ByteLevel.alphabet()) <= set(vocabulary)
        and stated.get("normalizer") is None
        and before.get("type") == "ByteLevel"
        and before.get("add_prefix_space") == config.get("add_prefix_space", False)
        and before.get("use_regex", True) is True
        and behind.get("type") == "RobertaProcessing"
        and [behind.get("cls"), behind.get("sep")] == ends
    )
