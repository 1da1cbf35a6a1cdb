"""How is a study's result tabulated? Mean ± standard deviation above published rows, differences, trials.

A method without a number has a dash. Bold is the best mean among the measured methods, whether or not the
difference is more than chance: that is what the table of differences is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dalr.evaluation.bootstrap import DRAWS
from dalr.evaluation.published import AVERAGE, load_published
from dalr.evaluation.tasks import STS_DEV, STS_TASKS, TRANSFER_TASKS
from dalr.report.palette import model_colour
from dalr.report.score_tables import BOLD_NOTE, PUBLISHED, TRANSFER_NOTE, published_row
from dalr.report.tables import Cell, Column, Group, Row, Table, formatted, interval, number, table, words
from dalr.study.result import Difference, StudyResult
from dalr.study.scores import CLEAN_AVG, DEV, STS_AVG, TRANSFER_AVG, WITHOUT_OVERLAP
from dalr.study.statistics import Summary

_RECALLS = tuple(f"{arrow} {name}" for arrow in ("t→i", "i→t") for name in ("R@1", "R@5", "R@10"))
_CAPTIONS = ("captions R@1", "captions R@10", "captions MAP")
_PHOTO_CAPTIONS = ("STS12/MSRvid", "STS14/images", "STS15/images", "SICK-R")
_PHOTOS = tuple(name for task in _PHOTO_CAPTIONS for name in (task, task + WITHOUT_OVERLAP))
_AVERAGES = (STS_AVG, CLEAN_AVG, TRANSFER_AVG)
_DIFFERENCES = tuple(
    dict.fromkeys(
        (*_AVERAGES, *_RECALLS, *_CAPTIONS, DEV, STS_DEV, *STS_TASKS, *_PHOTOS, *TRANSFER_TASKS)
    )  # SICK-R is in two
)
_SHORT = {STS_AVG: AVERAGE, TRANSFER_AVG: AVERAGE, CLEAN_AVG: "Avg w/o overlap"}


def study_tables(result: StudyResult) -> list[Table]:
    """All tables for which there is something to show, in reading order."""
    candidates = [
        *score_tables(result),
        difference_table(result),
        trial_table(result),
        failure_table(result),
        origin_table(result),
    ]
    return [each for each in candidates if each is not None]


def score_tables(result: StudyResult) -> list[Table]:
    """Every score that a method has, in one of the tables at least."""
    candidates = [
        sts_table(result),
        transfer_table(result),
        retrieval_table(result),
        captions_table(result),
        *(graded_table(result, name) for name in result.graded),
        overlap_table(result),
        photo_table(result),
        further_table(result),
    ]
    return [each for each in candidates if each is not None]


def sts_table(result: StudyResult) -> Table | None:
    """The main table; with nothing evaluated, validation scores alone."""
    measured = _measured(result)
    has_sts = bool(set(STS_TASKS) & measured)
    names = [*(STS_TASKS if has_sts else ()), *([STS_AVG] if has_sts else [])]
    further = [name for name in (CLEAN_AVG, STS_DEV, DEV) if name in measured]
    published = [
        published_row(row, (*STS_TASKS, AVERAGE), blanks=len(further)) for row in load_published().of("sts")
    ]
    return _score_table(
        result,
        [*names, *further],
        name="study-sts",
        caption="Semantic textual similarity (Spearman × 100) and the validation score that chose the settings"
        if has_sts
        else "Validation scores × 100",
        published=Group(rows=tuple(published), title=PUBLISHED) if has_sts else None,
        notes=[BOLD_NOTE if has_sts else "", *_trial_notes(result), _untrained_note(result)],
    )


def transfer_table(result: StudyResult) -> Table | None:
    if not set(TRANSFER_TASKS) & _measured(result):
        return None
    rows = tuple(published_row(row, (*TRANSFER_TASKS, AVERAGE)) for row in load_published().of("transfer"))
    return _score_table(
        result,
        [*TRANSFER_TASKS, TRANSFER_AVG],
        name="study-transfer",
        caption="Transfer: accuracy × 100 (acc) of a classifier over frozen sentence vectors",
        published=Group(rows=rows, title=f"{PUBLISHED}; acc or devacc unclear"),
        notes=[TRANSFER_NOTE],
    )


def graded_table(result: StudyResult, task: str) -> Table | None:
    """Graded pairs of the user's own: the mean, its groups and their files."""
    names = _graded_names(result, task)
    if not names:
        return None
    number = result.graded.index(task) + 1
    return _score_table(
        result,
        names,
        columns=[each.removeprefix(f"{task}/").replace(WITHOUT_OVERLAP, " w/o overlap") for each in names],
        name=f"study-graded-{number}",
        caption=f"Graded pairs, {task} (Spearman × 100)",
        published=None,
        notes=[
            f"{task} is the mean of its groups, a group the mean of its files." if len(names) > 1 else "",
        ],
    )


