"""What is trained beside the student? Grounding heads, aligners, match classifier, temperatures.

They live in one module under stable names, so that checkpoints, clipping, DDP and resume cover them like any
other parameter (heads kept inside a loss object are optimised but neither saved nor restored).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from dalr.errors import ModelFileError, Problem
from dalr.io.atomic import write_bytes
from dalr.io.paths import regular
from dalr.losses import Need
from dalr.models.config import HeadsConfig
from dalr.models.verification import verify_heads

GROUNDING_SPACE, CLIP_SPACE = "grounding", "clip"
"""A space of trained heads; or that of the image features, into which a trained head maps sentences alone. A heads
file of the second kind says so in its metadata."""
_STUDENT = "student_sha256"
_LENGTH = 8
"""Bytes at the start of a safetensors file that state the length of its header."""
_METADATA = "__metadata__"


class Heads(nn.Module):
    """The heads that an objective needs; absent ones are None.

    Args:
        dimensions: student dimension d and, where features are used, `image` and `clip_text` dimensions.
        needs: what the terms of the objective read.
        temperatures: (start, lowest, highest) of each trained temperature, by term.
    """

    def __init__(
        self,
        config: HeadsConfig,
        *,
        student_dim: int,
        image_dim: int | None,
        clip_text_dim: int | None,
        needs: frozenset[Need],
        temperatures: Mapping[str, tuple[float, float, float]],
    ) -> None:
        super().__init__()
        self.sentence = _projection(student_dim, student_dim) if config.sentence else None
        grounding, self.clip_space = Need.GROUNDING in needs, Need.CLIP_SPACE in needs
        into_space = _affine if self.clip_space else _projection
        self.text_grounding = into_space(student_dim, config.grounding_dim) if grounding else None
        self.image_grounding = self._of_frozen(image_dim, config.grounding_dim) if grounding else None
        clip_text = Need.CLIP_TEXT_GROUNDING in needs
        self.clip_text_grounding = self._of_frozen(clip_text_dim, config.grounding_dim) if clip_text else None
        aligners = Need.ALIGNERS in needs
        self.text_aligner = _aligner(student_dim, config) if aligners else None
        self.image_aligner = _aligner(_known(image_dim), config) if aligners else None
        classifier = Need.MATCH_CLASSIFIER in needs
        self.match_classifier = nn.Linear(3 * config.aligner_dim, 2) if classifier else None
        self.log_temperatures = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(start).log()) for name, (start, _, _) in temperatures.items()}
        )
        self.temperature_bounds = {name: (low, high) for name, (_, low, high) in temperatures.items()}

    def _of_frozen(self, features: int | None, dim: int) -> nn.Module:
        """The grounding head of frozen features: none in CLIP's own space, where they are."""
        if not self.clip_space:
            return _projection(_known(features), dim)
        if _known(features) != dim:
            raise ValueError(
                f"CLIP's space has the dimension of its features, {features}, found grounding_dim {dim}"
            )
        return nn.Identity()

    def sentence_vectors(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """z = tanh(W h + b), or h itself without a sentence head."""
        return h if self.sentence is None else self.sentence(h)

    @property
    def space(self) -> dict[str, str | int] | None:
        """The space that sentences and images are compared in, for the record of a run; None without one."""
        if self.text_grounding is None:
            return None
        [linear] = [part for part in self.text_grounding if isinstance(part, nn.Linear)]
        return {"name": CLIP_SPACE if self.clip_space else GROUNDING_SPACE, "dimension": linear.out_features}

    def temperatures(self) -> dict[str, Float[Tensor, ""]]:
        """Trained temperatures inside their bounds, by term.

        The bounds let the gradient through: a plain clamp has none outside, so one step too far would end the
        training of the temperature.
        """
        return {
            name: _bounded(parameter.exp(), *self.temperature_bounds[name])
            for name, parameter in self.log_temperatures.items()
        }

    def match_logits(self, text: Float[Tensor, "n a"], image: Float[Tensor, "n a"]) -> Float[Tensor, "n 2"]:
        """Two-way logits of pairs from [text; image; text·image]; column 1 is match."""
        assert self.match_classifier is not None
        logits: Tensor = self.match_classifier(torch.cat([text, image, text * image], dim=1))
        return logits


def _bounded(value: Tensor, low: float, high: float) -> Tensor:
    return value + (value.clamp(low, high) - value).detach()


def save_heads(heads: Heads, path: Path, *, student: str | None = None) -> None:
    """Write the heads as safetensors under their stable names, with the fingerprint of the student beside them.

    Equal heads give equal bytes.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}
    metadata = {"format": "dalr-heads-1"} | ({"space": CLIP_SPACE} if heads.clip_space else {})
    metadata |= {_STUDENT: student} if student else {}
    write_bytes(path, _with_ordered_metadata(save(tensors, metadata=metadata)))


def _with_ordered_metadata(data: bytes) -> bytes:
    """The same file with the entries of its metadata sorted; the library writes them in any order."""
    start = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    header = json.loads(data[_LENGTH:start])
    header[_METADATA] = dict(sorted(header[_METADATA].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % _LENGTH)  # numbers begin at a multiple of 8 bytes
    return len(ordered).to_bytes(_LENGTH, "little") + ordered + data[start:]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """One grounding head out of a file: W x + b, and tanh of it where the space is a trained one."""

    weight: Float32[np.ndarray, "g d"]
    bias: Float32[np.ndarray, " g"]
    tanh: bool

    def __call__(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n g"]:
        out: np.ndarray = vectors @ self.weight.T + self.bias
        return np.tanh(out) if self.tanh else out


@dataclass(frozen=True, kw_only=True)
class GroundingHeads:
    """The heads that lead into the space of sentences and images."""

    text: Affine
    image: Affine | None
    """None: the space is that of the image features themselves."""
    where: str
    """The file, for messages."""

    def of_sentences(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n g"]:
        """Vectors of sentences in this space; raises ModelFileError for another dimension."""
        _require_dim(self.where, "text_grounding", self.text.weight.shape[1], vectors)
        return self.text(vectors)

    def of_images(self, vectors: Float[np.ndarray, "m w"]) -> Float[np.ndarray, "m g"]:
        """Vectors of images in this space; raises ModelFileError for another dimension."""
        expected = self.image.weight.shape[1] if self.image is not None else self.text.weight.shape[0]
        _require_dim(self.where, "image_grounding", expected, vectors)
        return self.image(vectors) if self.image is not None else vectors

    @property
    def space(self) -> str:
        """`grounding`, or `clip` where image features are left as they are."""
        return GROUNDING_SPACE if self.image is not None else CLIP_SPACE


def read_grounding(path: Path) -> GroundingHeads | None:
    """The grounding heads of a file of heads; None where its recipe trained none.

    Raises:
        ModelFileError: not a file of heads, or only one of the two.
        CorruptFileError: it is not as its run or checkpoint wrote it.
    """
    from safetensors import SafetensorError, safe_open

    verify_heads(path)
    try:
        with safe_open(regular(path), framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys() if "_grounding." in name}  # noqa: SIM118
            space = (file.metadata() or {}).get("space")
    except (OSError, SafetensorError) as error:
        raise ModelFileError(Problem(where=str(path), what=_unreadable(error))) from None
    if not any(name.startswith(("text_grounding", "image_grounding")) for name in tensors):
        return None

    def affine(head: str) -> Affine:
        weight, bias = tensors.get(f"{head}.0.weight"), tensors.get(f"{head}.0.bias")
        if weight is None or bias is None:
            what = f"no {head} in it; heads of a recipe with grounding are needed"
            raise ModelFileError(Problem(where=str(path), what=what))
        return Affine(weight=weight, bias=bias, tanh=space != CLIP_SPACE)

    return GroundingHeads(
        text=affine("text_grounding"),
        image=affine("image_grounding") if space != CLIP_SPACE else None,
        where=str(path),
    )


def stated_space(path: Path) -> str:
    """`clip` where a file of heads says so, else `grounding`; what is wrong with it is said when it is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(path), framework="np") as file:
            return str((file.metadata() or {}).get("space", GROUNDING_SPACE))
    except (OSError, ValueError, SafetensorError):
        return GROUNDING_SPACE


