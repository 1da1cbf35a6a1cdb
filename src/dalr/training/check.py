"""What does `dalr check` find? Every problem of a recipe and of all that it names, and counts of the rest.

A recipe with a mistake does not hide what is wrong with its data: the data section is then checked alone. A person
at a terminal gets tables; a pipe gets `where: what`, one problem a line, as every other error is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.data.config import DataConfig
from dalr.data.dataset import Dataset, load_dataset
from dalr.errors import SHOWN, Attempts, ConfigError, DalrError, DataError, ModelFileError, Problem, together
from dalr.evaluation.overlap import OverlapReport, audit
from dalr.evaluation.sts import load_sts
from dalr.evaluation.tasks import STS_DEV, STS_TASKS
from dalr.io.console import Console, printable
from dalr.io.console import show as print_result
from dalr.io.paths import is_dir
from dalr.models.reference import unavailable
from dalr.recipe.checks import missing_models
from dalr.recipe.loading import load_data_section, load_recipe
from dalr.training.data import load_training_data

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


_COUNTED = {
    "images": "in the pairs file",
    "captions": "of these images, empty ones left out",
    "captions_dropped_empty": "empty captions, left out",
    "captions_repeated": "captions that an earlier one says already, letter case and spaces aside",
    "images_by_split": "images of each split of the file",
    "images_held_out": "never trained on",
    "images_for_validation": "of those, they choose the weights",
    "images_for_test": "of those, for the final scores",
    "images_dropped_leaking": "near-duplicates of held-out images, not trained on",
    "captions_dropped_leaking": "also captions of held-out images, not trained on",
    "captions_trained_on": "what is left to train on",
    "captions_with_a_strange_image": "given another image by pairing_control",
    "text_lines": "sentences of plain text, empty lines left out",
    "text_dropped_empty": "empty lines, left out",
    "text_repeated": "lines that an earlier one says already",
    "text_dropped_leaking": "lines that are also held-out captions, not trained on",
}
"""What the counts of a data report count."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How the rows of one kind fill an epoch."""

    per_epoch: int
    rows_left_over: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The outcome of a check."""

    recipe: str
    error: DalrError | None = None
    """Holds all problems, and the exit code."""
    report: Mapping[str, int | str] = field(default_factory=dict)
    batches: Mapping[str, Batches] = field(default_factory=dict)
    missing_models: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    not_compared: str = ""
    """Why there is no overlap although it was asked for."""
    overlap: OverlapReport | None = None
    """Training sentences in evaluation sets, where that was asked for."""

    def as_json(self) -> dict[str, Any]:
        problems = self.error.problems if self.error is not None else []
        return {
            "format": "dalr-check",
            "recipe": self.recipe,
            "ok": self.error is None,
            "exit_code": self.error.exit_code if self.error is not None else 0,
            "problems": [asdict(problem) for problem in problems],
            "data": dict(self.report),
            "batches": {kind: asdict(each) for kind, each in self.batches.items()},
            "missing_models": list(self.missing_models),
            "warnings": list(self.warnings),
            "overlap": {name: asdict(task.counts()) for name, task in self.overlap.tasks.items()}
            if self.overlap is not None
            else None,
        }


def check_recipe(
    reference: str, overrides: Sequence[str] = (), *, against: Path | None = None, console: Console | None = None
) -> Checked:
    """Check a recipe (a shipped name or a path) with everything that it names; raises nothing of ours.

    With `against`, a SentEval folder, its training sentences are also looked up in the STS sets.
    """
    compare = _Comparison(against=against, console=console or Console(quiet=True))
    try:
        recipe = load_recipe(reference, overrides)
    except ConfigError as error:
        data = load_data_section(reference, overrides)
        return compare.of_data(Checked(recipe=reference, error=_with_data_problems(error, data)), data, seed=0)
    missing = missing_models(recipe)
    errors: list[DalrError] = list(_unavailable(missing))
    inputs = None
    try:
        inputs = load_training_data(recipe)
    except DalrError as wrong:
        errors.insert(0, wrong)
    found = together(errors) if errors else None
    if inputs is None:
        return compare.of_data(Checked(recipe=reference, error=found), recipe.data, seed=recipe.seed)
    left_over, kinds = inputs.plan.left_over(), inputs.plan.kinds(0)
    checked = Checked(
        recipe=reference,
        error=found,
        report=inputs.dataset.report,
        batches={
            kind: Batches(per_epoch=kinds.count(kind), rows_left_over=rows) for kind, rows in left_over.items()
        },
        missing_models=tuple(model for model, _ in missing),
        warnings=inputs.warnings,
    )
    return compare.of_sentences(checked, inputs.dataset)


def _unavailable(models: Sequence[tuple[str, str | None]]) -> list[ModelFileError]:
    """What keeps training from loading these models, which are not on this machine."""
    reasons = [(model, unavailable(model, revision)) for model, revision in models]
    return [
        ModelFileError(Problem(where=f"model {model!r}", what=reason))
        for model, reason in reasons
        if reason is not None
    ]


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Training sentences against the evaluation sets of a folder, if one is named; also of a recipe with errors."""

    against: Path | None
    console: Console

    def of_data(self, checked: Checked, data: DataConfig | None, *, seed: int) -> Checked:
        """With what can be read of a recipe in which something else is wrong."""
        if self.against is None:
            return checked
        try:
            dataset = load_dataset(data, seed=seed) if data is not None else None
        except DalrError:
            dataset = None
        if dataset is None:
            return replace(checked, not_compared="the training sentences cannot be read, see the problems")
        return self.of_sentences(checked, dataset)

    def of_sentences(self, checked: Checked, dataset: Dataset) -> Checked:
        if self.against is None:
            return checked
        try:
            return replace(checked, overlap=_overlap(dataset, self.against, self.console))
        except DalrError as error:
            both = [*(checked.error.problems if checked.error is not None else ()), *error.problems]
            total = error.total + (checked.error.total if checked.error is not None else 0)
            return replace(checked, error=type(checked.error or error)(both, total=total))


