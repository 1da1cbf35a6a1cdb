"""Where do the tensors of a step come from? `BatchDataset`: a planned batch in, a `Batch` out.

Reading is a gather from memory-mapped arrays (token ids, image and teacher vectors), so a batch costs a fraction
of a millisecond and no worker processes are needed. What the objective draws at random is drawn here, from
(seed, step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.utils.data import Dataset

from dalr.data.rows import Kind
from dalr.data.schedule import PlannedBatch
from dalr.data.tokens import TokenStream
from dalr.features.store import StoredVectors
from dalr.losses.inputs import Targets
from dalr.models.embedding import pad
from dalr.seed import generator


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Padded token ids of n sentences."""

    ids: Int[Tensor, "n l"]
    mask: Int[Tensor, "n l"]
    lengths: tuple[int, ...]
    """Real tokens of each row, known without asking the device."""

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> TokenBatch:
        return replace(self, ids=change(self.ids), mask=change(self.mask))

    def split(self, rows: int) -> list[TokenBatch]:
        """Consecutive parts of so many sentences each; the last may have fewer."""
        starts = range(0, len(self.ids), rows)
        parts = [slice(start, start + rows) for start in starts]
        return [TokenBatch(ids=self.ids[part], mask=self.mask[part], lengths=self.lengths[part]) for part in parts]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's input."""

    kind: Kind
    step: int
    row_ids: tuple[str, ...]
    tokens: TokenBatch
    """Of this rank's rows; everything else is of all n rows whose vectors meet."""
    targets: Targets
    """What the terms compare the student with; token states of teachers come later, from `teacher_tokens`."""
    teacher_tokens: tuple[TokenBatch, ...] = ()

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed."""
        return replace(
            self,
            tokens=self.tokens.with_tensors(change),
            targets=self.targets.with_tensors(change),
            teacher_tokens=tuple(tokens.with_tensors(change) for tokens in self.teacher_tokens),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with all tensors on `device`."""
        return self.with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where copies to a GPU overlap with its work."""
        return self.with_tensors(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """Token ids of the rows of a stream, and what fills up short ones."""

    stream: TokenStream
    pad_id: int

    def read(self, rows: Int64[np.ndarray, " n"]) -> TokenBatch:
        sentences = [self.stream.row(int(row)).tolist() for row in rows]
        ids, mask = pad(sentences, pad_id=self.pad_id)
        return TokenBatch(ids=ids, mask=mask, lengths=tuple(map(len, sentences)))


@dataclass(frozen=True, kw_only=True)
class StreamData:
    """Everything that belongs to the rows of one stream, in the order of the stream."""

    row_ids: Sequence[str]
    tokens: TokenRows
    images: Int[np.ndarray, " rows"] | None = None
    """Number of the image of each row."""
    image: StoredVectors | None = None
    clip_text: StoredVectors | None = None
    teachers: tuple[StoredVectors, ...] = ()
    teacher_tokens: tuple[TokenRows, ...] = ()
    candidates: int | None = None
    """Distinct images that the captions of a batch choose among; None: those of the batch."""

    @cached_property
    def distinct_images(self) -> tuple[Int[np.ndarray, " images"], Int64[np.ndarray, " images"]]:
        """Numbers of the images in rising order, and a row that each is in."""
        assert self.images is not None
        return np.unique(self.images, return_index=True)


@dataclass(frozen=True, kw_only=True)
class BatchDataset(Dataset[Batch]):
    """The data set of a training, addressed by planned batches.

    A rank reads the tokens of its part of the rows; everything else of all rows if `gather`, else of its part.
    """

    streams: Mapping[Kind, StreamData]
    seed: int
    teacher_weights: tuple[float, ...] = ()
    rank: int = 0
    world: int = 1
    gather: bool = True

    def __getitem__(self, planned: PlannedBatch) -> Batch:
        step, kind, rows = planned
        stream = self.streams[kind]
        size = len(rows) // self.world
        own = rows[self.rank * size : (self.rank + 1) * size]
        if not self.gather:
            rows = own
        return Batch(
            kind=kind,
            step=step,
            row_ids=tuple(stream.row_ids[row] for row in rows.tolist()),
            tokens=stream.tokens.read(own),
            targets=self._targets(stream, rows, step),
            teacher_tokens=tuple(tokens.read(rows) for tokens in stream.teacher_tokens),
        )

    def _targets(self, stream: StreamData, rows: Int64[np.ndarray, " n"], step: int) -> Targets:
        images = stream.images[rows] if stream.images is not None else None
        candidates, own_candidate = self._candidates(stream, images, step)
        return Targets(
            tie_order=torch.from_numpy(generator(self.seed, "ties", step).permutation(len(rows))),
            image=_tensor(stream.image, rows) if stream.image is not None else None,
            clip_text=_tensor(stream.clip_text, rows) if stream.clip_text is not None else None,
            candidates=candidates,
            own_candidate=own_candidate,
            same_image=torch.from_numpy(images[:, None] == images[None]) if images is not None else None,
            unmatched=self._unmatched(images, step),
            teachers=tuple(_tensor(teacher, rows) for teacher in stream.teachers),
            teacher_weights=self.teacher_weights if stream.teachers else (),
        )

    def _candidates(
        self, stream: StreamData, images: Int[np.ndarray, " n"] | None, step: int
    ) -> tuple[Float[Tensor, "k w"] | None, Int[Tensor, " n"] | None]:
        """The images of the batch and others drawn for the step, and which of them each row has."""
        if images is None or stream.candidates is None or stream.image is None:
            return None, None
        own, own_candidate = np.unique(images, return_inverse=True)
        numbers, rows = stream.distinct_images
        random = generator(self.seed, "candidates", step)
        drawn = numbers[random.choice(len(numbers), min(stream.candidates, len(numbers)), replace=False)]
        others = drawn[~np.isin(drawn, own)][: max(stream.candidates - len(own), 0)]
        chosen = rows[np.searchsorted(numbers, np.concatenate([own, others]))]
        return _tensor(stream.image, chosen), torch.from_numpy(own_candidate)

    def _unmatched(self, images: Int[np.ndarray, " n"] | None, step: int) -> Int[Tensor, " n"] | None:
        if images is None:
            return None
        other = derangement(images, generator(self.seed, "derangement", step))
        return None if other is None else torch.from_numpy(other)


def derangement(groups: Int[np.ndarray, " n"], random: np.random.Generator) -> Int64[np.ndarray, " n"] | None:
    """A random permutation that sends every row to a row of another group; None where none exists.

    Rows are put in random order, group by group in random order, and sent to the place one largest group
    further on: no row can stay inside its group, as long as no group holds more than half of the rows.
    """
    names, members = np.unique(groups, return_inverse=True)
    largest = int(np.bincount(members).max(initial=0))
    if len(groups) < 2 or 2 * largest > len(groups):
        return None
    group_order = random.permutation(len(names))
    row_order = random.permutation(len(groups))
    order = row_order[np.argsort(group_order[members[row_order]], kind="stable")]
    result = np.empty(len(groups), np.int64)
    result[order] = np.roll(order, -largest)
    return result


def _tensor(vectors: StoredVectors, rows: Int64[np.ndarray, " n"]) -> Float[Tensor, "n w"]:
    return torch.from_numpy(vectors.read(rows))
