"""The phases of a study: prepare, tune, train the chosen settings, score them once, compare, write.

Trials are read by their development score only. A failed run is a gap and a line among the failures; the study goes
on without it, and a method none of whose trials has a score has no final runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dalr import __version__
from dalr.console import Bar, Console
from dalr.errors import ConfigError, DalrError, DataError, NumericsError, Problem, together
from dalr.evaluation.results import Evaluation
from dalr.io.lock import locked
from dalr.study.ledger import make_ticket
from dalr.study.plan import Plan, PlannedRun, make_plan, prepared_model
from dalr.study.reading import Study
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
from dalr.study.scores import Evaluated, Examiner, scores_of
from dalr.study.statistics import item_tests, paired_difference, summary
from dalr.study.training import Trained, ensure, failed, settled
from dalr.study.writing import write_study
from dalr.training.inputs import load_inputs

Scored = Mapping[str, list[tuple[int, Trained, Evaluated]]]
"""Method -> (seed, run, scores)."""


def run_study(study: Study, *, out: Path, console: Console, replace: bool = False) -> StudyResult:
    """Run what is missing of a study in `out`, and write its tables there.

    With `replace`, folders that hold another run than the study wants are renamed; without, they are refused.

    Raises:
        ConfigError: recipes with problems, or folders that hold other runs; nothing was trained.
        DataError: the evaluation's data is not there; nothing was trained.
        StorageError: `out` cannot be written, or another process runs a study in it.
    """
    with locked(out):
        return _Run(make_plan(study, out), console=console, replace=replace).all()


def require_inputs(plan: Plan, console: Console) -> None:
    """Read all data that the runs and the evaluation will read, as `dalr check` does for one recipe.

    Runs that learn from prepared ones are left to their turn: their teachers are not there yet.

    Raises:
        DalrError: with every problem found.
    """
    errors: list[DalrError] = []
    said: set[Problem] = set()

    def attempt(read: Callable[[], object]) -> None:
        try:
            read()
        except DalrError as error:
            if new := [problem for problem in error.problems if problem not in said]:
                errors.append(type(error)(new, total=error.total - len(error.problems) + len(new)))
                said.update(new)

    for run in plan.first_runs():
        if not run.needs:
            attempt(partial(load_inputs, run.recipe.job()))
    if plan.study.config.evaluate is not None:
        attempt(Examiner(plan.study.config.evaluate, console).require_data)
    if errors:
        raise together(errors)


class _Run:
    """A study in progress: what is known of its runs, and the bar."""

    def __init__(self, plan: Plan, *, console: Console, replace: bool) -> None:
        self.plan, self.replace, self.console = plan, replace, console
        self.config = plan.study.config
        self.inner = console if console.verbose else Console(quiet=True)
        self.keys: dict[str, str] = {}
        """Prepared name -> key of its run, once it has a model."""
        self.failures: list[FailedRun] = []
        self.records: dict[str, Trained] = {}
        self.done = 0

    def all(self) -> StudyResult:
        examiner = Examiner(self.config.evaluate, self.inner) if self.config.evaluate is not None else None
        self._refuse_early(examiner)
        with self._bar() as bar:
            for run in self.plan.prepared:
                trained = self._train(run, "prepare", bar)
                if trained.failure is None:
                    self.keys[run.method] = trained.key
            trials = {
                method: [self._train(run, "trial", bar) for run in runs]
                for method, runs in self.plan.trials.items()
            }
            chosen = {method: best_of(found) for method, found in trials.items()}
            finals: dict[str, list[Trained]] = {}
            for method, found in trials.items():
                best = chosen[method]
                if found and best is None:
                    continue  # its trials are among the failures
                runs = self.plan.finals(method, best.run if best is not None else None)
                finals[method] = [self._train(run, "train", bar) for run in runs]
        scored = self._examine(finals, examiner)
        result = self._result(trials, chosen, scored)
        write_study(result, self.plan.out, runs=[each.run for each in self.records.values() if each.record])
        return result

    def _refuse_early(self, examiner: Examiner | None) -> None:
        """What would stop the study later on, before hours are spent: other runs in its folders, missing data."""
        problems: list[Problem] = []
        for run in [run for runs in (self.plan.prepared, *self.plan.trials.values()) for run in runs]:
            if run.needs or self.replace:
                continue  # its key hangs on runs that may not be there yet
            try:
                settled(run, {}, replace=False, console=self.console)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        if examiner is not None:
            examiner.require_data()

    def _train(self, run: PlannedRun, phase: str, bar: Bar) -> Trained:
        """The run, finished or failed; a run that is wanted twice is looked at once."""
        if run.name in self.records:
            return self.records[run.name]
        if self.console.verbose:
            self.console.say(f"run {self.done + 1} of at most {self.plan.trainings}: {run.name}")
        prepared = {
            str(prepared_model(self.plan.out, name)): self.keys[name] for name in run.needs if name in self.keys
        }
        missing = [name for name in run.needs if name not in self.keys]
        if missing:
            error = DataError(f"the prepared run {', '.join(missing)} that it needs has failed")
            trained = failed(run, make_ticket(run.recipe, prepared), error)
        else:
            trained = ensure(run, prepared, replace=self.replace, console=self.inner)
        self.records[run.name] = trained
        if trained.failure is not None:
            self._fail(run.name, phase, trained.failure.reason, trained.failure.exit_code)
        self.done += 1
        shown = f"{trained.development:.2f}" if trained.development is not None else "–"
        bar.update(self.done, run=run.name, dev=shown)
        return trained

    def _examine(self, finals: Mapping[str, list[Trained]], examiner: Examiner | None) -> Scored:
        scored: dict[str, list[tuple[int, Trained, Evaluated]]] = {}
        wanted = [each for runs in finals.values() for each in runs if each.failure is None]
        done = 0
        with self._evaluation_bar(len(wanted) if examiner is not None else 0) as bar:
            for method, runs in finals.items():
                scored[method] = []
                for seed, trained in zip(self.config.seeds, runs, strict=True):
                    if trained.failure is not None:
                        continue
                    found = Evaluated()
                    if examiner is not None:
                        found = examiner.examine(trained.run, first_seed=seed == self.config.seeds[0])
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
            dalr=__version__,
            seeds=config.seeds,
            tune_seed=config.tune_seed,
            select_by=config.select_by,
            unequal_trials=config.unequal_trials,
            baseline=config.baseline,
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
        seeds = [_seed_result(seed, trained, found, self.plan.out) for seed, trained, found in scored]
        names = dict.fromkeys(name for each in seeds for name in each.scores)
        return MethodResult(
            recipe=self.config.methods[method].recipe,
            setting=chosen.run.setting if chosen is not None else {},
            trials=tuple(
                TrialResult(
                    run=each.run.name,
                    setting=each.run.setting,
                    development=each.development,
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
    """The trial with the highest development score, the first of equals; None where none has one."""
    scored = [each for each in trials if each.development is not None]
    return max(scored, key=lambda each: each.development or 0.0) if scored else None


def exit_code_of(result: StudyResult) -> int:
    """0, or the code of the failures: numbers before all others, as for evaluations."""
    codes = [each.exit_code for each in result.failures]
    return NumericsError.exit_code if NumericsError.exit_code in codes else next(iter(codes), 0)


@contextmanager
def _no_bar() -> Iterator[Bar]:
    yield Bar()


def _evaluations(scored: list[tuple[int, Trained, Evaluated]]) -> dict[int, Evaluation]:
    return {seed: found.evaluation for seed, _, found in scored if found.evaluation is not None}


def _seed_result(seed: int, trained: Trained, found: Evaluated, out: Path) -> SeedResult:
    record = trained.record or {}
    result = record.get("result", {})
    return SeedResult(
        run=trained.run.folder.relative_to(out).as_posix(),
        seed=seed,
        scores=scores_of(found.evaluation, trained.development),
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
