"""How are scores shown in a terminal? One row per metric, one column per model; Markdown too.

Every row says over which split and by which aggregation its number was formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dalr.evaluation.bootstrap import DRAWS
from dalr.evaluation.results import (
    CaptionsResult,
    Comparison,
    Evaluation,
    GeometryResult,
    MtebResult,
    RetrievalResult,
    StsResult,
    TaskResult,
    TransferResult,
)
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS

_DASH = "–"
_PAIRED = (
    f"\nPaired bootstrap: both models on the same {DRAWS:,} resamples of the items. p is two-sided, not\n"
    f"corrected for the number of tasks, and cannot be below {2 / (DRAWS + 1):.3f}."
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One number of a task."""

    measure: str
    value: float
    items: str = ""
    interval: tuple[float, float] | None = None
    decimals: int = 2

    def cell(self) -> str:
        text = f"{self.value:.{self.decimals}f}"
        if self.interval is None:
            return text
        low, high = self.interval
        return f"{text} [{low:.1f}, {high:.1f}]"


def as_table(
    evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison] = (), *, all_numbers: bool = False
) -> str:
    """Scores of models on the same tasks; `all_numbers` adds subsets, other aggregations and Pearson."""
    lines = [_lines(evaluation, all_numbers) for evaluation in evaluations]
    keys = dict.fromkeys(key for each in lines for key in each)
    body = []
    for task, measure in keys:
        found = [each.get((task, measure)) for each in lines]
        items = next(line.items for line in found if line is not None)
        body.append([task, measure, items, *(line.cell() if line is not None else _DASH for line in found)])
    tables = [markdown(["task", "measure", "items", *map(_column, evaluations)], body, left=2)]
    if any(line.interval is not None for each in lines for line in each.values()):
        tables.append(
            "[…]: 95 % bootstrap interval over test items (for your own data: over images); it leaves out "
            "variation between training runs."
        )
    if spaces := [
        f"{each.model} {result.space}"
        for each in evaluations
        for result in each.tasks.values()
        if isinstance(result, RetrievalResult)
    ]:
        tables.append(f"Retrieval in the space of: {', '.join(spaces)}.")
    if changed := sorted({path for each in evaluations for path in each.settings.data_changed}):
        tables.append(f"Not the official data, scored anyway: {', '.join(changed)}.")
    if comparisons:
        tables += ["", comparison_table(comparisons)]
    return "\n".join(tables)