def _overlap(dataset: Dataset, data: Path, console: Console) -> OverlapReport:
    if not is_dir(data):
        raise DataError(Problem(where="--against", what=f"no such folder: {data.absolute()}"))
    attempt = Attempts()
    found = [attempt(lambda task=task: load_sts(data, task)) for task in (*STS_TASKS, STS_DEV)]  # type: ignore[misc]
    attempt.require()
    pairs = [each for each in found if each is not None]
    captions = dataset.pairs.captions if dataset.pairs is not None else ()
    lines = dataset.text.lines if dataset.text is not None else ()
    with console.bar("compare", len(captions) + len(lines), "sentence") as bar:
        return audit(chain(captions, lines), pairs, progress=bar.update)


def _show_overlap(checked: Checked, console: Console) -> None:
    if checked.not_compared:
        console.say(f"note: --against was not compared: {checked.not_compared}")
    if checked.overlap is None:
        return
    print_result(checked.overlap.table())
    for task in checked.overlap.tasks.values():
        for match in task.examples(2):
            console.detail(f"{task.name}: {match.evaluation!r} is nearly {match.training!r}")


def show(checked: Checked, console: Console) -> None:
    """Print the outcome: counts to standard output, the rest to standard error.

    Raises:
        DalrError: `checked.error`, where standard error is not a terminal, for `main` to print.
    """
    from rich.console import Console as RichConsole

    if checked.error is not None:
        _show_overlap(checked, console)
        terminal = RichConsole(stderr=True)
        if not terminal.is_terminal:
            raise checked.error
        _show_problems(checked.error, terminal, everything=console.verbose)
        return
    terminal = RichConsole()
    if terminal.is_terminal:
        _print_table(terminal, ("data", ""), [(name, _told(name, value)) for name, value in checked.report.items()])
    else:
        print_result("".join(f"{name}: {_told(name, value)}\n" for name, value in checked.report.items()), end="")
    for kind, batches in checked.batches.items():
        left = batches.rows_left_over
        console.detail(f"{kind} batches in an epoch: {batches.per_epoch}, rows left over: {left}")
    for model in checked.missing_models:
        console.say(f"note: model {model} is not on this machine; training will download it")
    for warning in checked.warnings:
        console.say(f"warning: {warning}")
    _show_overlap(checked, console)
    console.say("no problems found")


def _told(name: str, value: int | str) -> str:
    """A count with what it counts."""
    return f"{value}  ({_COUNTED[name]})" if name in _COUNTED else str(value)


def _with_data_problems(error: ConfigError, data: DataConfig | None) -> ConfigError:
    if data is None:
        return error
    try:
        load_dataset(data, seed=0)
    except ConfigError:
        pass  # a variable that is not set: the recipe's own problem
    except DalrError as found:
        return ConfigError([*error.problems, *found.problems], total=error.total + found.total)
    return error


def _show_problems(error: DalrError, terminal: RichConsole, *, everything: bool) -> None:
    shown = error.problems if everything else error.problems[:SHOWN]
    _print_table(terminal, ("where", "what"), [(problem.where, problem.what) for problem in shown])
    hidden = error.total - len(shown)
    more = f", {hidden} of them not shown: -v shows all, --json FILE writes all" if hidden else ""
    terminal.print(f"{error.total} {'problem' if error.total == 1 else 'problems'}{more}", highlight=False)


def _print_table(terminal: RichConsole, names: tuple[str, str], rows: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=any(names), show_lines=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, map(printable, cells)))  # Text: brackets in data are no markup
    terminal.print(table)
