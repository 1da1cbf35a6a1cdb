"""What can a study file say?

Changes to recipes are dotted keys with any value, as `-s` has them. What chooses a setting is a kind of validation
score, because a score that chooses is no longer a test; that is why the kinds are a closed set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dalr.recipe.section import Section
from dalr.study.names import with_seed

Changes = Mapping[str, Any]
"""Dotted key of a recipe -> value that takes the place of what is there; null removes a section. `${seed}` in
a value is the seed of the run: each seed may have data of its own."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Range(Section):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Uniform in the logarithm: for learning rates, weights and temperatures."""
    integer: bool = False


class SearchConfig(Section):
    """Which settings of a method are tried."""

    kind: Literal["grid", "random"]
    """`grid`: every combination of the lists. `random`: `trials` different draws; methods that search the same key
    over the same values meet the same ones."""
    space: Mapping[str, tuple[Any, ...] | Range]
    """Dotted key -> a list of values, or a range."""


class PreparedConfig(Section):
    """A run that others need: its model is `${prepared:NAME}` in their changes."""

    recipe: str
    description: str = ""
    """Of its run; without one, the recipe's, or which keys are changed."""
    overrides: Changes = {}


class MethodConfig(Section):
    """A row of the table: a recipe of its own, or `like` another row."""

    recipe: str | None = None
    """A shipped name, or a path that starts at the study file."""
    like: str | None = None
    """A method whose recipe, changes and chosen setting this one has too: an ablation, a control."""
    description: str = ""
    """Of its runs; without one, the recipe's, or which keys are changed."""
    overrides: Changes = {}
    """After all that `like` brings, the searched keys included."""
    search: SearchConfig | None = None
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Of a random search; None takes the study's."""


def _without_removed(methods: object) -> object:
    """Methods without those that a study takes out of the one it extends, by null."""
    if not isinstance(methods, dict):
        return methods
    return {name: method for name, method in methods.items() if method is not None}


class EvaluateConfig(Section):
    """What the final runs, and only they, are scored on.

    Paths start at the current folder; `${seed}` in them is the seed of the run.
    """

    graded_pairs: Mapping[str, str] = {}
    """Name -> your own graded pairs, a file or a folder (`evaluation/graded.py`): a task each, beside `tasks`. The
    first of them is what the study's verdict is about."""
    data: str | None = None
    """SentEval's `downstream` layout; not needed for retrieval alone."""
    tasks: tuple[str, ...] = ("sts",)
    on_first_seed: tuple[str, ...] = ()
    """Further tasks for the first seed alone, such as `transfer`."""
    classifier: str = "senteval"
    exclude_overlap: str | None = None
    """Pairs or text that was trained on: STS is also scored without its sentences."""
    allow_changed_data: bool = False

    def at(self, seed: int) -> EvaluateConfig:
        """What runs of this seed are scored on."""
        paths = ("graded_pairs", "data", "exclude_overlap")
        return self.model_copy(update={path: with_seed(getattr(self, path), seed) for path in paths})


class StudyConfig(Section):
    """A whole study."""

    name: str
    description: str = ""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """Of the final runs."""
    tune_seed: Seed = 0
    """Of the trials. Where it is also a final seed, the chosen trial is that final run."""
    select_by: Literal["sts-b", "tsv", "retrieval"] = "sts-b"
    """The kind of validation score that chooses settings; every recipe must have it as `validation.kind`."""
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Of every random search."""
    unequal_trials: str | None = None
    """Why methods may have different numbers of trials; stands under the table."""
    overrides: Changes = {}
    """Of every run, prepared ones included; a method's own come after them."""
    prepare: Mapping[str, PreparedConfig] = {}
    methods: Annotated[Mapping[str, MethodConfig], BeforeValidator(_without_removed), Field(min_length=1)]
    """Null takes a method out that an extended study has."""
    evaluate: EvaluateConfig | None = None
    baseline: str | None = None
    """The method that all others are compared with."""
    compare: tuple[tuple[str, str], ...] = ()
    """Further pairs of methods, the first minus the second."""

    def tuned_as(self, method: str) -> str:
        """The method whose recipe and trials a method has: mostly its own."""
        return self.methods[method].like or method

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Every pair, once: with the baseline, as `compare` says, and methods with those that are like them."""
        pairs = [(name, self.baseline) for name in self.methods if self.baseline not in (None, name)]
        pairs += self.compare
        likes = [(each.like, name) for name, each in self.methods.items() if (name, each.like) not in pairs]
        return [(a, b) for a, b in dict.fromkeys([*pairs, *likes]) if a is not None and b is not None]
