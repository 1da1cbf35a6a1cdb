"""Which kinds of chart are reports made of? They know numbers, names and colour roles, not evaluations.

They are drawn 400 or 320 units wide, so that two or three stand side by side on a desktop and one fills a phone,
with letters that can be read on both. Bars start at zero; a missing number is a dash at the place of its bar.
Clouds of points become rasters of opacity, because ten thousand circles make a page that no phone scrolls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dalr.report.palette import sentinel
from dalr.report.svg import Chart, add_cloud, drawing, to_chart
from dalr.report.tables import DASH, formatted

WIDE, NARROW = 400.0, 320.0
Numbers = Sequence[int] | Sequence[float]
_MARKERS = "osD^vP*X"
_SHARPNESS = 1.6
"""Pixels of a raster for one unit."""
_LONGEST_LINE = 400
"""Points that a curve is thinned to: more than there are pixels."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval, if there is one."""

    value: float
    interval: tuple[float, float] | None = None
    points: tuple[float, ...] = ()
    """What the number is the mean of, such as one score a seed."""
    settled: bool = True
    """Whether its interval says anything; a difference that is not settled has nobody ahead."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one model (or method) has in each category; missing ones are left out of `values`."""

    name: str
    colour: str
    values: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A labelled place in a plane."""

    name: str
    colour: str
    x: float
    y: float
    marker: int = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve; `best` marks one of its points."""

    name: str
    colour: str
    x: Numbers
    y: Numbers
    best: int | None = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The points of one colour in a cloud."""

    name: str
    colour: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]


def bars(categories: Sequence[str], series: Sequence[Series], *, unit: str, label: str) -> Chart:
    """Horizontal bars from zero, one group a category, with intervals as whiskers and the number at the end."""
    thick = 12.0
    step = thick * len(series) + 11
    found = [each for one in series for each in one.values.values()]
    lowest = min([0.0, *(each.value for each in found), *(each.interval[0] for each in found if each.interval)])
    highest = max([1.0, *(each.value for each in found), *(each.interval[1] for each in found if each.interval)])
    with drawing(WIDE, step * len(categories) + 34) as (figure, axes):
        for place, category in enumerate(categories):
            for number, one in enumerate(series):
                y = place * step + (number - (len(series) - 1) / 2) * thick
                estimate = one.values.get(category)
                if estimate is None:
                    axes.text(highest * 0.01, y, DASH, color=sentinel("muted"), va="center", size=9)
                    continue
                axes.barh(y, estimate.value, height=thick - 2, color=sentinel(one.colour), linewidth=0)
                end = max(estimate.value, 0.0)
                if estimate.interval is not None:
                    low, high = estimate.interval
                    axes.plot([low, high], [y, y], color=sentinel("ink"), linewidth=1.2, solid_capstyle="butt")
                    end = max(end, high)
                if estimate.points:
                    axes.plot(
                        estimate.points,
                        [y] * len(estimate.points),
                        "o",
                        color=sentinel("surface"),
                        markeredgecolor=sentinel("ink"),
                        markersize=3.4,
                        markeredgewidth=0.8,
                    )
                    end = max(end, *estimate.points)
                text = formatted(estimate.value, 1)
                axes.text(end + highest * 0.015, y, text, va="center", size=9, color=sentinel("ink"))
        axes.set_yticks([place * step for place in range(len(categories))], [_short(name) for name in categories])
        for tick in axes.get_yticklabels():
            tick.set_color(sentinel("ink"))
        axes.set_ylim(step * (len(categories) - 0.5), -step * 0.5)
        axes.set_xlim(lowest * 1.08, highest * 1.13)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        if lowest < 0:
            axes.axvline(0, color=sentinel("muted"), linewidth=0.8)
        axes.set_xlabel(unit)
        return to_chart(figure, label=label)


def ranking(rows: Sequence[tuple[str, float, str]], *, unit: str, label: str) -> Chart:
    """One bar for each (name, value, colour), in the order given, the name above its bar."""
    step = 23.0
    highest = max(value for _, value, _ in rows)
    lowest = min(0.0, *(value for _, value, _ in rows), 0.0)
    with drawing(WIDE, step * len(rows) + 30) as (figure, axes):
        for place, (name, value, colour) in enumerate(rows):
            y = place * step
            paler = 0.55 if colour == "muted" else 1.0
            axes.barh(y + 5, value, height=6, color=sentinel(colour), alpha=paler, linewidth=0)
            axes.text(0, y - 1, _short(name, 62), size=9, va="baseline", color=sentinel("ink"))
            end = max(value, 0.0) + highest * 0.015
            axes.text(end, y + 5, formatted(value, 1), size=9, va="center", color=sentinel("ink"))
        axes.set_yticks([])
        axes.set_ylim(step * len(rows) - 8, -12)
        axes.set_xlim(lowest * 1.08, highest * 1.13)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(unit)
        return to_chart(figure, label=label)


def differences(rows: Sequence[tuple[str, Estimate]], *, ahead: str, behind: str, unit: str, label: str) -> Chart:
    """Differences with intervals around a line at zero: filled where the interval leaves zero out.

    `ahead` is the colour of what is ahead on the right, `behind` of what is ahead on the left.
    """
    with drawing(WIDE, 22.0 * len(rows) + 40) as (figure, axes):
        reach = max([0.1, *(abs(bound) for _, each in rows for bound in each.interval or (each.value,))])
        axes.axvline(0, color=sentinel("muted"), linewidth=1)
        for place, (_, each) in enumerate(rows):
            low, high = each.interval or (each.value, each.value)
            open_ = low <= 0 <= high or not each.settled
            colour = sentinel("muted") if open_ else sentinel(ahead if low > 0 else behind)
            axes.plot([low, high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
            face = sentinel("surface") if open_ else colour
            axes.plot(
                [each.value], [place], "o", color=colour, markerfacecolor=face, markersize=6.5, markeredgewidth=1.6
            )
        axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
        for tick in axes.get_yticklabels():
            tick.set_color(sentinel("ink"))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-1.15 * reach, 1.15 * reach)  # room for the letters of the outermost tick
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(unit)
        return to_chart(figure, label=label)


def plane(points: Sequence[Point], *, x_label: str, y_label: str, label: str) -> Chart:
    """Labelled points; the names stand beside them."""
    with drawing(WIDE, 300.0) as (figure, axes):
        for point in points:
            axes.plot(
                [point.x],
                [point.y],
                _MARKERS[point.marker % len(_MARKERS)],
                color=sentinel(point.colour),
                markersize=8,
                markeredgecolor=sentinel("surface"),
                markeredgewidth=0.8,
            )
        left, right = _padded([point.x for point in points])
        bottom, top = _padded([point.y for point in points])
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        for point in points:
            on_left = point.x > (left + right) / 2
            axes.annotate(
                _short(point.name),
                (point.x, point.y),
                xytext=(-7 if on_left else 7, 0),
                textcoords="offset points",
                ha="right" if on_left else "left",
                va="center",
                size=9,
                color=sentinel("ink"),
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return to_chart(figure, label=label)


def scatter(
    layers: Sequence[Layer],
    *,
    box: tuple[float, float, float, float],
    x_label: str,
    y_label: str,
    label: str,
    height: float = 230.0,
    opacity: float = 0.35,
    ticks: bool = True,
    medians: bool = False,
) -> Chart:
    """Clouds of points in `box` (left, right, bottom, top), rasterised; `medians` adds the median of y along x."""
    with drawing(NARROW, height) as (figure, axes):
        for layer in layers:
            add_cloud(axes, coverage(layer, box=box, height=height, opacity=opacity), role=layer.colour, box=box)
        left, right, bottom, top = box
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        if medians:
            for layer in layers:
                x, y = running_median(layer)
                axes.plot(x, y, color=sentinel("surface"), linewidth=4, zorder=3)
                axes.plot(x, y, color=sentinel("ink"), linewidth=1.6, zorder=4)
        if not ticks:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set_visible(True)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return to_chart(figure, label=label)


def curves(lines: Sequence[Line], *, y_label: str, label: str, x_label: str = "step") -> Chart:
    """Values over training steps, or over whatever `x_label` counts."""
    with drawing(NARROW, 170.0) as (figure, axes):
        for line in lines:
            x, y = thinned(line.x, line.y)
            mark = "o" if len(x) == 1 else ""
            axes.plot(x, y, color=sentinel(line.colour), linewidth=1.6, marker=mark, solid_joinstyle="round")
            if line.best is not None:
                at = (line.x[line.best], line.y[line.best])
                axes.plot([at[0]], [at[1]], "o", color=sentinel(line.colour), markersize=6)
        axes.set_xlim(left=min((min(line.x) for line in lines if len(line.x)), default=0.0))
        axes.margins(x=0.02)
        axes.locator_params(nbins=5)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return to_chart(figure, label=label)


def coverage(
    layer: Layer, *, box: tuple[float, float, float, float], height: float, opacity: float
) -> Float[np.ndarray, "h w"]:
    """Fraction of each pixel that a layer's points in `box` cover, first row on top: 1 − (1 − opacity)^points."""
    from scipy.signal import fftconvolve

    left, right, bottom, top = box
    rows, columns = int(height * _SHARPNESS), int(NARROW * _SHARPNESS)
    x = (layer.x - left) / (right - left) * columns
    y = (top - layer.y) / (top - bottom) * rows
    inside = (x >= 0) & (x <= columns) & (y >= 0) & (y <= rows)
    counts = np.zeros((rows, columns))
    at = (y[inside].astype(int).clip(max=rows - 1), x[inside].astype(int).clip(max=columns - 1))
    np.add.at(counts, at, 1.0)
    radius = 2.6 if len(layer.x) > 500 else 3.4
    reach = np.arange(-4, 5)
    disc = (radius + 0.5 - np.hypot(reach[:, None], reach[None])).clip(0, 1)
    covered: Float[np.ndarray, "h w"] = fftconvolve(counts, disc, mode="same").clip(min=0)
    return np.asarray(1 - (1 - opacity) ** covered)


def running_median(layer: Layer, bins: int = 10) -> tuple[list[float], list[float]]:
    """Median of y in up to `bins` equally filled stretches of x, placed at the median x."""
    order = np.argsort(layer.x, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, max(1, len(order) // 5))) if len(part)]
    middles = {float(np.median(layer.x[part])): float(np.median(layer.y[part])) for part in parts}
    return list(middles), list(middles.values())


def thinned(x: Numbers, y: Numbers) -> tuple[list[float], list[float]]:
    """At most some hundred points, means of neighbours: a spike gets lower but is never lost."""
    if len(x) <= _LONGEST_LINE:
        return [float(each) for each in x], [float(each) for each in y]
    parts = np.array_split(np.arange(len(x)), _LONGEST_LINE)
    steps, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return [float(steps[part].mean()) for part in parts], [float(values[part].mean()) for part in parts]


def padded_box(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float, float, float]:
    """A box around all points with some room."""
    return (*_padded([float(x.min()), float(x.max())], 0.05), *_padded([float(y.min()), float(y.max())], 0.05))


def _padded(values: Sequence[float], room: float = 0.22) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = high - low or max(abs(high), 1.0) * 0.2
    assert math.isfinite(span)
    return low - room * span, high + room * span


def _short(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
