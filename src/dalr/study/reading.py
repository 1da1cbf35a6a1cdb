"""How does a study file become a checked `Study`, or every problem at once with file, line and key?

Read as recipes are: the same YAML, the same `extends`, the same hints. `-s` changes recipes, not the study, and
comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.errors import ConfigError, Problem, did_you_mean
from dalr.evaluation.graded import check_task_name
from dalr.evaluation.senteval.selection import CLASSIFIERS
from dalr.evaluation.tasks import GROUPS, RETRIEVAL, TASKS, resolve_tasks
from dalr.recipe.document import Change, Document, Shelf, beside, change_of, dotted, validated
from dalr.recipe.paths import expand, from_file
from dalr.recipe.schema import Recipe
from dalr.study.config import Changes, EvaluateConfig, StudyConfig
from dalr.study.names import check_name
from dalr.study.search import combinations, problems_of

STUDIES = Shelf(kind="study", folder="study/shipped")
_SELECTORS = ("sts-b", "tsv", "retrieval")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, and where each of its keys stands."""

    config: StudyConfig
    settings: tuple[Change, ...]
    """`-s`, after everything that the file says."""
    place: Callable[[tuple[str | int, ...]], str]
    file: Callable[[tuple[str | int, ...]], str]

    def recipe_of(self, section: str, name: str, reference: str) -> str:
        """A recipe as it is named by the file that says so: this study, or one that it extends."""
        return beside(reference, self.file((section, name, "recipe")))

    def changes(self, path: tuple[str | int, ...], changes: Changes) -> list[Change]:
        """The entries of the mapping at `path` of the file, each with its place."""
        return [
            Change(
                where=f"{self.place((*path, key))}: {dotted((*path, key))}",
                key=key,
                value=_plain(value),
                file=self.file((*path, key)),
            )
            for key, value in changes.items()
        ]


def load_study(reference: str, overrides: Sequence[str] = ()) -> Study:
    """The study that `reference` (a shipped name or a path) describes.

    Raises:
        ConfigError: with every problem found in the file; what is wrong with its recipes is found by the plan.
    """
    document = STUDIES.read(reference)
    problems = document.problems
    _refuse_test_selection(document)
    settings = []
    for override in overrides:
        try:
            settings.append(change_of(override))
            problems.extend(_of_the_study(settings[-1], reference))
        except ConfigError as error:
            problems.extend(error.problems)
    _start_at_files(document)
    if document.whole:
        config, found = validated(document, StudyConfig)
        problems.extend(found)
        if config is not None:
            problems.extend(
                Problem(where=f"{document.place(path)}: {dotted(path)}", what=what)
                for path, what in _conflicts(config)
            )
        if config is not None and not problems:
            return Study(config=config, settings=tuple(settings), place=document.place, file=document.file)
    raise ConfigError(problems)


def _of_the_study(change: Change, reference: str) -> list[Problem]:
    """`-s` changes the recipes; a key that only a study has is changed in its file."""
    key = change.key.split(".")[0]
    if key not in StudyConfig.model_fields or key in Recipe.model_fields:
        return []
    name = Path(reference).name if Path(reference).suffix else reference
    what = (
        f"{key} is a key of the study, and -s changes its recipes; change it in {reference}, or in a file of your "
        f"own that says `extends: {name}`"
    )
    return [Problem(where=change.where, what=what)]


def _start_at_files(document: Document) -> None:
    """Paths of the evaluation as they are seen from the current folder; those in overrides wait for `data.root`."""
    evaluate = document.tree.get("evaluate")
    if isinstance(evaluate, dict):
        _rewrite(document, evaluate, ("evaluate",), ("data", "exclude_overlap"))
        if isinstance(graded := evaluate.get("graded_pairs"), dict):
            _rewrite(document, graded, ("evaluate", "graded_pairs"), tuple(graded))


def _rewrite(document: Document, section: dict[str, Any], at: tuple[str, ...], names: tuple[str, ...]) -> None:
    for name in names:
        if isinstance(value := section.get(name), str):
            section[name] = from_file(value, document.file((*at, name)))


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return STUDIES.names()


def study_description(name: str) -> str:
    """One line on a shipped study."""
    return str(STUDIES.read(name).tree.get("description", ""))


Found = Iterator[tuple[tuple[str | int, ...], str]]


def _conflicts(config: StudyConfig) -> Found:
    """(key path, what is wrong) of everything that the types cannot say."""
    yield from _name_conflicts(config)
    yield from _origin_conflicts(config)
    yield from _trial_conflicts(config)
    if config.evaluate is not None:
        yield from _evaluate_conflicts(config, config.evaluate)


def _name_conflicts(config: StudyConfig) -> Found:
    for section, names in (("methods", config.methods), ("prepare", config.prepare)):
        for name in names:
            if (what := check_name(name)) is not None:
                yield (section, name), what
    if (what := check_name(config.name)) is not None:
        yield ("name",), what
    if len(set(config.seeds)) < len(config.seeds):
        yield ("seeds",), "a seed is named twice"
    named: list[tuple[tuple[str | int, ...], str]] = []
    if config.baseline is not None:
        named.append((("baseline",), config.baseline))
    for number, pair in enumerate(config.compare):
        named += [(("compare", number), name) for name in pair]
        if pair[0] == pair[1]:
            yield ("compare", number), "a method is compared with itself"
    for path, name in named:
        if name not in config.methods:
            yield path, _no_method(name, config)


