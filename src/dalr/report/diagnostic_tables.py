"""Which tables stand beside the scores? Geometry, paired tests, overlap with training data, failures."""

from __future__ import annotations

from collections.abc import Sequence

from dalr.evaluation.results import GeometryResult, StsResult
from dalr.report.palette import model_colour
from dalr.report.score_tables import results_of
from dalr.report.sources import NamedComparison, Sources
from dalr.report.tables import Cell, Column, Group, Row, Table, count, formatted, interval, number, table, words


def geometry_table(sources: Sources) -> Table | None:
    found = [
        (model, result) for model, each in sources.evaluated for result in results_of(each, GeometryResult).values()
    ]
    if not found:
        return None
    one_source = len({result.source for _, result in found}) == 1
    return table(
        name="geometry",
        caption="Geometry: how sentence vectors lie on the sphere",
        head="model",
        columns=[
            Column(name="alignment", better="lower", explained="mean ‖x − y‖² of pairs with gold > 4"),
            Column(
                name="uniformity", better="lower", explained="log mean exp(−2 ‖x − y‖²) over all pairs of sentences"
            ),
            Column(
                name="mean cosine", better="lower", explained="of two different sentences; 0 for an isotropic cloud"
            ),
            Column(name="top axis", explained="share of the variance on the first principal axis, %"),
            Column(name="effective rank", better="higher", explained="how many dimensions are used"),
            Column(name="hubness", better="lower", explained="skewness of the 10-occurrence"),
            Column(
                name="largest hub",
                better="lower",
                explained="how many have the commonest neighbour among their ten nearest",
            ),
            Column(
                name="anti-hubs",
                better="lower",
                explained="% of sentences that are among the ten nearest of nobody",
            ),
            Column(name="sentences"),
        ],
        groups=[
            Group(
                rows=tuple(
                    Row(
                        head=model.label,
                        about=f"sentences of {result.source}",
                        colour=model_colour(model.number),
                        cells=(
                            number(result.alignment, 3),
                            number(result.uniformity, 3),
                            number(result.mean_cosine, 3),
                            number(100 * result.top_component, 1),
                            number(result.effective_rank, 1),
                            number(result.hubness, 2),
                            count(result.largest_hub),
                            number(100 * result.antihubs, 1),
                            count(result.sentences),
                        ),
                    )
                    for model, result in found
                ),
                ranked=one_source,
            )
        ],
        notes=[
            "Alignment and uniformity are lower for better vectors and only together say something; top axis and "
            "anti-hubs in %."
        ],
    )


def comparison_table(comparisons: Sequence[NamedComparison]) -> Table | None:
    if not comparisons:
        return None
    pairs = dict.fromkeys((each.a, each.b) for each in comparisons)
    return table(
        name="comparisons",
        caption="Differences between models: paired bootstrap over the same items",
        head="task",
        columns=[
            Column(name="metric", numeric=False),
            Column(name="difference"),
            Column(name="95 % interval"),
            Column(name="p"),
        ],
        groups=[
            Group(
                title=f"{a} minus {b}",
                rows=tuple(
                    Row(
                        head=each.result.task,
                        cells=(
                            words(each.result.metric),
                            Cell(text=formatted(each.result.difference, signed=True), value=each.result.difference),
                            words(interval(each.result.interval, signed=True)),
                            Cell(text=p_value(each.result.p_value), value=each.result.p_value),
                        ),
                    )
                    for each in comparisons
                    if (each.a, each.b) == (a, b)
                ),
            )
            for a, b in pairs
        ],
        notes=[
            "p is two-sided and not corrected for the number of tests: of twenty, one falls below 0.05 by chance."
        ],
    )


def p_value(value: float) -> str:
    """A bootstrap of some thousands of samples cannot tell 0.0004 from 0."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def failed_table(sources: Sources) -> Table | None:
    rows = [
        Row(
            head=model.label,
            colour=model_colour(model.number),
            cells=(words(failure.task), words(failure.reason)),
        )
        for model, each in sources.evaluated
        for failure in each.failed
    ]
    if not rows:
        return None
    return table(
        name="failed",
        caption="Tasks without a score, and why",
        head="model",
        columns=[Column(name="task", numeric=False), Column(name="reason", numeric=False)],
        groups=[Group(rows=tuple(rows))],
    )


def overlap_table(sources: Sources) -> Table | None:
    """Scores with and without the pairs that hold a training sentence."""
    rows = [
        Row(
            head=model.label,
            about=name,
            colour=model_colour(model.number),
            cells=(
                number(result.spearman),
                number(without.spearman, detail=interval(without.interval, 1)),
                Cell(
                    text=formatted(without.spearman - result.spearman, signed=True),
                    value=without.spearman - result.spearman,
                ),
                count(result.pairs),
                count(without.pairs),
                count(without.left_out_exact),
                count(without.left_out_near),
            ),
        )
        for model, each in sources.evaluated
        for name, result in results_of(each, StsResult).items()
        if (without := result.without_overlap) is not None
    ]
    if not rows:
        return None
    against = sorted({each.settings.overlap_with for _, each in sources.evaluated if each.settings.overlap_with})
    return table(
        name="overlap",
        caption="Spearman × 100 with and without the pairs that hold a training sentence",
        head="model",
        columns=[
            Column(name="all pairs"),
            Column(name="without"),
            Column(name="difference"),
            Column(name="pairs"),
            Column(name="pairs left"),
            Column(name="exact", explained="pairs with a sentence that was trained on, after normalisation"),
            Column(name="near", explained="further pairs with a near-duplicate of one"),
        ],
        groups=[Group(rows=tuple(rows))],
        notes=[f"Training sentences: {', '.join(against)}." if against else ""],
    )
