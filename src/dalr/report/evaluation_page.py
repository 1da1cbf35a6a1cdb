"""Which sections does the page of `dalr report` have, and in which order?

A section without anything to show is left out. Words come first, then tables, then figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dalr.evaluation.results import Evaluation, WorstPair
from dalr.report import (
    diagnostic_tables,
    provenance,
    score_charts,
    score_tables,
    training_charts,
    vector_charts,
)
from dalr.report.page import Block, Figure, Folded, Page, Prose, Section, TableBlock
from dalr.report.sources import ReportedModel, Sources
from dalr.report.summary import summary
from dalr.report.tables import Cell, Column, Group, Row, Table, formatted, number, table, words

WORST_SHOWN = 5
"""Pairs shown for each model and task."""


def evaluation_page(sources: Sources, *, title: str, progress: Callable[[int], None] = lambda done: None) -> Page:
    """All sections; `progress` is told how many of `len(SECTIONS)` are made."""
    sections = []
    for done, (name, heading, blocks) in enumerate(SECTIONS, start=1):
        found = tuple(blocks(sources))
        if found:
            sections.append(Section(name=name, title=heading, blocks=found))
        progress(done)
    return Page(
        title=title,
        lead=Prose(text=summary(sources)),
        legend=score_charts.legend(sources.models),
        sections=tuple(sections),
    )


def _scores(sources: Sources) -> Iterable[Block]:
    sts = score_tables.sts_table(sources)
    if sts is not None:
        yield Prose(
            text="The small figures below a score are its 95 % interval: a bootstrap over the task's pairs or "
            "examples."
        )
    yield from _tables(
        sts,
        score_tables.transfer_table(sources),
        score_tables.mteb_table(sources),
        diagnostic_tables.failed_table(sources),
    )
    yield from _figures(score_charts.score_bars(sources), score_charts.standing(sources))


def _comparisons(sources: Sources) -> Iterable[Block]:
    found = diagnostic_tables.comparison_table(sources.comparisons)
    if found is None and len(sources.evaluated) > 1:
        yield Prose(
            text="The result files hold no paired tests between these models. `dalr evaluate A B` makes them: "
            "overlapping intervals do not mean that two models are equally good, since both "
            "were scored on the same sentences."
        )
    yield from _figures(score_charts.difference_forest(sources.comparisons, sources))
    yield from _tables(found)


def _overlap(sources: Sources) -> Iterable[Block]:
    yield from _tables(diagnostic_tables.overlap_table(sources))


def _retrieval(sources: Sources) -> Iterable[Block]:
    yield from _tables(score_tables.retrieval_table(sources), score_tables.captions_table(sources))
    yield from _figures(score_charts.retrieval_bars(sources.evaluated))


def _geometry(sources: Sources) -> Iterable[Block]:
    yield from _tables(diagnostic_tables.geometry_table(sources))
    yield from _figures(vector_charts.alignment_uniformity(sources.evaluated))


def _cosines(sources: Sources) -> Iterable[Block]:
    figures = vector_charts.gold_against_cosine(sources.evaluated)
    if figures:
        yield Prose(
            text="Each point is a pair of sentences: how similar people found them, from left to right, and how "
            "similar the model finds them, from bottom to top. Spearman only asks whether the order is the same, "
            "so any rising band is good and a narrow one is better; the line is the median cosine. Points far "
            "from it are in the next section."
        )
    yield from figures


def _worst(sources: Sources) -> Iterable[Block]:
    having = [(model, each) for model, each in sources.evaluated if any(d.worst for d in each.details.sts.values())]
    if having:
        yield Prose(
            text="Pairs whose place among the cosines is farthest from their place among the gold scores. The "
            "error is the difference of the two places as a fraction of all pairs: positive where the model finds "
            f"the pair more similar than people do. At most {WORST_SHOWN} for each task."
        )
    for model, each in having:
        yield Folded(
            summary=f"Worst pairs of {model.label}",
            blocks=(TableBlock(table=_worst_table(model, each), stacked=True),),
            open=model is having[0][0],
        )


def _worst_table(model: ReportedModel, each: Evaluation) -> Table:
    groups = []
    for task in score_tables.task_order(each.details.sts):
        worst = sorted(each.details.sts[task].worst, key=lambda pair: -abs(pair.rank_error))
        distinct = {(pair.first, pair.second): pair for pair in reversed(worst)}  # some pairs occur several times
        shown = sorted(distinct.values(), key=lambda pair: -abs(pair.rank_error))[:WORST_SHOWN]
        groups.append(Group(title=task, rows=tuple(map(_worst_row, shown))))
    return table(
        name=f"worst-{model.number}",
        caption=f"Worst-predicted pairs of {model.label}",
        head="pair",
        columns=[
            Column(name="gold"),
            Column(name="cosine"),
            Column(name="error"),
            Column(name="subset", numeric=False),
        ],
        groups=groups,
    )


def _worst_row(pair: WorstPair) -> Row:
    error = Cell(text=formatted(pair.rank_error, 2, signed=True), value=pair.rank_error)
    cells = (number(pair.gold, 1), number(pair.cosine, 2), error, words(pair.subset))
    return Row(head=pair.first, about=pair.second, cells=cells)


def _maps(sources: Sources) -> Iterable[Block]:
    yield from _figures(vector_charts.embedding_maps(sources.evaluated))


def _training(sources: Sources) -> Iterable[Block]:
    yield from _figures(training_charts.training_curves(sources.trained))
    yield from _tables(provenance.training_table(sources))
    recipes = provenance.recipe_table(sources)
    if recipes is not None:
        yield Folded(summary="Recipes, key by key", blocks=(TableBlock(table=recipes, sortable=False),))


def _provenance(sources: Sources) -> Iterable[Block]:
    yield from _tables(provenance.settings_table(sources))
    for summary_text, found in (
        ("Every STS number: split, aggregation, pairs", provenance.sts_numbers(sources)),
        ("STS by subset", provenance.subset_numbers(sources)),
        ("Every transfer number: split, classifier, examples", provenance.transfer_numbers(sources)),
    ):
        if found is not None:
            yield Folded(summary=summary_text, blocks=(TableBlock(table=found),))
    if sources.evaluated:
        yield Folded(
            summary="Sources of the published rows", blocks=(TableBlock(table=provenance.published_table()),)
        )


def _tables(*several: Table | None) -> Iterable[Block]:
    return [TableBlock(table=each) for each in several if each is not None]


def _figures(*several: Figure | None) -> Iterable[Block]:
    return [each for each in several if each is not None]


SECTIONS: Sequence[tuple[str, str, Callable[[Sources], Iterable[Block]]]] = (
    ("scores", "Scores", _scores),
    ("comparisons", "Differences between models", _comparisons),
    ("overlap", "Overlap with the training data", _overlap),
    ("retrieval", "Your own images: retrieval, and captions of one image", _retrieval),
    ("geometry", "Geometry", _geometry),
    ("cosines", "Gold scores against cosines", _cosines),
    ("worst", "Worst-predicted pairs", _worst),
    ("map", "Map of the sentences", _maps),
    ("training", "Training", _training),
    ("provenance", "Where the numbers come from", _provenance),
)
