"""What does `dalr demo` do? World, teachers, student, five methods, a table and a report, offline in minutes.

Not rigged: gold comes from the scenes and never from a model, settings were chosen on dev pairs of another world
with the same number of trials for each method, and the table shows what came out, whoever is ahead.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dalr.api import train
from dalr.data.dataset import read_pairs, read_text
from dalr.data.rows import Pairs
from dalr.demo.recipes import GROUNDING_DIM, METHODS, STEPS, Ingredients, write_recipes
from dalr.demo.scores import UNTRAINED, HeldOut, Judge, Row, table, verdict
from dalr.demo.teachers import (
    CLIP,
    ImageTextTeacher,
    TeacherSteps,
    seen,
    train_image_text_teacher,
    train_text_teachers,
)
from dalr.demo.world import WorldFiles, WorldSize, draw_world, write_world
from dalr.errors import StorageError
from dalr.evaluation.sts import load_scored_tsv
from dalr.features.store import open_store, write_store
from dalr.io.atomic import storage_errors, write_json, write_text
from dalr.io.claim import require_ours
from dalr.io.console import Console
from dalr.io.lock import LOCK, locked
from dalr.io.paths import entries, is_dir, is_file
from dalr.models.config import EncoderConfig, HeadsConfig
from dalr.report.drawing import require_drawing
from dalr.seed import derive_seed

_MARK, _FORMAT = "demo.json", "dalr-demo-2"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the world is and how long everything is trained."""

    world: WorldSize = field(default_factory=WorldSize)
    teachers: TeacherSteps = field(default_factory=TeacherSteps)
    steps: int = STEPS


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that the methods start from."""

    files: WorldFiles
    recipes: dict[str, Path]
    judge: Judge
    rows: list[Row]
    """The untrained student and the teachers."""


def run_demo(out: Path, *, seed: int, console: Console, scale: Scale | None = None) -> str:
    """Run the whole path into `out` and return the table as Markdown, with the verdict in words.

    Raises:
        ConfigError: matplotlib, which draws the report, is not installed.
        StorageError: `out` holds something that is not an earlier demo.
    """
    require_drawing()
    _require_demo_folder(out)
    with locked(out):
        _require_demo_folder(out)  # as it is now that nobody else can change it
        return _demo(out, seed=seed, console=console, scale=scale or Scale())


def _require_demo_folder(out: Path) -> None:
    require_ours(out, "an earlier demo", ours=lambda: is_file(out / _MARK, StorageError))


def _demo(out: Path, *, seed: int, console: Console, scale: Scale) -> str:
    started = time.monotonic()
    _clear(out)
    write_json(out / _MARK, {"format": _FORMAT, "seed": seed, "scale": asdict(scale)})
    _use_one_thread()
    prepared = prepare(out, seed=seed, console=console, scale=scale)
    rows, seconds = list(prepared.rows), {}
    for name in METHODS:
        result = train(prepared.recipes[name], out=out / name, console=console)
        seconds[name] = round(result.seconds, 1)
        rows.append(_trained_row(name, result.model, out / name / "heads.safetensors", prepared.judge))
    shown = table(rows, prepared.judge)
    write_text(out / "table.md", f"{shown}\n\n{verdict(rows)}\n")
    write_json(out / "results.json", {row.name: _as_json(row) for row in rows})

    from dalr.demo.report import write_report

    console.say("writing the report")
    report = write_report(out, rows=rows, judge=prepared.judge, files=prepared.files, seed=seed)
    write_json(out / "seconds.json", seconds | {"all": round(time.monotonic() - started, 1)})
    return (
        f"{shown}\n\n{verdict(rows)}\n\n"
        f"To look at: {report}\nModels, with DALR's first: {out / 'dalr' / 'model'}\n"
        f"Train one by hand: dalr train {out / 'recipes' / 'dalr.yaml'}"
    )


def prepare(out: Path, *, seed: int, console: Console, scale: Scale) -> Prepared:
    """World, student, teachers, feature stores and recipes, and the scores of what is not trained further."""
    from dalr.demo.student import write_student
    from dalr.models.loading import load_encoder

    size = scale.world
    console.say(
        f"making a world: {size.scenes} images with five captions each, {size.corpus} lines of text, "
        f"{size.dev_pairs} + {size.test_pairs} graded pairs, and {size.upbringing} scenes for the teachers alone"
    )
    world = draw_world(size, seed=seed)
    files = write_world(world, out, console=console)
    student = out / "student"
    write_student(student, files.vocabulary, seed=seed)
    clip = train_image_text_teacher(world, files, out / CLIP, steps=scale.teachers.clip, console=console)
    text_teachers = train_text_teachers(world, files, out / "teachers", steps=scale.teachers.text, console=console)
    pairs = read_pairs(files.pairs, [], {})
    ingredients = _store_features(out / "stores", files, pairs, student, clip, text_teachers, console)
    recipes = write_recipes(
        out / "recipes", files, ingredients, held_out=size.held_out, steps=scale.steps, seed=seed
    )
    judge = Judge(
        dev=load_scored_tsv(files.sts_dev),
        test=load_scored_tsv(files.sts_test),
        held_out=_held_out(pairs, ingredients.image_store, size.held_out),
    )
    beginning = load_encoder(EncoderConfig(model=str(student), pooling="mean"))
    heads = _untrained_heads(out / "untrained-heads.safetensors", judge, beginning, seed=seed)
    rows = [judge.row(UNTRAINED, beginning, heads=heads)]
    for name, folder in text_teachers.items():
        rows.append(judge.row(name, load_encoder(EncoderConfig(model=str(folder)))))
    rows.append(judge.shared_space_row(CLIP, load_encoder(EncoderConfig(model=str(clip.text_folder)))))
    return Prepared(files=files, recipes=recipes, judge=judge, rows=rows)


def _store_features(
    stores: Path,
    files: WorldFiles,
    pairs: Pairs,
    student: Path,
    clip: ImageTextTeacher,
    text_teachers: dict[str, Path],
    console: Console,
) -> Ingredients:
    """Every frozen vector once: images and captions by clip, captions and text by the teachers of text."""
    from PIL import Image

    from dalr.features.text import write_text_store

    pixels = []
    with console.bar("read images", len(pairs.images), "image") as bar:
        for number, name in enumerate(pairs.images, start=1):
            with Image.open(files.images / name) as image:
                pixels.append(seen(image))
            bar.update(number)
    image_store = stores / "clip-images"
    source = {"kind": "image", "encoder": CLIP, "pixels": len(pixels[0]), "normalized": False}
    blocks = [clip.see(np.stack(pixels))]
    write_store(image_store, ids=pairs.images, blocks=blocks, source=source, origin="vectors of clip")
    text = read_text(files.text, [], {})
    ids, sentences = [*pairs.caption_ids, *text.ids], [*pairs.captions, *text.lines]
    captions = EncoderConfig(model=str(clip.text_folder))
    write_text_store(stores / "clip-text", encoder=captions, ids=pairs.caption_ids, sentences=pairs.captions)
    for name, folder in text_teachers.items():
        with console.bar(f"vectors of {name}", len(set(sentences)), "sentence") as bar:
            write_text_store(
                stores / name,
                encoder=EncoderConfig(model=str(folder)),
                ids=ids,
                sentences=sentences,
                progress=lambda done, _, bar=bar: bar.update(done),  # type: ignore[misc]
            )
    return Ingredients(
        student=student,
        image_store=image_store,
        clip_text_store=stores / "clip-text",
        teacher_stores=tuple(stores / name for name in text_teachers),
    )


def _held_out(pairs: Pairs, image_store: Path, count: int) -> HeldOut:
    """The last `count` images, which the recipes keep out of training."""
    first = len(pairs.images) - count
    chosen = np.flatnonzero(pairs.image_of >= first)
    names = tuple(pairs.images[first:])
    store = open_store(image_store)
    return HeldOut(
        images=names,
        features=store.read(store.rows_of(names, what="held-out image")),
        captions=tuple(pairs.captions.take(chosen)),
        owner=pairs.image_of[chosen].astype(np.int64) - first,
    )


def _untrained_heads(path: Path, judge: Judge, student: Any, *, seed: int) -> Path:
    """Grounding heads as random as the untrained student, for its line in the table."""
    import torch

    from dalr.losses import Need
    from dalr.models.heads import Heads, save_heads

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "demo untrained heads"))
        heads = Heads(
            HeadsConfig(sentence=False, grounding_dim=GROUNDING_DIM),
            student_dim=student.get_embedding_dimension(),
            image_dim=judge.held_out.features.shape[1],
            clip_text_dim=None,
            needs=frozenset({Need.GROUNDING}),
            temperatures={},
        )
    save_heads(heads, path)
    return path


def _trained_row(name: str, model: Path, heads: Path, judge: Judge) -> Row:
    from safetensors import safe_open

    from dalr.models.loading import load_encoder

    with safe_open(heads, framework="numpy") as file:
        grounded = "text_grounding.0.weight" in set(file.keys())
    return judge.row(name, load_encoder(EncoderConfig(model=str(model))), heads=heads if grounded else None)


def _as_json(row: Row) -> dict[str, object]:
    recall = row.retrieval
    return {
        "dev": row.dev,
        "test": row.test,
        "text_to_image": recall.text_to_image.model_dump(by_alias=True) if recall else None,
        "image_to_text": recall.image_to_text.model_dump(by_alias=True) if recall else None,
    }


def _use_one_thread() -> None:
    """On matrices this small, two threads mostly wait for each other; beside other work, ten times longer."""
    import torch

    torch.set_num_threads(1)


def _clear(out: Path) -> None:
    """A demo folder is made from scratch each time; its mark stays, so that a kill leaves it ours."""
    with storage_errors(out):
        for path in entries(out, StorageError):
            if path.name not in (LOCK, _MARK):
                shutil.rmtree(path) if is_dir(path, StorageError) else path.unlink()
