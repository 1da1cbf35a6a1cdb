"""What is a report's first paragraph? What a reader of all of it would say, computed from the numbers.

Every sentence says what it compares. What is missing or failed is said as well, in the same paragraph, because a
summary of the good news alone is read as the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from markupsafe import Markup

from dalr.evaluation.published import AVERAGE, load_published
from dalr.evaluation.results import Evaluation, StsResult, TransferResult
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.report.sources import NamedComparison, Sources
from dalr.report.tables import formatted

_SIGNIFICANT = 0.05


def summary(sources: Sources) -> Markup:
    """One paragraph."""
    sentences = [
        _contents(sources),
        *_group(sources, "sts"),
        *_other_sts(sources),
        *_group(sources, "transfer"),
        *_tests(sources.comparisons),
        *_trainings(sources),
        *_integrity(sources),
        *_failures(sources),
    ]
    return Markup(" ").join(sentences)


def _contents(sources: Sources) -> Markup:
    scored, trained = len(sources.evaluated), len(sources.trained)
    parts = [f"scores of {_counted(scored, 'model')}"] if scored else []
    if trained:
        parts.append(f"the training of {_counted(trained, 'run')}")
    return Markup("This report covers {}.").format(_listed(parts))


def _group(sources: Sources, name: Literal["sts", "transfer"]) -> Iterator[Markup]:
    """Averages: the best, the others behind it, the published ones, and who has none."""
    tasks, kind = (STS_TASKS, StsResult) if name == "sts" else (TRANSFER_TASKS, TransferResult)
    what = "STS average (Spearman × 100)" if name == "sts" else "transfer average (acc × 100)"
    having: list[tuple[str, float]] = []
    lacking: list[tuple[str, list[str]]] = []
    for model, each in sources.evaluated:
        average = each.sts_avg if name == "sts" else each.transfer_avg
        if average is not None:
            having.append((model.label, average))
        elif any(isinstance(each.tasks.get(task), kind) for task in tasks):
            lacking.append((model.label, [task for task in tasks if not isinstance(each.tasks.get(task), kind)]))
    having.sort(key=lambda pair: -pair[1])
    if len(having) == 1:
        yield (
            Markup("<strong>{}</strong> has an {} of <strong>{}</strong>.").format(
                having[0][0], what, formatted(having[0][1])
            )
            if name == "sts"
            else Markup("<strong>{}</strong> has a {} of <strong>{}</strong>.").format(
                having[0][0], what, formatted(having[0][1])
            )
        )
    elif having:
        others = _listed(
            [
                Markup("{} ({}, {} behind)").format(label, formatted(v), formatted(having[0][1] - v))
                for label, v in having[1:]
            ]
        )
        yield Markup("<strong>{}</strong> has the highest {}, <strong>{}</strong>, before {}.").format(
            having[0][0], what, formatted(having[0][1]), others
        )
    if having:
        yield from _among_published(having[0][1], name)
    for label, missing in lacking:
        yield Markup("{} has no {}, since {} {} missing.").format(
            label, what.partition(" (")[0], _listed(missing), "is" if len(missing) == 1 else "are"
        )


def _other_sts(sources: Sources) -> Iterator[Markup]:
    """Scores on sets outside the seven, such as a validation set, where no model has any of the seven."""
    if any(isinstance(each.tasks.get(task), StsResult) for _, each in sources.evaluated for task in STS_TASKS):
        return
    for model, each in sources.evaluated:
        scores = [
            f"{formatted(result.spearman)} on {name} ({result.split})"
            for name, result in each.tasks.items()
            if isinstance(result, StsResult)
        ]
        if scores:
            yield Markup("<strong>{}</strong> has a Spearman × 100 of {}.").format(model.label, _listed(scores))


def _among_published(best: float, name: Literal["sts", "transfer"]) -> Iterator[Markup]:
    rows = [row for row in load_published().of(name) if AVERAGE in row.scores]
    below = sum(best > row.scores[AVERAGE] for row in rows)
    top = max(rows, key=lambda row: row.scores[AVERAGE])
    distance = best - top.scores[AVERAGE]
    yield Markup(
        "Of {} published averages, with other backbones and data, {} {} lower; the highest is {} ({}) with {}, "
        "{} {}."
    ).format(
        len(rows),
        "all" if below == len(rows) else below or "none",
        "is" if below < 2 else "are",
        top.method,
        top.setting,
        formatted(top.scores[AVERAGE], top.decimals),
        formatted(abs(distance)),
        "below it" if distance >= 0 else "above it",
    )


def _tests(comparisons: Sequence[NamedComparison]) -> Iterator[Markup]:
    for a, b in dict.fromkeys((each.a, each.b) for each in comparisons):
        results = [each.result for each in comparisons if (each.a, each.b) == (a, b)]
        clear = [result for result in results if result.p_value < _SIGNIFICANT]
        ahead = sum(result.difference > 0 for result in clear)
        yield Markup("Of {} between {} and {}, {} ahead in {} and {} in {} with p below 0.05, uncorrected.").format(
            _counted(len(results), "paired test"),
            a,
            b,
            Markup("<strong>{}</strong> is").format(a),
            ahead,
            b,
            len(clear) - ahead,
        )


def _trainings(sources: Sources) -> Iterator[Markup]:
    for model, history in sources.trained:
        result = history.record.result
        if history.record.status != "finished":
            yield Markup("The training of {} is not finished (status: {}).").format(
                model.label, history.record.status
            )
        elif result is not None and result.best_score is not None and result.untrained_score is not None:
            gain = result.best_score - result.untrained_score
            verb = "raised" if gain > 0 else "did not raise"
            yield Markup("Training {} {} {} from {} to {} (step {} of {}).").format(
                verb,
                model.label,
                Markup("on {}").format(result.validation),
                formatted(result.untrained_score),
                formatted(result.best_score),
                result.best_step,
                history.record.steps,
            )


def _integrity(sources: Sources) -> Iterator[Markup]:
    for model, each in sources.evaluated:
        if each.settings.data_changed:
            yield Markup("<strong>Not the official data:</strong> {} was scored on changed files ({}).").format(
                model.label, _listed(each.settings.data_changed)
            )


def _failures(sources: Sources) -> Iterator[Markup]:
    failed = [(model.label, each) for model, each in sources.evaluated if each.failed]
    if not failed and sources.evaluated:
        yield Markup("No task failed.")
    for label, each in failed:
        yield Markup("<strong>Failed</strong> for {}: {}.").format(label, _listed(_reasons(each)))


def _reasons(each: Evaluation) -> list[Markup]:
    return [Markup("{} ({})").format(failure.task, failure.reason.rstrip(".")) for failure in each.failed]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(parts: Sequence[str | Markup]) -> Markup:
    """a; a and b; a, b and c."""
    if len(parts) < 2:
        return Markup("{}").format(parts[0] if parts else "nothing")
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])
