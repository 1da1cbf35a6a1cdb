"""Which runs does a study have? All of them, before the first starts: recipe, checked, and folder.

Order of changes, later ones win: the study's overrides, the method's, the trial's setting, `-s`, the seed.

DIR/prepared/NAME            runs that others need
DIR/runs/METHOD/trial-NN     one setting each, under the tuning seed
DIR/runs/METHOD/seed-N       the chosen setting under each seed
DIR/results/STUDY.jsonl      a line on each of these, by which a run is known when its weights are gone
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dalr.errors import ConfigError, Problem
from dalr.recipe.document import Change, dotted
from dalr.recipe.loading import load_recipe
from dalr.recipe.schema import Recipe
from dalr.study.config import MethodConfig, PreparedConfig
from dalr.study.names import mentions_seed, references, with_models, with_seed
from dalr.study.reading import Study
from dalr.study.search import Setting, trials_of

_THERE = " · there"
_OURS = frozenset({"seed", "name", "description"})
"""Keys that the study itself sets."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training."""

    method: str
    """Or the name of a prepared run."""
    label: str
    """`prepared`, `trial-03`, `seed-1`."""
    folder: Path
    path: str
    """Of the folder, inside the study's."""
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
    """Method -> its own trials; empty for a method that is taken as it is, or is like another."""

    def finals(self, method: str, chosen: PlannedRun | None) -> list[PlannedRun]:
        """The runs that are reported, from the trial that was chosen for the method or for the one it is like.

        A method's own chosen trial under one of the seeds is that seed's run.
        """
        config = self.study.config
        return [
            chosen
            if chosen is not None and chosen.method == method and seed == config.tune_seed
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
            *(self.finals(name, self._first_trial(name))[0] for name, runs in self.trials.items() if not runs),
        ]

    def _first_trial(self, method: str) -> PlannedRun | None:
        """What stands in for the chosen trial while there is none."""
        return next(iter(self.trials[self.study.config.tuned_as(method)]), None)

    @property
    def trainings(self) -> int:
        """How many runs there are at most."""
        return len(self.prepared) + sum(
            len(trials) + len(self._own_seeds(method)) for method, trials in self.trials.items()
        )

    def lines(self, finished: Collection[str] = ()) -> Iterator[str]:
        """The plan for people; the runs named in `finished` are there already."""
        config = self.study.config
        for run in self.prepared:
            there = _THERE if run.name in finished else ""
            yield f"prepare   {run.method}: {run.recipe.student.model}, seed {run.recipe.seed}{there}"
        for trials in self.trials.values():
            for run in trials:
                yield f"trial     {run.name}: {_listed(run.setting)}{_THERE if run.name in finished else ''}"
        for method in self.trials:
            seeds = ", ".join(map(str, self._own_seeds(method)))
            again = f" (seed {config.tune_seed} is the chosen trial)" if self._reuses(method) else ""
            like = config.methods[method].like
            about = f" (like {like}, {_listed(config.methods[method].overrides)})" if like is not None else again
            known = [seed for seed in self._own_seeds(method) if f"{method}/seed-{seed}" in finished]
            there = f"{_THERE}: {', '.join(map(str, known))}" if known else ""
            yield f"final     {method}: seeds {seeds or 'none'}{about}{there}"
        if config.evaluate is not None:
            tasks = ", ".join(config.evaluate.tasks)
            yield f"evaluate  {len(self.trials) * len(config.seeds)} final runs: {tasks}"
        count = len(finished)
        done = f"; {count} are finished, {self.trainings - count} to train" if count else ""
        yield f"{self.trainings} trainings: {self._sum()}{done}"

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
            if not labelled:  # any setting that is tried for the method that this one is like may be chosen
                tried = trials_of(config.methods[config.tuned_as(method)], config.trials, seed=config.tune_seed)
                labelled = [(f"seed-{config.tune_seed}", setting) for setting in tried or [{}]]
            found: list[PlannedRun] = []
            for label, setting in labelled:
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
    own, tuned_as = study.config.methods[method], study.config.tuned_as(method)
    base = study.config.methods[tuned_as]
    assert base.recipe is not None, (
        "a method can be like one that has a recipe, not like one that is itself like another"
    )
    space = study.place(("methods", tuned_as, "search", "space"))
    file = study.file(("methods", tuned_as, "search", "space"))
    changes = [
        *study.changes(("methods", tuned_as, "overrides"), base.overrides),
        *(
            Change(where=f"{space}: methods.{tuned_as}.search.space", key=k, value=v, file=file)
            for k, v in setting.items()
        ),
        *(study.changes(("methods", method, "overrides"), own.overrides) if own is not base else []),
        *study.settings,
        Change(where=study.place(("seeds",)), key="seed", value=seed),
    ]
    return _run(
        study,
        out,
        reference=study.recipe_of("methods", tuned_as, base.recipe),
        changes=changes,
        seed=seed,
        method=method,
        label=label,
        setting=setting,
        description=_description(method, own, base.recipe if own is base else f"like {tuned_as}"),
        path=f"runs/{method}/{label}",
    )


