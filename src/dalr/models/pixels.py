"""How does a model read an image? By the model's own settings, with Pillow and without torchvision.

The processors of transformers are named one by one: its Auto classes choose a backend by what is installed, and the
same settings give other pixels with another backend. Only their geometry (resize, crop) is used here; scaling and
normalising happen in the model's batch on its device, so that workers hand over bytes, a quarter of the size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from dalr.errors import ModelFileError, Problem
from dalr.io.paths import regular

if TYPE_CHECKING:
    from PIL.Image import Image

PROCESSORS: tuple[str, ...] = ("CLIP", "ChineseCLIP", "Siglip", "ViT", "DeiT", "ConvNext", "Bit")
"""Families of image processors, `transformers.NAMEImageProcessorPil`, whose images all have one size."""

_STORED_NAME = re.compile(r"(\w+?)(ImageProcessor(Fast|Pil)?|FeatureExtractor)")


@dataclass(frozen=True, kw_only=True)
class PixelReader:
    """Resizes and crops as the model's settings say."""

    processor: Any
    settings: Mapping[str, Any]
    """All of the processor's settings, as the manifest states them."""
    height: int
    width: int
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image) -> UInt8[np.ndarray, "3 height width"]:
        """Pixels of one RGB image."""
        return _pixels(self.processor, image)


def load_pixel_reader(folder: Path, where: str) -> PixelReader:
    """The pixel reader of a model folder.

    Raises:
        ModelFileError: no settings, a processor that is not one of `PROCESSORS`, settings that give images of
            several sizes.
    """
    settings = _stored_settings(folder, where)
    stored = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "none stated")
    match = _STORED_NAME.fullmatch(stored)
    if match is None or match[1] not in PROCESSORS:
        known = ", ".join(f"{name}ImageProcessor" for name in PROCESSORS)
        raise ModelFileError(Problem(where=where, what=f"image processor {stored!r}; expected one of {known}"))
    import transformers

    family = getattr(transformers, f"{match[1]}ImageProcessorPil")
    try:
        processor = family.from_dict({key: value for key, value in settings.items() if key != "auto_map"})
        shapes = {_pixels(processor, _blank(size)).shape for size in ((64, 48), (48, 64), (301, 299))}
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or repr(error)
        what = f"its image processor settings do not work: {reason:.200}"
        raise ModelFileError(Problem(where=where, what=what)) from error
    if len(shapes) != 1:
        sizes = ", ".join(f"{width}x{height}" for _, height, width in sorted(shapes))
        what = f"its image processor gives images of several sizes ({sizes}); expected one, so set a crop or a size"
        raise ModelFileError(Problem(where=where, what=what))
    [(_, height, width)] = shapes
    normalize, rescale = bool(processor.do_normalize), bool(processor.do_rescale)
    return PixelReader(
        processor=processor,
        settings=json.loads(processor.to_json_string()),
        height=height,
        width=width,
        factor=float(processor.rescale_factor) if rescale else 1.0,
        mean=_three(processor.image_mean) if normalize else (0.0, 0.0, 0.0),
        std=_three(processor.image_std) if normalize else (1.0, 1.0, 1.0),
    )


def _stored_settings(folder: Path, where: str) -> dict[str, Any]:
    """The image part of `processor_config.json`, or `preprocessor_config.json`."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        try:
            stored = json.loads(regular(folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise ModelFileError(Problem(where=where, what=f"{folder / name}: not JSON: {error}")) from None
        settings = stored.get("image_processor") if name.startswith("processor") else stored
        if isinstance(settings, dict):
            return settings
    what = f"no preprocessor_config.json in {folder}, so it is not known how an image becomes its input"
    raise ModelFileError(Problem(where=where, what=what))


def _pixels(processor: Any, image: Image) -> UInt8[np.ndarray, "3 _ _"]:
    pixels = processor(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    one: np.ndarray = np.asarray(pixels[0])
    return one


def _blank(size: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.new("RGB", size)


def _three(value: float | list[float] | tuple[float, ...]) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
