"""A study's result as a page: tables, bars with a dot for each seed, differences with intervals, trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dalr.report import charts
from dalr.report.charts import Estimate, Line, Series
from dalr.report.page import Block, Figure, Folded, Key, Page, Panel, Prose, Section, TableBlock
from dalr.report.palette import model_colour
from dalr.report.tables import formatted
from dalr.study import tables
from dalr.study.result import MethodResult, StudyResult
from dalr.study.scores import CLEAN_AVG, DEV, STS_AVG, TRANSFER_AVG

_OVERVIEW = (STS_AVG, CLEAN_AVG, TRANSFER_AVG, "t→i R@1", "i→t R@1", DEV)


def study_page(result: StudyResult) -> Page:
    """All sections that have something to show."""
    sections = [
        ("scores", "Scores", _scores(result)),
        ("differences", "Differences", _differences(result)),
        ("trials", "Trials", _trials(result)),
        ("provenance", "Where the numbers come from", _provenance(result)),
    ]
    found = [(name, title, tuple(blocks)) for name, title, blocks in sections]
    return Page(
        title=f"Study {result.name}",
        lead=Prose(text=_lead(result)),
        legend=_legend(result),
        sections=tuple(Section(name=name, title=title, blocks=blocks) for name, title, blocks in found if blocks),
    )


def _lead(result: StudyResult) -> str:
    """What came out, in words."""
    about = [f"{result.description.rstrip('.')}."] if result.description else []
    seeds = len(result.seeds)
    about.append(f"{len(result.methods)} methods, {seeds} {'seed' if seeds == 1 else 'seeds'} each.")
    for score in (STS_AVG, DEV):
        having = {name: each.summary[score] for name, each in result.methods.items() if score in each.summary}
        if len(having) > 1:
            order = sorted(having.items(), key=lambda item: -item[1].mean)
            listed = ", ".join(f"{name} {formatted(found.mean)}" for name, found in order)
            about.append(f"{score}: {listed}.")
            break
    if result.failures:
        about.append(f"{len(result.failures)} failures left gaps; they are listed with the scores.")
    return " ".join(about)


def _scores(result: StudyResult) -> Iterator[Block]:
    shown = [
        tables.sts_table(result),
        tables.transfer_table(result),
        tables.retrieval_table(result),
        tables.overlap_table(result),
        tables.photo_table(result),
        tables.failure_table(result),
    ]
    yield from (TableBlock(table=each) for each in shown if each is not None)
    bars = _bars(result)
    if bars is not None:
        yield bars


def _bars(result: StudyResult) -> Figure | None:
    names = [name for name in _OVERVIEW if any(name in each.summary for each in result.methods.values())]
    if not names:
        return None
    series = [
        Series(
            name=method,
            colour=model_colour(place),
            values={
                name: Estimate(
                    value=each.summary[name].mean,
                    interval=each.summary[name].interval,
                    points=tuple(seed.scores[name] for seed in each.seeds if name in seed.scores),
                )
                for name in names
                if name in each.summary
            },
        )
        for place, (method, each) in enumerate(result.methods.items())
    ]
    told = "; ".join(
        f"{one.name}: " + ", ".join(f"{name} {formatted(each.value, 1)}" for name, each in one.values.items())
        for one in series
    )
    chart = charts.bars(names, series, unit="× 100", label=f"Bars. {told}.")
    caption = (
        "A bar is the mean over seeds, each dot one seed, the line the 95 % interval of the mean by Student's t. "
        "It tells what further seeds would change, not what other sentences would."
    )
    return Figure(title="Methods", caption=caption, panels=(Panel(chart=chart),), legend=_legend(result))


def _differences(result: StudyResult) -> Iterator[Block]:
    colours = {name: model_colour(place) for place, name in enumerate(result.methods)}
    panels = []
    for a, b in dict.fromkeys((each.a, each.b) for each in result.differences):
        found = {each.score: each.seeds for each in result.differences if (each.a, each.b) == (a, b)}
        rows = [
            (name, Estimate(value=found[name].mean, interval=found[name].interval))
            for name in _OVERVIEW
            if name in found and found[name].interval is not None
        ]
        if not rows:
            continue
        told = ", ".join(f"{name} {formatted(each.value, 2, signed=True)}" for name, each in rows)
        chart = charts.differences(
            rows,
            ahead=colours[a],
            behind=colours[b],
            unit="difference, points × 100",
            label=f"Differences, {a} minus {b}: {told}.",
        )
        panels.append(Panel(title=f"{a} minus {b}", chart=chart))
    if panels:
        caption = (
            "Mean difference of runs under the same seed, with its 95 % interval over seeds. Grey and hollow where "
            "the interval holds zero."
        )
        yield Figure(title="Who is ahead", caption=caption, panels=tuple(panels))
    table = tables.difference_table(result)
    if table is not None:
        yield TableBlock(table=table, sortable=False)


def _trials(result: StudyResult) -> Iterator[Block]:
    lines = [
        line
        for place, (name, each) in enumerate(result.methods.items())
        if (line := _best_so_far(name, each, place))
    ]
    if lines:
        told = "; ".join(f"{line.name} ends at {formatted(line.y[-1])}" for line in lines)
        chart = charts.curves(
            lines, y_label="best dev so far", x_label="trial", label=f"Best development score over trials: {told}."
        )
        caption = "The best development score after so many trials: a curve that still rises had too few."
        yield Figure(
            title="What searching was worth", caption=caption, panels=(Panel(chart=chart),), legend=_legend(result)
        )
    table = tables.trial_table(result)
    if table is not None:
        yield Folded(summary="Every trial", blocks=(TableBlock(table=table, sortable=False),))


def _best_so_far(name: str, method: MethodResult, place: int) -> Line | None:
    x: list[int] = []
    y: list[float] = []
    for number, trial in enumerate(method.trials, start=1):
        if trial.development is not None:
            x.append(number)
            y.append(max([trial.development, *y[-1:]]))
    return Line(name=name, colour=model_colour(place), x=x, y=y) if x else None


def _provenance(result: StudyResult) -> Sequence[Block]:
    table = tables.origin_table(result)
    return [TableBlock(table=table)] if table is not None else []


def _legend(result: StudyResult) -> tuple[Key, ...]:
    return tuple(Key(name=name, colour=model_colour(place)) for place, name in enumerate(result.methods))
