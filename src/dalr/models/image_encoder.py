"""How does an image model from outside the package make image vectors? A class that a plug-in registers.

`--model plugin:NAME` then names it. What it returns is checked, because its vectors go into stores that others rely
on: shape and dtype at every call, and once, on made-up images, that vectors are finite and that each depends on its
image alone. A store states the name, the version and the checksums of the weights.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from dalr.errors import ConfigError, DalrError, ModelFileError, Problem
from dalr.io.paths import is_file
from dalr.io.sealed import file_sha256
from dalr.models.pixels import PixelReader
from dalr.models.reference import PLUGIN
from dalr.recipe.plugins import file_of_plugin, from_entry_points, load_plugins

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

ENTRY_POINTS = "dalr.image_encoders"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SIZES = ((64, 48), (48, 64), (301, 299))
"""Sizes of the made-up images that a new encoder is tried on."""
_SAME = 1e-3
"""How far two vectors of one image may differ, as a fraction of their length."""

T = TypeVar("T", bound=type)


class ImageEncoder(ABC):
    """A frozen image model of your own: image → pixels → vector.

    The constructor gets the `torch.device` to compute on, and sets what is declared here, unless the class does.
    """

    version: str
    """Change it whenever the same image would get another vector: stores of two versions are not mixed."""
    dim: int
    """The length of a vector."""
    height: int
    width: int
    """The size of the pixels."""
    weights: Sequence[Path] = ()
    """The files that the numbers come from, whose checksums stores state."""

    @abstractmethod
    def __init__(self, device: torch.device) -> None: ...

    @staticmethod
    @abstractmethod
    def pixels(image: Image) -> UInt8[np.ndarray, "3 height width"]:
        """The pixels of one upright RGB image; called in the decoding processes, where there is no model."""

    @abstractmethod
    def vectors(self, pixels: UInt8[np.ndarray, "n 3 height width"]) -> Float32[np.ndarray, "n dim"]:
        """The vectors of n images, called without gradients. Scaling of the pixels belongs here."""


_registered: dict[str, type[ImageEncoder]] = {}


def register_image_encoder(name: str) -> Callable[[T], T]:
    """A class decorator: `--model plugin:NAME` is this image encoder from now on.

    Registering a name again replaces the class, as a notebook's cell does that is run twice.

    Raises:
        ConfigError: not a subclass of `dalr.ImageEncoder`, an incomplete one, or a name with other characters.
    """

    def register(kind: T) -> T:
        problems = [] if _NAME.fullmatch(name) else [f"expected lower-case letters, digits and _, found {name!r}"]
        if not (isinstance(kind, type) and issubclass(kind, ImageEncoder)):
            problems.append(f"expected a subclass of dalr.ImageEncoder, found {kind!r}")
        elif inspect.isabstract(kind):
            problems.append(f"{kind.__name__} lacks {', '.join(sorted(kind.__abstractmethods__))}")
        elif not isinstance(inspect.getattr_static(kind, "pixels"), staticmethod):
            problems.append("pixels runs without the model, in the decoding processes: make it a @staticmethod")
        if problems:
            where = f"register_image_encoder({name!r})"
            raise ConfigError([Problem(where=where, what=what) for what in problems])
        _registered[name] = kind
        return kind

    return register


def open_image_encoder(reference: str, device: torch.device) -> CheckedEncoder:
    """The encoder that `plugin:NAME` names, made and tried on made-up images.

    Raises:
        ConfigError: no encoder of this name. ModelFileError: it cannot be made, or returns what it must not.
    """
    name = reference.removeprefix(PLUGIN)
    kind = _kind(name)
    with _named(name, "cannot be made"):
        encoder = kind(device)
        _require_declared(name, encoder)
    reader = _reader(name, kind, encoder.height, encoder.width)
    checked = CheckedEncoder(name=name, encoder=encoder, pixels=reader, device=device, source={})
    unit = _try(checked)
    return CheckedEncoder(
        name=name, encoder=encoder, pixels=reader, device=device, source=_source(name, encoder, unit)
    )


@dataclass(frozen=True, kw_only=True)
class CheckedEncoder:
    """An encoder from outside whose vectors are checked."""

    name: str
    encoder: ImageEncoder
    pixels: PixelReader
    device: torch.device
    source: dict[str, Any]
    """As `VisionModel.source`."""

    def vectors(self, pixels: UInt8[np.ndarray, "n 3 height width"]) -> Float32[np.ndarray, "n d"]:
        """Vectors of the right shape and dtype; one that is not finite is left to whoever knows its image.

        Raises:
            ModelFileError: what was expected and what was found.
        """
        import torch

        with _named(self.name, "vectors() failed"), torch.inference_mode():
            found: object = self.encoder.vectors(pixels)
        shape = (len(pixels), self.encoder.dim)
        if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != shape:
            raise _wrong(self.name, f"vectors() must return a float32 array {shape}, found {_described(found)}")
        return found


@dataclass(frozen=True, kw_only=True)
class PluginPixels(PixelReader):
    """Reads an image as an encoder from outside does, in any process."""

    name: str

    def __call__(self, image: Image) -> UInt8[np.ndarray, "3 height width"]:
        with _named(self.name, "pixels() failed"):
            found: object = self.processor.pixels(image)
        shape = (3, self.height, self.width)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != shape:
            raise _wrong(self.name, f"pixels() must return a uint8 array {shape}, found {_described(found)}")
        return found

    def __reduce__(self) -> tuple[Callable[..., PluginPixels], tuple[Any, ...]]:
        """A process that does not inherit the modules of this one loads the plug-in's file first."""
        if (file := file_of_plugin(self.processor)) is not None:
            return _reader_of_file, (file, self.name, self.height, self.width)
        return _reader, (self.name, self.processor, self.height, self.width)


