"""How is a photo shown inside a page? As a small JPEG in the page itself, which then loads nothing."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.features.decoding import ImageRefusedError, locate, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 320
"""Pixels of the longer side."""


def thumbnail(root: Path, name: str, *, side: int = THUMBNAIL) -> str | None:
    """A small JPEG of the image `name` below the resolved folder `root`; None where there is no usable file."""
    try:
        return data_uri(read_image(locate(root, name)), side=side)
    except ImageRefusedError:
        return None


def data_uri(image: Image, *, side: int = THUMBNAIL) -> str:
    """A small JPEG of an image, as a `src` that needs no file; makes the image itself small."""
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