def load_heads(heads: Heads, path: Path) -> int:
    """Begin with the trained heads of a file; heads that it lacks stay as they are. How many tensors were taken.

    Raises:
        ModelFileError: not a heads file, or heads of other dimensions.
        CorruptFileError: it is not as its run or checkpoint wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    verify_heads(path)
    try:
        found = load_file(regular(path))
    except (OSError, SafetensorError) as error:
        raise ModelFileError(Problem(where=str(path), what=_unreadable(error))) from None
    if (space := stated_space(path)) != (CLIP_SPACE if heads.clip_space else GROUNDING_SPACE):
        what = f"heads of the space {space!r}, and the recipe asks for another (objective.grounding.space)"
        raise ModelFileError(Problem(where=str(path), what=what))
    own = heads.state_dict()
    both = {name: tensor for name, tensor in found.items() if name in own}
    problems = [
        Problem(where=str(path), what=f"{name} is {tuple(tensor.shape)}, and the recipe's {tuple(own[name].shape)}")
        for name, tensor in both.items()
        if tensor.shape != own[name].shape
    ]
    if problems:
        raise ModelFileError(problems)
    heads.load_state_dict(both, strict=False)
    return len(both)


def student_of(path: Path) -> str | None:
    """Fingerprint of the student that heads were trained with; None for heads that do not say it.

    Raises:
        ModelFileError: not a heads file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(path), framework="np") as file:
            return (file.metadata() or {}).get(_STUDENT)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(Problem(where=str(path), what=_unreadable(error))) from None


