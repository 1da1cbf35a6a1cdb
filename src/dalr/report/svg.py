"""How does a matplotlib figure become an inline SVG in the page's colours and typeface?

Inline means sharing one document: identifiers get a prefix of their own, the global style rule that matplotlib
writes is dropped (the page has it), and what names an address is taken out, so that nothing on the page looks like
a request.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from dalr.report.palette import light, sentinel, variable, with_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCH = 72
"""SVG units in an inch of matplotlib's."""

_CLOUD = "cloud"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture for a page."""

    svg: Markup
    width: float
    """At which its letters are as large as the page's small print, in CSS pixels."""
    label: str
    """What it shows, for readers who do not see it."""


@contextmanager
def drawing(width: float, height: float, *, dpi: int = INCH) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `width` × `height` SVG units with one pair of axes, in the page's style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(width / INCH, height / INCH), dpi=dpi, layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        yield figure, axes


def _style() -> dict[Any, Any]:
    ink, muted, grid = sentinel("ink"), sentinel("muted"), sentinel("grid")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "dalr",
        "image.composite_image": False,
        "text.parse_math": False,  # a $ in a model's name is a $
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": grid,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.facecolor": "none",
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "axes.unicode_minus": True,
        "figure.constrained_layout.h_pad": 0.02,
        "figure.constrained_layout.w_pad": 0.02,
    }


def add_cloud(axes: Axes, coverage: object, *, role: str, box: tuple[float, float, float, float]) -> None:
    """Opacities 0 to 1, first row on top, as a raster over `box` (left, right, bottom, top), in a role's colour."""
    import numpy as np

    # sixteen steps of opacity look the same and compress to half
    opacity = np.round(np.asarray(coverage) * 15) * 17
    pixels = np.empty((*opacity.shape, 4), np.uint8)
    pixels[..., :3] = light(role)
    pixels[..., 3] = opacity
    pixels[opacity == 0] = 0
    image = axes.imshow(pixels, extent=box, aspect="auto", interpolation="none", zorder=2)
    image.set_gid(f"{_CLOUD}-{len(axes.images)}-{role}")


def to_chart(figure: Figure, *, label: str) -> Chart:
    """The figure as a chart; `label` says what it shows."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        # only the widths of letters are guessed here: the reader's browser draws them
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    width = INCH * float(figure.get_size_inches()[0])
    return Chart(svg=Markup(_inline(text.getvalue(), label)), width=width, label=label)


def _inline(svg: str, label: str) -> str:
    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([^"]*)"', body)
    assert box is not None
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = re.sub(r"font: (\d[^ ]*) [^;\"]*", r"font-size: \1; font-family: inherit", body)
    body = re.sub(r"\n\s*", "\n", body.replace("xlink:href", "href"))
    body = re.sub(r'<image href="data:image/png;base64,\s*([^"]*)"', _one_line, body)
    body = re.sub(rf'id="{_CLOUD}-(\d+)-([\w-]+)"([^>]*?)style="[^"]*"', _tinted, body)
    body = _own_ids(with_variables(body))
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{body}'


def _one_line(match: re.Match[str]) -> str:
    return '<image href="data:image/png;base64,' + "".join(match[1].split()) + '"'


def _tinted(match: re.Match[str]) -> str:
    """A raster keeps its opacity and takes the role's colour through a filter."""
    number, role, rest = match[1], match[2], match[3]
    return f'id="{_CLOUD}-{number}" data-tint="{role}"{rest}style="filter: url(#tint-{role})"'


def tint_filters(roles: list[str]) -> Markup:
    """The filters that `add_cloud` refers to: once a page, anywhere in it."""
    filters = "".join(
        f'<filter id="tint-{role}" x="0" y="0" width="1" height="1" color-interpolation-filters="sRGB">'
        f'<feFlood style="flood-color: {variable(role)}"/><feComposite operator="in" in2="SourceAlpha"/></filter>'
        for role in roles
    )
    return Markup(f'<svg class="filters" width="0" height="0" aria-hidden="true">{filters}</svg>')


_KEPT = re.compile(r"^(tint-)")


def _own_ids(svg: str) -> str:
    """Identifiers that are referred to get a prefix from the content; all others go."""
    import hashlib

    prefix = "c" + hashlib.sha256(svg.encode()).hexdigest()[:10]
    used = {name for name in re.findall(r'(?:url\(#|href="#)([\w.-]+)', svg) if not _KEPT.match(name)}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)([\w.-]+)', lambda f: f"{f[1]}{prefix}-{f[2]}" if f[2] in used else f[0], svg)