def _graded_names(result: StudyResult, task: str) -> list[str]:
    """The scores of a task of graded pairs: the mean, its groups, their files; each kind also without overlap."""
    measured = dict.fromkeys(
        name
        for method in result.methods.values()
        for name in method.summary
        if name.removesuffix(WITHOUT_OVERLAP) == task or name.startswith(f"{task}/")
    )
    return sorted(measured, key=lambda name: (name.count("/"), WITHOUT_OVERLAP in name))


def retrieval_table(result: StudyResult) -> Table | None:
    if not set(_RECALLS) & _measured(result):
        return None
    keys = {"t→i": "text_to_image", "i→t": "image_to_text"}
    rows = tuple(
        Row(
            head=row.method,
            about=row.data,
            cells=tuple(number(row.scores.get(f"{keys[name[:3]]}_{name[4:]}"), row.decimals) for name in _RECALLS),
        )
        for row in load_published().of("retrieval")
    )
    return _score_table(
        result,
        list(_RECALLS),
        name="study-retrieval",
        caption="Image–text retrieval over the held-out images: fraction of queries (%) found",
        published=Group(rows=rows, title=f"{PUBLISHED}; other images, protocol not stated"),
        notes=["The more images there are to choose from, the lower every recall."],
    )


def captions_table(result: StudyResult) -> Table | None:
    if not set(_CAPTIONS) & _measured(result):
        return None
    return _score_table(
        result,
        list(_CAPTIONS),
        columns=[name.removeprefix("captions ") for name in _CAPTIONS],
        name="study-captions",
        caption="Captions of one image among all test captions (%)",
        published=None,
        notes=["Each caption asks for the other captions of its image."],
    )


def further_table(result: StudyResult) -> Table | None:
    """Tasks that were asked for and are in no other table."""
    elsewhere = {*_DIFFERENCES, *result.graded}
    names = [
        name
        for name in dict.fromkeys(name for each in result.methods.values() for name in each.summary)
        if name not in elsewhere and "/" not in name and not name.endswith(WITHOUT_OVERLAP)
    ]
    if not names:
        return None
    return _score_table(result, names, name="study-further", caption="Further scores", published=None, notes=[])


def overlap_table(result: StudyResult) -> Table | None:
    """STS again without the pairs that a training sentence is in."""
    measured = _measured(result)
    names = [name for task in (*STS_TASKS, STS_DEV) if (name := task + WITHOUT_OVERLAP) in measured]
    if not names:
        return None
    average = [CLEAN_AVG] if CLEAN_AVG in measured else []
    return _score_table(
        result,
        [*names, *average],
        columns=[*(each.removesuffix(WITHOUT_OVERLAP) for each in names), *(AVERAGE for _ in average)],
        name="study-overlap",
        caption="STS without the pairs that hold a training sentence, or nearly one (Spearman × 100)",
        published=None,
        notes=["Compare methods here, not a method with its score over all pairs: what is left is another set."],
    )


def photo_table(result: StudyResult) -> Table | None:
    """Where images should show, if anywhere."""
    measured = _measured(result)
    names = [name for name in _PHOTOS if name in measured]
    if not any("/" in name for name in names):
        return None
    return _score_table(
        result,
        names,
        name="study-photos",
        caption="Pairs of photo and video captions alone (Spearman × 100)",
        published=None,
        notes=[],
    )


