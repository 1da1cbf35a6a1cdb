"""Which colour has a role? One chart serves light and dark pages; a model has one colour everywhere.

matplotlib draws each role in a sentinel colour that occurs nowhere else; in the finished SVG the sentinel becomes a
CSS variable of the page. Models have the hues of Okabe and Ito, tasks those of Tol's muted scheme, both told apart
by readers with the common colour deficiencies; each value is chosen for 3 : 1 against its background.
"""

from __future__ import annotations

from collections.abc import Mapping

# role -> (light, dark)
INKS: Mapping[str, tuple[str, str]] = {
    "ink": ("#1b1f24", "#e8eaed"),
    "muted": ("#59636e", "#a3adb8"),
    "grid": ("#dde1e6", "#343a42"),
    "surface": ("#ffffff", "#15181c"),
}

MODELS: tuple[tuple[str, str], ...] = (
    ("#0072b2", "#56a9e8"),
    ("#d55e00", "#ff9142"),
    ("#008a64", "#2fc79c"),
    ("#b0578d", "#e79cc8"),
    ("#a87400", "#f0b73a"),
    ("#2b8cc4", "#93d0f5"),
    ("#57534e", "#c4bfb8"),
    ("#7d7200", "#ddd24a"),
)

TASKS: tuple[tuple[str, str], ...] = (
    ("#332288", "#9a90f0"),
    ("#3f97c9", "#88ccee"),
    ("#2f8f80", "#5fc4b2"),
    ("#117733", "#53c274"),
    ("#84842a", "#bdbd57"),
    ("#b08a1e", "#e3cf77"),
    ("#c0566a", "#ec93a1"),
    ("#882255", "#d86a9c"),
    ("#a0449a", "#d78ad0"),
)


def model_colour(number: int) -> str:
    """The role of a model's colour; after eight they come again."""
    return f"model-{number % len(MODELS)}"


def task_colour(number: int) -> str:
    return f"task-{number % len(TASKS)}"


ROLES: Mapping[str, tuple[str, str]] = {
    **INKS,
    **{model_colour(number): pair for number, pair in enumerate(MODELS)},
    **{task_colour(number): pair for number, pair in enumerate(TASKS)},
}

_SENTINELS: Mapping[str, str] = {role: f"#fe01{number:02x}" for number, role in enumerate(ROLES)}


def sentinel(role: str) -> str:
    """The colour to draw a role in."""
    return _SENTINELS[role]


def variable(role: str) -> str:
    """The CSS that stands for a role."""
    return f"var(--{role})"


def with_variables(svg: str) -> str:
    """`svg` with every sentinel replaced by its role's variable."""
    for role, colour in _SENTINELS.items():
        svg = svg.replace(colour, variable(role))
    return svg


def light(role: str) -> tuple[int, int, int]:
    """Red, green and blue of a role on a light page, 0 to 255."""
    value = ROLES[role][0]
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def css_variables(*, dark: bool) -> str:
    """Declarations of all roles."""
    return "".join(f"--{role}:{pair[dark]};" for role, pair in ROLES.items())
