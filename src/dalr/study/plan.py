"""Every run of a study before the first one starts: its recipe, checked, and the folder it goes to.

Order of changes, later ones win: the study's overrides, the method's, the trial's setting, `-s`, the seed.

DIR/prepared/NAME            runs that others need
DIR/runs/METHOD/trial-NN     one setting each, under the tuning seed
DIR/runs/METHOD/seed-N       the chosen setting under each seed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dalr.config import Recipe
from dalr.document import Change
from dalr.errors import ConfigError, Problem
from dalr.recipe import load_recipe
from dalr.study.names import references, with_models
from dalr.study.reading import Study
from dalr.study.search import Setting, trials_of

_OURS = ("seed", "name")
"""Keys that the study itself sets."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training."""

    method: str
    """Or the name of a prepared run."""
    label: str
    """`prepared`, `trial-03`, `seed-1`."""
    folder: Path
    recipe: Recipe
    setting: Setting
    needs: tuple[str, ...] = ()
    """Prepared runs whose models it reads."""

    @property
    def name(self) -> str:
        return f"{self.method}/{self.label}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study trains. Final runs of a method follow when its setting is chosen."""

    study: Study
    out: Path
    prepared: tuple[PlannedRun, ...]
    trials: Mapping[str, tuple[PlannedRun, ...]]
    """Method -> its trials; empty for a method that is taken as it is."""

    def finals(self, method: str, chosen: PlannedRun | None) -> list[PlannedRun]:
        """The runs that are reported; a chosen trial under one of the seeds is that seed's run."""
        config = self.study.config
        return [
            chosen
            if chosen is not None and seed == config.tune_seed
            else _method_run(
                self.study, self.out, method, f"seed-{seed}", chosen.setting if chosen is not None else {}, seed
            )
            for seed in config.seeds
        ]

    def first_runs(self) -> list[PlannedRun]:
        """A run of each recipe: the prepared ones, and the first of each method."""
        tuned = [runs[0] for runs in self.trials.values() if runs]
        return [
            *self.prepared,
            *tuned,
            *(self.finals(name, None)[0] for name, runs in self.trials.items() if not runs),
        ]

    @property
    def trainings(self) -> int:
        """How many runs there are at most."""
        return len(self.prepared) + sum(
            len(trials) + len(self._own_seeds(method)) for method, trials in self.trials.items()
        )

    def lines(self) -> Iterator[str]:
        """The plan for people."""
        config = self.study.config
        for run in self.prepared:
            yield f"prepare   {run.method}: {run.recipe.student.model}, seed {run.recipe.seed}"
        for trials in self.trials.values():
            for run in trials:
                setting = ", ".join(f"{key}={value}" for key, value in run.setting.items())
                yield f"trial     {run.name}: {setting}"
        for method in self.trials:
            seeds = ", ".join(map(str, self._own_seeds(method)))
            again = f" (seed {config.tune_seed} is the chosen trial)" if self._reuses(method) else ""
            yield f"final     {method}: seeds {seeds or 'none'}{again}"
        if config.evaluate is not None:
            tasks = ", ".join(config.evaluate.tasks)
            yield f"evaluate  {len(self.trials) * len(config.seeds)} final runs: {tasks}"
        yield f"{self.trainings} trainings: {self._sum()}"

    def _sum(self) -> str:
        trials = sum(map(len, self.trials.values()))
        finals = sum(len(self._own_seeds(method)) for method in self.trials)
        return f"{len(self.prepared)} prepared, {trials} trials, {finals} final"

    def _reuses(self, method: str) -> bool:
        return bool(self.trials[method]) and self.study.config.tune_seed in self.study.config.seeds

    def _own_seeds(self, method: str) -> list[int]:
        config = self.study.config
        return [seed for seed in config.seeds if not (self._reuses(method) and seed == config.tune_seed)]


def make_plan(study: Study, out: Path) -> Plan:
    """Resolve and check every recipe of a study.

    Raises:
        ConfigError: with every problem of every recipe.
    """
    config = study.config
    problems = list(dict.fromkeys([*_override_problems(study), *_reference_problems(study)]))
    prepared: list[PlannedRun] = []
    trials: dict[str, tuple[PlannedRun, ...]] = {}
    if not problems:
        for name in config.prepare:
            prepared += _attempt(problems, partial(_prepared_run, study, out, name))
        for method in config.methods:
            settings = trials_of(config.methods[method], config.trials, seed=config.tune_seed)
            labelled = [(f"trial-{number:02d}", setting) for number, setting in enumerate(settings)]
            found: list[PlannedRun] = []
            for label, setting in labelled or [(f"seed-{config.tune_seed}", {})]:
                found += _attempt(
                    problems, partial(_method_run, study, out, method, label, setting, config.tune_seed)
                )
            trials[method] = tuple(found) if settings else ()
            problems += _selector_problems(study, method, found)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Plan(study=study, out=out, prepared=tuple(prepared), trials=trials)


