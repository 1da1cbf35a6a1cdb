"""What is trained beside the student? Grounding heads, aligners, match classifier, temperatures.

They live in one module under stable names, so that checkpoints, clipping, DDP and resume cover them like any
other parameter (heads kept inside a loss object are optimised but neither saved nor restored).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalr.errors import ModelFileError, Problem
from dalr.io.atomic import write_with
from dalr.io.paths import regular
from dalr.losses import Need
from dalr.models.config import HeadsConfig
from dalr.models.verification import verify_heads

_STUDENT = "student_sha256"


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
        grounding = Need.GROUNDING in needs
        self.text_grounding = _projection(student_dim, config.grounding_dim) if grounding else None
        self.image_grounding = _projection(_known(image_dim), config.grounding_dim) if grounding else None
        clip_text = Need.CLIP_TEXT_GROUNDING in needs
        self.clip_text_grounding = _projection(_known(clip_text_dim), config.grounding_dim) if clip_text else None
        aligners = Need.ALIGNERS in needs
        self.text_aligner = _aligner(student_dim, config) if aligners else None
        self.image_aligner = _aligner(_known(image_dim), config) if aligners else None
        classifier = Need.MATCH_CLASSIFIER in needs
        self.match_classifier = nn.Linear(3 * config.aligner_dim, 2) if classifier else None
        self.log_temperatures = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(start).log()) for name, (start, _, _) in temperatures.items()}
        )
        self.temperature_bounds = {name: (low, high) for name, (_, low, high) in temperatures.items()}

    def sentence_vectors(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """z = tanh(W h + b), or h itself without a sentence head."""
        return h if self.sentence is None else self.sentence(h)

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
    """Write the heads as safetensors under their stable names, with the fingerprint of the student beside them."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}
    write_with(
        path,
        lambda temporary: save_file(
            tensors, temporary, metadata={"format": "dalr-heads-1"} | ({_STUDENT: student} if student else {})
        ),
    )


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
        raise ModelFileError(Problem(where=str(path), what=f"not a readable heads file: {error}")) from None
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
        raise ModelFileError(Problem(where=str(path), what=f"not a readable heads file: {error}")) from None


def ground(
    path: Path, *, sentences: Float[np.ndarray, "n d"], images: Float[np.ndarray, "m w"]
) -> tuple[Float[np.ndarray, "n g"], Float[np.ndarray, "m g"]]:
    """Sentence and image vectors in the grounding space of saved heads: tanh(W x + b) of each.

    Raises:
        ModelFileError: the file has no grounding heads, or heads for vectors of other dimensions.
        CorruptFileError: it is not as its run or checkpoint wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    verify_heads(path)
    try:
        tensors = load_file(regular(path))
    except (OSError, SafetensorError) as error:
        raise ModelFileError(Problem(where=str(path), what=f"not a readable heads file: {error}")) from None
    grounded = []
    for head, vectors in (("text_grounding", sentences), ("image_grounding", images)):
        weight, bias = tensors.get(f"{head}.0.weight"), tensors.get(f"{head}.0.bias")
        if weight is None or bias is None:
            what = f"no {head} in it; heads of a recipe with grounding are needed"
            raise ModelFileError(Problem(where=str(path), what=what))
        if weight.shape[1] != vectors.shape[1]:
            what = f"{head} expects vectors of dimension {weight.shape[1]}, found {vectors.shape[1]}"
            raise ModelFileError(Problem(where=str(path), what=what))
        grounded.append(np.tanh(vectors @ weight.T + bias))
    return grounded[0], grounded[1]


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    """tanh(W x + b)."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh())


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
