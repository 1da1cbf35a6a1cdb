"""How are scores drawn? By task, among the published, as differences between models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dalr.evaluation.published import AVERAGE, TableName, load_published
from dalr.evaluation.results import (
    Evaluation,
    RetrievalResult,
    StsResult,
    TransferResult,
)
from dalr.report import charts
from dalr.report.charts import Estimate, Series
from dalr.report.page import Figure, Key, Panel
from dalr.report.palette import model_colour
from dalr.report.score_tables import results_of, task_order
from dalr.report.sources import NamedComparison, ReportedModel, Sources
from dalr.report.tables import formatted

Evaluated = Sequence[tuple[ReportedModel, Evaluation]]


def key_of(model: ReportedModel) -> Key:
    return Key(name=model.label, colour=model_colour(model.number))


def legend(models: Sequence[ReportedModel]) -> tuple[Key, ...]:
    return tuple(map(key_of, models))


def score_bars(sources: Sources) -> Figure | None:
    """Bars of all STS and transfer scores."""
    panels = [
        _bar_panel("STS, Spearman × 100", sources, _spearmans),
        _bar_panel("Transfer, acc × 100", sources, _accuracies),
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


def _spearmans(evaluation: Evaluation) -> dict[str, Estimate]:
    found = results_of(evaluation, StsResult)
    return {name: Estimate(value=each.spearman, interval=each.interval) for name, each in found.items()}


def _accuracies(evaluation: Evaluation) -> dict[str, Estimate]:
    found = results_of(evaluation, TransferResult)
    return {name: Estimate(value=each.acc, interval=each.interval) for name, each in found.items()}


def _bar_panel(
    title: str, sources: Sources, scores_of: Callable[[Evaluation], dict[str, Estimate]]
) -> Panel | None:
    rows = [(model, scores_of(each)) for model, each in sources.evaluated]
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
    averages: list[tuple[TableName, str, dict[str, float | None]]] = [
        ("sts", "STS average", {s.label: each.sts_avg for s, each in sources.evaluated}),
        (
            "transfer",
            "Transfer average (acc; published: unclear)",
            {s.label: each.transfer_avg for s, each in sources.evaluated},
        ),
    ]
    colours = {model.label: model_colour(model.number) for model in sources.models}
    panels = []
    for name, title, measured in averages:
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
    colours = {model.label: model_colour(model.number) for model in sources.models}
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


def retrieval_bars(evaluated: Evaluated) -> Figure | None:
    """Recalls of both directions."""
    panels = []
    for direction, title in (("text_to_image", "From text to image"), ("image_to_text", "From image to text")):
        series = []
        for model, each in evaluated:
            for result in results_of(each, RetrievalResult).values():
                recall = getattr(result, direction)
                values = {"R@1": recall.r1, "R@5": recall.r5, "R@10": recall.r10}
                series.append(
                    Series(
                        name=model.label,
                        colour=model_colour(model.number),
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
    models = [s for s, each in evaluated if results_of(each, RetrievalResult)]
    return Figure(title="", caption=caption, panels=tuple(panels), legend=legend(models))