def _attempt(problems: list[Problem], make: Callable[[], PlannedRun]) -> list[PlannedRun]:
    try:
        return [make()]
    except ConfigError as error:
        problems.extend(error.problems)
        return []


def _method_run(study: Study, out: Path, method: str, label: str, setting: Setting, seed: int) -> PlannedRun:
    own = study.config.methods[method]
    path = ("methods", method, "overrides")
    space = study.place(("methods", method, "search", "space"))
    changes = [
        *study.changes(path, own.overrides),
        *(Change(where=f"{space}: methods.{method}.search.space", key=k, value=v) for k, v in setting.items()),
        *study.settings,
        Change(where=study.place(("seeds",)), key="seed", value=seed),
    ]
    return _run(
        study,
        out,
        reference=own.recipe,
        changes=changes,
        method=method,
        label=label,
        setting=setting,
        folder=out / "runs" / method / label,
    )


def _prepared_run(study: Study, out: Path, name: str) -> PlannedRun:
    own = study.config.prepare[name]
    return _run(
        study,
        out,
        reference=own.recipe,
        changes=[*study.changes(("prepare", name, "overrides"), own.overrides), *study.settings],
        method=name,
        label="prepared",
        setting={},
        folder=out / "prepared" / name,
    )


def _run(
    study: Study,
    out: Path,
    *,
    reference: str,
    changes: Sequence[Change],
    method: str,
    label: str,
    setting: Setting,
    folder: Path,
) -> PlannedRun:
    everything = [*study.changes(("overrides",), study.config.overrides), *changes]
    needs = tuple(dict.fromkeys(name for change in everything for name in references(change.value)))
    resolved = [
        Change(
            where=change.where,
            key=change.key,
            value=with_models(change.value, lambda name: str(prepared_model(out, name))),
        )
        for change in everything
    ]
    full_name = f"{study.config.name}-{method}-{label}"
    named = Change(where=study.place(("name",)), key="name", value=full_name)
    try:
        recipe = load_recipe(study.recipe_of(reference), changes=[*resolved, named])
    except ConfigError as error:
        section = "prepare" if label == "prepared" else "methods"
        where = study.place((section, method, "recipe"))
        raise ConfigError(
            [Problem(where=f"{where}: {section}.{method}: {each.where}", what=each.what) for each in error.problems]
        ) from None
    return PlannedRun(method=method, label=label, folder=folder, recipe=recipe, setting=setting, needs=needs)


def prepared_model(out: Path, name: str) -> Path:
    """Where the model of a prepared run lies."""
    return out / "prepared" / name / "model"


def _override_problems(study: Study) -> Iterator[Problem]:
    """Changes of what the study itself sets."""
    config = study.config
    for path, changes in [
        (("overrides",), config.overrides),
        *((("methods", name, "overrides"), method.overrides) for name, method in config.methods.items()),
    ]:
        for change in study.changes(path, changes):
            if change.key in _OURS:
                yield Problem(
                    where=change.where, what="set by the study: `seeds`, `tune_seed` and the method's name"
                )
    for change in study.settings:
        if change.key in _OURS:
            yield Problem(
                where=change.where, what="a study sets seed and name of its runs; change `seeds` in its file"
            )
        for name, method in config.methods.items():
            if method.search is not None and change.key in method.search.space:
                yield Problem(where=change.where, what=f"searched by method {name!r}; nothing would be left to try")


def _reference_problems(study: Study) -> Iterator[Problem]:
    """`${prepared:NAME}` of names that are not there, or not yet."""
    config = study.config
    known = list(config.prepare)
    places: list[tuple[tuple[str | int, ...], Mapping[str, object], list[str]]] = [
        (("overrides",), config.overrides, [])
    ]
    places += [
        (("prepare", n, "overrides"), each.overrides, known[: known.index(n)]) for n, each in config.prepare.items()
    ]
    places += [(("methods", n, "overrides"), each.overrides, known) for n, each in config.methods.items()]
    for path, changes, allowed in places:
        for change in study.changes(path, changes):
            for name in references(change.value):
                if name not in allowed:
                    listed = ", ".join(allowed) or "none"
                    yield Problem(
                        where=change.where, what=f"no prepared run {name!r} at this point; known: {listed}"
                    )


def _selector_problems(study: Study, method: str, runs: Sequence[PlannedRun]) -> Iterator[Problem]:
    wanted = study.config.select_by
    for run in runs:
        kind = run.recipe.development.kind if run.recipe.development is not None else "none"
        if kind != wanted:
            where = f"{study.place(('methods', method, 'recipe'))}: methods.{method}: development.kind"
            yield Problem(where=where, what=f"the study selects by {wanted!r}, but this recipe's is {kind!r}")
