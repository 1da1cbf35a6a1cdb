"""What is a recipe's training data? All of it, read and checked before any model is loaded.

Every problem of every file is reported at once; what is found without being wrong (duplicates, images held out,
lines dropped on request) is counted in a report that goes into `run.json`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from dalr.data.config import DataConfig
from dalr.data.formats import read_pairs_file
from dalr.data.formats.collecting import MOST_WRONG
from dalr.data.holdout import SIDES, Side, sides_of
from dalr.data.memory import IN_MEMORY
from dalr.data.reading import Reading
from dalr.data.rows import (
    CaptionedImage,
    CaptionedImages,
    CaptionIds,
    Pairs,
    Sentences,
    Text,
    comparable,
    has_surrogate,
    is_blank,
)
from dalr.errors import DataError, Problem, Problems
from dalr.io.strings import Strings, keys_of, repeated_rows
from dalr.io.text import iter_lines
from dalr.seed import generator

_AS_IT_IS = Reading()
_TOO_MANY = f"{MOST_WRONG} empty lines so far; the rest was not read: the file may be of another kind"
_EMPTY_LINE = "empty line; remove it or set data.on_empty: drop"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a recipe trains on."""

    pairs: Pairs | None
    held_out: Pairs | None
    """Captions of all images that are never trained on."""
    text: Text | None
    report: dict[str, int | str] = field(default_factory=dict)
    validation: Pairs | None = None
    """Of the held-out captions, those that may choose the weights."""
    test: Pairs | None = None
    """Those for the final scores; with `holdout.last` the same ones."""

    def sides(self) -> Iterator[tuple[str, Side]]:
        """The side of every image; with `holdout.last` a held-out image is on the test side."""
        several: tuple[tuple[Side, Pairs | None], ...] = (
            ("train", self.pairs),
            ("validation", self.validation if self.validation is not self.test else None),
            ("test", self.test),
        )
        return ((name, side) for side, pairs in several if pairs is not None for name in pairs.image_names)

    @cached_property
    def streams(self) -> tuple[Sentences, ...]:
        """What is trained on, by kind: text, then captions."""
        return tuple(each.stream for each in (self.text, self.pairs) if each is not None)


def load_dataset(
    config: DataConfig,
    *,
    seed: int,
    pairs: CaptionedImages | None = None,
    text: Sequence[str] | None = None,
) -> Dataset:
    """Read the files that `config` names, or take rows that are in memory in their place.

    Raises:
        DataError: with every problem found in all files.
    """
    problems: list[Problem] = []
    report: dict[str, int | str] = {}
    split = _Split()
    lines = None
    if pairs is not None or config.pairs is not None:
        if pairs is not None:
            everything = checked_pairs(pairs, IN_MEMORY, problems, report, on_empty=config.on_empty)
        else:
            everything = read_pairs(
                config.path(str(config.pairs)), problems, report, on_empty=config.on_empty, reading=config.reading
            )
        split = _split(everything, config, problems, report)
    if text is not None:
        lines = checked_text(text, IN_MEMORY, problems, report, on_empty=config.on_empty)
    elif config.text is not None:
        lines = read_text(config.path(config.text), problems, report, on_empty=config.on_empty)
    training = split.training
    if config.holdout is not None and config.holdout.drop_leaking and split.held_out is not None:
        training, lines = _without_leaks(split, lines, problems, report)
    if training is not None:
        training = _drawn(training, config, seed, report)
    if problems:
        raise DataError(problems)
    return Dataset(
        pairs=training,
        held_out=split.held_out,
        validation=split.validation,
        test=split.test,
        text=lines,
        report=report,
    )


def read_pairs(
    path: Path,
    problems: list[Problem],
    report: dict[str, int | str],
    *,
    on_empty: Literal["error", "drop"] = "error",
    reading: Reading = _AS_IT_IS,
) -> Pairs:
    """The checked pairs of one file; what is wrong is appended to `problems`."""
    wrong = Problems()
    rows = read_pairs_file(path, wrong, format=reading.format, columns=reading.columns)
    rows = _of_splits(rows, reading.split, str(path), wrong, report)
    if not rows and wrong:
        problems.extend(wrong)
        return _pairs(rows, np.empty(0, bool), np.empty(0, bool))  # why is said
    pairs = checked_pairs(rows, str(path), wrong, report, on_empty=on_empty)
    problems.extend(wrong)
    return pairs


