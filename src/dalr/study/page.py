"""How is a study shown as a page? Bars with a dot for each seed, differences with intervals, tables, trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from dalr.report import charts
from dalr.report.charts import Estimate, Line, Series
from dalr.report.page import Block, Figure, Folded, Key, Page, Panel, Prose, Section, TableBlock
from dalr.report.palette import model_colour
from dalr.report.svg import Chart
from dalr.report.tables import Table, formatted
from dalr.study import tables
from dalr.study.result import MethodResult, StudyResult
from dalr.study.scores import CLEAN_AVG, DEV, STS_AVG, TRANSFER_AVG
from dalr.study.verdict import settled, verdict

_SENTENCES, _BEYOND = (STS_AVG, CLEAN_AVG, DEV), (TRANSFER_AVG, "t→i R@1", "i→t R@1", "captions MAP")
_LISTED = 6
"""Methods whose scores are a sentence; of more, the table is easier to read."""
_LABELS = {CLEAN_AVG: "STS avg w/o overlap", "t→i R@1": "text→image R@1", "i→t R@1": "image→text R@1"}


def study_page(result: StudyResult) -> Page:
    """All sections that have something to show: images first, then the numbers behind them."""
    sections = [
        ("glance", "At a glance", _glance(result)),
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
        if 1 < len(having) <= _LISTED:
            order = sorted(having.items(), key=lambda item: -item[1].mean)
            listed = ", ".join(f"{name} {formatted(found.mean)}" for name, found in order)
            about.append(f"{score}: {listed}.")
            break
    about += verdict(result)
    if result.failures:
        about.append(f"{len(result.failures)} failures left gaps; they are listed with the scores.")
    return " ".join(about)


def _glance(result: StudyResult) -> Iterator[Block]:
    yield from (each for each in (_bars(result), _ahead(result)) if each is not None)


def _scores(result: StudyResult) -> Iterator[Block]:
    for each in [*tables.score_tables(result), tables.failure_table(result)]:
        if each is not None:
            yield from _published_folded(each)


def _published_folded(table: Table) -> Iterator[Block]:
    """What was measured, then a fold with the rows that papers print: there are many times more of those."""
    measured, *published = table.groups
    yield TableBlock(table=dataclasses.replace(table, groups=(measured,)))
    if published:
        rows = sum(len(group.rows) for group in published)
        folded = dataclasses.replace(table, name=f"{table.name}-published", groups=tuple(published), notes=())
        yield Folded(summary=f"{rows} published rows", blocks=(TableBlock(table=folded),))


def _bars(result: StudyResult) -> Figure | None:
    panels = [
        Panel(chart=_bar_chart(result, names))
        for group in (_SENTENCES, result.graded, _BEYOND)
        if (names := [name for name in group if any(name in each.summary for each in result.methods.values())])
    ]
    if not panels:
        return None
    caption = (
        "A bar is the mean over seeds, each dot one seed, the line the 95 % interval of the mean by Student's t. "
        "It shows what further seeds would change, not what other sentences would."
    )
    return Figure(title="Methods", caption=caption, panels=tuple(panels), legend=_legend(result))


def _bar_chart(result: StudyResult, names: Sequence[str]) -> Chart:
    series = [
        Series(
            name=method,
            colour=model_colour(place),
            values={
                _LABELS.get(name, name): Estimate(
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
    return charts.bars([_LABELS.get(name, name) for name in names], series, unit="× 100", label=f"Bars. {told}.")


def _ahead(result: StudyResult) -> Figure | None:
    """The compared pairs side by side."""
    colours = {name: model_colour(place) for place, name in enumerate(result.methods)}
    overview = _overview(result)
    shown: dict[tuple[str, str], list[tuple[str, Estimate]]] = {}
    for each in result.differences:
        if each.score in overview and each.seeds.interval is not None:
            estimate = Estimate(value=each.seeds.mean, interval=each.seeds.interval, settled=settled(each, result))
            shown.setdefault((each.a, each.b), []).append((each.score, estimate))
    panels = []
    for (a, b), found in shown.items():
        rows = [
            (_LABELS.get(name, name), estimate)
            for name, estimate in sorted(found, key=lambda each: overview.index(each[0]))
        ]
        told = ", ".join(f"{name} {formatted(each.value, 2, signed=True)}" for name, each in rows)
        chart = charts.differences(
            rows,
            ahead=colours[a],
            behind=colours[b],
            unit="difference, points × 100",
            label=f"Differences, {a} minus {b}: {told}.",
        )
        panels.append(Panel(title=f"{a} minus {b}", chart=chart))
    if not panels:
        return None
    caption = (
        "Mean difference of runs under the same seed, with its 95 % interval over seeds, in the colour of the one "
        "ahead. Grey and hollow where the interval holds zero, or there are not enough seeds to say."
    )
    return Figure(title="Who is ahead", caption=caption, panels=tuple(panels))


def _overview(result: StudyResult) -> tuple[str, ...]:
    """The scores that are shown first, one or few for each task."""
    return (*_SENTENCES, *result.graded, *_BEYOND)


def _differences(result: StudyResult) -> Iterator[Block]:
    """What the images show in view, every task and subset in a fold."""
    shown, every = tables.difference_table(result, _overview(result)), tables.difference_table(result)
    if shown is not None and every is not None:
        yield TableBlock(table=shown, sortable=False)
        if len(every.rows) > len(shown.rows):
            every = dataclasses.replace(every, name=f"{every.name}-all")
            yield Folded(summary="Every score", blocks=(TableBlock(table=every, sortable=False),))


def _trials(result: StudyResult) -> Iterator[Block]:
    lines = [
        line
        for place, (name, each) in enumerate(result.methods.items())
        if (line := _best_so_far(name, each, place))
    ]
    if lines:
        told = "; ".join(f"{line.name} ends at {formatted(line.y[-1])}" for line in lines)
        chart = charts.curves(
            lines, y_label="best dev so far", x_label="trial", label=f"Best validation score over trials: {told}."
        )
        caption = "The best validation score after so many trials: a curve that still rises had too few."
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
        if trial.validation is not None:
            x.append(number)
            y.append(max([trial.validation, *y[-1:]]))
    return Line(name=name, colour=model_colour(place), x=x, y=y) if x else None


def _provenance(result: StudyResult) -> Sequence[Block]:
    table = tables.origin_table(result)
    return [TableBlock(table=table)] if table is not None else []


def _legend(result: StudyResult) -> tuple[Key, ...]:
    return tuple(Key(name=name, colour=model_colour(place)) for place, name in enumerate(result.methods))
