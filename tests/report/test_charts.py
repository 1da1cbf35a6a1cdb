"""The arithmetic behind the pictures, and what the SVG must and must not hold."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dalr.report import charts
from dalr.report.charts import Estimate, Layer, Line, Point, Series
from dalr.report.palette import MODELS, ROLES, TASKS, model_colour


def layer(x: list[float], y: list[float]) -> Layer:
    return Layer(name="l", colour="model-0", x=np.array(x, dtype=float), y=np.array(y, dtype=float))


def test_coverage_lies_where_the_points_are() -> None:
    box = (0.0, 1.0, 0.0, 1.0)
    covered = charts.coverage(layer([0.25, 5.0], [0.75, 0.5]), box=box, height=100.0, opacity=0.5)
    rows, columns = covered.shape
    assert covered[int(rows * 0.25), int(columns * 0.25)] == pytest.approx(0.5)
    assert (covered > 0.01).sum() < 100
    assert covered[rows // 2 :].max() < 1e-6


def test_coverage_grows_with_points_as_layers_of_paint_do() -> None:
    box = (0.0, 1.0, 0.0, 1.0)
    three = charts.coverage(layer([0.5] * 3, [0.5] * 3), box=box, height=100.0, opacity=0.3)
    assert three.max() == pytest.approx(1 - 0.7**3)


def test_the_running_median_is_the_median_of_neighbours() -> None:
    x, y = charts.running_median(layer(list(range(20)), [float(v % 10) for v in range(20)]), bins=2)
    assert (x, y) == ([4.5, 14.5], [4.5, 4.5])


def test_thinning_keeps_short_curves_and_the_mean_of_long_ones() -> None:
    assert charts.thinned([1, 2], [3.0, 4.0]) == ([1, 2], [3.0, 4.0])
    x, y = charts.thinned(range(40_000), [float(v) for v in range(40_000)])
    assert len(x) == len(y) == 400
    assert np.mean(y) == pytest.approx(19_999.5)


def test_bars_are_as_long_as_their_numbers_and_a_missing_one_is_a_dash() -> None:
    series = [
        Series(name="a", colour="model-0", values={"T": Estimate(value=40.0), "U": Estimate(value=20.0)}),
        Series(name="b", colour="model-1", values={"T": Estimate(value=30.0, interval=(25.0, 35.0))}),
    ]
    svg = str(charts.bars(["T", "U"], series, unit="", label="x").svg)
    paths = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]*"[^>]*style="fill: var\(--model-(\d)\)', svg)
    lengths = [(colour, float(end) - float(start)) for start, end, colour in paths]
    assert [colour for colour, _ in lengths] == ["0", "1", "0"]
    first = lengths[0][1]
    assert [length / first for _, length in lengths] == pytest.approx([1, 0.75, 0.5], abs=1e-3)
    assert svg.count(">–</text>") == 1


def test_pictures_bring_no_style_no_address_and_no_colour_of_their_own() -> None:
    made = [
        charts.plane(
            [Point(name="$a$ <b>", colour="model-1", x=-2.0, y=0.2)], x_label="x", y_label="y", label="<l>"
        ),
        charts.curves([Line(name="a", colour="model-0", x=[0], y=[1.0])], y_label="", label="l"),
        charts.scatter([layer([0, 1], [0, 1])], box=(0.0, 1.0, 0.0, 1.0), x_label="", y_label="", label="l"),
        charts.differences([("T", Estimate(value=0.0))], ahead="model-0", behind="model-1", unit="", label="l"),
        charts.ranking([("T", 1.0, "muted")], unit="", label="l"),
    ]
    for chart in made:
        svg = str(chart.svg)
        assert not re.search(r"<style|https?:|DejaVu|#[0-9a-f]{6}\b|<!DOCTYPE", svg)
        assert svg.count("<svg") == svg.count("</svg>") == 1
    assert "$a$ &lt;b&gt;" in made[0].svg
    assert 'aria-label="&lt;l&gt;"' in made[0].svg


def test_a_letter_that_no_font_here_has_is_left_to_the_reader() -> None:
    chart = charts.plane([Point(name="漢字", colour="model-1", x=0.0, y=0.0)], x_label="", y_label="", label="l")
    assert "漢字" in chart.svg


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_their_page(mode: int) -> None:
    surface = ROLES["surface"][mode]
    for pair in (*MODELS, *TASKS):
        assert contrast(pair[mode], surface) >= 3.0, pair
    for role in ("ink", "muted"):
        assert contrast(ROLES[role][mode], surface) >= 4.5


def test_a_model_keeps_its_colour_and_the_first_eight_differ() -> None:
    assert model_colour(2) == model_colour(2)
    assert len({model_colour(number) for number in range(8)}) == 8
