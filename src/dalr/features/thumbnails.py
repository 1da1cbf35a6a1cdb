"""How is a photo shown inside a page? As a small JPEG in the page itself, which then loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import DataError, Problem
from dalr.features.decoding import ImageRefusedError, locate, read_image
from dalr.io.paths import is_dir, is_file, resolve

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


def require_folder(images: Path | None) -> None:
    """Raises DataError where there is no such folder."""
    if images is not None and not is_dir(images):
        raise DataError(Problem(where="--images", what=f"no such folder: {images.absolute()}"))


def not_below(images: Path, names: Sequence[str]) -> list[str]:
    """The images that have no file below a folder; files are not opened."""
    root = resolve(images)

    def there(name: str) -> bool:
        try:
            return is_file(locate(root, name))
        except (ImageRefusedError, DataError):
            return False

    return [name for name in names if not there(name)]


def lacking(images: Path, names: Sequence[str]) -> str | None:
    """What to say where some of the images have no file below a folder.

    Raises:
        DataError: none has.
    """
    if not (missing := not_below(images, names)):
        return None
    advice = "name the folder that the image names are relative to"
    if len(missing) == len(names):
        what = f"none of the {len(names)} images is in {images}, such as {missing[0]!r:.200}; {advice}"
        raise DataError(Problem(where="--images", what=what))
    return f"{len(missing)} of the {len(names)} images are not in {images}, such as {missing[0]!r:.200}"


def thumbnails_shown(shown: int, images: Path | None) -> str:
    """What to say of the thumbnails of a page, and where there are none, why."""
    if shown:
        return f"{shown} thumbnails"
    if images is None:
        return "0 thumbnails; --images DIR adds thumbnails"
    return f"0 thumbnails; none of its images is in {images}: name the folder that image names are relative to"


def data_uri(image: Image, *, side: int = THUMBNAIL) -> str:
    """A small JPEG of an image, as a `src` that needs no file; makes the image itself small."""
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
