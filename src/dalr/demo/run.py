"""`dalr demo`: a world, a student, two teachers, five methods, one table; offline and in minutes.

Not rigged: gold comes from what the sentences state and never from a model, the settings were chosen on dev
pairs, and the table shows what came out, whoever is ahead.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dalr.api import train
from dalr.console import Console
from dalr.data.dataset import read_pairs
from dalr.demo.recipes import METHODS, TEACHERS, write_recipes
from dalr.demo.world import WorldFiles, generate_world
from dalr.errors import StorageError
from dalr.evaluation.retrieval import RetrievalScore, retrieval_score
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import load_scored_tsv
from dalr.evaluation.table import markdown
from dalr.features.importing import open_matrix
from dalr.io.atomic import storage_errors, write_json, write_text
from dalr.models.config import EncoderConfig

HELD_OUT = 100
STEPS = 300
TEACHER_STEPS = 300
_MARK = "world"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    dev: float
    test: float
    retrieval: RetrievalScore | None
    seconds: float | None


def run_demo(
    out: Path, *, seed: int, console: Console, steps: int = STEPS, teacher_steps: int = TEACHER_STEPS
) -> str:
    """Run the whole path into `out` and return the table as Markdown.

    Raises:
        StorageError: `out` holds something that is not an earlier demo.
    """
    _clear(out)
    _use_one_thread()
    console.say("making a world: 700 scenes with five captions each, 4000 lines of text, graded sentence pairs")
    world = generate_world(out / _MARK, seed=seed, held_out=HELD_OUT)
    student = out / "student"
    from dalr.demo.student import write_student

    write_student(student, world.vocabulary, seed=seed)
    files = write_recipes(
        out / "recipes",
        world,
        student=student,
        teachers={name: out / name / "model" for name in TEACHERS},
        held_out=HELD_OUT,
        steps=steps,
        teacher_steps=teacher_steps,
        seed=seed,
    )
    rows = [_score("untrained student", EncoderConfig(model=str(student), pooling="mean"), world)]
    for name in (*TEACHERS, *METHODS):
        result = train(files[name], out=out / name, console=console)
        encoder = EncoderConfig(model=str(result.model))
        rows.append(_score(name, encoder, world, heads=out / name / "heads.safetensors", seconds=result.seconds))
    table = _table(rows)
    write_text(out / "table.md", table + "\n")
    write_json(out / "results.json", {row.name: _as_json(row) for row in rows})
    best = max((row for row in rows if row.name in METHODS), key=lambda row: row.test)
    return f"{table}\n\nBest on the test pairs: {best.name}. Its model: {out / best.name / 'model'}"


def _score(
    name: str,
    encoder: EncoderConfig,
    world: WorldFiles,
    *,
    heads: Path | None = None,
    seconds: float | None = None,
) -> Row:
    from dalr.models.embedding import embed
    from dalr.models.loading import load_encoder

    model = load_encoder(encoder)
    scores = {}
    for split, path in (("dev", world.sts_dev), ("test", world.sts_test)):
        pairs = load_scored_tsv(path)
        scores[split] = score_pairs(pairs, embed(model, pairs.sentences()))
    return Row(
        name=name,
        dev=scores["dev"],
        test=scores["test"],
        retrieval=_retrieval(model, heads, world) if heads is not None and name in METHODS else None,
        seconds=seconds,
    )


def _retrieval(model: object, heads: Path, world: WorldFiles) -> RetrievalScore | None:
    """Retrieval over the held-out images; None for a method without a grounding space."""
    from safetensors import safe_open

    from dalr.models.embedding import embed
    from dalr.models.heads import ground

    with safe_open(heads, framework="numpy") as file:
        if "text_grounding.0.weight" not in set(file.keys()):
            return None
    pairs = read_pairs(world.pairs, [], {})
    first = len(pairs.images) - HELD_OUT
    chosen = np.flatnonzero(pairs.image_of >= first)
    h = embed(model, [pairs.captions[index] for index in chosen])  # type: ignore[arg-type]
    sentences, images = ground(heads, sentences=h, images=np.asarray(open_matrix(world.image_matrix)[first:]))
    return retrieval_score(sentences, images, pairs.image_of[chosen] - first)


def _table(rows: list[Row]) -> str:
    headers = ["", "STS dev", "STS test", "R@1 text→image", "R@1 image→text", "seconds"]
    body = []
    for row in rows:
        recall = row.retrieval
        body.append(
            [
                row.name,
                f"{row.dev:.1f}",
                f"{row.test:.1f}",
                f"{recall.text_to_image.r1:.1f}" if recall else "–",
                f"{recall.image_to_text.r1:.1f}" if recall else "–",
                f"{row.seconds:.0f}" if row.seconds is not None else "–",
            ]
        )
    chance = 100 / HELD_OUT
    body.insert(0, ["chance", "0.0", "0.0", f"{chance:.1f}", f"{chance:.1f}", "–"])
    note = f"STS: Spearman × 100. R@1: recall × 100 at 1 among {HELD_OUT} images never trained on."
    return f"{markdown(headers, body)}\n{note}"


def _as_json(row: Row) -> dict[str, object]:
    recall = row.retrieval
    return {
        "dev": row.dev,
        "test": row.test,
        "text_to_image": recall.text_to_image.r1 if recall else None,
        "image_to_text": recall.image_to_text.r1 if recall else None,
        "seconds": row.seconds,
    }


def _use_one_thread() -> None:
    """On matrices this small, two threads mostly wait for each other; beside other work, ten times longer."""
    import torch

    torch.set_num_threads(1)


def _clear(out: Path) -> None:
    """A demo folder is made anew each time; anything else is left alone."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / _MARK / "vocab.txt").is_file():
        raise StorageError(f"{out} exists and is not an earlier demo; nothing was touched: choose another --out")
    with storage_errors(out):
        shutil.rmtree(out)
