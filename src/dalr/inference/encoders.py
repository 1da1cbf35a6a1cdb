"""What turns rows into vectors: a text encoder over packed rows, the text tower or the image tower of a CLIP.

Rows are encoded part by part; within a part each distinct sentence once, by length, over real tokens only. A row's
vector is what `SentenceTransformer.encode` gives for it, Normalize module included, unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from dalr.data.long_text import in_batches, within_tokens
from dalr.errors import ConfigError, DataError, Problem, few
from dalr.io.paths import resolve
from dalr.models.config import EncoderConfig
from dalr.models.device import BF16, pick_device, require_bf16
from dalr.models.embedding import by_falling_length, embed_token_ids, is_static, pad, pad_token_id, token_ids
from dalr.models.limits import longest_input
from dalr.models.loading import checked_folder, encoder_sha256, ends_in_normalize, load_encoder, prompt_text
from dalr.models.prompts import prompt_of

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from dalr.models.packing import Layout
    from dalr.models.plain import PlainModel
    from dalr.models.vision import VisionModel

OnLong = Literal["truncate", "error"]
TOKENS_PER_BATCH = {"cpu": 4_096}
_OTHER_TOKENS_PER_BATCH = 16_384
_MANY = 2_048
"""Rows of which batches of one length each are worth it: attention then takes a batch at once, without a copy."""
_TOKENISED = 1_000
_IMAGES_PER_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Vectors of some rows, and which of the rows were longer than the model reads."""

    vectors: Float32[np.ndarray, "n d"]
    cut: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    """How many tokens of each row the model read; nothing for images."""


