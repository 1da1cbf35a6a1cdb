"""What is a recipe's training data? All of it, read and checked before any model is loaded.

Every problem of every file is reported at once; what is found without being wrong (duplicates, images held out,
lines dropped on request) is counted in a report that goes into `run.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from dalr.data.config import DataConfig
from dalr.data.formats import read_pairs_file
from dalr.data.holdout import SIDES, Side, sides_of
from dalr.data.memory import IN_MEMORY
from dalr.data.reading import Reading
from dalr.data.rows import (
    CaptionedImage,
    Pairs,
    Sentences,
    Text,
    caption_id,
    comparable,
    has_surrogate,
    is_blank,
    text_id,
)
from dalr.errors import DataError, Problem, Problems, few
from dalr.io.text import read_lines
from dalr.seed import generator

_AS_IT_IS = Reading()


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

    def sides(self) -> dict[str, Side]:
        """The side of every image; with `holdout.last` a held-out image counts as test."""
        several: tuple[tuple[Side, Pairs | None], ...] = (
            ("train", self.pairs),
            ("validation", self.validation),
            ("test", self.test),
        )
        return {name: side for side, pairs in several if pairs is not None for name in pairs.image_names}

    @cached_property
    def streams(self) -> tuple[Sentences, ...]:
        """What is trained on, by kind: text, then captions."""
        text, pairs = self.text, self.pairs
        found = [Sentences(kind="text", ids=text.ids, sentences=text.lines)] if text is not None else []
        if pairs is not None:
            found.append(Sentences(kind="pair", ids=pairs.caption_ids, sentences=pairs.captions))
        return tuple(found)


def load_dataset(
    config: DataConfig,
    *,
    seed: int,
    pairs: Sequence[CaptionedImage] | None = None,
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
        return Pairs(images=(), captions=(), caption_ids=(), image_of=np.empty(0, np.int64))  # why is said
    pairs = checked_pairs(rows, str(path), wrong, report, on_empty=on_empty)
    problems.extend(wrong)
    return pairs


def checked_pairs(
    rows: Sequence[CaptionedImage],
    where: str,
    problems: list[Problem],
    report: dict[str, int | str],
    *,
    on_empty: Literal["error", "drop"] = "error",
) -> Pairs:
    """Rows as pairs; what is wrong is appended to `problems`."""
    before = len(problems)
    first: dict[str, str] = {}
    images: list[str] = []
    captions: list[str] = []
    ids: list[str] = []
    image_of: list[int] = []
    dropped = 0
    for row in rows:
        if row.image in first:
            what = f"image {row.image!r} occurs twice (first at {first[row.image]}); put its captions together"
            problems.append(Problem(where=row.where, what=what))
            continue
        first[row.image] = row.where
        problems.extend(_caption_problems(row, on_empty))
        for index, caption in enumerate(row.captions):
            if is_blank(caption):
                dropped += 1
                continue
            captions.append(caption)
            ids.append(caption_id(row.image, index))
            image_of.append(len(images))
        images.append(row.image)
    if not captions and len(problems) == before:
        problems.append(Problem(where=where, what="no caption in it" if rows else "no pairs in it"))
    repeated = _repetitions(captions)
    report |= {
        "pairs_file": where,
        "images": len(images),
        "captions": len(captions),
        "captions_dropped_empty": dropped,
        "captions_repeated": repeated,
    }
    return Pairs(
        images=tuple(images),
        captions=tuple(captions),
        caption_ids=tuple(ids),
        image_of=np.asarray(image_of, dtype=np.int64),
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
        lines = read_lines(path)
    except DataError as error:
        problems.extend(error.problems)
        return Text(lines=(), ids=())
    return checked_text(lines, str(path), problems, report, on_empty=on_empty)


def checked_text(
    lines: Sequence[str],
    where: str,
    problems: list[Problem],
    report: dict[str, int | str],
    *,
    on_empty: Literal["error", "drop"] = "error",
) -> Text:
    """Lines as text; what is wrong is appended to `problems`."""
    kept = [number for number, line in enumerate(lines, start=1) if not is_blank(line)]
    blank = len(lines) - len(kept)
    if blank and on_empty == "error":
        what = "empty line; remove it or set data.on_empty: drop"
        empty = (number for number, line in enumerate(lines, start=1) if is_blank(line))
        problems.extend(few(empty, lambda number: Problem(where=f"{where}:{number}", what=what)))
    if not kept:
        problems.append(Problem(where=where, what="no sentence in it"))
    sentences = tuple(lines[number - 1] for number in kept)
    report |= {
        "text_file": where,
        "text_lines": len(sentences),
        "text_dropped_empty": blank,
        "text_repeated": _repetitions(sentences),
    }
    return Text(lines=sentences, ids=tuple(map(text_id, kept)))


def _of_splits(
    rows: list[CaptionedImage],
    wanted: str | tuple[str, ...] | None,
    where: str,
    problems: list[Problem],
    report: dict[str, int | str],
) -> list[CaptionedImage]:
    """The images of the wanted splits; to train on all splits of a file is never taken for granted."""
    counts = Counter(row.split for row in rows)
    named = sorted(name for name in counts if name is not None)
    listed = ", ".join(f"{name or '(none)'} {count}" for name, count in counts.items())
    if named:
        report["images_by_split"] = listed
    if wanted == "all" or not rows:
        return rows
    if wanted is None:
        if len(counts) > 1:
            what = f"has the splits {listed} (images); choose with data.split: NAME, or data.split: all"
            problems.append(Problem(where=where, what=what))
        return rows
    names = (wanted,) if isinstance(wanted, str) else wanted
    for name in names:
        if name not in named:
            what = f"no image of split {name!r}; " + (f"found {listed}" if named else "this file names no splits")
            problems.append(Problem(where=where, what=what))
    return [row for row in rows if row.split in names]


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
        held_out = everything.subset(np.flatnonzero(everything.image_of >= border).tolist())
        training = everything.subset(np.flatnonzero(everything.image_of < border).tolist())
        report["images_held_out"] = holdout.last
        return _Split(training=training, validation=held_out, test=held_out, held_out=held_out)
    file = config.path(holdout.file) if holdout.file is not None else None
    sides = sides_of(everything.images, holdout, file, where, problems)
    side_of = np.array([SIDES.index(side) for side in sides], np.int64)[everything.image_of]
    parts = {side: everything.subset(np.flatnonzero(side_of == SIDES.index(side)).tolist()) for side in SIDES}
    report |= {
        "images_held_out": len(sides) - sides.count("train"),
        "images_for_validation": sides.count("validation"),
        "images_for_test": sides.count("test"),
    }
    return _Split(
        training=parts["train"],
        validation=parts["validation"] if "validation" in sides else None,
        test=parts["test"] if "test" in sides else None,
        held_out=everything.subset(np.flatnonzero(side_of != SIDES.index("train")).tolist()),
    )


def _without_leaks(
    split: _Split, lines: Text | None, problems: list[Problem], report: dict[str, int | str]
) -> tuple[Pairs | None, Text | None]:
    """Training captions and text without the sentences that are also held-out captions."""
    training, held_out = split.training, split.held_out
    assert training is not None
    assert held_out is not None
    leaking = {comparable(caption) for caption in held_out.captions}
    kept = [n for n, caption in enumerate(training.captions) if comparable(caption) not in leaking]
    report["captions_dropped_leaking"] = len(training.captions) - len(kept)
    if not kept and training.captions:
        what = "data.holdout.drop_leaking leaves no caption: every one is also the caption of a held-out image"
        problems.append(Problem(where=str(report.get("pairs_file", "")), what=what))
    if lines is not None:
        stay = [n for n, line in enumerate(lines.lines) if comparable(line) not in leaking]
        report["text_dropped_leaking"] = len(lines.lines) - len(stay)
        lines = Text(lines=tuple(lines.lines[n] for n in stay), ids=tuple(lines.ids[n] for n in stay))
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
    taken: Counter[int] = Counter()
    keep = []
    for index in order.tolist():
        image = int(pairs.image_of[index])
        if taken[image] < per_image:
            taken[image] += 1
            keep.append(index)
    return pairs.subset(sorted(keep))


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


def _repetitions(sentences: list[str] | tuple[str, ...]) -> int:
    return len(sentences) - len({comparable(sentence) for sentence in sentences})