def checked_pairs(
    rows: CaptionedImages,
    where: str,
    problems: list[Problem],
    report: dict[str, int | str],
    *,
    on_empty: Literal["error", "drop"] = "error",
) -> Pairs:
    """Rows as pairs; what is wrong is appended to `problems`."""
    before = len(problems)
    again = dict(repeated_rows(rows.names, keys_of(rows.names)))
    kept = np.ones(len(rows.captions), bool)
    place = dropped = 0
    for number, row in enumerate(rows):
        captions = slice(place, place := place + len(row.captions))
        if number in again:
            what = f"occurs twice (first at {rows.where[again[number]]}); put its captions together"
            problems.append(Problem(where=row.where, what=f"image {row.image!r} {what}"))
            kept[captions] = False
            continue
        problems.extend(_caption_problems(row, on_empty))
        for place_of, caption in enumerate(row.captions, start=captions.start):
            if is_blank(caption):
                kept[place_of] = False
                dropped += 1
    single = np.ones(len(rows), bool)
    single[list(again)] = False
    pairs = _pairs(rows, single, kept)
    if not len(pairs.captions) and len(problems) == before:
        problems.append(Problem(where=where, what="no caption in it" if rows else "no pairs in it"))
    report |= {
        "pairs_file": where,
        "images": len(pairs.images),
        "captions": len(pairs.captions),
        "captions_dropped_empty": dropped,
        "captions_repeated": _repetitions(pairs.keys),
    }
    return pairs


def _pairs(
    rows: CaptionedImages,
    images: Bool[np.ndarray, " images"],
    captions: Bool[np.ndarray, " captions"],
) -> Pairs:
    """These of the images and captions of a file."""
    kind = np.dtype(np.int32 if len(captions) < 2**31 else np.int64)  # half the memory, but for billions
    counts = np.diff(rows.starts)
    image_of = np.repeat((np.cumsum(images) - 1).astype(kind), counts)
    numbers = np.arange(len(captions), dtype=kind)
    np.subtract(numbers, np.repeat(rows.starts[:-1].astype(kind), counts), out=numbers)
    names = rows.names if images.all() else rows.names.take(np.flatnonzero(images))
    ids = CaptionIds(images=names, image_of=image_of, numbers=numbers)
    sentences = rows.captions
    if not captions.all():
        place = np.flatnonzero(captions)
        ids, sentences = ids.take(place), sentences.take(place)
    return Pairs(
        images=names,
        captions=sentences,
        caption_ids=ids,
        image_of=ids.image_of,
        keys=keys_of(map(comparable, sentences)),
    )


def read_text(
    path: Path,
    problems: list[Problem],
    report: dict[str, int | str],
    *,
    on_empty: Literal["error", "drop"] = "error",
) -> Text:
    """The checked lines of one text file; what is wrong is appended to `problems`."""
    try:
        return checked_text(iter_lines(path), str(path), problems, report, on_empty=on_empty)
    except DataError as error:
        problems.extend(error.problems)
        return checked_text((), str(path), [], {})


def checked_text(
    lines: Iterable[str],
    where: str,
    problems: list[Problem],
    report: dict[str, int | str],
    *,
    on_empty: Literal["error", "drop"] = "error",
) -> Text:
    """Lines as text; what is wrong is appended to `problems`."""
    numbers = array("q")
    blank, empty = 0, Problems()

    def sentences() -> Iterator[str]:
        nonlocal blank
        for number, line in enumerate(lines, start=1):
            if line and not is_blank(line):
                numbers.append(number)
                yield line
                continue
            blank += 1
            if on_empty == "error":
                empty.append(Problem(where=f"{where}:{number}", what=_EMPTY_LINE))
                if blank >= MOST_WRONG:
                    empty.append(Problem(where=f"{where}:{number}", what=_TOO_MANY))
                    return

    kept = Strings.of(sentences())
    problems.extend(empty)
    if not numbers:
        problems.append(Problem(where=where, what="no sentence in it"))
    text = Text(lines=kept, numbers=np.array(numbers, np.int64), keys=keys_of(map(comparable, kept)))
    report |= {
        "text_file": where,
        "text_lines": len(text.lines),
        "text_dropped_empty": blank,
        "text_repeated": _repetitions(text.keys),
    }
    return text


