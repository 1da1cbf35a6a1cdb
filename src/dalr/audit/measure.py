"""Which captions fit other images as well, and where are those images?

Every caption is compared with every image, block by block: time grows with captions × images × dimension, memory
with one block. Ties count against a caption: constant vectors tell nothing apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from dalr.audit.match import Match
from dalr.audit.result import Audit, AuditedCaption, AuditedImage
from dalr.evaluation.metrics import unit_rows
from dalr.evaluation.own_photos import OwnSet

NEIGHBOURS = 10
_BLOCK_NUMBERS = 1 << 23
_TIE = 1e-9
"""Rounding in which equal scores may differ."""


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """A block of captions against all images."""

    rows: Int64[np.ndarray, " block"]
    own: Float64[np.ndarray, " block"]
    other: Int64[np.ndarray, " block"]
    other_score: Float64[np.ndarray, " block"]
    better: Int64[np.ndarray, " block"]
    near: Int64[np.ndarray, " block"]
    typical: Int64[np.ndarray, " block"]


def measure(
    found: OwnSet,
    images: Float[np.ndarray, "images w"],
    match: Match,
    *,
    neighbours: int = NEIGHBOURS,
    source: Mapping[str, str],
    progress: Callable[[int], None] = lambda done: None,
) -> Audit:
    """Audit all captions; `progress` is told how many are done."""
    neighbours = min(neighbours, len(found.names) - 1)
    near = nearest(images, neighbours)
    captions: list[AuditedCaption] = []
    for block in _blocks(found, match, near):
        for place, row in enumerate(block.rows.tolist()):
            captions.append(
                AuditedCaption(
                    id=found.caption_ids[row],
                    caption=found.captions[row],
                    image=found.names[int(found.owner[row])],
                    score=float(block.own[place]),
                    other=found.names[int(block.other[place])],
                    other_score=float(block.other_score[place]),
                    better=int(block.better[place]),
                    near=int(block.near[place]),
                    typical=int(block.typical[place]),
                )
            )
        progress(len(captions))
    return Audit(
        source=source,
        neighbours=neighbours,
        weight=match.weight,
        captions=tuple(captions),
        images=tuple(_images(found, match, captions)),
    )


def _blocks(found: OwnSet, match: Match, near: Int64[np.ndarray, "images k"]) -> Iterator[_Compared]:
    size = max(_BLOCK_NUMBERS // len(found.names), 1)
    for start in range(0, len(found.captions), size):
        rows = np.arange(start, min(start + size, len(found.captions)))
        scores, owner, each = match.block(rows), found.owner[rows], np.arange(len(rows))
        own = scores[each, owner].copy()
        scores[each, owner] = -np.inf
        fits = scores >= own[:, None] - _TIE
        other = scores.argmax(axis=1)
        yield _Compared(
            rows=rows,
            own=own,
            other=other,
            other_score=scores[each, other],
            better=fits.sum(axis=1),
            near=fits[each[:, None], near[owner]].sum(axis=1),
            typical=(fits & (scores >= 1)).sum(axis=1),
        )


def nearest(images: Float[np.ndarray, "images w"], count: int) -> Int64[np.ndarray, "images k"]:
    """The `count` most similar other images of each, by cosine of centred features."""
    unit = unit_rows(images)
    centred = unit_rows(unit - unit.mean(axis=0)).astype(np.float32)
    size = max(_BLOCK_NUMBERS // len(images), 1)
    out = np.empty((len(images), count), np.int64)
    for start in range(0, len(images), size):
        cosines = centred[start : start + size] @ centred.T
        each = np.arange(len(cosines))
        cosines[each, start + each] = -np.inf
        out[start : start + size] = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    return out


def _images(found: OwnSet, match: Match, captions: list[AuditedCaption]) -> Iterator[AuditedImage]:
    disagreement = match.captions.disagreement()
    not_told = np.bincount(
        found.owner, weights=[each.near > 0 for each in captions], minlength=len(found.names)
    ).astype(int)
    for number, name in enumerate(found.names):
        value = float(disagreement[number])
        yield AuditedImage(
            id=name,
            captions=int(match.captions.counts[number]),
            disagreement=None if np.isnan(value) else value,
            near=int(not_told[number]),
        )
