"""Where does every number come from? The file, the model, the settings, and what each score is computed on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dalr.evaluation.published import load_published
from dalr.evaluation.results import Evaluation, StsResult, TransferResult
from dalr.report.history import RunRecord
from dalr.report.palette import model_colour
from dalr.report.score_tables import results_of, task_order
from dalr.report.sources import ReportedModel, Sources
from dalr.report.tables import Cell, Column, Group, Row, Table, count, interval, number, table, words


def sts_numbers(sources: Sources) -> Table | None:
    """Every STS score with split, aggregation, interval, and the other aggregations beside it."""
    rows = [
        Row(
            head=model.label,
            colour=model_colour(model.number),
            cells=(
                words(name),
                words(result.split),
                words(result.aggregation),
                count(result.pairs),
                number(result.spearman),
                words(interval(result.interval)),
                number(result.pearson),
                number(result.mean.spearman),
                number(result.weighted_mean.spearman),
            ),
        )
        for model, name, result in _sts(sources)
    ]
    if not rows:
        return None
    return table(
        name="sts-numbers",
        caption="Every STS number, × 100",
        head="model",
        columns=[
            *(Column(name=name, numeric=False) for name in ("task", "split", "aggregation")),
            Column(name="pairs"),
            Column(name="Spearman"),
            Column(name="95 % interval"),
            Column(name="Pearson"),
            Column(name="mean", explained="unweighted mean of the subsets' Spearman"),
            Column(name="weighted", explained="mean of the subsets' Spearman, weighted by their pairs"),
        ],
        groups=[Group(rows=tuple(rows))],
        notes=[
            "Aggregation all: the pairs of all subsets together, one correlation. Intervals: percentile "
            "bootstrap over pairs."
        ],
    )


def subset_numbers(sources: Sources) -> Table | None:
    rows = [
        Row(
            head=model.label,
            colour=model_colour(model.number),
            cells=(words(name), words(subset), count(part.pairs), number(part.spearman), number(part.pearson)),
        )
        for model, name, result in _sts(sources)
        for subset, part in result.subsets.items()
        if len(result.subsets) > 1
    ]
    if not rows:
        return None
    return table(
        name="subsets",
        caption="STS by subset, × 100",
        head="model",
        columns=[
            Column(name="task", numeric=False),
            Column(name="subset", numeric=False),
            Column(name="pairs"),
            Column(name="Spearman"),
            Column(name="Pearson"),
        ],
        groups=[Group(rows=tuple(rows))],
    )


def transfer_numbers(sources: Sources) -> Table | None:
    """Every accuracy with split and classifier."""
    rows = [
        Row(
            head=model.label,
            colour=model_colour(model.number),
            cells=(
                words(name),
                words(result.split),
                words(result.classifier),
                count(result.examples),
                number(result.acc),
                words(interval(result.interval)),
                number(result.devacc),
            ),
        )
        for model, each in sources.evaluated
        for name in task_order(results_of(each, TransferResult))
        for result in [results_of(each, TransferResult)[name]]
    ]
    if not rows:
        return None
    return table(
        name="transfer-numbers",
        caption="Every transfer number, × 100",
        head="model",
        columns=[
            *(Column(name=name, numeric=False) for name in ("task", "split of acc", "classifier")),
            Column(name="examples"),
            Column(name="acc"),
            Column(name="95 % interval"),
            Column(name="devacc"),
        ],
        groups=[Group(rows=tuple(rows))],
    )


def settings_table(sources: Sources) -> Table:
    """One column a fact, one row a model."""
    return table(
        name="settings",
        caption="Models and settings",
        head="model",
        columns=[
            Column(name=name, numeric=False)
            for name in (
                "name in full",
                "read from",
                "evaluated",
                "dalr",
                "pooling",
                "layers",
                "prompt",
                "precision",
                "classifier",
                "data",
                "overlap with",
            )
        ],
        groups=[Group(rows=tuple(_settings_row(model, model.evaluation) for model in sources.models))],
    )


def _settings_row(model: ReportedModel, each: Evaluation | None) -> Row:
    if each is None:
        name = str(model.history.folder) if model.history is not None else None
        cells = (words(name), words(str(model.source)), words("not evaluated"), *[Cell()] * 8)
    else:
        settings = each.settings
        changed = f"changed: {', '.join(settings.data_changed)}" if settings.data_changed else "official files"
        layers = str(settings.num_layers) if settings.num_layers is not None else "all"
        cells = (
            words(each.model, detail=f"sha256 {each.model_sha256[:16]}…" if each.model_sha256 else ""),
            words(str(model.source)),
            words(each.created),
            words(each.dalr),
            words(settings.pooling or "its own"),
            words(layers),
            words("its own" if settings.prompt is None else settings.prompt or "none"),
            words(settings.precision),
            words(settings.classifier),
            words(changed),
            words(settings.overlap_with),
        )
    return Row(head=model.label, colour=model_colour(model.number), cells=cells)


def training_table(sources: Sources) -> Table | None:
    if not sources.trained:
        return None
    names = ("run", "status", "steps", "seed", "kept", "seconds", "parameters", "machine", "versions", "commit")
    numeric = {"steps", "seconds", "parameters"}
    return table(
        name="trainings",
        caption="Trainings",
        head="model",
        columns=[Column(name=name, numeric=name in numeric) for name in names],
        groups=[
            Group(
                rows=tuple(
                    Row(
                        head=model.label,
                        colour=model_colour(model.number),
                        cells=_training_cells(history.record),
                    )
                    for model, history in sources.trained
                )
            )
        ],
    )


def _training_cells(record: RunRecord) -> tuple[Cell, ...]:
    result = record.result
    seed = record.recipe.get("seed")
    kept = f"step {result.best_step}" if result is not None and result.best_step is not None else None
    machine = ", ".join(f"{name} {value}" for name, value in record.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in record.versions.items())
    return (
        words(record.name),
        words(record.status, detail=""),
        count(record.steps),
        words(str(seed) if seed is not None else None),
        words(kept),
        number(result.seconds, 0) if result is not None else Cell(),
        count(record.trained_parameters),
        words(machine),
        words(versions),
        words(record.git_commit[:12] if record.git_commit else None),
    )


def recipe_table(sources: Sources) -> Table | None:
    """Keys of the recipes, those first in which runs differ; one column a run."""
    if not sources.trained:
        return None
    flat = [dict(_flat(history.record.recipe)) for _, history in sources.trained]
    keys = list(dict.fromkeys(key for each in flat for key in each))
    differing = [key for key in keys if len({each.get(key) for each in flat}) > 1]
    same = [key for key in keys if key not in differing]

    def rows(chosen: list[str]) -> tuple[Row, ...]:
        return tuple(Row(head=key, cells=tuple(words(each.get(key)) for each in flat)) for key in chosen)

    return table(
        name="recipes",
        caption="Resolved recipes",
        head="key",
        columns=[Column(name=model.label, numeric=False) for model, _ in sources.trained],
        groups=[
            Group(rows=rows(differing), title="Differ between the runs"),
            Group(rows=rows(same), title="The same in all" if len(flat) > 1 else ""),
        ],
    )


def published_table() -> Table:
    """Which source each published row is from."""
    return table(
        name="sources",
        caption="Sources of the published rows",
        head="method",
        columns=[Column(name=name, numeric=False) for name in ("table", "backbone, data", "source")],
        groups=[
            Group(
                rows=tuple(
                    Row(head=row.method, cells=(words(row.table), words(row.setting), words(row.source)))
                    for row in load_published().rows
                )
            )
        ],
        notes=[load_published().note],
    )


def _sts(sources: Sources) -> list[tuple[ReportedModel, str, StsResult]]:
    found = []
    for model, each in sources.evaluated:
        results = results_of(each, StsResult)
        found += [(model, name, results[name]) for name in task_order(results)]
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`a.b: value` of nested mappings; keys without a value are left out."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{name}.")
        elif value is not None and value != []:
            pairs.append((name, f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)))
    return pairs
