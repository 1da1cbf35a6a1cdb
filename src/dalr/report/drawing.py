"""Can pages be drawn? matplotlib comes with the extra `report`."""

from __future__ import annotations

import importlib.util

from dalr.errors import ConfigError, Problem, install

HOW_TO_INSTALL = install("report")


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def require_drawing() -> None:
    """Raise before any work is done whose result could not be shown.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if not can_draw():
        what = f"figures are drawn by matplotlib, which is not installed; {HOW_TO_INSTALL}"
        raise ConfigError(Problem(where="report", what=what))