def _of_splits(
    rows: CaptionedImages,
    wanted: str | tuple[str, ...] | None,
    where: str,
    problems: list[Problem],
    report: dict[str, int | str],
) -> CaptionedImages:
    """The images of the wanted splits; to train on all splits of a file is never taken for granted."""
    counts = np.bincount(rows.split_of, minlength=len(rows.splits)).tolist()
    found = {name: count for name, count in zip(rows.splits, counts, strict=True) if count}
    named = sorted(name for name in found if name is not None)
    listed = ", ".join(f"{name or '(none)'} {count}" for name, count in found.items())
    if named:
        report["images_by_split"] = listed
    if wanted == "all" or not rows:
        return rows
    if wanted is None:
        if len(found) > 1:
            what = f"has the splits {listed} (images); choose with data.split: NAME, or data.split: all"
            problems.append(Problem(where=where, what=what))
        return rows
    names = (wanted,) if isinstance(wanted, str) else wanted
    for name in names:
        if name not in named:
            what = f"no image of split {name!r}; " + (f"found {listed}" if named else "this file names no splits")
            problems.append(Problem(where=where, what=what))
    of_wanted = [number for number, name in enumerate(rows.splits) if name in names]
    return rows.take(np.flatnonzero(np.isin(rows.split_of, of_wanted)))


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The captions on each side."""

    training: Pairs | None = None
    validation: Pairs | None = None
    test: Pairs | None = None
    held_out: Pairs | None = None


def _split(everything: Pairs, config: DataConfig, problems: list[Problem], report: dict[str, int | str]) -> _Split:
    """Training captions and the captions of the held-out images."""
    holdout, where = config.holdout, str(report.get("pairs_file", ""))
    if holdout is None:
        report["images_held_out"] = 0
        return _Split(training=everything)
    if holdout.last is not None:
        count = len(everything.images)
        if holdout.last >= count > 0:
            what = f"data.holdout.last is {holdout.last}, but there are only {count} images"
            problems.append(Problem(where=where, what=what))
            return _Split(training=everything)
        border = count - holdout.last
        held_out = everything.subset(np.flatnonzero(everything.image_of >= border))
        training = everything.subset(np.flatnonzero(everything.image_of < border))
        report["images_held_out"] = holdout.last
        return _Split(training=training, validation=held_out, test=held_out, held_out=held_out)
    file = config.path(holdout.file) if holdout.file is not None else None
    sides = sides_of(everything.images, holdout, file, where, problems)
    side_of = sides[everything.image_of]
    parts = {side: everything.subset(np.flatnonzero(side_of == SIDES.index(side))) for side in SIDES}
    counts = dict(zip(SIDES, np.bincount(sides, minlength=len(SIDES)).tolist(), strict=True))
    report |= {
        "images_held_out": len(sides) - counts["train"],
        "images_for_validation": counts["validation"],
        "images_for_test": counts["test"],
    }
    return _Split(
        training=parts["train"],
        validation=parts["validation"] if counts["validation"] else None,
        test=parts["test"] if counts["test"] else None,
        held_out=everything.subset(np.flatnonzero(side_of != SIDES.index("train"))),
    )


def _without_leaks(
    split: _Split, lines: Text | None, problems: list[Problem], report: dict[str, int | str]
) -> tuple[Pairs | None, Text | None]:
    """Training captions and text without the sentences that are also held-out captions."""
    training, held_out = split.training, split.held_out
    assert training is not None
    assert held_out is not None
    kept = np.flatnonzero(~np.isin(training.keys, held_out.keys))
    report["captions_dropped_leaking"] = len(training.captions) - len(kept)
    if not len(kept) and len(training.captions):
        what = "data.holdout.drop_leaking leaves no caption: every one is also the caption of a held-out image"
        problems.append(Problem(where=str(report.get("pairs_file", "")), what=what))
    if lines is not None:
        stay = np.flatnonzero(~np.isin(lines.keys, held_out.keys))
        report["text_dropped_leaking"] = len(lines.lines) - len(stay)
        lines = lines.subset(stay)
    return training.subset(kept), lines


def _drawn(training: Pairs, config: DataConfig, seed: int, report: dict[str, int | str]) -> Pairs:
    """The captions that are trained on, each with the image that it is trained with."""
    training = _draw_captions(training, config.captions_per_image, seed)
    report["captions_trained_on"] = len(training.captions)
    if config.pairing_control is not None:
        training, moved = _break_pairing(training, seed)
        report |= {"pairing_control": config.pairing_control, "captions_with_a_strange_image": moved}
    return training


def _draw_captions(pairs: Pairs, per_image: int | Literal["all"], seed: int) -> Pairs:
    if per_image == "all":
        return pairs
    order = generator(seed, "captions_per_image").permutation(len(pairs.captions))
    by_image = order[np.argsort(pairs.image_of[order], kind="stable")]
    images, first = np.unique(pairs.image_of[by_image], return_index=True)
    nth = np.arange(len(by_image)) - first[np.searchsorted(images, pairs.image_of[by_image])]
    return pairs.subset(np.sort(by_image[nth < per_image]))


def _break_pairing(pairs: Pairs, seed: int) -> tuple[Pairs, int]:
    """The captions assigned at random, every image with as many as before; and how many changed their image."""
    image_of = generator(seed, "pairing_control").permutation(pairs.image_of)
    return replace(pairs, image_of=image_of), int(np.count_nonzero(image_of != pairs.image_of))


def _caption_problems(row: CaptionedImage, on_empty: Literal["error", "drop"]) -> list[Problem]:
    if not row.captions:
        return [Problem(where=row.where, what=f"image {row.image!r} has no caption")]
    broken = [text for text in (row.image, *row.captions) if has_surrogate(text)]
    if broken:
        what = f"{broken[0]!a} holds a lone surrogate, half of a character, which no encoding can represent"
        return [Problem(where=row.where, what=what)]
    if on_empty == "drop":
        return []
    return [
        Problem(
            where=row.where,
            what=f"caption {index} of image {row.image!r} is empty; remove it or set data.on_empty: drop",
        )
        for index, caption in enumerate(row.captions)
        if is_blank(caption)
    ]


def _repetitions(keys: Int64[np.ndarray, " n"]) -> int:
    ordered = np.sort(keys)
    return int(np.count_nonzero(ordered[1:] == ordered[:-1]))
