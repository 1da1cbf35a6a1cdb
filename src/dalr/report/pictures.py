"""Evaluations and trainings as figures: which numbers go into which chart, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dalr.evaluation.published import AVERAGE, TableName, load_published
from dalr.evaluation.results import (
    EmbeddingMap,
    Evaluation,
    GeometryResult,
    PairDetails,
    RetrievalResult,
    StsResult,
    TransferResult,
)
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.report import charts
from dalr.report.charts import Estimate, Layer, Line, Point, Series
from dalr.report.history import Curve, History
from dalr.report.page import Figure, Key, Panel
from dalr.report.palette import model_colour, task_colour
from dalr.report.score_tables import results_of, task_order
from dalr.report.sources import NamedComparison, Sources, Subject
from dalr.report.tables import formatted

Evaluated = Sequence[tuple[Subject, Evaluation]]


def key_of(subject: Subject) -> Key:
    return Key(name=subject.label, colour=model_colour(subject.number))


def legend(subjects: Sequence[Subject]) -> tuple[Key, ...]:
    return tuple(map(key_of, subjects))


def score_bars(sources: Sources) -> Figure | None:
    """Bars of all STS and transfer scores."""
    panels = [
        _bar_panel(
            "STS, Spearman × 100",
            [
                (
                    subject,
                    {
                        name: Estimate(value=r.spearman, interval=r.interval)
                        for name, r in results_of(each, StsResult).items()
                    },
                )
                for subject, each in sources.evaluated
            ],
        ),
        _bar_panel(
            "Transfer, acc × 100",
            [
                (
                    subject,
                    {
                        name: Estimate(value=r.acc, interval=r.interval)
                        for name, r in results_of(each, TransferResult).items()
                    },
                )
                for subject, each in sources.evaluated
            ],
        ),
    ]
    found = tuple(panel for panel in panels if panel is not None)
    if not found:
        return None
    caption = (
        "Each bar is one score, from zero; the thin line across its end is the 95 % interval that resampling the "
        "task's items gives, so it tells how far another sample of sentences could move the number, not another "
        "training. A dash stands where a model has no score."
    )
    return Figure(
        title="Scores by task", caption=caption, panels=found, legend=legend([s for s, _ in sources.evaluated])
    )


def _bar_panel(title: str, rows: Sequence[tuple[Subject, dict[str, Estimate]]]) -> Panel | None:
    names = task_order(name for _, values in rows for name in values)
    if not names:
        return None
    series = [Series(name=s.label, colour=model_colour(s.number), values=values) for s, values in rows if values]
    label = f"Bars. {title}. {_told(series)}."
    return Panel(title=title, chart=charts.bars(names, series, unit="", label=label))


def _told(series: Sequence[Series]) -> str:
    """The bars in words, for readers who do not see them."""
    parts = []
    for one in series:
        scores = ", ".join(f"{name} {formatted(estimate.value, 1)}" for name, estimate in one.values.items())
        parts.append(f"{one.name}: {scores}")
    return "; ".join(parts)


def standing(sources: Sources) -> Figure | None:
    """Averages of the measured models among the published ones."""
    averages: list[tuple[TableName, str, dict[str, float | None], tuple[str, ...]]] = [
        ("sts", "STS average", {s.label: each.sts_avg for s, each in sources.evaluated}, STS_TASKS),
        (
            "transfer",
            "Transfer average (acc; published: unclear)",
            {s.label: each.transfer_avg for s, each in sources.evaluated},
            TRANSFER_TASKS,
        ),
    ]
    colours = {subject.label: model_colour(subject.number) for subject in sources.subjects}
    panels = []
    for name, title, measured, _ in averages:
        rows = [(label, value, colours[label]) for label, value in measured.items() if value is not None]
        if not rows:
            continue
        rows += [
            (f"{row.method} · {row.setting}", row.scores[AVERAGE], "muted")
            for row in load_published().of(name)
            if AVERAGE in row.scores
        ]
        rows.sort(key=lambda row: -row[1])
        told = ", ".join(f"{label} {formatted(value, 1)}" for label, value, _ in rows)
        chart = charts.ranking(rows, unit="mean of the seven tasks", label=f"Ranking. {title}: {told}.")
        panels.append(Panel(title=title, chart=chart))
    if not panels:
        return None
    caption = (
        "Averages from the highest to the lowest: measured models in their colours, published rows in grey. "
        "Published models had other backbones and far more training data, so the order says where a model "
        "stands, not which method is better."
    )
    return Figure(title="Among the published", caption=caption, panels=tuple(panels))


def difference_forest(comparisons: Sequence[NamedComparison], sources: Sources) -> Figure | None:
    """One panel a pair of models."""
    colours = {subject.label: model_colour(subject.number) for subject in sources.subjects}
    panels = []
    for a, b in dict.fromkeys((each.a, each.b) for each in comparisons):
        results = [each.result for each in comparisons if (each.a, each.b) == (a, b)]
        rows = [(r.task, Estimate(value=r.difference, interval=r.interval)) for r in results]
        told = ", ".join(f"{r.task} {formatted(r.difference, 1, signed=True)}" for r in results)
        chart = charts.differences(
            rows,
            ahead=colours.get(a, "ink"),
            behind=colours.get(b, "ink"),
            unit="difference, points × 100",
            label=f"Differences, {a} minus {b}: {told}.",
        )
        panels.append(Panel(title=f"{a} minus {b}", chart=chart))
    if not panels:
        return None
    caption = (
        "A dot is the difference of two models on one task, the line its 95 % interval. Right of zero the first "
        "model is ahead, left of it the second, in that model's colour; grey and hollow where the interval holds "
        "zero and the data do not tell the two apart."
    )
    return Figure(title="Who is ahead where", caption=caption, panels=tuple(panels))


def gold_against_cosine(evaluated: Evaluated) -> list[Figure]:
    """One figure a task, one panel a model, all on the same axes."""
    figures = []
    for task in task_order(name for _, each in evaluated for name in each.details.sts):
        having = [(s, each, each.details.sts[task]) for s, each in evaluated if task in each.details.sts]
        box = _cosine_box([details for _, _, details in having])
        panels = tuple(
            Panel(key=key_of(subject), chart=_cosine_chart(task, subject, each, details, box))
            for subject, each, details in having
        )
        scores = ", ".join(f"{subject.label} {_spearman(each, task)}" for subject, each, _ in having)
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
    task: str, subject: Subject, each: Evaluation, details: PairDetails, box: tuple[float, float, float, float]
) -> charts.Chart:
    return charts.scatter(
        [
            Layer(
                name=subject.label,
                colour=model_colour(subject.number),
                x=np.asarray(details.gold, dtype=float),
                y=np.asarray(details.cosine, dtype=float),
            )
        ],
        box=box,
        x_label="gold score",
        y_label="cosine",
        label=f"Cosine against gold score of {len(details.gold)} pairs of {task}, {subject.label}: "
        f"Spearman × 100 is {_spearman(each, task)}.",
        height=250,
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
            name=subject.label if len(sources) == 1 else result.source,
            colour=model_colour(subject.number),
            x=result.uniformity,
            y=result.alignment,
            marker=subject.number,
        )
        for subject, result in found
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
        legend=legend(list({subject.label: subject for subject, _ in found}.values())),
    )


def retrieval_bars(evaluated: Evaluated) -> Figure | None:
    """Recalls of both directions."""
    panels = []
    for direction, title in (("text_to_image", "From text to image"), ("image_to_text", "From image to text")):
        series = []
        for subject, each in evaluated:
            for result in results_of(each, RetrievalResult).values():
                recall = getattr(result, direction)
                values = {"R@1": recall.r1, "R@5": recall.r5, "R@10": recall.r10}
                series.append(
                    Series(
                        name=subject.label,
                        colour=model_colour(subject.number),
                        values={name: Estimate(value=value) for name, value in values.items()},
                    )
                )
        if series:
            label = f"Bars. {title}, % of queries: {_told(series)}."
            panels.append(
                Panel(
                    title=title, chart=charts.bars(["R@1", "R@5", "R@10"], series, unit="% of queries", label=label)
                )
            )
    if not panels:
        return None
    caption = "Share of queries whose match is among the first 1, 5 and 10 answers."
    subjects = [s for s, each in evaluated if results_of(each, RetrievalResult)]
    return Figure(title="Recall", caption=caption, panels=tuple(panels), legend=legend(subjects))


def embedding_maps(evaluated: Evaluated) -> Figure | None:
    """One map a model; the tasks' colours are the same in all."""
    found = [(subject, each.details.map) for subject, each in evaluated if each.details.map is not None]
    if not found:
        return None
    tasks = task_order(task for _, plan in found for task in plan.task)
    colours = {task: task_colour(number) for number, task in enumerate(tasks)}
    panels = tuple(Panel(key=key_of(subject), chart=_map_chart(subject, plan, colours)) for subject, plan in found)
    methods = " and ".join(
        sorted({plan.method.upper() if plan.method == "pca" else plan.method for _, plan in found})
    )
    caption = (
        f"Sentences in the plane, by {methods}, coloured by the task they come from. Tasks on islands of their "
        "own mean that a vector tells where a sentence comes from; directions and, with t-SNE, distances "
        "between islands mean nothing."
    )
    keys = tuple(Key(name=task, colour=colour) for task, colour in colours.items())
    return Figure(title="Map of the sentences", caption=caption, panels=panels, legend=keys)


