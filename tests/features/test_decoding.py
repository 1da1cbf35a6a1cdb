"""R22 and R34: every kind of image file comes out upright and RGB, or with the reason why not."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from dalr.features import decoding
from dalr.features.decoding import ImageRefusedError, decode, locate, read_image
from tiny_images import photo


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(action: Callable[[], object]) -> str:
    with pytest.raises(ImageRefusedError) as caught:
        action()
    return str(caught.value)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header is valid and whose pixels are not there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("CMYK", "JPEG")],
)
def test_every_mode_becomes_rgb_and_shows_the_same_picture(mode: str, kind: str) -> None:
    original = photo(1, mode="RGB" if mode in ("RGB", "RGBA", "CMYK", "P") else "L")
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(original.convert(mode), kind, **options))
    assert (image.mode, image.size) == ("RGB", original.size)
    difference = np.asarray(image).astype(int) - np.asarray(original.convert("RGB"))
    assert np.abs(difference).mean() < (130 if mode == "1" else 20)


def test_sixteen_bits_keep_their_range() -> None:
    """Pillow's own conversion cuts at 255, which turns all but the darkest pixels white."""
    values = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for kind in ("PNG", "TIFF"):
        grey = np.asarray(decode(encoded(Image.fromarray(values), kind)))[..., 0]
        assert np.array_equal(grey, values // 257)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_an_agreed_white_are_refused(dtype: type) -> None:
    data = encoded(Image.fromarray(np.full((4, 4), 70_000, dtype)), "TIFF")
    assert "no defined white level" in reason(lambda: decode(data))


def test_transparent_pixels_become_white() -> None:
    see_through = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([9] * 768)
    for data in (encoded(see_through, "PNG"), encoded(palette, "PNG", transparency=3)):
        assert np.asarray(decode(data)).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """All eight ways to store one image give that image."""
    upright = photo(2, (24, 16))
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    turned = upright if stored is None else upright.transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(turned, "PNG", exif=exif))
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_a_damaged_exif_block_does_not_condemn_a_whole_picture() -> None:
    data = encoded(photo(3), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert decode(data).size == photo(3).size


def test_the_first_frame_of_an_animation_counts() -> None:
    first, second = photo(4), photo(9)
    for kind in ("GIF", "WEBP", "PNG"):
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        image = decode(encoded(first, kind, save_all=True, append_images=[second], **options))
        near, far = (np.abs(np.asarray(image).astype(int) - np.asarray(one)).mean() for one in (first, second))
        assert near < 15 < far


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_is_refused_by_a_full_decode(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some other library may have set it
    data = encoded(photo(5, (200, 160)), kind)
    assert reason(lambda: decode(data[: len(data) * 2 // 3])).startswith(("cannot be decoded: ", "not one of"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "the other library's setting is left alone"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<!DOCTYPE html><html>Not found</html>", "(starts with '<!DOCTYPE html><')"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not one of JPEG, MPO, PNG"),
        (bytes(range(16, 116)), "not one of JPEG, MPO, PNG"),
    ],
)
def test_what_is_no_picture_is_refused_with_how_it_starts(data: bytes, expected: str) -> None:
    assert expected in reason(lambda: decode(data))


@pytest.mark.parametrize(("side", "shown"), [(10_000, "100.0 Mpx"), (30_000, "900.0 Mpx"), (7_072, "50.0 Mpx")])
def test_too_many_pixels_are_refused_before_decoding(
    side: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    found = reason(lambda: decode(png_claiming(side, side)))
    assert found == f"{shown}, more than the 50 Mpx allowed; not decoded"


def test_a_picture_between_pillows_warning_and_our_limit_is_decoded() -> None:
    assert decode(encoded(Image.new("L", (6_000, 5_000)), "PNG")).size == (6_000, 5_000)


def test_too_many_bytes_are_refused_before_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = tmp_path / "big.jpg"
    with open(big, "wb") as file:
        file.truncate(65 * 2**20)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("was opened"))
    assert reason(lambda: read_image(big)) == "65.0 MB, more than the 64 MB allowed; not opened"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(lambda: read_image(tmp_path / "empty.jpg")) == "empty file"
    assert reason(lambda: read_image(tmp_path)) == "a folder, expected an image file"
    assert reason(lambda: read_image(tmp_path / "pipe.jpg")) == "not a regular file"
    assert reason(lambda: read_image(tmp_path / "gone.jpg")) == "no such file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert "Permission denied" in reason(lambda: read_image(tmp_path / "a.png"))


@given(data=st.data())
@settings(max_examples=150)
def test_damaged_files_give_a_picture_or_a_reason(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    content = bytearray(encoded(photo(6, (16, 16)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageRefusedError):
        assert decode(bytes(content)).mode == "RGB"


class TestPlaces:
    """R34: names from data never become paths outside of the image folder."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "images" / "inner").mkdir(parents=True)
        (tmp_path / "images-private").mkdir()
        for place in ("images/a.jpg", "images/inner/b.jpg", "images-private/c.jpg", "d.jpg"):
            (tmp_path / place).write_bytes(b"x")
        (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "d.jpg")
        (tmp_path / "images" / "fine.jpg").symlink_to(tmp_path / "images" / "a.jpg")
        (tmp_path / "images" / "loop.jpg").symlink_to(tmp_path / "images" / "loop.jpg")
        return (tmp_path / "images").resolve()

    @pytest.mark.parametrize("name", ["a.jpg", "inner/b.jpg", "inner/../a.jpg", "fine.jpg", "C:\\x", "CON", "日本"])
    def test_inside_is_found(self, root: Path, name: str) -> None:
        assert locate(root, name).is_relative_to(root)

    @pytest.mark.parametrize(
        "name", ["../d.jpg", "../../x", "/etc/passwd", "../images-private/c.jpg", "link.jpg", "inner/../../d.jpg"]
    )
    def test_outside_is_never_opened(self, root: Path, name: str) -> None:
        assert reason(lambda: locate(root, name)) == "lies outside the image folder and is not opened"

    @pytest.mark.parametrize("name", ["a\0.jpg", "x" * 300, "loop.jpg", "http://host/x.jpg"])
    def test_names_that_cannot_be_files_are_refused(self, root: Path, name: str) -> None:
        assert reason(lambda: decoding.file_size(locate(root, name))).startswith(
            ("not a file name", "no such file")
        )
