"""How are vectors drawn? Cosines against gold scores, alignment and uniformity, maps of sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dalr.evaluation.results import EmbeddingMap, Evaluation, GeometryResult, PairDetails, StsResult
from dalr.report import charts
from dalr.report.charts import Layer, Point
from dalr.report.page import Figure, Key, Panel
from dalr.report.palette import model_colour, task_colour
from dalr.report.score_charts import Evaluated, key_of, legend
from dalr.report.score_tables import results_of, task_order
from dalr.report.sources import ReportedModel
from dalr.report.tables import formatted

_METHODS = {"pca": "PCA"}


def gold_against_cosine(evaluated: Evaluated) -> list[Figure]:
    """One figure a task, one panel a model, all on the same axes."""
    figures = []
    for task in task_order(name for _, each in evaluated for name in each.details.sts):
        having = [(s, each, each.details.sts[task]) for s, each in evaluated if task in each.details.sts]
        box = _cosine_box([details for _, _, details in having])
        panels = tuple(
            Panel(key=key_of(model), chart=_cosine_chart(task, model, each, details, box))
            for model, each, details in having
        )
        scores = ", ".join(f"{model.label} {_spearman(each, task)}" for model, each, _ in having)
        pairs = len(having[0][2].gold)
        caption = f"{pairs:,} pairs. Spearman × 100: {scores}."
        figures.append(Figure(title=task, caption=caption, panels=panels))
    return figures


def _spearman(each: Evaluation, task: str) -> str:
    result = each.tasks.get(task)
    return formatted(result.spearman) if isinstance(result, StsResult) else "–"


def _cosine_box(several: Sequence[PairDetails]) -> tuple[float, float, float, float]:
    gold = np.concatenate([np.asarray(details.gold, dtype=float) for details in several])
    cosine = np.concatenate([np.asarray(details.cosine, dtype=float) for details in several])
    left, right, bottom, top = charts.padded_box(gold, cosine)
    return left, right, bottom, min(top, 1.03) if top > 1 else top


def _cosine_chart(
    task: str, model: ReportedModel, each: Evaluation, details: PairDetails, box: tuple[float, float, float, float]
) -> charts.Chart:
    return charts.scatter(
        [
            Layer(
                name=model.label,
                colour=model_colour(model.number),
                x=np.asarray(details.gold, dtype=float),
                y=np.asarray(details.cosine, dtype=float),
            )
        ],
        box=box,
        x_label="gold score",
        y_label="cosine",
        label=f"Cosine against gold score of {len(details.gold)} pairs of {task}, {model.label}: "
        f"Spearman × 100 is {_spearman(each, task)}.",
        height=210.0,
        medians=True,
    )


def alignment_uniformity(evaluated: Evaluated) -> Figure | None:
    """The plane of the two."""
    found = [
        (s, r)
        for s, each in evaluated
        for r in results_of(each, GeometryResult).values()
        if r.alignment is not None
    ]
    if not found:
        return None
    sources = list(dict.fromkeys(result.source for _, result in found))
    points = [
        Point(
            name=model.label if len(sources) == 1 else result.source,
            colour=model_colour(model.number),
            x=result.uniformity,
            y=result.alignment,
            marker=model.number,
        )
        for model, result in found
        if result.alignment is not None
    ]
    told = "; ".join(
        f"{s.label} on {r.source}: alignment {formatted(r.alignment or 0, 3)}, uniformity "
        f"{formatted(r.uniformity, 3)}"
        for s, r in found
    )
    chart = charts.plane(
        points,
        x_label="uniformity (lower: vectors use the whole sphere)",
        y_label="alignment (lower: paraphrases are close)",
        label=f"Alignment and uniformity. {told}.",
    )
    caption = (
        f"Sentences of {', '.join(sources)}. Down means that pairs with the same meaning lie close, left that "
        "all sentences together spread over the sphere. Only towards the lower left corner is plainly better: "
        "vectors that are all alike lie low, at the far right."
    )
    return Figure(
        title="Alignment and uniformity",
        caption=caption,
        panels=(Panel(chart=chart),),
        legend=legend(list({model.label: model for model, _ in found}.values())),
    )


def embedding_maps(evaluated: Evaluated) -> Figure | None:
    """One map a model; the tasks' colours are the same in all."""
    found = [(model, each.details.map) for model, each in evaluated if each.details.map is not None]
    if not found:
        return None
    tasks = task_order(task for _, plan in found for task in plan.task)
    colours = {task: task_colour(number) for number, task in enumerate(tasks)}
    panels = tuple(Panel(key=key_of(model), chart=_map_chart(model, plan, colours)) for model, plan in found)
    methods = " and ".join(sorted({_METHODS.get(plan.method, plan.method) for _, plan in found}))
    caption = (
        f"Sentences in the plane, by {methods}, coloured by the task they come from. Tasks on islands of their "
        "own mean that a vector tells where a sentence comes from; directions mean nothing."
    )
    keys = tuple(Key(name=task, colour=colour) for task, colour in colours.items())
    return Figure(title="", caption=caption, panels=panels, legend=keys)


def _map_chart(model: ReportedModel, plan: EmbeddingMap, colours: dict[str, str]) -> charts.Chart:
    x, y, task = np.asarray(plan.x, dtype=float), np.asarray(plan.y, dtype=float), np.asarray(plan.task)
    present = [name for name in colours if (task == name).any()]
    method = _METHODS.get(plan.method, plan.method)
    layers = [Layer(name=name, colour=colours[name], x=x[task == name], y=y[task == name]) for name in present]
    return charts.scatter(
        layers,
        box=charts.padded_box(x, y),
        x_label="",
        y_label="",
        label=f"{len(x)} sentences of {', '.join(present)} in the plane, by {method}, {model.label}.",
        height=300.0,
        opacity=0.6 if len(x) < 5000 else 0.25,
        ticks=False,
    )
