"""Which phases has a study? Prepare, tune, train the chosen settings, score them once, compare, write.

Trials are read by their validation score only. A failed run is a gap and a line among the failures; the study goes
on without it, and a method none of whose trials has a score has no final runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from dalr.data.dataset import load_dataset
from dalr.errors import Attempts, DataError, NumericsError
from dalr.evaluation.results import Evaluation
from dalr.io.claim import require_ours
from dalr.io.console import Bar, Console
from dalr.io.lock import locked
from dalr.study.fingerprint import Fingerprint, make_fingerprint, read_fingerprint
from dalr.study.plan import Plan, PlannedRun, make_plan, prepared_model
from dalr.study.reading import Study
from dalr.study.records import Records, holds_study, record_of
from dalr.study.result import (
    Difference,
    FailedRun,
    ItemTest,
    MethodResult,
    Origin,
    SeedResult,
    StudyResult,
    TrialResult,
)
from dalr.study.scores import Evaluated, Scorers, scores_of
from dalr.study.statistics import item_tests, paired_difference, summary
from dalr.study.training import Trained, impossible, make, recorded, settled
from dalr.study.writing import write_study
from dalr.training.data import load_training_data
from dalr.version import VERSION

Scored = Mapping[str, list[tuple[int, Trained, Evaluated]]]
"""Method -> (seed, run, scores)."""


def run_study(study: Study, *, out: Path, console: Console, replace: bool = False) -> StudyResult:
    """Run what is missing of a study in `out`, and write its tables there, and after each run its record.

    With `replace`, folders that hold another run than the study wants are renamed; without, they are refused.

    Raises:
        ConfigError: recipes with problems, or folders that hold other runs; nothing was trained.
        DataError: the evaluation's data is not there, or records cannot be read; nothing was trained.
        StorageError: `out` cannot be written, or another process runs a study in it.
    """
    require_ours(out, "a study", ours=lambda: holds_study(out))
    with locked(out):
        run = _Run(make_plan(study, out), console=console, replace=replace)
        try:
            return run.all()
        except (KeyboardInterrupt, SystemExit):
            console.say(f"stopped with {run.done} of at most {run.plan.trainings} runs; the same command goes on")
            raise


def finished_runs(plan: Plan, console: Console) -> dict[str, Trained]:
    """What a study would not train again, by the names of the runs; nothing is changed.

    Final runs are among them only where the trials that choose their settings are.

    Raises:
        ConfigError: folders that hold other runs than the plan wants.
    """
    return _Run(plan, console=console, replace=False).finished()


def require_inputs(plan: Plan, console: Console) -> None:
    """Read all data that the runs and the evaluation will read, as `dalr check` does for one recipe.

    Runs that learn from prepared ones are left to their turn: their teachers are not there yet.

    Raises:
        DalrError: with every problem found.
    """
    attempt, read_once = Attempts(), cache(load_dataset)
    for run in plan.first_runs():
        if not run.needs:
            attempt(partial(load_training_data, run.recipe, read_dataset=read_once))
    if plan.study.config.evaluate is not None:
        scorers = Scorers(plan.study.config.evaluate, console)
        attempt(partial(scorers.require_data, plan.study.config.seeds))
    attempt.require()


class _Run:
    """A study in progress: what is known of its runs, and the bar."""

    def __init__(self, plan: Plan, *, console: Console, replace: bool) -> None:
        self.plan, self.replace, self.console = plan, replace, console
        self.config = plan.study.config
        self.inner = console if console.verbose else Console(quiet=True)
        self.keys: dict[str, str] = {}
        """Prepared name -> key of its run."""
        self.broken: set[str] = set()
        """Prepared names that have no model."""
        self.failures: list[FailedRun] = []
        self.records: dict[str, Trained] = {}
        self.done = 0
        for run in plan.prepared:
            self.keys[run.method] = self._fingerprint(run).key
        self.known = Records(plan.out, self.config.name)

    def all(self) -> StudyResult:
        scorer = self._scorer()
        if not self.replace:
            self.finished()  # other runs in the folders are refused now, before hours are spent
        if scorer is not None:
            scorer.require_data(self.config.seeds)
        with self._bar() as bar:
            for run in self.plan.prepared:
                self._prepare(run, bar, weights=False)
            trials = {
                method: [self._train(run, "trial", bar, weights=False) for run in runs]
                for method, runs in self.plan.trials.items()
            }
            chosen = {method: best_of(trials[self.config.tuned_as(method)]) for method in trials}
            planned = {
                method: runs
                for method in trials
                if (runs := self._finals(method, trials[self.config.tuned_as(method)]))
            }
            self._refuse_others([run for runs in planned.values() for run in runs])
            finals = {
                method: [
                    self._train(run, "train", bar, weights=self._unscored(run, seed, scorer))
                    for seed, run in zip(self.config.seeds, runs, strict=True)
                ]
                for method, runs in planned.items()
            }
        scored = self._score(finals, scorer)
        result = self._result(trials, chosen, scored)
        write_study(result, self.plan, self.console)
        return result

    def finished(self) -> dict[str, Trained]:
        """The runs that are there already.

        Raises:
            ConfigError: folders that hold other runs; all of them, as far as the wanted ones are known.
        """
        scorer, attempt = self._scorer(), Attempts()
        found: dict[str, Trained] = {}
        read: set[str] = set()

        def look(run: PlannedRun, *, weights: bool = False) -> Trained | None:
            there = attempt(lambda: self._there(run, weights=weights))
            found.pop(run.name, None)
            if there is not None:
                found[run.name] = there
            else:
                read.update(run.needs)
            return there

        for run in self.plan.prepared:
            look(run)
        trials = {method: [look(run) for run in runs] for method, runs in self.plan.trials.items()}
        for method in trials:
            wanted = trials[self.config.tuned_as(method)]
            tried = [each for each in wanted if each is not None]
            runs = self._finals(method, tried) if len(tried) == len(wanted) else []  # or another may be chosen
            for seed, run in zip(self.config.seeds[: len(runs)], runs, strict=True):
                look(run, weights=self._unscored(run, seed, scorer))
        for run in reversed(self.plan.prepared):  # the last ones may read the first
            look(run, weights=run.method in read)
        attempt.require()
        return found

    def _finals(self, method: str, tried: list[Trained]) -> list[PlannedRun]:
        """The final runs by the best of the trials; none where all of these are failures."""
        best = best_of(tried)
        if tried and best is None:
            return []
        return self.plan.finals(method, best.run if best is not None else None)

    def _scorer(self) -> Scorers | None:
        return Scorers(self.config.evaluate, self.inner) if self.config.evaluate is not None else None

    def _refuse_others(self, runs: Iterable[PlannedRun]) -> None:
        """Raise if folders hold other runs than these, before any of them is trained."""
        if self.replace:
            return
        attempt = Attempts()
        for run in runs:
            attempt(partial(self._there, run, weights=False))
        attempt.require()

    def _unscored(self, run: PlannedRun, seed: int, scorer: Scorers | None) -> bool:
        """Whether the record of a final run lacks scores that its weights would give."""
        found = self.known.find(run.path, self._fingerprint(run).key)
        return scorer is not None and not scorer.at(seed).has_scored(
            run.recipe,
            found.evaluation if found is not None else None,
            first_seed=seed == self.config.seeds[0],
        )

    def _prepare(self, run: PlannedRun, bar: Bar, *, weights: bool) -> None:
        """A run that others need; its weights only when one of these is trained."""
        if self._train(run, "prepare", bar, weights=weights).failure is not None:
            self.broken.add(run.method)

    def _train(self, run: PlannedRun, phase: str, bar: Bar, *, weights: bool) -> Trained:
        """The run, finished or failed; a run that is wanted twice is looked at once."""
        known = self.records.get(run.name)
        if known is not None and (known.has_weights or known.failure is not None or not weights):
            return known
        if self.console.verbose:
            self.console.say(f"run {self.done + (known is None)} of at most {self.plan.trainings}: {run.name}")
        there = self._there(run, weights=weights)
        if there is not None and known is None:
            bar.skip(1)
        trained = there or self._make(run, bar)
        self.records[run.name] = trained
        self._keep(trained)
        if trained.failure is not None:
            self._fail(run.name, phase, trained.failure.reason, trained.failure.exit_code)
        self.done += known is None
        shown = f"{trained.validation:.2f}" if trained.validation is not None else "–"
        bar.update(self.done, run=run.name, dev=shown)
        return trained

    def _there(self, run: PlannedRun, *, weights: bool) -> Trained | None:
        """The run if it is finished in its folder, or where no weights are wanted, known by its record."""
        fingerprint = self._fingerprint(run)
        trained = settled(run, fingerprint, replace=self.replace, console=self.inner)
        return recorded(run, fingerprint, self.known) if trained is None and not weights else trained

    def _keep(self, trained: Trained) -> None:
        """Write the record of a run whose weights are there."""
        fingerprint = read_fingerprint(trained.run.folder) if trained.has_weights else None
        if fingerprint is not None:
            asked = self.config.evaluate
            overlap = asked.at(trained.run.recipe.seed).exclude_overlap if asked is not None else None
            self.known.keep(record_of(trained.run, fingerprint, trained.record or {}, overlap_with=overlap))

    def _make(self, run: PlannedRun, bar: Bar) -> Trained:
        """The run, trained now, and before it whatever it reads."""
        for each in self.plan.prepared:
            if each.method in run.needs:
                self._prepare(each, bar, weights=True)
        missing = [name for name in run.needs if name in self.broken]
        if missing:
            error = DataError(f"the prepared run {', '.join(missing)} that it needs has failed")
            return impossible(run, error)
        return make(run, self._fingerprint(run), console=self.inner)

    def _fingerprint(self, run: PlannedRun) -> Fingerprint:
        """The fingerprint of a run, with the keys of the prepared runs that it reads."""
        read = {str(prepared_model(self.plan.out, name)): self.keys[name] for name in run.needs}
        return make_fingerprint(run.recipe, read)

    def _score(self, finals: Mapping[str, list[Trained]], scorer: Scorers | None) -> Scored:
        scored: dict[str, list[tuple[int, Trained, Evaluated]]] = {}
        wanted = [each for runs in finals.values() for each in runs if each.failure is None]
        done = 0
        with self._evaluation_bar(len(wanted) if scorer is not None else 0) as bar:
            for method, runs in finals.items():
                scored[method] = []
                for seed, trained in zip(self.config.seeds, runs, strict=True):
                    if trained.failure is not None:
                        continue
                    found = Evaluated()
                    if scorer is not None:
                        first = seed == self.config.seeds[0]
                        recorded = trained.known_by.evaluation if trained.known_by is not None else None
                        run = trained.run
                        found = scorer.at(seed).score(run.recipe, run.folder, recorded=recorded, first_seed=first)
                        self._keep(trained)
                        if found.earlier:
                            bar.skip(1)
                        self._note_failures(trained.run, found)
                        done += 1
                        bar.update(done, run=trained.run.name)
                    scored[method].append((seed, trained, found))
        return scored

    def _note_failures(self, run: PlannedRun, found: Evaluated) -> None:
        if found.failure is not None:
            self._fail(run.name, "evaluate", found.failure.reason, found.failure.exit_code)
        if found.evaluation is not None:
            for each in found.evaluation.failed:
                # what a file keeps of a failed task has no code; data is what usually is the matter
                code = each.exit_code if each.exit_code != 1 else DataError.exit_code
                self._fail(run.name, "evaluate", f"{each.task}: {each.reason}", code)

    def _fail(self, run: str, phase: str, reason: str, exit_code: int) -> None:
        self.failures.append(
            FailedRun.model_validate({"run": run, "phase": phase, "reason": reason, "exit_code": exit_code})
        )
        self.console.say(f"failed: {run} ({phase}): {reason}")

    def _result(
        self, trials: Mapping[str, list[Trained]], chosen: Mapping[str, Trained | None], scored: Scored
    ) -> StudyResult:
        config = self.config
        methods = {
            method: self._method(method, trials[method], chosen[method], scored.get(method, []))
            for method in config.methods
        }
        return StudyResult(
            name=config.name,
            description=config.description,
            dalr=VERSION,
            seeds=config.seeds,
            tune_seed=config.tune_seed,
            select_by=config.select_by,
            unequal_trials=config.unequal_trials,
            baseline=config.baseline,
            graded=tuple(config.evaluate.graded_pairs) if config.evaluate is not None else (),
            methods=methods,
            differences=tuple(self._differences(methods, scored)),
            failures=tuple(self.failures),
            origins=tuple(_origins(self.records.values())),
        )

    def _method(
        self,
        method: str,
        trials: list[Trained],
        chosen: Trained | None,
        scored: list[tuple[int, Trained, Evaluated]],
    ) -> MethodResult:
        seeds = [_seed_result(seed, trained, found) for seed, trained, found in scored]
        names = dict.fromkeys(name for each in seeds for name in each.scores)
        return MethodResult(
            recipe=self.config.methods[self.config.tuned_as(method)].recipe or "",
            like=self.config.methods[method].like,
            setting=chosen.run.setting if chosen is not None else {},
            untrained=next((each.untrained for each in (*trials, *(run for _, run, _ in scored))), None),
            trials=tuple(
                TrialResult(
                    run=each.run.name,
                    setting=each.run.setting,
                    validation=each.validation,
                    chosen=each is chosen,
                )
                for each in trials
            ),
            seeds=tuple(seeds),
            summary={name: summary([s.scores[name] for s in seeds if name in s.scores]) for name in names},
        )

    def _differences(self, methods: Mapping[str, MethodResult], scored: Scored) -> Iterator[Difference]:
        pairs = [(a, b) for a, b in self.config.comparisons if methods[a].seeds and methods[b].seeds]
        with self.console.bar("compare", len(pairs), "pair") if pairs else _no_bar() as bar:
            for done, (a, b) in enumerate(pairs, start=1):
                tests = {each.task: each for each in item_tests(_evaluations(scored[a]), _evaluations(scored[b]))}
                for name in methods[a].summary:
                    by_seed = [
                        {each.seed: each.scores[name] for each in methods[method].seeds if name in each.scores}
                        for method in (a, b)
                    ]
                    difference = paired_difference(*by_seed)
                    if difference is None:
                        continue
                    test = tests.get(name)
                    items = (
                        ItemTest(difference=test.difference, interval=test.interval, p_value=test.p_value)
                        if test is not None
                        else None
                    )
                    yield Difference(a=a, b=b, score=name, seeds=difference, items=items)
                bar.update(done)

    @contextmanager
    def _bar(self) -> Iterator[Bar]:
        """One bar for all runs; under -v each run shows its own, and two cannot be drawn at once."""
        if self.console.verbose:
            yield Bar()
            return
        with self.console.bar(f"study {self.config.name}", self.plan.trainings, "run") as bar:
            yield bar

    @contextmanager
    def _evaluation_bar(self, total: int) -> Iterator[Bar]:
        if self.console.verbose or not total:
            yield Bar()
            return
        with self.console.bar("evaluate", total, "run") as bar:
            yield bar


def best_of(trials: list[Trained]) -> Trained | None:
    """The trial with the highest validation score, the first of equals; None where none has one."""
    scored = [each for each in trials if each.validation is not None]
    return max(scored, key=lambda each: each.validation or 0.0) if scored else None


def exit_code_of(result: StudyResult) -> int:
    """0, or the code of the failures: numbers before all others, as for evaluations."""
    codes = [each.exit_code for each in result.failures]
    return NumericsError.exit_code if NumericsError.exit_code in codes else next(iter(codes), 0)


@contextmanager
def _no_bar() -> Iterator[Bar]:
    yield Bar()


def _evaluations(scored: list[tuple[int, Trained, Evaluated]]) -> dict[int, Evaluation]:
    return {seed: found.evaluation for seed, _, found in scored if found.evaluation is not None}


def _seed_result(seed: int, trained: Trained, found: Evaluated) -> SeedResult:
    record = trained.record or {}
    result = record.get("result", {})
    return SeedResult(
        run=trained.run.path,
        seed=seed,
        scores=scores_of(found.evaluation, trained.validation),
        steps=record.get("steps"),
        best_step=result.get("best_step"),
        seconds=result.get("seconds"),
        trained_parameters=record.get("trained_parameters"),
    )


def _origins(runs: Iterable[Trained]) -> Iterator[Origin]:
    """The distinct versions and machines of runs, in the order of their first run."""
    counts: dict[str, tuple[Origin, int]] = {}
    for each in runs:
        if each.record is None:
            continue
        origin = Origin(
            versions=each.record.get("versions", {}),
            machine=each.record.get("machine", {}),
            git_commit=each.record.get("git_commit"),
            runs=0,
        )
        key = origin.model_dump_json()
        counts[key] = (origin, counts.get(key, (origin, 0))[1] + 1)
    for origin, runs_of_it in counts.values():
        yield origin.model_copy(update={"runs": runs_of_it})