def _reader(name: str, kind: type[ImageEncoder], height: int, width: int) -> PluginPixels:
    settings = {"height": height, "width": width}
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return PluginPixels(
        name=name, processor=kind, settings=settings, height=height, width=width, factor=1.0, mean=zero, std=one
    )


def _reader_of_file(file: str, name: str, height: int, width: int) -> PluginPixels:
    load_plugins([file])
    return _reader(name, _kind(name), height, width)


def _kind(name: str) -> type[ImageEncoder]:
    if name not in _registered:
        for found in from_entry_points(ENTRY_POINTS, name):
            register_image_encoder(name)(found)
    if name in _registered:
        return _registered[name]
    known = f"registered: {', '.join(sorted(_registered))}" if _registered else "none is"
    what = f"no image encoder {name!r} is registered ({known}); name the file that does it with --plugin FILE"
    raise ConfigError(Problem(where=f"model {PLUGIN + name!r}", what=what))


def _require_declared(name: str, encoder: ImageEncoder) -> None:
    """Refuse attributes that are not there or not what they must be; all of them at once."""

    def found(attribute: str) -> object:
        return getattr(encoder, attribute, None)

    problems = [
        f"{key} must be a whole number above 0, found {found(key)!r}"
        for key in ("dim", "height", "width")
        if type(found(key)) is not int or getattr(encoder, key) < 1
    ]
    version, weights = found("version"), found("weights")
    if not isinstance(version, str) or not version.strip():
        problems.append(f"version must be a text such as '1', found {version!r}")
    if not isinstance(weights, list | tuple) or not all(isinstance(path, Path) for path in weights):
        problems.append(f"weights must be a list of Path, found {weights!r:.200}")
    else:
        problems += [f"weights: no such file: {path}" for path in weights if not is_file(path, ModelFileError)]
    if problems:
        raise ModelFileError([Problem(where=f"model {PLUGIN + name!r}", what=what) for what in problems])


def _try(checked: CheckedEncoder) -> bool:
    """Try an encoder on made-up images; whether its vectors have unit length.

    Raises:
        ModelFileError: it fails, or a vector is not finite or changes with the other images of its batch.
    """
    pixels = np.stack([checked.pixels(image) for image in _made_up()])
    vectors = checked.vectors(pixels.copy())
    alone = checked.vectors(np.repeat(pixels[:1], len(pixels), axis=0))
    if not (np.isfinite(vectors).all() and np.isfinite(alone).all()):
        raise _wrong(checked.name, "vectors() returns values that are not finite for a made-up image")
    if float(np.linalg.norm(alone - vectors[0], axis=1).max()) > _SAME * float(np.linalg.norm(vectors[0])):
        what = (
            "vectors() gives an image another vector when the other images of the batch change; it must depend on "
            "its image alone: is the network in eval mode, without dropout and without batch statistics?"
        )
        raise _wrong(checked.name, what)
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4))


def _made_up() -> Iterator[Image]:
    from PIL import Image

    random = np.random.default_rng(0)
    for width, height in _SIZES:
        yield Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def _source(name: str, encoder: ImageEncoder, unit: bool) -> dict[str, Any]:
    weights = [[path.name, file_sha256(path)] for path in encoder.weights]
    stated = [name, encoder.version, encoder.dim, encoder.height, encoder.width, [sha256 for _, sha256 in weights]]
    return {
        "model": PLUGIN + name,
        "revision": None,
        "sha256": hashlib.sha256(json.dumps(stated).encode()).hexdigest(),
        "version": encoder.version,
        "weights": weights,
        "output": "plug-in",
        "normalized": unit,
        "processor": {"height": encoder.height, "width": encoder.width},
    }


@contextmanager
def _named(name: str, what: str) -> Iterator[None]:
    """What somebody else's code raises becomes an error that names it."""
    try:
        yield
    except DalrError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise _wrong(name, f"{what}: {type(error).__name__}: {reason:.300}") from error


def _wrong(name: str, what: str) -> ModelFileError:
    return ModelFileError(Problem(where=f"model {PLUGIN + name!r}", what=what))


def _described(found: object) -> str:
    if isinstance(found, np.ndarray):
        return f"{found.dtype} {found.shape}"
    kind = type(found)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
