"""What does a run write while it trains, and how is it read back? `metrics.jsonl`, one JSON object per line.

A term's logged value is its mean over the steps that had it: averaging a pair term over all steps shows it
several times too small. Beside it stands how hard it pulls at the student (`Objective.gradient_norms`), measured on
one batch per log line that has all terms. Sums stay on the device and are read once per log line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from dalr.io.atomic import storage_errors, write_bytes
from dalr.io.frame import data_frame
from dalr.io.paths import regular
from dalr.io.text import read_lines
from dalr.losses import Losses

if TYPE_CHECKING:
    import pandas


IN_EFFECT = 0.01
"""Share of the gradient at the student below which a term is reported as not in effect."""
_NORM = "gradient norm "
"""What the name of a term has before it where its gradient norm is meant."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a log line says of the steps since the one before."""

    loss: float
    terms: dict[str, float]
    """Mean of each term over the steps that had it, unweighted."""
    counts: dict[str, int]
    """How many steps had it."""
    gradient_norms: dict[str, float]
    """Of each weighted term, at the student's sentence vectors; empty where no batch was measured."""


class TermMeans:
    """Running means of the loss and of each term since the last reading.

    `over_ranks` makes of a rank's means those of all ranks; all must read at the same steps. `sums` and `counts`
    are what an earlier process left.
    """

    def __init__(
        self,
        sums: Mapping[str, Tensor] | None = None,
        counts: Mapping[str, int] | None = None,
        *,
        over_ranks: Callable[[Float[Tensor, " k"]], Float[Tensor, " k"]] | None = None,
    ) -> None:
        self._over_ranks = over_ranks
        self._sums: dict[str, Tensor] = dict(sums or {})
        self._counts: dict[str, int] = dict(counts or {})

    @property
    def counts(self) -> Mapping[str, int]:
        return self._counts

    @property
    def has_gradient_norms(self) -> bool:
        """Whether a batch was measured since the last reading."""
        return any(name.startswith(_NORM) for name in self._counts)

    def sums(self) -> Mapping[str, Tensor]:
        """Of all ranks, when all ask."""
        if self._over_ranks is None or not self._sums:
            return self._sums
        averages = self._over_ranks(torch.stack(list(self._sums.values())))
        return dict(zip(self._sums, averages.unbind(), strict=True))

    def add(self, losses: Losses) -> None:
        norms = ((_NORM + name, value) for name, value in losses.gradient_norms.items())
        for name, value in (("loss", losses.total), *losses.terms.items(), *norms):
            detached = value.detach()
            self._sums[name] = self._sums[name] + detached if name in self._sums else detached
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> Means:
        """The means so far; then starts again."""
        names = list(self._sums)
        means: dict[str, float] = {}
        if names:
            averages = torch.stack([self._sums[name].double() / self._counts[name] for name in names])
            if self._over_ranks is not None:
                averages = self._over_ranks(averages)
            means = dict(zip(names, averages.tolist(), strict=True))
        counts = self._counts
        self._sums, self._counts = {}, {}
        norms = {name.removeprefix(_NORM): means.pop(name) for name in names if name.startswith(_NORM)}
        loss = means.pop("loss", float("nan"))
        return Means(loss=loss, terms=means, counts={name: counts[name] for name in means}, gradient_norms=norms)


class MetricsFile:
    """Appends lines to `metrics.jsonl`; each is on disk when `write` returns to the operating system.

    Without a path it writes nothing: one of several ranks keeps the record.
    """

    def __init__(self, path: Path | None, *, start: bytes = b"") -> None:
        """A file that begins with `start`: what a resumed run had written, or nothing."""
        self.path = path
        if path is not None:
            write_bytes(path, start)

    def read(self) -> bytes:
        if self.path is None:
            return b""
        with storage_errors(self.path):
            return regular(self.path).read_bytes()

    def write(self, record: dict[str, Any]) -> None:
        if self.path is None:
            return
        with storage_errors(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


class Metrics(list[dict[str, Any]]):
    """Records in the order of the steps."""

    def to_frame(self) -> pandas.DataFrame:
        """One row per record; a term's mean is in the column `terms.NAME`.

        Raises:
            ConfigError: pandas is not installed.
        """
        return data_frame(self)


def gradient_shares(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each term's part of the summed gradient norms at the student, 0 to 1: the mean over the log lines."""
    lines = [norms for line in metrics if (norms := line.get("gradient_norms"))]
    sums = [sum(norms.values()) for norms in lines]
    measured = [(norms, total) for norms, total in zip(lines, sums, strict=True) if 0 < total < math.inf]
    names = dict.fromkeys(name for norms, _ in measured for name in norms)
    return {name: sum(norms.get(name, 0.0) / total for norms, total in measured) / len(measured) for name in names}


def read_metrics(run: Path) -> Metrics:
    """The records of a run's `metrics.jsonl`.

    Raises:
        DataError: it is not there.
    """
    return Metrics(json.loads(line) for line in read_lines(run / "metrics.jsonl"))
