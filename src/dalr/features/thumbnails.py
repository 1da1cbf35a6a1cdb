"""How is a photo shown inside a page? As a small JPEG in the page itself, which then loads nothing."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from dalr.features.decoding import ImageRefusedError, locate, read_image

THUMBNAIL = 320
"""Pixels of the longer side."""


def thumbnail(root: Path, name: str, *, side: int = THUMBNAIL) -> str | None:
    """The image `name` below the resolved folder `root` as a data address; None where there is no usable file."""
    try:
        image = read_image(locate(root, name))
    except ImageRefusedError:
        return None
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