def difference_table(result: StudyResult, scores: Sequence[str] = _DIFFERENCES) -> Table | None:
    """Each compared pair with its difference in `scores`, in their order."""
    pairs = list(dict.fromkeys((each.a, each.b) for each in result.differences))
    if not pairs:
        return None
    scores = [*(name for task in result.graded for name in _graded_names(result, task)), *scores]
    groups = [
        Group(
            title=f"{a} minus {b}",
            rows=tuple(
                _difference_row(found[name])
                for found in [{each.score: each for each in result.differences if (each.a, each.b) == (a, b)}]
                for name in scores
                if name in found
            ),
        )
        for a, b in pairs
    ]
    return table(
        name="study-differences",
        caption="Differences, paired by seed",
        head="score",
        columns=[
            Column(name="difference", explained="mean over the seeds that both have"),
            Column(name="std", explained="standard deviation of the difference over seeds"),
            Column(name="95 % over seeds", explained="Student's t"),
            Column(name="95 % over items", explained="paired bootstrap"),
            Column(name="p (items)"),
            Column(name="seeds"),
        ],
        groups=groups,
        notes=[
            "Over seeds: Student's t on the differences of runs under the same seed; what another training would "
            f"change. Over items: all runs of both methods on the same {DRAWS:,} resamples of the task's items; "
            "what another sample of sentences would change; a dash where a score is not resampled (retrieval, "
            "subsets) or a run is known by its record alone. Neither is corrected for the number of rows."
        ],
    )


def _difference_row(each: Difference) -> Row:
    seeds, items = each.seeds, each.items
    return Row(
        head=each.score,
        cells=(
            Cell(text=formatted(seeds.mean, 2, signed=True), value=seeds.mean),
            number(seeds.std),
            words(interval(seeds.interval, 2, signed=True) if seeds.interval is not None else None),
            words(interval(items.interval, 2, signed=True) if items is not None else None),
            number(items.p_value if items is not None else None, 3),
            Cell(text=str(seeds.n), value=seeds.n),
        ),
    )


def trial_table(result: StudyResult) -> Table | None:
    groups = [
        Group(
            title=f"{name}: {len(method.trials)} trials",
            rows=tuple(
                Row(
                    head=each.run.rpartition("/")[2],
                    cells=(
                        words(setting_text(each.setting)),
                        Cell(text=formatted(each.validation), value=each.validation, best=each.chosen)
                        if each.validation is not None
                        else Cell(),
                        words("chosen" if each.chosen else None),
                    ),
                )
                for each in method.trials
            ),
        )
        for name, method in result.methods.items()
        if method.trials
    ]
    if not groups:
        return None
    return table(
        name="study-trials",
        caption=f"Trials under seed {result.tune_seed}, by the validation score ({result.select_by})",
        head="trial",
        columns=[Column(name="setting", numeric=False), Column(name="dev"), Column(name="", numeric=False)],
        groups=groups,
    )


def failure_table(result: StudyResult) -> Table | None:
    if not result.failures:
        return None
    rows = [Row(head=each.run, about=each.phase, cells=(words(each.reason),)) for each in result.failures]
    return table(
        name="study-failures",
        caption="Missing results, and why",
        head="run",
        columns=[Column(name="reason", numeric=False)],
        groups=[Group(rows=tuple(rows))],
    )


def origin_table(result: StudyResult) -> Table | None:
    if not result.origins:
        return None
    rows = [
        Row(
            head=f"{each.runs} runs",
            cells=(
                words(_listed(each.machine)),
                words(_listed(each.versions)),
                words(each.git_commit[:12] if each.git_commit else None),
            ),
        )
        for each in result.origins
    ]
    mixed = "Runs of different versions or machines are in one table; scores may differ for that reason."
    return table(
        name="study-origins",
        caption="Versions and machines",
        head="",
        columns=[
            Column(name="machine", numeric=False),
            Column(name="versions", numeric=False),
            Column(name="commit", numeric=False),
        ],
        groups=[Group(rows=tuple(rows))],
        notes=[mixed if len(rows) > 1 else ""],
    )


