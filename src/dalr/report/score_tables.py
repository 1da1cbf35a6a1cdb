"""How are evaluations tabulated? The published rows below the measured ones.

A model that lacks a task has a dash there, and no average. What a figure was formed from (split, aggregation,
classifier) stands in the group's title where all figures share it, and beside the figure where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from dalr.evaluation.published import AVERAGE, PublishedRow, load_published
from dalr.evaluation.results import (
    CaptionsResult,
    Evaluation,
    MtebResult,
    Recall,
    RetrievalResult,
    StsResult,
    TransferResult,
)
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.report.palette import model_colour
from dalr.report.sources import Sources
from dalr.report.tables import Cell, Column, Group, Row, Table, interval, number, table

T = TypeVar("T")

TRANSFER_NOTE = (
    "acc is test accuracy; devacc is the validation accuracy used to select the penalty, and is higher. It is not "
    "always clear which of the two a published column is: one released script prints acc, another prints devacc "
    "under the same name. Compare a published row with both of ours, and trust neither difference fully."
)
BOLD_NOTE = "Bold: best of the measured models. Published rows differ in backbone and training data."
PUBLISHED = "Published, as printed"
_AVERAGE_EXPLAINED = "mean of the seven; a dash unless all seven are present"


def results_of(evaluation: Evaluation, kind: type[T]) -> dict[str, T]:
    """The results of one kind, by name, in the order of the file."""
    return {name: result for name, result in evaluation.tasks.items() if isinstance(result, kind)}


def task_order(names: Iterable[str]) -> list[str]:
    """The seven STS and seven transfer tasks in the field's order, then whatever else there is."""
    known = [*STS_TASKS, *TRANSFER_TASKS]
    distinct = list(dict.fromkeys(names))
    return [name for name in known if name in distinct] + [name for name in distinct if name not in known]


def sts_table(sources: Sources) -> Table | None:
    rows = [(model, each, results_of(each, StsResult)) for model, each in sources.evaluated]
    found = task_order(name for _, _, results in rows for name in results)
    if not found:
        return None
    seven = STS_TASKS if set(STS_TASKS) & set(found) else ()
    others = [name for name in found if name not in STS_TASKS]
    average = (AVERAGE,) if seven else ()
    formed = {
        names: _shared({_formed(results[name]) for _, _, results in rows for name in names if name in results})
        for names in (seven, *((name,) for name in others))
        if names
    }

    def cell(name: str, result: StsResult | None) -> Cell:
        if result is None:
            return Cell()
        known = formed[seven if name in seven else (name,)]
        return number(
            result.spearman, detail=interval(result.interval, 1) + ("" if known else f" · {_formed(result)}")
        )

    measured = [
        Row(
            head=model.label,
            about=model.setting,
            colour=model_colour(model.number),
            cells=(
                *(cell(name, results.get(name)) for name in seven),
                *(number(each.sts_avg) for _ in average),
                *(cell(name, results.get(name)) for name in others),
            ),
        )
        for model, each, results in rows
        if results
    ]
    title = "; ".join(
        f"{'' if names == seven else names[0] + ': '}{how}" for names, how in formed.items() if how is not None
    )
    published = load_published().of("sts") if seven else []
    return table(
        name="sts",
        caption="Semantic textual similarity: Spearman × 100 of cosine and gold score",
        head="model",
        columns=[
            *(Column(name=name, better="higher") for name in seven),
            *(Column(name=name, better="higher", explained=_AVERAGE_EXPLAINED) for name in average),
            *(Column(name=name, better="higher") for name in others),
        ],
        groups=[
            Group(rows=tuple(measured), title=f"Measured ({title})" if title else "Measured", ranked=True),
            Group(
                rows=tuple(published_row(row, (*seven, *average), blanks=len(others)) for row in published),
                title=PUBLISHED,
            ),
        ],
        notes=[BOLD_NOTE],
    )


def _formed(result: StsResult) -> str:
    return f"split {result.split}, aggregation {result.aggregation}"


def transfer_table(sources: Sources) -> Table | None:
    rows = [(model, each, results_of(each, TransferResult)) for model, each in sources.evaluated]
    if not any(results for _, _, results in rows):
        return None
    classifier = _shared({(result.classifier,) for _, _, results in rows for result in results.values()})

    def measured(
        value: Callable[[TransferResult], Cell], average: Callable[[Evaluation], float | None]
    ) -> tuple[Row, ...]:
        return tuple(
            Row(
                head=model.label,
                about=model.setting,
                colour=model_colour(model.number),
                cells=(
                    *(value(results[name]) if name in results else Cell() for name in TRANSFER_TASKS),
                    number(average(each)),
                ),
            )
            for model, each, results in rows
            if results
        )

    def acc(result: TransferResult) -> Cell:
        about = "" if classifier else f" · {result.classifier}"
        return number(result.acc, detail=interval(result.interval, 1) + about)

    by = f" (classifier {classifier[0]})" if classifier else ""
    return table(
        name="transfer",
        caption="Transfer: accuracy × 100 of a classifier over frozen sentence vectors",
        head="model",
        columns=[
            *(Column(name=name, better="higher") for name in TRANSFER_TASKS),
            Column(name=AVERAGE, better="higher", explained=_AVERAGE_EXPLAINED),
        ],
        groups=[
            Group(rows=measured(acc, lambda each: each.transfer_avg), title=f"Measured acc{by}", ranked=True),
            Group(
                rows=measured(lambda result: number(result.devacc), lambda each: each.transfer_devavg),
                title=f"Measured devacc{by}",
                ranked=True,
            ),
            Group(
                rows=tuple(
                    published_row(row, (*TRANSFER_TASKS, AVERAGE)) for row in load_published().of("transfer")
                ),
                title=f"{PUBLISHED}; acc or devacc unclear",
            ),
        ],
        notes=[TRANSFER_NOTE, BOLD_NOTE],
    )


