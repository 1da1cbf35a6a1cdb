"""Which images are never trained on: the `holdout` part of a recipe's `data`, and how it chooses them.

An image is on one side for good. With fractions the side is a hash of the image's id, with a file it is what the
file says, so that images which are added or removed next month move no other. The validation images choose the
weights; the test images are read once, at the end. `last` is the older form, the last images of the file, which
play both parts: its sides move when the file grows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from jaxtyping import Int8
from pydantic import Field, model_validator

from dalr.errors import DataError, Problem, Problems
from dalr.io.text import read_lines
from dalr.recipe.section import LEFT_OUT_IF_NONE, Section

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = get_args(Side)
NEAR_DUPLICATES = 0.92
"""Cosine of two images' features from which they count as the same photo. Of 484,000 pairs of Flickr8k photos three
lie above it with CLIP ViT-B/32, one with an EfficientNet: the same scene, seconds apart."""
SPLIT = "split.jsonl"
"""What a run leaves in its folder: the side of every image that it read."""
_Fraction = Annotated[float, Field(gt=0, lt=1)]
_WAYS = "last: N, file: FILE, or test_fraction and validation_fraction"


class HoldoutConfig(Section):
    """Images that are kept out of training, chosen in one of three ways."""

    test_fraction: Annotated[_Fraction | None, LEFT_OUT_IF_NONE] = None
    """Of all images, by a hash of their ids: for the final scores."""
    validation_fraction: Annotated[_Fraction | None, LEFT_OUT_IF_NONE] = None
    """The same, for the score that chooses the weights."""
    file: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    """JSON lines of `image` and `split` (`train`, `validation` or `test`); images that it does not name are trained
    on."""
    last: Annotated[Annotated[int, Field(ge=1, le=1_000_000_000)] | None, LEFT_OUT_IF_NONE] = None
    """So many images at the end of the pairs file, which are validation and test at once."""
    near_duplicates: Annotated[Annotated[float, Field(gt=0, le=1)] | None, LEFT_OUT_IF_NONE] = None
    """Cosine of image features from which a training image counts as a copy of a held-out one; null: 0.92."""
    drop_leaking: Annotated[bool, Field(exclude_if=lambda value: value is False)] = False
    """Take out of training what is also held out: captions, text lines, and near-duplicates of images."""

    @property
    def may_validate(self) -> bool:
        """Whether there may be two or more validation images, which retrieval needs."""
        return self.file is not None or self.validation_fraction is not None or (self.last or 0) > 1

    @property
    def may_test(self) -> bool:
        """The same of test images."""
        return self.file is not None or self.test_fraction is not None or (self.last or 0) > 1

    @model_validator(mode="after")
    def _one_way(self) -> HoldoutConfig:
        fractions = (self.test_fraction or 0) + (self.validation_fraction or 0)
        if [self.last is not None, self.file is not None, fractions > 0].count(True) != 1:
            raise ValueError(f"one way to choose the images: {_WAYS}")
        if fractions >= 1:
            raise ValueError(
                f"test_fraction and validation_fraction that leave images to train on, not {fractions:g}"
            )
        return self


def sides_of(
    images: Sequence[str], config: HoldoutConfig, file: Path | None, where: str, problems: list[Problem]
) -> Int8[np.ndarray, " images"]:
    """The side of every image, an index into `SIDES`, for fractions and files; `config.file` lies at `file`.

    What is wrong is appended to `problems`: a file that cannot be read or names none of the images, a side that was
    asked for and got no image, nothing left to train on.
    """
    if file is not None:
        try:
            named = read_sides(file)
        except DataError as error:
            problems.extend(error.problems)
            return np.zeros(len(images), np.int8)
        found: Iterable[Side] = (named.get(image, "train") for image in images)
        wanted: list[Side] = [side for side in SIDES if side != "train" and side in named.values()]
    else:
        test, validation = config.test_fraction or 0.0, config.validation_fraction or 0.0
        found = (side_by_hash(image, test=test, validation=validation) for image in images)
        wanted = [side for side, share in (("validation", validation), ("test", test)) if share > 0]  # type: ignore[misc]
    sides = np.fromiter(map(SIDES.index, found), np.int8, len(images))
    counts = dict(zip(SIDES, np.bincount(sides, minlength=len(SIDES)).tolist(), strict=True))
    for side in ("train", *wanted):
        if len(images) and not counts[side]:
            said = f"{file} names" if file is not None else "the hash of their ids puts"
            what = f"{said} none of the {len(images)} images on the {side} side; found {_counted(counts)}"
            problems.append(Problem(where=f"{where}: data.holdout", what=what))
    return sides


def side_by_hash(image: str, *, test: float, validation: float) -> Side:
    """The side of an image by its id alone: a number in [0, 1) from SHA-256, below `test` or `test + validation`.

    A larger validation fraction moves no test image, and a larger test fraction takes from validation first.
    """
    place = hash_of(image)
    return "test" if place < test else "validation" if place < test + validation else "train"


def hash_of(image: str) -> float:
    """A number in [0, 1) that depends on the image's id alone."""
    digest = hashlib.sha256(b"dalr holdout " + image.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def read_sides(path: Path) -> dict[str, Side]:
    """The side of each image that a holdout file names.

    Raises:
        DataError: not such a file, with every line that is wrong.
    """
    sides: dict[str, Side] = {}
    problems: list[Problem] = Problems()
    for number, line in enumerate(read_lines(path), start=1):
        try:
            found = json.loads(line)
            image, side = found["image"], found["split"]
        except (ValueError, KeyError, TypeError, RecursionError):
            image = side = None
        if not isinstance(image, str) or side not in SIDES:
            what = f'expected {{"image": ID, "split": one of {", ".join(SIDES)}}}, found {line!r:.80}'
            problems.append(Problem(where=f"{path}:{number}", what=what))
        elif sides.setdefault(image, side) != side:
            what = f"image {image!r} is on the {side} side, and further up on the {sides[image]} side; keep one"
            problems.append(Problem(where=f"{path}:{number}", what=what))
    if problems:
        raise DataError(problems)
    return sides


def side_line(image: str, side: Side) -> str:
    """A line of a holdout file."""
    return json.dumps({"image": image, "split": side}, ensure_ascii=False) + "\n"


def _counted(counts: Mapping[Side, int]) -> str:
    return ", ".join(f"{side} {counts[side]}" for side in SIDES if counts.get(side))