def _column(evaluation: Evaluation) -> str:
    """The model, and what of it was used where that is not all as it stands in its files."""
    settings = evaluation.settings
    layers = settings.num_layers
    used = [f"first {layers} layers" if layers != 1 else "first layer"] if layers is not None else []
    used += [f"{settings.pooling} pooling"] if settings.pooling is not None else []
    used += [f"prompt {settings.prompt!r}"] if settings.prompt is not None else []
    used += [settings.precision] if settings.precision != "fp32" else []
    return f"{evaluation.model} ({', '.join(used)})" if used else evaluation.model


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Differences between models on the same items."""
    rows = [
        [
            each.task,
            f"{each.a} − {each.b}",
            each.metric,
            f"{each.difference:+.2f}",
            f"[{each.interval[0]:+.2f}, {each.interval[1]:+.2f}]",
            f"{each.p_value:.3f}",
        ]
        for each in comparisons
    ]
    headers = ["task", "models", "measure", "difference", "95 %", "p"]
    return markdown(headers, rows, left=3) + _PAIRED


def _lines(evaluation: Evaluation, all_numbers: bool) -> dict[tuple[str, str], Line]:
    rows: dict[tuple[str, str], Line] = {}
    for task, result in evaluation.tasks.items():
        for line in lines_of(result, all_numbers=all_numbers):
            rows[task, line.measure] = line
    for name, measure, tasks, value in (
        ("STS avg", "mean of the seven", STS_TASKS, evaluation.sts_avg),
        ("transfer avg", "mean acc of the seven", TRANSFER_TASKS, evaluation.transfer_avg),
        ("transfer avg", "mean devacc of the seven", TRANSFER_TASKS, evaluation.transfer_devavg),
    ):
        if value is not None:
            rows[name, measure] = Line(measure=measure, value=value, items=str(len(tasks)))
    return rows


def lines_of(result: TaskResult, *, all_numbers: bool = False) -> list[Line]:
    """The numbers of one task as rows."""
    match result:
        case StsResult():
            return list(_sts_lines(result, all_numbers))
        case TransferResult():
            return [
                Line(
                    measure=f"acc, {result.split} ({result.classifier})",
                    value=result.acc,
                    items=str(result.examples),
                    interval=result.interval,
                ),
                Line(measure="devacc, used to select the penalty", value=result.devacc),
            ]
        case RetrievalResult():
            return [
                Line(
                    measure=f"{way} {name}, {result.split}",
                    value=value,
                    items=str(queries),
                    interval=recall.intervals.get(name),
                )
                for way, queries, recall in (
                    ("text→image", result.captions, result.text_to_image),
                    ("image→text", result.images, result.image_to_text),
                )
                for name, value in (
                    ("R@1", recall.r1),
                    ("R@5", recall.r5),
                    ("R@10", recall.r10),
                    ("median rank", recall.median_rank),
                )
            ]
        case CaptionsResult():
            return [
                Line(
                    measure=f"other captions of the image, {name}, {result.split}",
                    value=value,
                    items=str(result.queries),
                    interval=result.intervals.get(name),
                )
                for name, value in (("R@1", result.r1), ("R@10", result.r10), ("MAP", result.map))
            ]
        case GeometryResult():
            return list(_geometry_lines(result))
        case MtebResult():
            return [Line(measure=result.metric, value=result.main_score)]


def _sts_lines(result: StsResult, all_numbers: bool) -> Iterator[Line]:
    together = "all subsets together" if len(result.subsets) > 1 else "all pairs"
    if result.aggregation == "groups":
        together = "mean of groups"
    where, items = f"{together}, {result.split}", str(result.pairs)
    yield Line(measure=f"Spearman, {where}", value=result.spearman, items=items, interval=result.interval)
    if (clean := result.without_overlap) is not None:
        yield Line(
            measure="Spearman, without pairs seen in training",
            value=clean.spearman,
            items=str(clean.pairs),
            interval=clean.interval,
        )
    for group, correlation in result.groups.items():
        yield Line(measure=f"Spearman, {group}", value=correlation.spearman)
    if not all_numbers:
        return
    yield Line(measure=f"Pearson, {where}", value=result.pearson, items=items)
    if len(result.subsets) > 1:
        for name, correlation in (("mean", result.mean), ("weighted mean", result.weighted_mean)):
            yield Line(measure=f"Spearman, {name} of subsets", value=correlation.spearman, items=items)
            yield Line(measure=f"Pearson, {name} of subsets", value=correlation.pearson, items=items)
        for name, subset in result.subsets.items():
            yield Line(measure=f"Spearman, {name}", value=subset.spearman, items=str(subset.pairs))


def _geometry_lines(result: GeometryResult) -> Iterator[Line]:
    items = str(result.sentences)
    if result.alignment is not None:
        yield Line(measure=f"alignment, {result.source}", value=result.alignment, items=items, decimals=3)
    for measure, value, decimals in (
        (f"uniformity, {result.source}", result.uniformity, 3),
        ("mean cosine of two sentences", result.mean_cosine, 3),
        ("variance on the first axis", result.top_component, 3),
        ("effective rank", result.effective_rank, 1),
        ("hubness (skewness of N₁₀)", result.hubness, 2),
        ("largest hub", float(result.largest_hub), 0),
        ("fraction of anti-hubs", result.antihubs, 3),
    ):
        yield Line(measure=measure, value=value, items=items, decimals=decimals)


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table with aligned columns: the first `left` to the left, the others to the right."""
    table = [list(headers), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (width + 2) if i < left else "-" * (width + 1) + ":" for i, width in enumerate(widths))
    return "\n".join([line(table[0]), f"|{rule}|", *(line(row) for row in table[1:])])