def _prepared_run(study: Study, out: Path, name: str) -> PlannedRun:
    own = study.config.prepare[name]
    return _run(
        study,
        out,
        reference=study.recipe_of("prepare", name, own.recipe),
        changes=[*study.changes(("prepare", name, "overrides"), own.overrides), *study.settings],
        seed=None,
        method=name,
        label="prepared",
        setting={},
        description=_description(name, own, own.recipe),
        path=f"prepared/{name}",
    )


def _run(
    study: Study,
    out: Path,
    *,
    reference: str,
    changes: Sequence[Change],
    seed: int | None,
    method: str,
    label: str,
    setting: Setting,
    description: str | None,
    path: str,
) -> PlannedRun:
    everything = [*study.changes(("overrides",), study.config.overrides), *changes]
    mentioned = dict.fromkeys(name for change in everything for name in references(change.value))
    if seed is None and (ours := [change for change in everything if mentions_seed(change.value)]):
        what = "${seed} is the seed of a method's run; a prepared run is made once for all seeds and has none"
        raise ConfigError([Problem(where=change.where, what=what) for change in ours])
    resolved = [
        Change(
            where=change.where,
            key=change.key,
            value=with_models(
                with_seed(change.value, seed) if seed is not None else change.value,
                lambda name: str(prepared_model(out, name)),
            ),
            file="" if any(references(change.value)) else change.file,
        )
        for change in everything
    ]
    full_name = f"{study.config.name}-{method}-{label}"
    own = {"name": full_name} | ({"description": description} if description is not None else {})
    named = [Change(where=study.place(("name",)), key=key, value=value) for key, value in own.items()]
    try:
        recipe = load_recipe(reference, changes=[*resolved, *named])
    except ConfigError as error:
        section = "prepare" if label == "prepared" else "methods"
        where = study.place((section, method, "recipe"))
        raise ConfigError(
            [Problem(where=f"{where}: {section}.{method}: {each.where}", what=each.what) for each in error.problems]
        ) from None
    read = json.dumps(recipe.model_dump(mode="json"))  # what one override mentions, a later one may take back
    needs = tuple(name for name in mentioned if json.dumps(str(prepared_model(out, name))) in read)
    return PlannedRun(
        method=method,
        label=label,
        folder=out / path,
        path=path,
        recipe=recipe,
        setting=setting,
        needs=needs,
    )


def _description(name: str, own: MethodConfig | PreparedConfig, base: str) -> str | None:
    """What a run's record says it is; None leaves the recipe's own words, which hold while nothing is changed."""
    if own.description:
        return own.description
    return f"{name}: {base}, with {', '.join(own.overrides)}" if own.overrides else None


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={'null' if value is None else value}" for key, value in values.items())


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
    for name, method in config.methods.items():
        for key in _OURS & set(method.search.space if method.search is not None else ()):
            path = ("methods", name, "search", "space", key)
            yield Problem(where=f"{study.place(path)}: {dotted(path)}", what="set by the study, not searched")
    for change in study.settings:
        if change.key in _OURS:
            yield Problem(
                where=change.where, what="a study sets seed and name of its runs; change `seeds` in its file"
            )
        for name, method in config.methods.items():
            searched = method.search.space if method.search is not None else ()
            if any(_overlap(change.key, key) for key in searched):
                yield Problem(where=change.where, what=f"searched by method {name!r}; nothing would be left to try")


def _overlap(key: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one holds the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


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
    places += [
        (("methods", n, "search", "space"), each.search.space, known)
        for n, each in config.methods.items()
        if each.search is not None
    ]
    found = [(change, allowed) for path, changes, allowed in places for change in study.changes(path, changes)]
    found += [(change, []) for change in study.settings]  # they hold for prepared runs too
    for change, allowed in found:
        for name in references(change.value):
            if name not in allowed:
                listed = ", ".join(allowed) or "none"
                yield Problem(where=change.where, what=f"no prepared run {name!r} at this point; known: {listed}")


def _selector_problems(study: Study, method: str, runs: Sequence[PlannedRun]) -> Iterator[Problem]:
    wanted = study.config.select_by
    for run in runs:
        kind = run.recipe.validation.kind if run.recipe.validation is not None else "none"
        if kind != wanted:
            where = f"{study.place(('methods', method, 'recipe'))}: methods.{method}: validation.kind"
            yield Problem(where=where, what=f"the study selects by {wanted!r}, but this recipe's is {kind!r}")
