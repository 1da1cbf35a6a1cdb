"""Scenes as pictures: everything that a scene holds is visible, and nothing is written in it.

A thing is a short list of flat shapes in a unit square, so what can be drawn is a table like what can be said.
Where things stand follows from their relation plus some jitter, and colours vary a little: two pictures of one
scene differ, as two photographs do. The cost of 96 pixels is that a small thing in a group of three is about ten
pixels wide, which makes numbers and small things hard to see for a small model, as they are in life.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dalr.demo.grammar import Group, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

PIXELS = 96
_OVERSAMPLING = 2  # drawn twice as large and reduced, which smooths the edges
_SIZE = {"big": 0.36, "small": 0.2}
_Shape = tuple[str, str, tuple[float, ...]]
_Point = tuple[float, float]
_Rgb = tuple[int, int, int]

# (kind, tone, coordinates in the unit square); the tone `body` is the colour of the thing
_SHAPES: dict[str, tuple[_Shape, ...]] = {
    "cat": (
        ("poly", "body", (0.18, 0.42, 0.2, 0.02, 0.46, 0.2)),
        ("poly", "body", (0.82, 0.42, 0.8, 0.02, 0.54, 0.2)),
        ("oval", "body", (0.14, 0.14, 0.86, 0.74)),
        ("oval", "body", (0.24, 0.6, 0.76, 1.0)),
        ("oval", "eye", (0.3, 0.34, 0.42, 0.48)),
        ("oval", "eye", (0.58, 0.34, 0.7, 0.48)),
        ("poly", "dark", (0.44, 0.54, 0.56, 0.54, 0.5, 0.62)),
    ),
    "dog": (
        ("poly", "body", (0.0, 0.3, 0.12, 0.2, 0.16, 0.46, 0.06, 0.5)),
        ("oval", "body", (0.1, 0.38, 0.76, 0.74)),
        ("box", "body", (0.14, 0.6, 0.26, 1.0)),
        ("box", "body", (0.58, 0.6, 0.7, 1.0)),
        ("oval", "body", (0.54, 0.12, 0.92, 0.5)),
        ("box", "body", (0.76, 0.28, 1.0, 0.46)),
        ("oval", "dark", (0.54, 0.14, 0.68, 0.5)),
        ("oval", "eye", (0.74, 0.2, 0.84, 0.3)),
    ),
    "rabbit": (
        ("oval", "body", (0.26, 0.0, 0.44, 0.5)),
        ("oval", "body", (0.56, 0.0, 0.74, 0.5)),
        ("oval", "body", (0.24, 0.34, 0.76, 0.72)),
        ("oval", "body", (0.16, 0.6, 0.84, 1.0)),
        ("oval", "eye", (0.34, 0.46, 0.44, 0.56)),
        ("oval", "eye", (0.56, 0.46, 0.66, 0.56)),
    ),
    "car": (
        ("poly", "body", (0.2, 0.5, 0.34, 0.24, 0.68, 0.24, 0.82, 0.5)),
        ("box", "body", (0.0, 0.46, 1.0, 0.76)),
        ("poly", "pane", (0.3, 0.48, 0.38, 0.31, 0.64, 0.31, 0.72, 0.48)),
        ("oval", "ink", (0.12, 0.62, 0.36, 0.88)),
        ("oval", "ink", (0.64, 0.62, 0.88, 0.88)),
    ),
    "truck": (
        ("box", "body", (0.0, 0.16, 0.62, 0.74)),
        ("box", "dark", (0.66, 0.36, 1.0, 0.74)),
        ("box", "pane", (0.76, 0.42, 0.96, 0.56)),
        ("oval", "ink", (0.08, 0.66, 0.32, 0.92)),
        ("oval", "ink", (0.68, 0.66, 0.92, 0.92)),
    ),
    "bicycle": (
        ("ring", "body", (0.0, 0.44, 0.44, 0.9)),
        ("ring", "body", (0.56, 0.44, 1.0, 0.9)),
        ("line", "body", (0.22, 0.66, 0.4, 0.3, 0.7, 0.3, 0.5, 0.66, 0.22, 0.66)),
        ("line", "body", (0.78, 0.66, 0.66, 0.16, 0.8, 0.16)),
        ("line", "ink", (0.32, 0.24, 0.48, 0.24)),
    ),
    "tree": (
        ("box", "wood", (0.42, 0.56, 0.58, 1.0)),
        ("oval", "body", (0.06, 0.22, 0.58, 0.7)),
        ("oval", "body", (0.42, 0.22, 0.94, 0.7)),
        ("oval", "body", (0.22, 0.0, 0.78, 0.52)),
    ),
    "flower": (
        ("line", "stem", (0.5, 0.5, 0.5, 1.0)),
        ("oval", "stem", (0.5, 0.68, 0.8, 0.84)),
        ("oval", "body", (0.36, 0.0, 0.64, 0.3)),
        ("oval", "body", (0.36, 0.4, 0.64, 0.7)),
        ("oval", "body", (0.14, 0.2, 0.44, 0.5)),
        ("oval", "body", (0.56, 0.2, 0.86, 0.5)),
        ("oval", "eye", (0.38, 0.22, 0.62, 0.48)),
    ),
    "mushroom": (
        ("box", "pale", (0.38, 0.46, 0.62, 1.0)),
        ("pie", "body", (0.04, 0.06, 0.96, 1.0)),
        ("oval", "pale", (0.24, 0.26, 0.38, 0.4)),
        ("oval", "pale", (0.54, 0.16, 0.68, 0.3)),
    ),
    "house": (
        ("box", "body", (0.12, 0.44, 0.88, 1.0)),
        ("poly", "dark", (0.0, 0.48, 0.5, 0.04, 1.0, 0.48)),
        ("box", "wood", (0.42, 0.66, 0.6, 1.0)),
        ("box", "pane", (0.2, 0.58, 0.34, 0.74)),
        ("box", "pane", (0.68, 0.58, 0.82, 0.74)),
    ),
    "tower": (
        ("box", "body", (0.32, 0.14, 0.68, 1.0)),
        ("box", "body", (0.24, 0.04, 0.36, 0.24)),
        ("box", "body", (0.44, 0.04, 0.56, 0.24)),
        ("box", "body", (0.64, 0.04, 0.76, 0.24)),
        ("box", "pane", (0.44, 0.34, 0.56, 0.52)),
        ("box", "wood", (0.42, 0.76, 0.58, 1.0)),
    ),
    "tent": (
        ("poly", "body", (0.0, 1.0, 0.5, 0.1, 1.0, 1.0)),
        ("poly", "ink", (0.36, 1.0, 0.5, 0.5, 0.64, 1.0)),
        ("line", "wood", (0.5, 0.1, 0.5, 0.0)),
    ),
    "ball": (
        ("oval", "body", (0.1, 0.1, 0.9, 0.9)),
        ("line", "pale", (0.16, 0.36, 0.84, 0.36)),
        ("line", "pale", (0.16, 0.64, 0.84, 0.64)),
    ),
    "kite": (
        ("line", "ink", (0.5, 0.66, 0.38, 0.8, 0.6, 0.9, 0.46, 1.0)),
        ("poly", "body", (0.5, 0.0, 0.84, 0.3, 0.5, 0.72, 0.16, 0.3)),
        ("line", "dark", (0.5, 0.0, 0.5, 0.72)),
        ("line", "dark", (0.16, 0.3, 0.84, 0.3)),
    ),
    "balloon": (
        ("line", "ink", (0.5, 0.66, 0.44, 0.84, 0.54, 1.0)),
        ("oval", "body", (0.2, 0.0, 0.8, 0.68)),
        ("poly", "body", (0.42, 0.74, 0.5, 0.62, 0.58, 0.74)),
        ("oval", "pale", (0.32, 0.12, 0.44, 0.28)),
    ),
}
_COLOURS: dict[str, _Rgb] = {
    "red": (214, 40, 40),
    "blue": (38, 84, 214),
    "green": (28, 140, 60),
    "yellow": (246, 200, 30),
    "purple": (140, 60, 180),
    "black": (40, 40, 44),
    "white": (246, 246, 240),
}
_TONES: dict[str, _Rgb] = {
    "eye": (255, 246, 190),
    "ink": (24, 24, 28),
    "pane": (170, 214, 240),
    "wood": (116, 74, 40),
    "stem": (46, 110, 50),
    "pale": (232, 226, 214),
}
_SKY: dict[str, _Rgb] = {
    "sun": (150, 206, 250),
    "rain": (150, 158, 170),
    "snow": (214, 222, 232),
    "night": (26, 30, 66),
}
_GROUND: dict[str, _Rgb] = {
    "meadow": (150, 196, 106),
    "hills": (132, 160, 112),
    "desert": (226, 176, 104),
    "beach": (240, 220, 160),
    "lake": (96, 156, 190),
    "street": (120, 120, 124),
    "square": (188, 164, 148),
}


def draw_image(scene: Scene, rng: random.Random) -> Image:
    """The picture of a whole scene: RGB, `PIXELS` square. Equal scenes and generators give equal pictures.

    Raises:
        ValueError: the scene leaves place, weather, a colour or a size open; a picture cannot.
    """
    from PIL import Image, ImageDraw

    side = PIXELS * _OVERSAMPLING
    image = Image.new("RGB", (side, side))
    brush = _Brush(ImageDraw.Draw(image), side=side, rng=rng)
    _draw_surroundings(brush, scene)
    _draw_light(brush, scene)
    for thing, centre in zip(scene.things, _places(scene.groups, rng), strict=True):
        _draw_thing(brush, thing, centre)
    _draw_falling(brush, scene)
    return image.resize((PIXELS, PIXELS), Image.Resampling.BOX)


class _Brush:
    """Draws in unit coordinates, and varies every colour a little."""

    def __init__(self, draw: ImageDraw, *, side: int, rng: random.Random) -> None:
        self.draw, self.side, self.rng = draw, side, rng

    def vary(self, colour: _Rgb, *, by: int = 12) -> _Rgb:
        red, green, blue = (min(255, max(0, value + self.rng.randint(-by, by))) for value in colour)
        return red, green, blue

    def shape(self, kind: str, coordinates: Sequence[float | int], fill: _Rgb, edge: _Rgb | None = None) -> None:
        points = [round(value * self.side) for value in coordinates]
        width = max(2, self.side // 64)
        if kind == "line":
            self.draw.line(points, fill=fill, width=width)
        elif kind == "ring":
            self.draw.ellipse(points, outline=fill, width=width)
        elif kind == "oval":
            self.draw.ellipse(points, fill=fill, outline=edge)
        elif kind == "pie":
            self.draw.pieslice(points, 180, 360, fill=fill, outline=edge)
        elif kind == "box":
            self.draw.rectangle(points, fill=fill, outline=edge)
        else:
            self.draw.polygon(points, fill=fill, outline=edge)


def _places(groups: Sequence[Group], rng: random.Random) -> list[_Point]:
    """Where the things stand: those of a relation as it says, one alone beside or below them."""
    extra = len(groups) == 2
    relation = groups[0].relation
    if relation == "left":
        y = 0.48 if extra else 0.62
        spots = [(0.24, y), (0.76, y), (0.5, 0.82)]
    elif relation == "above":
        x = rng.choice((0.3, 0.7)) if extra else 0.5
        spots = [(x, 0.24), (x, 0.76), (1 - x, 0.56)]
    else:
        spots = [(0.5, 0.6)]
    count = sum(len(group.things) for group in groups)
    return [(x + rng.uniform(-0.04, 0.04), y + rng.uniform(-0.03, 0.03)) for x, y in spots[:count]]


def _draw_thing(brush: _Brush, thing: Thing, centre: _Point) -> None:
    if thing.colour is None or thing.size is None:
        raise ValueError(f"a picture shows colour and size, and this {thing.concept} leaves one open")
    body = brush.vary(_COLOURS[thing.colour])
    dark: _Rgb = (body[0] * 2 // 3, body[1] * 2 // 3, body[2] * 2 // 3)
    edge = (90, 90, 96) if thing.colour == "black" else dark
    tones = {**_TONES, "body": body, "dark": (70, 70, 76) if thing.colour == "black" else dark}
    number = {"one": 1, "two": 2, "many": 3}[thing.count]
    size = _SIZE[thing.size] * (1, 0.78, 0.72)[number - 1]
    row: tuple[tuple[tuple[float, float], ...], ...]
    row = ((0, 0),), ((-0.52, 0), (0.52, 0)), ((-0.54, 0.46), (0.54, 0.46), (0, -0.5))
    reach = {1: 0.5, 2: 1.02, 3: 1.04}[number] * size
    x = min(max(centre[0], reach), 1 - reach)  # nothing is cut off by the frame
    for across, down in row[number - 1]:
        left, top = x + (across - 0.5) * size, centre[1] + (down - 0.5) * size
        for kind, tone, coordinates in _SHAPES[thing.concept]:
            placed = [(left, top)[n % 2] + value * size for n, value in enumerate(coordinates)]
            brush.shape(kind, placed, tones[tone], edge)


def _draw_surroundings(brush: _Brush, scene: Scene) -> None:
    if scene.place is None or scene.sky is None:
        raise ValueError("a picture shows place and weather, and this scene leaves one open")
    dim = 0.45 if scene.sky == "night" else 1.0
    sky = brush.vary(_SKY[scene.sky])
    red, green, blue = brush.vary(_GROUND[scene.place])
    ground: _Rgb = (round(red * dim), round(green * dim), round(blue * dim))
    light: _Rgb = (min(255, ground[0] + 36), min(255, ground[1] + 36), min(255, ground[2] + 36))
    horizon = 0.42 + brush.rng.uniform(-0.03, 0.03)
    brush.shape("box", (0, 0, 1, 1), sky)
    if scene.place == "hills":
        for left in (-0.2, 0.25, 0.6):
            top = horizon - brush.rng.uniform(0.2, 0.32)
            brush.shape("poly", (left, horizon, left + 0.3, top, left + 0.6, horizon), light)
    brush.shape("box", (0, horizon, 1, 1), ground)
    if scene.place == "desert":
        brush.shape("oval", (-0.3, horizon - 0.08, 0.6, horizon + 0.2), ground)
        brush.shape("oval", (0.4, horizon - 0.05, 1.3, horizon + 0.2), light)
    elif scene.place == "beach":
        brush.shape("box", (0, horizon, 1, horizon + 0.12), (round(60 * dim), round(130 * dim), round(200 * dim)))
    elif scene.place == "lake":
        for line in range(4):
            y = horizon + 0.1 + 0.13 * line
            brush.shape("line", (0.1 * (line % 2), y, 0.4, y, 0.6, y + 0.02, 0.9, y), light)
    elif scene.place == "street":
        brush.shape("box", (0, horizon, 1, horizon + 0.05), light)
        for start in (0.02, 0.28, 0.54, 0.8):
            brush.shape("box", (start, 0.9, start + 0.16, 0.93), (round(240 * dim),) * 3)
    elif scene.place == "square":
        for step in range(1, 5):
            y = horizon + step * (1 - horizon) / 5
            brush.shape("line", (0, y, 1, y), light)
            brush.shape("line", (step / 5, horizon, step / 5, 1), light)
    else:
        for _ in range(12):
            x, y = brush.rng.random(), brush.rng.uniform(horizon + 0.03, 0.97)
            brush.shape("line", (x, y, x + 0.01, y - 0.03), light)


def _draw_light(brush: _Brush, scene: Scene) -> None:
    rng = brush.rng
    if scene.sky == "sun":
        x = rng.uniform(0.08, 0.92)
        brush.shape("oval", (x - 0.08, 0.02, x + 0.08, 0.18), (255, 226, 80))
    elif scene.sky == "night":
        x = rng.uniform(0.08, 0.92)
        brush.shape("oval", (x - 0.06, 0.03, x + 0.06, 0.15), (238, 238, 214))
        for _ in range(14):
            x, y = rng.random(), rng.uniform(0, 0.4)
            brush.shape("box", (x, y, x + 0.01, y + 0.01), (250, 250, 230))


def _draw_falling(brush: _Brush, scene: Scene) -> None:
    rng = brush.rng
    if scene.sky == "rain":
        for _ in range(34):
            x, y = rng.random(), rng.random()
            brush.shape("line", (x, y, x - 0.02, y + 0.07), (196, 216, 244))
    elif scene.sky == "snow":
        for _ in range(44):
            x, y = rng.random(), rng.random()
            brush.shape("oval", (x, y, x + 0.02, y + 0.02), (255, 255, 255))
