"""int8 by onnxruntime: weights in 8 bits per channel, activations quantised as they come.

What it costs is measured and not assumed: the loss of STS average where data is given, and the time on this
processor beside fp32, which is a gain only where it has instructions for it (VNNI, AMX). Because activations share
one scale per batch, a sentence's int8 vector changes a little with the sentences beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dalr.errors import NumericsError
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import ScoredPairs, load_sts
from dalr.evaluation.tasks import STS_TASKS
from dalr.export.onnx_graph import quiet_exporter

if TYPE_CHECKING:
    from dalr.io.console import Console

MOST_LOSS = 0.3
"""Points of STS average."""


@dataclass(frozen=True, kw_only=True)
class StsLoss:
    """STS by an fp32 and an int8 graph, Spearman × 100 by task."""

    fp32: Mapping[str, float]
    int8: Mapping[str, float]

    @property
    def average(self) -> float:
        """Points lost on average over the tasks."""
        return float(np.mean([self.fp32[task] - self.int8[task] for task in self.fp32]))


def write_int8(source: Path, target: Path) -> None:
    """Quantise the graph in `source`."""
    from onnxruntime.quantization import quantize_dynamic

    with quiet_exporter():
        quantize_dynamic(str(source), str(target), per_channel=True)


def load_sts_tasks(data: Path) -> list[ScoredPairs]:
    """The seven STS tasks of a SentEval folder.

    Raises:
        DataError: one is missing or damaged.
    """
    return [load_sts(data, task) for task in STS_TASKS]


def measured_loss(
    tasks: Sequence[ScoredPairs],
    *,
    fp32: Callable[[list[str]], np.ndarray],
    int8: Callable[[list[str]], np.ndarray],
    console: Console,
) -> StsLoss:
    """Score both graphs.

    Raises:
        NumericsError: int8 loses more than `MOST_LOSS` on average.
    """
    scores: dict[str, dict[str, float]] = {"fp32": {}, "int8": {}}
    for name, embed in (("fp32", fp32), ("int8", int8)):
        with console.bar(f"STS {name}", len(tasks), "task") as bar:
            for number, pairs in enumerate(tasks, start=1):
                scores[name][pairs.name] = score_pairs(pairs, embed(pairs.sentences()))
                bar.update(number)
    loss = StsLoss(fp32=scores["fp32"], int8=scores["int8"])
    if loss.average > MOST_LOSS:
        raise NumericsError(
            f"int8 loses {loss.average:.2f} points of STS average, expected at most {MOST_LOSS}; nothing was "
            "written: export without --int8"
        )
    return loss
