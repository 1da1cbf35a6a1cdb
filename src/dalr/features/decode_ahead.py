"""How are images decoded ahead of the model? By worker processes, in order.

Processes, because half of the work holds Python's lock, and because a decoder that crashes on a hostile file then
takes a worker along instead of the run. Batches come back through a pipe rather than in shared memory, of which
containers often have 64 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset

from dalr.errors import DataError, Problem
from dalr.features.decoding import (
    MAX_PIXELS,
    ImageRefusedError,
    decode,
    max_bytes,
    read_image_file,
    reason_of,
)
from dalr.features.store import digest
from dalr.io.shards import Member, read_member
from dalr.models.device import usable_cores
from dalr.models.pixels import PixelReader

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Files that meet in one batch of the model, each with the number of its image."""

    files: tuple[tuple[int, Path | Member], ...]


@dataclass(frozen=True, kw_only=True)
class DecodedBatch:
    """What came of the files of a batch."""

    numbers: tuple[int, ...]
    """Numbers of the images in `pixels`."""
    pixels: UInt8[np.ndarray, "n 3 height width"]
    contents: tuple[str, ...]
    """Digests of the files whose images are in `pixels`."""
    refused: dict[int, str]
    """Number of an image -> why it cannot be used."""


def decoded_ahead(
    batches: Sequence[ImageBatch],
    reader: PixelReader,
    *,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[DecodedBatch]:
    """The batches decoded, in order. `workers` None takes one a core; 0 decodes in this process, when asked.

    Raises:
        DataError: a worker died, naming the images that it may have died of.
    """
    count = min(available_cores() if workers is None else workers, len(batches))
    loader: DataLoader[Any] = DataLoader(
        _Decoding(batches, reader, max_pixels),
        batch_size=None,
        num_workers=count,
        prefetch_factor=2 if count else None,
        collate_fn=_unchanged,
    )
    stream = iter(loader)
    for number in range(len(batches)):
        try:
            yield next(stream)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            ahead = batches[number : number + 2 * count]
            first, last = ahead[0].files[0][1], ahead[-1].files[-1][1]
            what = (
                "a decoding process was killed (too little memory, or a file that crashes the decoder) "
                f"between this image and {last}; what is sealed is kept: rerun with --resume --workers 1"
            )
            raise DataError(Problem(where=str(first), what=what)) from None


def available_cores() -> int:
    """Cores that this process may use, at most 16."""
    return min(usable_cores(), _MAX_WORKERS)


class _Decoding(Dataset[DecodedBatch]):
    def __init__(self, batches: Sequence[ImageBatch], reader: PixelReader, max_pixels: int) -> None:
        self.batches, self.reader, self.max_pixels = batches, reader, max_pixels

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> DecodedBatch:
        pixels: list[np.ndarray] = []
        numbers: list[int] = []
        contents: list[str] = []
        refused: dict[int, str] = {}
        for number, path in self.batches[index].files:
            try:
                data = _bytes_of(path, self.max_pixels)
                pixels.append(self._read(data, path))
                numbers.append(number)
                contents.append(digest(data))
            except ImageRefusedError as error:
                refused[number] = str(error)
            except Exception as error:  # noqa: BLE001 - a processor raises whatever it meets on a size it cannot make
                refused[number] = f"cannot be resized: {reason_of(error):.150}"
        shape = (0, 3, self.reader.height, self.reader.width)
        return DecodedBatch(
            numbers=tuple(numbers),
            pixels=np.stack(pixels) if pixels else np.empty(shape, np.uint8),
            contents=tuple(contents),
            refused=refused,
        )

    def _read(self, data: bytes, path: Path | Member) -> np.ndarray:
        """The pixels that the model sees; a method, so that an image is freed before the next one is decoded."""
        try:
            image = decode(data, max_pixels=self.max_pixels)
        except ImageRefusedError as refused:
            if isinstance(path, Member):  # whose id does not say where it is
                raise ImageRefusedError(f"{refused} ({path})") from None
            raise
        _require_resizable(image, self.reader)
        return self.reader(image)


def _bytes_of(path: Path | Member, max_pixels: int) -> bytes:
    """The bytes of an image file or of a member of a shard; raises as `read_image_file`."""
    if not isinstance(path, Member):
        return read_image_file(path, max_pixels=max_pixels)
    try:
        return read_member(path, most=max_bytes(max_pixels))
    except DataError as error:
        raise ImageRefusedError(error.problems[0].what) from None


def _require_resizable(image: Image, reader: PixelReader) -> None:
    """A very narrow image would have billions of pixels once its shorter side fits the model."""
    long, short = max(image.size), max(min(image.size), 1)
    if long / short * reader.height * reader.width > MAX_PIXELS:
        what = (
            f"cannot be resized: {image.width} x {image.height} pixels, too elongated for the model's square input"
        )
        raise ImageRefusedError(what)


def _unchanged(batch: Any) -> Any:
    return batch
