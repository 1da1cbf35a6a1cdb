"""`report.html` of a demo: one file that opens anywhere: world, scores, curves, and nearest neighbours.

Images are inlined and charts are lines of SVG in the template, so the page makes no requests: no script, no
font, no request. Everything that is text goes through the template's autoescape.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dalr.data.dataset import read_pairs
from dalr.demo.recipes import METHODS
from dalr.demo.scores import LABELS, HeldOut, Judge, Row, explanation, verdict
from dalr.demo.world import WorldFiles
from dalr.io.atomic import write_text
from dalr.models.config import EncoderConfig

_SAMPLES, _QUERIES, _NEAREST, _GRADED = 6, 6, 5, 6
_WIDTH, _HEIGHT = 240, 96  # of a chart, in the units of its viewBox


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image with sentences; `marks` says which of them were written for it."""

    picture: str
    """A data URI."""
    sentences: tuple[str, ...]
    marks: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """A sentence with the images nearest to it; `marks` says which of them is its own."""

    sentence: str
    pictures: tuple[str, ...]
    marks: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named curve, as the points of an SVG polyline."""

    name: str
    points: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over the same steps, with what the axes begin and end with."""

    title: str
    lines: tuple[Line, ...]
    low: str
    high: str
    last_step: int


@dataclass(frozen=True, kw_only=True)
class Bar:
    label: str
    value: float
    kind: str
    """`method`, `dalr`, `other` or `chance`, for its colour."""


def write_report(out: Path, *, rows: Sequence[Row], judge: Judge, files: WorldFiles, seed: int) -> Path:
    """Write `out`/report.html from what the demo left in `out`, and return its path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    records = {name: _records(out / name / "metrics.jsonl") for name in METHODS}
    captions, pictures = _neighbours(out / "dalr", judge.held_out, files)
    environment = Environment(
        loader=PackageLoader("dalr.demo", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        seed=seed,
        rows=rows,
        chance=judge.chance,
        explanation=explanation(judge),
        verdict=verdict(rows),
        bars=_bars(rows, judge.chance),
        samples=_samples(files),
        graded=_graded(judge),
        validation=_validation_chart(records),
        terms={LABELS[name]: _term_charts(found) for name, found in records.items()},
        captions=captions,
        pictures=pictures,
        width=_WIDTH,
        height=_HEIGHT,
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def _bars(rows: Sequence[Row], chance: float) -> dict[str, list[Bar]]:
    """Bars by what they measure."""
    grounded = [(row, row.retrieval) for row in rows if row.retrieval is not None]
    guess = Bar(label="chance", value=chance, kind="chance")
    return {
        "STS test, Spearman × 100": [Bar(label=row.label, value=row.test, kind=_kind(row)) for row in rows],
        "Text → image, R@1 × 100": [
            guess,
            *(Bar(label=row.label, value=found.text_to_image.r1, kind=_kind(row)) for row, found in grounded),
        ],
        "Image → text, R@1 × 100": [
            guess,
            *(Bar(label=row.label, value=found.image_to_text.r1, kind=_kind(row)) for row, found in grounded),
        ],
    }


def _kind(row: Row) -> str:
    if row.name == "dalr":
        return "dalr"
    return "method" if row.is_method else "other"


def _samples(files: WorldFiles) -> list[Shown]:
    pairs = read_pairs(files.pairs, [], {})
    return [
        Shown(
            picture=_data_uri(files.images / pairs.images[number]),
            sentences=tuple(pairs.captions.take(np.flatnonzero(pairs.image_of == number))),
        )
        for number in range(_SAMPLES)
    ]


def _graded(judge: Judge) -> list[tuple[float, str, str]]:
    """Dev pairs from the least to the most similar."""
    order = np.argsort(judge.dev.gold, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, _GRADED).astype(int)]
    return [(float(judge.dev.gold[row]), judge.dev.first[row], judge.dev.second[row]) for row in chosen]


def _neighbours(run: Path, held_out: HeldOut, files: WorldFiles) -> tuple[list[Shown], list[Found]]:
    """For held-out images the nearest captions, for their captions the nearest images, in a run's grounding."""
    from dalr.models.embedding import embed
    from dalr.models.heads import ground
    from dalr.models.loading import load_encoder

    model = load_encoder(EncoderConfig(model=str(run / "model")))
    sentences, images = ground(
        run / "heads.safetensors", sentences=embed(model, held_out.captions), images=held_out.features
    )
    similarity = _unit(sentences) @ _unit(images).T
    uris = [_data_uri(files.images / name) for name in held_out.images]
    captions, pictures = [], []
    for image in range(min(_QUERIES, len(held_out.images))):
        nearest = np.argsort(-similarity[:, image], kind="stable")[:_NEAREST]
        captions.append(
            Shown(
                picture=uris[image],
                sentences=tuple(held_out.captions[index] for index in nearest),
                marks=tuple(bool(held_out.owner[index] == image) for index in nearest),
            )
        )
    # the first caption of other images than those above
    for image in range(min(_QUERIES, len(uris) - 1), min(2 * _QUERIES, len(uris))):
        query = int(np.flatnonzero(held_out.owner == image)[0])
        nearest = np.argsort(-similarity[query], kind="stable")[:_NEAREST]
        pictures.append(
            Found(
                sentence=held_out.captions[query],
                pictures=tuple(uris[index] for index in nearest),
                marks=tuple(bool(index == image) for index in nearest),
            )
        )
    return captions, pictures


def _unit(vectors: Float[np.ndarray, "n g"]) -> Float[np.ndarray, "n g"]:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    return unit


def _records(path: Path) -> list[Mapping[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _validation_chart(records: Mapping[str, list[Mapping[str, object]]]) -> Chart:
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, lines in records.items():
        scores = [(line["step"], line["validation"]) for line in lines if "validation" in line]
        curves[LABELS[name]] = [
            (step, value)
            for step, found in scores
            if isinstance(step, int) and isinstance(found, dict)
            for value in found.values()
        ]
    return _chart("STS dev, Spearman × 100", curves)


def _term_charts(records: Sequence[Mapping[str, object]]) -> list[Chart]:
    """A chart for every term that a method has, in the order of the log."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in records:
        step, terms = line["step"], line.get("terms", {})
        assert isinstance(step, int)
        assert isinstance(terms, dict)
        for name, value in terms.items():
            curves.setdefault(name, []).append((step, value))
    return [_chart(name.replace("_", " "), {name: points}) for name, points in curves.items()]


def _chart(title: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> Chart:
    values = [value for points in curves.values() for _, value in points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    last = max((step for points in curves.values() for step, _ in points), default=1)
    span = (high - low) or 1.0

    def place(step: int, value: float) -> str:
        return f"{_WIDTH * step / last:.1f},{_HEIGHT - _HEIGHT * (value - low) / span:.1f}"

    lines = tuple(
        Line(name=name, points=" ".join(place(step, value) for step, value in points))
        for name, points in curves.items()
    )
    return Chart(title=title, lines=lines, low=f"{low:.3g}", high=f"{high:.3g}", last_step=last)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
