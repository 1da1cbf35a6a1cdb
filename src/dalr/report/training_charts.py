"""How are trainings drawn? Every quantity of `metrics.jsonl` over the steps."""

from __future__ import annotations

from collections.abc import Sequence

from dalr.report import charts
from dalr.report.charts import Line
from dalr.report.history import Curve, History
from dalr.report.page import Figure, Panel
from dalr.report.palette import model_colour
from dalr.report.score_charts import legend
from dalr.report.sources import ReportedModel


def training_curves(trained: Sequence[tuple[ReportedModel, History]]) -> Figure | None:
    """One panel a quantity: validation scores, the loss, every term, the learning rate."""
    order = {"validation": 0, "loss": 1, "term": 2, "learning rate": 3}
    kinds = {(curve.kind, curve.name) for _, history in trained for curve in history.curves}
    panels = []
    for kind, name in sorted(kinds, key=lambda each: (order[each[0]], each[1])):
        having = [
            (model, history, curve)
            for model, history in trained
            for curve in history.curves
            if (curve.kind, curve.name) == (kind, name)
        ]
        lines = [
            Line(
                name=model.label,
                colour=model_colour(model.number),
                x=curve.steps,
                y=curve.values,
                best=_best_point(history, curve),
            )
            for model, history, curve in having
            if curve.steps
        ]
        if not lines:
            continue
        told = "; ".join(
            f"{line.name} from {line.y[0]:.4g} at step {line.x[0]} to {line.y[-1]:.4g} at step {line.x[-1]}"
            for line in lines
        )
        title = {"validation": f"{name} (validation)", "term": f"{name} (term)"}.get(kind, name)
        lost = sum(curve.not_finite for _, _, curve in having)
        if lost:
            title += f" · {lost} values not finite, left out"
        panels.append(
            Panel(title=title, chart=charts.curves(lines, y_label="", label=f"Curve of {title}: {told}."))
        )
    if not panels:
        return None
    caption = (
        "A term's value is its mean over the steps that had it since the last log line, before its weight. The "
        "dot on a validation curve is the checkpoint that was kept; step 0 is the untrained student. Values of "
        "one term compare between runs only where its temperatures and margins are the same."
    )
    return Figure(title="", caption=caption, panels=tuple(panels), legend=legend([model for model, _ in trained]))


def _best_point(history: History, curve: Curve) -> int | None:
    """Where the kept checkpoint lies on a validation curve."""
    result = history.record.result
    if result is None or curve.kind != "validation" or curve.name != result.validation:
        return None
    return curve.steps.index(result.best_step) if result.best_step in curve.steps else None