def _map_chart(subject: Subject, plan: EmbeddingMap, colours: dict[str, str]) -> charts.Chart:
    x, y, task = np.asarray(plan.x, dtype=float), np.asarray(plan.y, dtype=float), np.asarray(plan.task)
    present = [name for name in colours if (task == name).any()]
    layers = [Layer(name=name, colour=colours[name], x=x[task == name], y=y[task == name]) for name in present]
    return charts.scatter(
        layers,
        box=charts.padded_box(x, y),
        x_label="",
        y_label="",
        label=f"{len(x)} sentences of {', '.join(present)} in the plane of {plan.method}, {subject.label}.",
        height=340,
        opacity=0.6,
        ticks=False,
    )


def training_curves(trained: Sequence[tuple[Subject, History]]) -> Figure | None:
    """One panel a quantity: development scores, the loss, every term, the learning rate."""
    order = {"development": 0, "loss": 1, "term": 2, "learning rate": 3}
    kinds = {(curve.kind, curve.name) for _, history in trained for curve in history.curves}
    panels = []
    for kind, name in sorted(kinds, key=lambda each: (order[each[0]], each[1])):
        having = [
            (subject, history, curve)
            for subject, history in trained
            for curve in history.curves
            if (curve.kind, curve.name) == (kind, name)
        ]
        lines = [
            Line(
                name=subject.label,
                colour=model_colour(subject.number),
                x=curve.steps,
                y=curve.values,
                best=_best_point(history, curve),
            )
            for subject, history, curve in having
            if curve.steps
        ]
        if not lines:
            continue
        told = "; ".join(
            f"{line.name} from {line.y[0]:.4g} at step {line.x[0]} to {line.y[-1]:.4g} at step {line.x[-1]}"
            for line in lines
        )
        title = {"development": f"{name} (development)", "term": f"{name} (term)"}.get(kind, name)
        lost = sum(curve.not_finite for _, _, curve in having)
        if lost:
            title += f" · {lost} values not finite, left out"
        panels.append(
            Panel(title=title, chart=charts.curves(lines, y_label="", label=f"Curve of {title}: {told}."))
        )
    if not panels:
        return None
    caption = (
        "A term's value is its mean over the steps that had it since the last log line, before its weight. The "
        "dot on a development curve is the checkpoint that was kept; step 0 is the untrained student. Values of "
        "one term compare between runs only where its temperatures and margins are the same."
    )
    return Figure(
        title="Curves", caption=caption, panels=tuple(panels), legend=legend([subject for subject, _ in trained])
    )


def _best_point(history: History, curve: Curve) -> int | None:
    """Where the kept checkpoint lies on a development curve."""
    result = history.record.result
    if result is None or curve.kind != "development" or curve.name != result.development:
        return None
    return curve.steps.index(result.best_step) if result.best_step in curve.steps else None
