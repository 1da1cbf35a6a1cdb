"""Which image models are there? CLIP and its relatives with both towers, an image encoder alone, or a plug-in's.

Which output is a model's vector is stated per architecture, never guessed: a ViT's pooler exists and is random
where the checkpoint was trained without one. Vectors are what the model's own interface gives, before any
normalisation of ours. Images and sentences go in by two methods that cannot be confused, so a caption that looks
like an address is tokenised like any other.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from dalr.data.long_text import in_batches, within_tokens
from dalr.errors import ConfigError, DalrError, ModelFileError, Problem
from dalr.io.paths import is_file, regular
from dalr.models.claims import require_plausible, stored_shapes
from dalr.models.device import pick_device
from dalr.models.embedding import OnProgress
from dalr.models.foreign import refuse_foreign_code
from dalr.models.image_encoder import CheckedEncoder, open_image_encoder
from dalr.models.json_object import peek_object
from dalr.models.loading import files_sha256, quiet_libraries
from dalr.models.pixels import PixelReader, load_pixel_reader
from dalr.models.reference import PLUGIN, find_model

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

IMAGES_PER_BATCH = 32
SENTENCES_PER_BATCH = 256
ALIKE_PER_BATCH = 32
"""Sentences of one length that are encoded at once."""
_TOKENISED = 10_000
"""Sentences given to a tokenizer at once."""

OUTPUTS: Mapping[str, str] = {
    "clip": "projected",
    "chinese_clip": "projected",
    "metaclip_2": "projected",
    "siglip": "projected",
    "clip_vision_model": "pooled",
    "siglip_vision_model": "pooled",
    "resnet": "pooled",
    "regnet": "pooled",
    "convnext": "pooled",
    "convnextv2": "pooled",
    "vit": "cls",
    "deit": "cls",
    "dinov2": "cls",
    "dinov2_with_registers": "cls",
}
"""Architecture -> its vector: projected into the space shared with text, pooled by the model, or the CLS token."""


@dataclass(frozen=True, kw_only=True)
class VisionModel:
    """A frozen image model in eval mode."""

    reference: str
    network: Any
    """The transformers model, or the encoder of a plug-in."""
    pixels: PixelReader
    device: torch.device
    dim: int
    tokenizer: Any
    """None for a model without a text tower."""
    max_tokens: int | None
    source: Mapping[str, Any]
    """What its vectors are made by: model, revision, checksum, output, whether normalised, processor settings."""

    def vectors(self, pixels: UInt8[np.ndarray, "n 3 height width"]) -> Float32[np.ndarray, "n d"]:
        """Vectors of images that `pixels` has read."""
        import torch

        if isinstance(self.network, CheckedEncoder):
            return self.network.vectors(pixels)
        mean, std = (
            torch.tensor(each, device=self.device).view(3, 1, 1) for each in (self.pixels.mean, self.pixels.std)
        )
        with torch.inference_mode():
            values = torch.from_numpy(pixels).to(self.device).float()
            values.mul_(self.pixels.factor / std).sub_(
                mean / std
            )  # in place: beside a small model this is the cost
            return _image_vectors(self.network, values).float().cpu().numpy()

    def embed_images(
        self, images: Sequence[Image], *, progress: OnProgress | None = None
    ) -> Float32[np.ndarray, "n d"]:
        """Vectors of upright RGB images, row i for image i (`features.decoding` makes such of files)."""
        out = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), IMAGES_PER_BATCH):
            batch = images[start : start + IMAGES_PER_BATCH]
            vectors = self.vectors(np.stack([self.pixels(image) for image in batch]))
            if not np.isfinite(vectors).all():
                what = "its vector of this image is not finite: the model or the image is damaged"
                raise ModelFileError(Problem(where=f"model {self.reference!r}", what=what))
            out[start : start + len(batch)] = vectors
            if progress is not None:
                progress(start + len(batch), len(images))
        return out

    def embed_texts(
        self, sentences: Sequence[str], *, progress: OnProgress | None = None, alone: bool = False
    ) -> Float32[np.ndarray, "n d"]:
        """Vectors of sentences by the text tower, in the space of the images; each distinct sentence once.

        With `alone`, a vector depends on its sentence alone, to the last bit (see `embedding.embed`).

        Raises:
            ModelFileError: the model has no text tower.
        """
        if self.tokenizer is None:
            raise ModelFileError(Problem(where=f"model {self.reference!r}", what="it has no text tower"))
        place = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
        distinct = list(place)
        out = np.empty((len(distinct), self.dim), np.float32)
        done = 0
        for batch in self._by_tokens(distinct) if alone else _by_length(distinct, SENTENCES_PER_BATCH):
            given = [distinct[index] for index in batch]
            if alone:
                given += given[:1] * (ALIKE_PER_BATCH - len(given))
            out[batch] = self._text_vectors(given)[: len(batch)]
            done += len(batch)
            if progress is not None:
                progress(done, len(distinct))
        return out[[place[sentence] for sentence in sentences]]

    def _by_tokens(self, sentences: list[str]) -> Iterator[list[int]]:
        """Indices of sentences of one length in tokens, up to `ALIKE_PER_BATCH` at once; the longest come first."""
        of_length: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(self._token_rows(sentences)):
            of_length[min(len(row), self.max_tokens or len(row))].append(index)
        for length in sorted(of_length, reverse=True):
            alike = of_length[length]
            yield from (alike[start : start + ALIKE_PER_BATCH] for start in range(0, len(alike), ALIKE_PER_BATCH))

    def too_long(self, sentences: Sequence[str]) -> int:
        """How many distinct sentences the text tower cuts."""
        if self.max_tokens is None:
            return 0
        limit = self.max_tokens
        return sum(count > limit for count in self.token_counts(list(dict.fromkeys(sentences))))

    def token_counts(self, sentences: Sequence[str]) -> list[int]:
        """Tokens of each sentence, counted beyond the limit of the text tower by so many that it shows."""
        return [len(row) for row in self._token_rows(sentences)]

    def _token_rows(self, sentences: Sequence[str]) -> Iterator[list[int]]:
        """Token ids of each sentence; of one far beyond the limit, only the beginning."""
        most = self.max_tokens
        fitting = (
            sentence if most is None else within_tokens(sentence, self.tokenizer, most) for sentence in sentences
        )
        for batch in in_batches(fitting, _TOKENISED):
            yield from self.tokenizer(batch)["input_ids"]

    def _text_vectors(self, sentences: list[str]) -> Float32[np.ndarray, "n d"]:
        import torch

        # SigLIP was trained on texts padded to their full length, without a mask
        whole = self.network.config.model_type == "siglip"
        if self.max_tokens is not None:
            sentences = [within_tokens(sentence, self.tokenizer, self.max_tokens) for sentence in sentences]
        tokens = self.tokenizer(
            sentences,
            padding="max_length" if whole else True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.device)
        names = ("input_ids",) if whole else ("input_ids", "attention_mask")
        known = {name: tokens[name] for name in names}
        with torch.inference_mode():
            output = self.network.get_text_features(**known)
            return output.pooler_output.float().cpu().numpy()  # type: ignore[no-any-return]


def load_vision_model(reference: str, *, revision: str | None = None, device: str = "auto") -> VisionModel:
    """An image model from a folder, the hub or a plug-in, in fp32.

    Raises:
        ModelFileError: missing, unreadable, incomplete, or not of a kind in `OUTPUTS`.
        ConfigError: no such device, or no such encoder of a plug-in.
    """
    where = f"model {reference!r}"
    place = pick_device(device)
    if reference.startswith(PLUGIN):
        return _of_plugin(reference, revision, place)
    found = find_model(reference, revision)
    folder = _network_folder(found)
    output = OUTPUTS.get(_model_type(folder))
    if output is None:
        what = f"architecture {_model_type(folder)!r} is not an image model that is known: {', '.join(OUTPUTS)}"
        raise ModelFileError(Problem(where=where, what=what))
    refuse_foreign_code([folder], where)
    require_plausible(folder, shapes=stored_shapes(folder, where), where=where)
    pixels = load_pixel_reader(folder, where)
    try:
        network = _load_network(folder, output).to(place)
        tokenizer = _load_tokenizer(folder) if output == "projected" else None
        probe = _probe(network, pixels, place)
    except DalrError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or repr(error)
        raise ModelFileError(Problem(where=where, what=f"cannot be loaded from {folder}: {reason:.300}")) from error
    text = getattr(network.config, "text_config", None)
    source = {
        "model": reference,
        "revision": _snapshot(found) or revision,
        "sha256": files_sha256(folder),
        "output": output,
        "normalized": bool(np.allclose(np.linalg.norm(probe, axis=1), 1, atol=1e-4)),
        "processor": dict(pixels.settings),
    }
    return VisionModel(
        reference=reference,
        network=network,
        pixels=pixels,
        device=place,
        dim=probe.shape[1],
        tokenizer=tokenizer,
        max_tokens=text.max_position_embeddings if text is not None else None,
        source=source,
    )


def has_text_tower(reference: str, revision: str | None = None) -> bool:
    """Whether the model is of the CLIP kind, decided by its configuration before anything is loaded."""
    if reference.startswith(PLUGIN):
        return False
    return OUTPUTS.get(_model_type(_network_folder(find_model(reference, revision)))) == "projected"


def is_image_model(reference: str, revision: str | None = None) -> bool:
    """Whether the model reads images, told from its configuration before anything is loaded."""
    if reference.startswith(PLUGIN):
        return True
    return _model_type(_network_folder(find_model(reference, revision))) in OUTPUTS


def _of_plugin(reference: str, revision: str | None, device: torch.device) -> VisionModel:
    if revision is not None:
        what = f"is for models of the hub; {reference} states its version itself: leave it out"
        raise ConfigError(Problem(where="--revision", what=what))
    opened = open_image_encoder(reference, device)
    return VisionModel(
        reference=reference,
        network=opened,
        pixels=opened.pixels,
        device=device,
        dim=opened.encoder.dim,
        tokenizer=None,
        max_tokens=None,
        source=opened.source,
    )


def _load_network(folder: Path, output: str) -> Any:
    """The weights in eval mode; parameters without weights in the files are refused, but for an unused pooler."""
    with quiet_libraries():
        import transformers

        config = json.loads(regular(folder / "config.json").read_bytes())
        projected = "CLIPVisionModelWithProjection" in (config.get("architectures") or [])
        family: Any = transformers.CLIPVisionModelWithProjection if projected else transformers.AutoModel
        network, report = family.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    missing = sorted(name for name in report["missing_keys"] if output != "cls" or not name.startswith("pooler."))
    if missing:
        raise ValueError(f"{len(missing)} parameters have no weights in its files, such as {missing[0]}")
    return network.float().eval().requires_grad_(False)


def _load_tokenizer(folder: Path) -> Any:
    with quiet_libraries():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _image_vectors(network: Any, values: torch.Tensor) -> torch.Tensor:
    match OUTPUTS[network.config.model_type]:
        case "projected":
            vectors: torch.Tensor = network.get_image_features(pixel_values=values).pooler_output
        case "cls":
            vectors = network(pixel_values=values).last_hidden_state[:, 0]
        case _:
            output = network(pixel_values=values)
            vectors = output.image_embeds if hasattr(output, "image_embeds") else output.pooler_output
    return vectors.flatten(1)


def _probe(network: Any, pixels: PixelReader, device: torch.device) -> Float32[np.ndarray, "2 d"]:
    """Vectors of two made-up images: a model that cannot read what its processor gives fails here, by name."""
    import torch

    values = torch.linspace(-1, 1, 2 * 3 * pixels.height * pixels.width, device=device)
    with torch.inference_mode():
        return (
            _image_vectors(network, values.view(2, 3, pixels.height, pixels.width).contiguous())
            .float()
            .cpu()
            .numpy()
        )


def _network_folder(folder: Path) -> Path:
    """Where `config.json` is: the folder itself, or the first module of a SentenceTransformer."""
    if is_file(folder / "config.json", ModelFileError):
        return folder
    inner = sorted(path.parent for path in folder.glob("*/config.json"))
    return inner[0] if inner else folder


def _model_type(folder: Path) -> str:
    config = peek_object(folder / "config.json")
    return str(config.get("model_type")) if config is not None else "none stated"


def _snapshot(folder: Path) -> str | None:
    """The commit of a model from the hub's cache, whose folders are named after it."""
    return folder.name if folder.parent.name == "snapshots" else None


def _by_length(sentences: list[str], size: int) -> Iterator[list[int]]:
    order = sorted(range(len(sentences)), key=lambda index: (-len(sentences[index]), index))
    for start in range(0, len(order), size):
        yield order[start : start + size]