def _no_method(name: str, config: StudyConfig) -> str:
    return f"no method {name!r}; {did_you_mean(name, config.methods)}methods: {', '.join(config.methods)}"


def _origin_conflicts(config: StudyConfig) -> Found:
    """Methods that have no recipe, two, or another's that has none of its own."""
    for name, method in config.methods.items():
        path = ("methods", name)
        match method.recipe, method.like:
            case (None, None):
                yield path, "needs a recipe, or `like: METHOD` for another's recipe and chosen setting"
            case (str(), str()):
                yield (*path, "like"), "a method has a recipe of its own or is like another; leave one out"
            case (None, str(other)) if other not in config.methods:
                yield (*path, "like"), _no_method(other, config)
            case (None, str(other)) if config.methods[other].like is not None:
                what = f"{other!r} is itself like {config.methods[other].like!r}; name a method with a recipe"
                yield (*path, "like"), what
            case _:
                pass
        if method.like is not None and (method.search is not None or method.trials is not None):
            key = "search" if method.search is not None else "trials"
            yield (*path, key), f"a method like {method.like!r} uses the setting chosen there; remove its {key}"


def _trial_conflicts(config: StudyConfig) -> Found:
    counts: dict[str, int] = {}
    for name, method in config.methods.items():
        if method.like is not None:
            continue
        path = ("methods", name)
        if method.search is None:
            counts[name] = 0
            if method.trials is not None:
                yield (*path, "trials"), "trials without a search; add search, or remove trials"
            continue
        trials = method.trials if method.search.kind == "grid" else method.trials or config.trials
        wrong = problems_of(method.search, trials)
        yield from (((*path, "search", *key.split(".", 1)), what) for key, what in wrong)
        for key in set(method.search.space) & set(method.overrides):
            yield (*path, "overrides", key), "both set here and searched; choose one"
        if not wrong:
            counts[name] = (combinations(method.search) if method.search.kind == "grid" else trials) or 0
    searched = [name for name, method in config.methods.items() if method.like is None]
    if len(counts) == len(searched) and len(set(counts.values())) > 1 and config.unequal_trials is None:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        what = (
            f"methods have different numbers of trials ({listed}), which favours those that have more; make them "
            "equal, or say why not in unequal_trials, which is printed under the table"
        )
        yield ("methods",), what


def _evaluate_conflicts(config: StudyConfig, evaluate: EvaluateConfig) -> Found:
    asked: list[str] = []
    for key, names in (("tasks", evaluate.tasks), ("on_first_seed", evaluate.on_first_seed)):
        try:
            asked += resolve_tasks(names)
        except ConfigError as error:
            yield from ((("evaluate", key), problem.what) for problem in error.problems)
    if RETRIEVAL in asked and config.select_by == "retrieval":
        what = (
            "retrieval is scored on the held-out images, which also choose settings and weights here; "
            "leave it out, or choose by sts-b or tsv"
        )
        yield ("evaluate", "tasks"), what
    for name in evaluate.graded_pairs:
        if (wrong := check_task_name(name)) is not None:
            yield ("evaluate", "graded_pairs", name), wrong
    if evaluate.data is None and any(name != RETRIEVAL for name in asked):
        yield ("evaluate",), "needs data: a folder in SentEval's layout, as `dalr data get` makes one"
    if evaluate.classifier not in CLASSIFIERS:
        what = f"unknown classifier {evaluate.classifier!r}; known: {', '.join(CLASSIFIERS)}"
        yield ("evaluate", "classifier"), what
    first = evaluate.at(config.seeds[0])
    paths: list[tuple[tuple[str, ...], str | None]] = [
        (("data",), first.data),
        (("exclude_overlap",), first.exclude_overlap),
        *((("graded_pairs", name), path) for name, path in first.graded_pairs.items()),
    ]
    for place, path in paths:
        try:
            expand(path) if path is not None else None
        except ConfigError as error:
            yield ("evaluate", *place), str(error)


def _refuse_test_selection(document: Document) -> None:
    """A test score is not merely an unknown kind of validation score: say why it cannot choose."""
    chosen = document.tree.get("select_by")
    tests = {name.casefold() for name in (*GROUPS, *TASKS, "test", "sts_avg", "transfer_avg", "avg")}
    if isinstance(chosen, str) and chosen not in _SELECTORS and chosen.casefold() in tests - {"sts-b-dev"}:
        what = (
            f"{chosen!r} is a test score, and a score that selects settings is not a test of them; "
            f"expected a kind of validation score: {', '.join(_SELECTORS)}"
        )
        document.problems.append(Problem(where=f"{document.place(('select_by',))}: select_by", what=what))
        document.tree["select_by"] = _SELECTORS[0]


def _plain(value: Any) -> Any:
    """Lists again where a frozen section has tuples, as a recipe's document holds them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