def ground(
    path: Path, *, sentences: Float[np.ndarray, "n d"], images: Float[np.ndarray, "m w"]
) -> tuple[Float[np.ndarray, "n g"], Float[np.ndarray, "m g"]]:
    """Sentence and image vectors in the space of saved grounding heads.

    Raises:
        ModelFileError: the file has no grounding heads, or heads for vectors of other dimensions.
        CorruptFileError: it is not as its run or checkpoint wrote it.
    """
    heads = required_grounding(path)
    return heads.of_sentences(sentences), heads.of_images(images)


def required_grounding(path: Path) -> GroundingHeads:
    """The grounding heads of a file, which must have some.

    Raises:
        ModelFileError, CorruptFileError: as `ground`.
    """
    heads = read_grounding(path)
    if heads is None:
        what = "no text_grounding in it; heads of a recipe with grounding are needed"
        raise ModelFileError(Problem(where=str(path), what=what))
    return heads


def _require_dim(where: str, head: str, expected: int, vectors: Float[np.ndarray, "n d"]) -> None:
    if vectors.shape[1] != expected:
        what = f"{head} expects vectors of dimension {expected}, found {vectors.shape[1]}"
        raise ModelFileError(Problem(where=where, what=what))


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    """tanh(W x + b)."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh())


def _affine(inputs: int, outputs: int) -> nn.Sequential:
    """W x + b."""
    return nn.Sequential(nn.Linear(inputs, outputs))


def _aligner(inputs: int, config: HeadsConfig) -> nn.Sequential:
    """Linear, norm, ReLU, Linear [, norm, ReLU]: the released names (0, 1, 3, 4) fit."""
    outputs = config.aligner_dim
    layers: list[nn.Module] = [
        nn.Linear(inputs, inputs),
        _norm(inputs, config),
        nn.ReLU(),
        nn.Linear(inputs, outputs),
    ]
    if config.aligner_output == "norm_relu":
        layers += [_norm(outputs, config), nn.ReLU()]
    return nn.Sequential(*layers)


def _norm(dim: int, config: HeadsConfig) -> nn.Module:
    return nn.LayerNorm(dim) if config.aligner_norm == "layer" else nn.BatchNorm1d(dim)


def _known(dim: int | None) -> int:
    if dim is None:
        raise ValueError("a head for image features needs their dimension")
    return dim


def _unreadable(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; trained heads are RUN/heads.safetensors, as in runs/photos/heads.safetensors"
    return f"not a readable heads file: {error}"
