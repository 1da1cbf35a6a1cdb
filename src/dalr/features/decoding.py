"""How does an image file become upright RGB pixels, and when is it refused?

Only a full decode finds a truncated file, so every file is decoded to its last byte. Limits on bytes and pixels are
checked before that, from the file's size and its header: a few kilobytes can claim gigabytes. Formats are a closed
list, because some that Pillow reads start other programs. Of an animation the first frame counts; transparency
becomes white, 16 bits become 8, and EXIF orientation is applied, as a viewer shows the image.
"""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dalr.errors import DataError
from dalr.io.lfs import LFS_ADVICE, LFS_BEGINNING
from dalr.io.paths import exists, regular, resolve

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")
MAX_PIXELS = 50_000_000
MAX_SIDE = 1_000_000
"""Pillow keeps a pointer for each row: fifty million rows of one pixel take a gigabyte."""
MAX_BYTES = 64 * 2**20
MPX_ALLOWED = "Mpx allowed"
OUTSIDE = "lies outside the image folder and is not opened"
_ORIENTATION = 0x0112


class ImageRefusedError(Exception):
    """One image cannot be used; its text is the reason. It is counted and listed, never raised to the user."""


def locate(root: Path, name: str, follow: Path | None = None) -> Path:
    """The file that `name` means below the resolved folder `root`.

    Symbolic links are followed inside `root`, and into the resolved folder `follow` where there is one; the name
    itself never leads out of `root`. Where there is no such file but one whose name is the same text in another
    Unicode form (macOS writes é as two characters), that one is meant.

    Raises:
        ImageRefusedError: it lies outside of these folders, or cannot be a path.
    """
    try:
        path = (root / name).resolve()
        if not path.exists():
            path = _in_another_form(root, name) or path
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageRefusedError(f"not a file name: {reason_of(error)}") from None
    if path.is_relative_to(root):
        return path
    named_inside = Path(os.path.normpath(root / name)).is_relative_to(root)
    if follow is not None and named_inside and path.is_relative_to(follow):
        return path
    raise ImageRefusedError(OUTSIDE)


def _in_another_form(root: Path, name: str) -> Path | None:
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, name)
        if other != name:
            with suppress(DataError):  # what is wrong with it is said of the name itself
                if exists(path := resolve(root / other)):
                    return path
    return None


def file_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> int:
    """Bytes of an image file, from its directory entry.

    Raises:
        ImageRefusedError: missing, not a regular file, empty, or larger than `max_bytes`.
    """
    return checked_size(stat_of(path), max_pixels=max_pixels)


def max_bytes(max_pixels: int) -> int:
    """The largest file that is opened: `MAX_BYTES`, and more where more pixels are allowed."""
    return max(MAX_BYTES, MAX_BYTES * max_pixels // MAX_PIXELS)


def stat_of(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise ImageRefusedError("no such file") from None
    except (OSError, ValueError) as error:
        raise ImageRefusedError(f"not a file name: {reason_of(error)}") from None


def checked_size(status: os.stat_result, *, max_pixels: int = MAX_PIXELS) -> int:
    if stat.S_ISDIR(status.st_mode):
        raise ImageRefusedError("a folder, expected an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageRefusedError("not a regular file")
    if status.st_size == 0:
        raise ImageRefusedError("empty file")
    if status.st_size > (most := max_bytes(max_pixels)):
        size = f"{status.st_size / 2**20:.1f} MB"
        raise ImageRefusedError(f"{size}, more than the {most // 2**20} MB allowed; not opened")
    return status.st_size


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image:
    """The image in a file, upright, RGB, fully decoded.

    Raises:
        ImageRefusedError: with the reason.
    """
    return decode(read_image_file(path, max_pixels=max_pixels), max_pixels=max_pixels)


def read_image_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file; raises as `read_image`."""
    file_size(path, max_pixels=max_pixels)
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise ImageRefusedError(f"cannot be read: {reason_of(error)}") from None


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """The image in these bytes, upright, RGB, fully decoded; raises as `read_image`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with _strict_pillow(max_pixels):
            image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
            _refuse_many_pixels(image.width * image.height, max_pixels)
            if max(image.size) > MAX_SIDE:
                what = (
                    f"cannot be decoded: {image.width} x {image.height} pixels, at most {MAX_SIDE:,} a side allowed"
                )
                raise ImageRefusedError(what)
            image.load()
            return _upright(_as_rgb(image), image)
    except ImageRefusedError:
        raise
    except UnidentifiedImageError:
        if data.startswith(LFS_BEGINNING):
            raise ImageRefusedError(LFS_ADVICE) from None
        start = data[:16].decode("ascii", "replace").replace("\ufffd", "?")
        raise ImageRefusedError(f"not one of {', '.join(FORMATS)} (starts with {start!r})") from None
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))
        _refuse_many_pixels(int(number[0]) if number else max_pixels + 1, max_pixels)
        raise ImageRefusedError(reason_of(error)) from None
    except Exception as error:  # noqa: BLE001 - decoders raise a dozen kinds; each means that this file is broken
        raise ImageRefusedError(f"cannot be decoded: {reason_of(error)}") from None


def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _strict_pillow(max_pixels: int) -> Iterator[None]:
    """Pillow's own settings for the time of one decode: no truncated files, and our limit inside containers too."""
    from PIL import Image, ImageFile

    kept = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow warns above this number and refuses above its double
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF of a whole image, sizes between the two limits
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = kept


def _refuse_many_pixels(count: int, most: int) -> None:
    if count > most:
        what = f"{count / 1e6:.1f} Mpx, more than the {most // 10**6} {MPX_ALLOWED}; not decoded"
        raise ImageRefusedError(what)


def _as_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.has_transparency_data:
        visible = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, visible).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image) -> Image:
    """16 bits to 8 by the range of the format; Pillow's own conversion cuts at 255 and gives white."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageRefusedError(f"{kind} pixels have no defined white level; convert the image to 8 or 16 bits")
    return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")


def _upright(rgb: Image, original: Image) -> Image:
    from PIL import Image

    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(_orientation(original))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image) -> int:
    """The EXIF orientation; an image whose EXIF block is damaged has none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - as decoders, the EXIF reader raises whatever it meets
        return 1


def reason_of(error: BaseException) -> str:
    """What an error says in one line; its kind where it says nothing."""
    if isinstance(error, MemoryError):
        return f"too little memory ({str(error)[:100]})" if str(error) else "too little memory"
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return str(text)[:200]