def setting_text(setting: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in setting.items()
    )


def mean_and_std(found: Summary | None) -> Cell:
    """The cell of some numbers."""
    if found is None:
        return Cell()
    spread = f" ± {formatted(found.std)}" if found.std is not None else ""
    return Cell(text=formatted(found.mean) + spread, value=found.mean)


def _score_table(
    result: StudyResult,
    names: Sequence[str],
    *,
    name: str,
    caption: str,
    published: Group | None,
    notes: Sequence[str],
    columns: Sequence[str] | None = None,
) -> Table:
    """A row a method, a column a score, called as `columns` says or by the score's short name."""
    rows = [
        Row(
            head=method,
            about=_seeds_about([found.summary[each].n for each in names if each in found.summary], result),
            colour=model_colour(place),
            cells=tuple(mean_and_std(found.summary.get(each)) for each in names),
        )
        for place, (method, found) in enumerate(result.methods.items())
    ]
    count = len(result.seeds)
    title = f"Measured: mean ± standard deviation over {count} seeds" if count > 1 else "Measured, one seed"
    return _bold_by_mean(
        table(
            name=name,
            caption=caption,
            head="method",
            columns=[Column(name=each, better="higher") for each in columns or map(_column_name, names)],
            groups=[Group(rows=tuple(rows), title=title), *([published] if published is not None else [])],
            notes=notes,
        )
    )


def _column_name(score: str) -> str:
    """A score's name in little room."""
    return _SHORT.get(score, score.replace(WITHOUT_OVERLAP, " w/o overlap"))


def _bold_by_mean(found: Table) -> Table:
    """Marks the best printed mean of each column: equal means are both best, whatever their spread."""
    measured, *rest = found.groups
    tops: list[str | None] = []
    for place in range(len(found.columns)):
        means = [row.cells[place].value for row in measured.rows]
        present = [value for value in means if value is not None]
        tops.append(formatted(max(present)) if len(present) > 1 else None)
    rows = tuple(
        replace(
            row,
            cells=tuple(
                replace(cell, best=cell.value is not None and formatted(cell.value) == top)
                for cell, top in zip(row.cells, tops, strict=True)
            ),
        )
        for row in measured.rows
    )
    return replace(found, groups=(replace(measured, rows=rows), *rest))


def _seeds_about(counts: Sequence[int], result: StudyResult) -> str:
    """Said where a row has fewer seeds than the study."""
    if not counts or min(counts) == len(result.seeds):
        return ""
    low, high = min(counts), max(counts)
    return f"{low if low == high else f'{low} to {high}'} of {len(result.seeds)} seeds"


def _trial_notes(result: StudyResult) -> list[str]:
    counts = {name: len(method.trials) for name, method in result.methods.items() if method.like is None}
    taken: dict[str, list[str]] = {}
    for name, method in result.methods.items():
        if method.like is not None:
            taken.setdefault(method.like, []).append(name)
    rows = "; ".join(f"{', '.join(names)} from {source}" for source, names in taken.items())
    note = f"Setting taken from another row: {rows}." if taken else ""
    if not any(counts.values()):
        return ["Settings are those of the recipes; nothing was searched.", note]
    if len(set(counts.values())) == 1:
        trials = next(iter(counts.values()))
        return [f"Each method's setting is the best of {trials} trials by the validation score.", note]
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [f"Methods had different numbers of trials ({listed}): {result.unequal_trials}", note]


def _untrained_note(result: StudyResult) -> str:
    """What training starts from: a method below it has unlearned."""
    found: dict[str, list[str]] = {}
    for name, method in result.methods.items():
        if method.untrained is not None:
            found.setdefault(formatted(method.untrained), []).append(name)
    if len(found) == 1:
        return f"The student before training: dev {next(iter(found))}."
    listed = "; ".join(f"dev {score} ({', '.join(names)})" for score, names in found.items())
    return f"The students before training: {listed}." if found else ""


def _measured(result: StudyResult) -> set[str]:
    return {name for method in result.methods.values() for name in method.summary}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