@runtime_checkable
class RowEncoder(Protocol):
    """Rows to vectors."""

    @property
    def source(self) -> Mapping[str, Any]:
        """What decides the vectors: the model's fingerprint, its pooling, its prompt, its longest input."""

    @property
    def normalized(self) -> bool:
        """Whether the model itself scales its vectors to length 1."""

    @property
    def max_tokens(self) -> int | None: ...
    @property
    def dim(self) -> int:
        """Numbers per vector."""

    def encode(self, rows: Sequence[str]) -> Encoded: ...


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder on its device."""

    encoder: SentenceTransformer
    layout: Layout
    dtype: torch.dtype | None
    """Of autocast; None computes in fp32."""
    max_tokens: int | None
    source: Mapping[str, Any]
    normalized: bool

    @property
    def dim(self) -> int:
        return self.encoder.get_embedding_dimension() or 0

    def encode(self, rows: Sequence[str]) -> Encoded:
        """Vectors before any Normalize module, row i for row i."""
        import torch

        place = {text: index for index, text in enumerate(dict.fromkeys(rows))}
        distinct = list(place)
        half = torch.autocast(self.encoder.device.type, dtype=self.dtype, enabled=self.dtype is not None)
        if is_static(self.encoder):
            ids, long = token_ids(self.encoder, distinct, self.max_tokens), set[int]()
            vectors = embed_token_ids(self.encoder, ids)
        else:
            ids, long = self._token_ids(distinct)
            with torch.inference_mode(), half:
                vectors = self._forward(ids)
        which = [place[text] for text in rows]
        return Encoded(
            vectors=vectors[which],
            cut=tuple(row for row, index in enumerate(which) if index in long),
            tokens=tuple(len(ids[index]) for index in which),
        )

    def _forward(self, ids: list[list[int]]) -> Float32[np.ndarray, "n d"]:
        from dalr.models.packing import sentence_vectors

        device = self.encoder.device
        out = np.empty((len(ids), self.dim), np.float32)
        budget = TOKENS_PER_BATCH.get(device.type, _OTHER_TOKENS_PER_BATCH)
        equal = self.layout == "equal" or len(ids) >= _MANY
        for batch in by_falling_length(ids, budget, equal=equal):
            chosen = [ids[index] for index in batch]
            tokens, mask = (each.to(device) for each in pad(chosen, pad_id=pad_token_id(self.encoder)))
            lengths = [len(row) for row in chosen]
            h = sentence_vectors(self.encoder, tokens, mask, lengths=lengths, layout=self.layout)
            out[batch] = h.float().cpu().numpy()
        return out

    def _token_ids(self, sentences: list[str]) -> tuple[list[list[int]], set[int]]:
        """Token ids within the limit, and the indices of the sentences that were cut for it."""
        tokenizer, limit, prompt = self.encoder.tokenizer, self.max_tokens, prompt_of(self.encoder)
        prompted = [prompt + sentence for sentence in sentences]
        fitting = [within_tokens(text, tokenizer, limit) for text in prompted] if limit is not None else prompted
        long = {row for row, (text, whole) in enumerate(zip(fitting, prompted, strict=True)) if text != whole}
        ids: list[list[int]] = []
        for chunk in in_batches(fitting, _TOKENISED):
            ids.extend(tokenizer(chunk, verbose=False)["input_ids"])
        if limit is not None:
            over = [row for row, tokens in enumerate(ids) if len(tokens) > limit]
            long |= set(over)
            for chunk_rows in (over[start : start + _TOKENISED] for start in range(0, len(over), _TOKENISED)):
                texts = [fitting[row] for row in chunk_rows]
                shorter = tokenizer(texts, truncation=True, max_length=limit, verbose=False)["input_ids"]
                for row, tokens in zip(chunk_rows, shorter, strict=True):
                    ids[row] = tokens
        return ids, long


@dataclass(frozen=True, kw_only=True)
class PlainEncoder:
    """A text encoder of the plain kind, without the model libraries."""

    model: PlainModel
    prompt: str
    source: Mapping[str, Any]
    normalized: bool

    @property
    def max_tokens(self) -> int | None:
        return self.model.max_tokens

    @property
    def dim(self) -> int:
        return self.model.dim

    def encode(self, rows: Sequence[str]) -> Encoded:
        """Vectors before any Normalize module, row i for row i."""
        import torch

        place = {text: index for index, text in enumerate(dict.fromkeys(rows))}
        whole = [self.prompt + text for text in place]
        fitting = [within_tokens(text, self.model, self.model.max_tokens) for text in whole]
        ids = [each for chunk in in_batches(fitting, _TOKENISED) for each in self.model.token_ids(chunk)]
        limit = self.model.max_tokens
        long = {
            index for index, each in enumerate(ids) if len(each) > limit or len(fitting[index]) < len(whole[index])
        }
        ids = [self.model.cut(each) for each in ids]
        out = np.empty((len(ids), self.dim), np.float32)
        budget = TOKENS_PER_BATCH.get(self.model.device.type, _OTHER_TOKENS_PER_BATCH)
        with torch.inference_mode():
            for batch in by_falling_length(ids, budget, equal=True):
                tokens = torch.tensor([ids[index] for index in batch], device=self.model.device)
                out[batch] = self.model.vectors(tokens).cpu().numpy()
        which = [place[text] for text in rows]
        return Encoded(
            vectors=out[which],
            cut=tuple(row for row, index in enumerate(which) if index in long),
            tokens=tuple(len(ids[index]) for index in which),
        )


@dataclass(frozen=True, kw_only=True)
class TowerEncoder:
    """Sentences by the text tower of a model of the CLIP kind."""

    vision: VisionModel

    @property
    def source(self) -> Mapping[str, Any]:
        stated = {key: value for key, value in self.vision.source.items() if key != "processor"}
        return {**stated, "tower": "text", "max_tokens": self.max_tokens}

    @property
    def normalized(self) -> bool:
        return bool(self.vision.source["normalized"])

    @property
    def max_tokens(self) -> int | None:
        return self.vision.max_tokens

    @property
    def dim(self) -> int:
        return self.vision.dim

    def encode(self, rows: Sequence[str]) -> Encoded:
        counts = self.vision.token_counts(rows)
        limit = self.max_tokens
        return Encoded(
            vectors=self.vision.embed_texts(rows),
            cut=tuple(row for row, count in enumerate(counts) if limit is not None and count > limit),
            tokens=tuple(count if limit is None else min(count, limit) for count in counts),
        )


@dataclass(frozen=True, kw_only=True)
class ImageEncoder:
    """Image files below a folder by an image model."""

    vision: VisionModel
    root: Path
    max_tokens: int | None = None

    @property
    def source(self) -> Mapping[str, Any]:
        return {**self.vision.source, "tower": "image"}

    @property
    def normalized(self) -> bool:
        return bool(self.vision.source["normalized"])

    @property
    def dim(self) -> int:
        return self.vision.dim

    def encode(self, rows: Sequence[str]) -> Encoded:
        """Vectors of the files with these paths below the root.

        Raises:
            DataError: naming each file that cannot be used.
        """
        from dalr.features.decode_ahead import ImageBatch, decoded_ahead
        from dalr.features.decoding import ImageRefusedError, locate

        files: list[tuple[int, Path]] = []
        refused: dict[int, str] = {}
        root = resolve(self.root)
        for number, name in enumerate(rows):
            try:
                files.append((number, locate(root, name)))
            except ImageRefusedError as error:
                refused[number] = str(error)
        batches = [
            ImageBatch(files=tuple(files[start : start + _IMAGES_PER_BATCH]))
            for start in range(0, len(files), _IMAGES_PER_BATCH)
        ]
        out = np.empty((len(rows), self.vision.dim), np.float32)
        for batch in decoded_ahead(batches, self.vision.pixels, workers=0):
            refused |= batch.refused
            if batch.numbers:
                out[list(batch.numbers)] = self.vision.vectors(batch.pixels)
        if refused:
            advice = "dalr features images --max-bad-images leaves out what cannot be used"
            problems = few(
                sorted(refused), lambda row: Problem(where=str(self.root / rows[row]), what=refused[row])
            )
            raise DataError([*problems, Problem(where=str(self.root), what=advice)])
        return Encoded(vectors=out)


def open_text_encoder(
    config: EncoderConfig, *, device: str = "auto", bf16: bool = False, packed: bool = True
) -> TextEncoder | PlainEncoder | TowerEncoder:
    """The encoder of sentences that `config` names.

    Args:
        packed: for many rows; a few are sooner encoded than the model libraries are imported, if the model is
            plain, or than it is found out whether it can be packed.

    Raises:
        ModelFileError, ConfigError: it cannot be loaded, or not in this way.
    """
    import torch

    from dalr.models.onednn import use_onednn
    from dalr.models.packing import best_layout
    from dalr.models.vision import has_text_tower, load_vision_model

    if has_text_tower(config.model, config.revision):
        if config.pooling or config.num_layers or config.max_tokens or config.prompt or bf16:
            what = "a text tower has its own pooling, layers, limit and precision; leave those options out"
            raise ConfigError(Problem(where=f"model {config.model!r}", what=what))
        return TowerEncoder(vision=load_vision_model(config.model, revision=config.revision, device=device))
    if not packed and not bf16 and (plain := _plain(config, device)) is not None:
        return plain
    encoder = load_encoder(config).to(pick_device(device))
    if bf16:
        require_bf16(encoder.device, BF16)
    dtype = torch.bfloat16 if bf16 else None
    layout = best_layout(encoder, dtype=dtype) if packed and not is_static(encoder) else "padded"
    if not bf16:
        use_onednn(encoder)
    limit = longest_input(encoder, config.max_tokens)
    return TextEncoder(
        encoder=encoder,
        layout=layout,
        dtype=dtype,
        max_tokens=limit,
        source=_source(config, prompt=prompt_of(encoder), max_tokens=limit),
        normalized=ends_in_normalize(config),
    )


def _plain(config: EncoderConfig, device: str) -> PlainEncoder | None:
    from dalr.models.plain import open_plain

    prompt = prompt_text(config)
    model = open_plain(checked_folder(config), config, prompt=prompt, where=f"model {config.model!r}")
    if model is None:
        return None
    return PlainEncoder(
        model=model.to(pick_device(device)),
        prompt=prompt,
        source=_source(config, prompt=prompt, max_tokens=model.max_tokens),
        normalized=ends_in_normalize(config),
    )


def _source(config: EncoderConfig, *, prompt: str, max_tokens: int | None) -> dict[str, Any]:
    return {
        "model": config.model,
        "sha256": encoder_sha256(config),
        "pooling": config.pooling,
        "num_layers": config.num_layers,
        "prompt": prompt,
        "max_tokens": max_tokens,
    }


def memory_encoder(
    encoder: SentenceTransformer, *, max_tokens: int | None = None, bf16: bool = False
) -> TextEncoder:
    """A model that a program holds, on the device where it is."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize

    from dalr.models.packing import best_layout

    if bf16:
        require_bf16(encoder.device, BF16)
    dtype = torch.bfloat16 if bf16 else None
    return TextEncoder(
        encoder=encoder,
        layout="padded" if is_static(encoder) else best_layout(encoder, dtype=dtype),
        dtype=dtype,
        max_tokens=longest_input(encoder, max_tokens),
        source={"model": "in memory"},
        normalized=isinstance(list(encoder)[-1], Normalize),
    )


@contextmanager
def evaluation_mode(encoder: RowEncoder) -> Iterator[None]:
    """Without dropout; the mode of a model that a program holds is restored."""
    if not isinstance(encoder, TextEncoder):
        yield
        return
    training = encoder.encoder.training
    encoder.encoder.eval()
    try:
        yield
    finally:
        encoder.encoder.train(training)