def retrieval_table(sources: Sources) -> Table | None:
    found = [
        (model, name, result)
        for model, each in sources.evaluated
        for name, result in results_of(each, RetrievalResult).items()
    ]
    if not found:
        return None
    directions = ("text → image", "image → text")
    columns = [
        Column(name=f"{short} {name}", better=better, explained=f"{direction}: {explained}")
        for direction, short in zip(directions, ("t→i", "i→t"), strict=True)
        for name, better, explained in _RECALLS
    ]
    published = [
        Row(
            head=row.method,
            about=row.data,
            cells=tuple(
                number(row.scores.get(f"{direction}_{name}"), row.decimals)
                for direction in ("text_to_image", "image_to_text")
                for name, _, _ in _RECALLS
            ),
        )
        for row in load_published().of("retrieval")
    ]
    return table(
        name="retrieval",
        caption="Image–text retrieval: fraction of queries (%) whose match is among the first 1, 5, 10",
        head="model",
        columns=columns,
        groups=[
            Group(
                rows=tuple(
                    Row(
                        head=model.label,
                        about=f"{result.space}, {_own_items(result)}",
                        colour=model_colour(model.number),
                        cells=(*_recalls(result.text_to_image), *_recalls(result.image_to_text)),
                    )
                    for model, _, result in found
                ),
                title="Measured",
                ranked=len({(result.images, result.captions, result.split, result.items) for *_, result in found})
                == 1,
            ),
            Group(rows=tuple(published), title=f"{PUBLISHED}; protocol not stated"),
        ],
        notes=["The more images there are to choose from, the lower every recall: compare rows of one size only."],
    )


def captions_table(sources: Sources) -> Table | None:
    """Captions that find the others of their image."""
    found = [
        (model, result) for model, each in sources.evaluated for result in results_of(each, CaptionsResult).values()
    ]
    if not found:
        return None
    return table(
        name="captions",
        caption="Captions that find the other captions of their image among all",
        head="model",
        columns=[
            Column(name="R@1", better="higher", explained="% of captions whose nearest is of the same image"),
            Column(name="R@10", better="higher", explained="% with one of the same image among the ten nearest"),
            Column(name="MAP", better="higher", explained="mean average precision × 100"),
        ],
        groups=[
            Group(
                rows=tuple(
                    Row(
                        head=model.label,
                        about=_own_items(result),
                        colour=model_colour(model.number),
                        cells=tuple(
                            number(value, detail=_reach(result.intervals.get(name)))
                            for name, value in (("R@1", result.r1), ("R@10", result.r10), ("MAP", result.map))
                        ),
                    )
                    for model, result in found
                ),
                title="Measured",
                ranked=len({result.items for _, result in found}) == 1,
            )
        ],
    )


def _own_items(result: RetrievalResult | CaptionsResult) -> str:
    return f"{result.split}: {result.images:,} images, {result.captions:,} captions"


def _reach(bounds: tuple[float, float] | None) -> str:
    return interval(bounds) if bounds is not None else ""


_RECALLS: Sequence[tuple[str, Literal["higher", "lower"], str]] = (
    ("R@1", "higher", "% of queries with a match in first place"),
    ("R@5", "higher", "% of queries with a match among the first five"),
    ("R@10", "higher", "% of queries with a match among the first ten"),
    ("rank", "lower", "median rank of the first match"),
)


def _recalls(recall: Recall) -> tuple[Cell, ...]:
    several = (("R@1", recall.r1), ("R@5", recall.r5), ("R@10", recall.r10))
    found = (number(value, detail=_reach(recall.intervals.get(name))) for name, value in several)
    return (*found, number(recall.median_rank, 1))


def mteb_table(sources: Sources) -> Table | None:
    rows = [(model, results_of(each, MtebResult)) for model, each in sources.evaluated]
    names = list(dict.fromkeys(name for _, results in rows for name in results))
    if not names:
        return None
    metrics = {name: result.metric for _, results in rows for name, result in results.items()}
    versions = sorted({result.mteb_version for _, results in rows for result in results.values()})
    return table(
        name="mteb",
        caption=f"mteb: main score × 100 of each task (mteb {', '.join(versions)})",
        head="model",
        columns=[Column(name=name, better="higher", explained=metrics[name]) for name in names],
        groups=[
            Group(
                rows=tuple(
                    Row(
                        head=model.label,
                        colour=model_colour(model.number),
                        cells=tuple(
                            number(results[name].main_score, detail=results[name].metric)
                            if name in results
                            else Cell()
                            for name in names
                        ),
                    )
                    for model, results in rows
                    if results
                ),
                ranked=True,
            )
        ],
    )


def published_row(row: PublishedRow, names: Sequence[str], *, blanks: int = 0) -> Row:
    """A published row in columns `names`, and as many dashes behind them."""
    cells = (*(number(row.scores.get(name), row.decimals) for name in names), *(Cell() for _ in range(blanks)))
    return Row(head=row.method, about=row.setting, cells=cells)


def _shared(values: set[T]) -> T | None:
    """What all have in common; None where they differ."""
    return next(iter(values)) if len(values) == 1 else None
