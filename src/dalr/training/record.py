"""What does a run write while it trains? `metrics.jsonl`, one JSON object per line.

A term's logged value is its mean over the steps that had it: averaging a pair term over all steps shows it
several times too small. Sums stay on the device and are read once per log line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dalr.io.atomic import storage_errors, write_bytes
from dalr.io.paths import regular
from dalr.losses import Losses


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

    def sums(self) -> Mapping[str, Tensor]:
        """Of all ranks, when all ask."""
        if self._over_ranks is None or not self._sums:
            return self._sums
        averages = self._over_ranks(torch.stack(list(self._sums.values())))
        return dict(zip(self._sums, averages.unbind(), strict=True))

    def add(self, losses: Losses) -> None:
        for name, value in (("loss", losses.total), *losses.terms.items()):
            detached = value.detach()
            self._sums[name] = self._sums[name] + detached if name in self._sums else detached
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> tuple[float, dict[str, float], dict[str, int]]:
        """Mean loss, mean of each term, and how many steps had it; then starts anew."""
        names = list(self._sums)
        means: dict[str, float] = {}
        if names:
            averages = torch.stack([self._sums[name].double() / self._counts[name] for name in names])
            if self._over_ranks is not None:
                averages = self._over_ranks(averages)
            means = dict(zip(names, averages.tolist(), strict=True))
        counts = self._counts
        self._sums, self._counts = {}, {}
        loss = means.pop("loss", float("nan"))
        counts.pop("loss", None)
        return loss, means, counts


class MetricsFile:
    """Appends lines to `metrics.jsonl`; each is on disk when `write` returns to the operating system.

    Without a path it writes nothing: one of several ranks keeps the record.
    """

    def __init__(self, path: Path | None, *, start: bytes = b"") -> None:
        """A file that begins with `start`: what a run had written where it goes on, or nothing."""
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
