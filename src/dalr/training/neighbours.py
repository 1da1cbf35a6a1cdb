"""Which batches hold neighbours? Text by the teachers' similarity, captions by that of their images.

What it costs: every similarity within parts of 16,384 rows, n · 16,384 · d multiply-adds a pass: for 10,000 lines
of dimension 384 below a second, for a million lines of dimension 768 26 TFLOP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64

from dalr.data.grouping import Groups, GroupsConfig, Nearest
from dalr.data.schedule import Plan, Stream
from dalr.features.store import StoredVectors
from dalr.training.batch import StreamData

_PER_MEMBER = 8
"""Neighbours that are listed for each place of a group, because others may have taken the first ones."""
_BLOCK = 2048


def grouped(
    plan: Plan, streams: Sequence[tuple[Stream, StreamData]], config: GroupsConfig, *, alphas: Sequence[float]
) -> Plan:
    """The plan with the streams grouped that `config` names; `alphas` are the weights of the teachers."""
    return replace(plan, streams=tuple(_grouped(stream, data, config, alphas) for stream, data in streams))


def _grouped(stream: Stream, data: StreamData, config: GroupsConfig, alphas: Sequence[float]) -> Stream:
    if stream.kind == "text" and config.text is not None:
        lines = np.arange(len(stream), dtype=np.int64)
        sources = list(zip(data.teachers, alphas, strict=True))
        groups = Groups(thing_of=lines, things=config.text, rows=1, nearest=nearest_by(sources, lines, config.text))
        return replace(stream, groups=groups)
    if stream.kind == "pair" and config.images is not None:
        assert data.images is not None
        assert data.image is not None
        captions = np.full(data.images.max() + 1, -1, np.int64)
        captions[data.images[::-1]] = np.arange(len(stream))[::-1]  # the first caption of each image
        nearest = nearest_by([(data.image, 1.0)], captions, config.images)
        groups = Groups(thing_of=data.images, things=config.images, rows=config.captions, nearest=nearest)
        return replace(stream, groups=groups)
    return stream


def nearest_by(
    sources: Sequence[tuple[StoredVectors, float]], row_of: Int64[np.ndarray, " things"], members: int
) -> Nearest:
    """Nearest by Σ weight · cosine; thing i has the vectors of stream row `row_of[i]`."""

    def nearest(things: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n k"]:
        rows = row_of[things]
        vectors = [(F.normalize(torch.from_numpy(source.read(rows))), weight) for source, weight in sources]
        count = min((members - 1) * _PER_MEMBER, len(rows) - 1)
        found = []
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            closeness = sum(weight * (each[block] @ each.T) for each, weight in vectors)
            assert isinstance(closeness, torch.Tensor)
            own = torch.arange(start, start + len(closeness))
            closeness[torch.arange(len(closeness)), own] = -torch.inf
            found.append(closeness.topk(count, dim=1).indices)
        return torch.cat(found).numpy()

    return nearest
