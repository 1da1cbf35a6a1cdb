"""How are a checkpoint's weights read? Safetensors, or `pytorch_model.bin` read as tensors alone.

This is the one place that opens a pickled file. PyTorch's `weights_only` reader knows tensors and containers and
nothing else: whatever else the pickle names is refused before it is looked up. What it gives is then held against
the file: a few bytes can claim a tensor of any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.errors import ModelFileError, Problem
from dalr.io.paths import entries, exists, is_dir, is_file, regular

if TYPE_CHECKING:
    from torch import Tensor

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
_NEVER_OPENED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.py", "*.ckpt")
_ZIP = b"PK\x03\x04"
_WAY_OUT = "ask its owner for model.safetensors, or save its bare state dict again on a machine that may be lost"


def weights_file(folder: Path) -> Path:
    """The file with the weights; safetensors where there are both.

    Raises:
        ModelFileError: not a folder, or no such file in it.
    """
    if not is_dir(folder, ModelFileError):
        found = "a file" if exists(folder, ModelFileError) else "nothing"
        what = f"expected the folder of a checkpoint (config.json, tokenizer, {PICKLED}), found {found} there"
        raise ModelFileError(Problem(where=str(folder), what=what))
    for name in (SAFE, PICKLED):
        if is_file(folder / name, ModelFileError):
            return folder / name
    found = ", ".join([path.name for path in entries(folder, ModelFileError)][:20]) or "nothing"
    what = f"expected {SAFE} or {PICKLED} (in one piece), found {found}"
    raise ModelFileError(Problem(where=str(folder), what=what))


def never_opened(folder: Path, weights: Path) -> list[str]:
    """Files beside the weights that may hold code, and that nothing opens."""
    found = {path.name for pattern in _NEVER_OPENED for path in folder.glob(pattern) if path != weights}
    return sorted(found)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, as stored.

    Raises:
        ModelFileError: not whole, holding anything but tensors by name, or tensors without their numbers.
    """
    tensors = _read_safe(path) if path.suffix == ".safetensors" else _read_pickled(path)
    strange = [name for name, tensor in tensors.items() if not _is_stored(tensor)]
    if strange:
        what = (
            f"{len(strange)} tensors are not plain arrays with their numbers in this file, such as {strange[0]!r}"
        )
        raise ModelFileError(Problem(where=str(path), what=what))
    return tensors


def _read_safe(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        what = f"not whole safetensors ({error!s:.120}); fetch it again"
        raise ModelFileError(Problem(where=str(path), what=what)) from None


def _read_pickled(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        with open(regular(path), "rb") as file:
            mapped = file.read(len(_ZIP)) == _ZIP  # the format before 2020 is no zip and cannot be mapped
        loaded: Any = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises whatever its reader trips over
        reason = " ".join(str(error).split()) or type(error).__name__
        what = f"not read: it is damaged, or holds more than tensors ({_first_sentence(reason):.200}); {_WAY_OUT}"
        raise ModelFileError(Problem(where=str(path), what=what)) from None
    return _as_tensors(loaded, path)


def _as_tensors(loaded: object, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(loaded, Mapping) or not loaded:
        what = f"expected tensors by name, found {type(loaded).__name__}"
        raise ModelFileError(Problem(where=str(path), what=what))
    foreign = [
        f"{name!r:.60} ({type(value).__name__})"
        for name, value in loaded.items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    ]
    if foreign:
        what = f"expected tensors by name, found {len(foreign)} other things: {', '.join(foreign[:5])}; {_WAY_OUT}"
        raise ModelFileError(Problem(where=str(path), what=what))
    return dict(loaded)


def _is_stored(tensor: Tensor) -> bool:
    import torch

    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _first_sentence(text: str) -> str:
    """The unpickler's reason, without its advice to load the file anyway."""
    _, found, reason = text.partition("WeightsUnpickler error: ")
    return (reason if found else text).split(". ")[0]
