"""When do ranks average their gradients? While the backward is still computing the rest of them.

Gradients are sent in buckets, in the reverse order of the parameters, which is roughly the order in which the
backward computes them. A bucket is on its way as soon as all gradients that are expected in it have been
accumulated (`register_post_accumulate_grad_hook`); the step waits for all of them before it clips. Expected are the
parameters that the last batch of the same kind used, because a head without a gradient on text batches must not
hold up the bucket that it is in. A gradient that was not expected is sent afterwards.

The buckets are not DistributedDataParallel's. DDP follows one forward of one module, while a step here gathers
sentence vectors between student and heads, and with gradient caching has several backward passes; and DDP would
have to search the graph for unused heads in every step. It also arranges its buckets anew after the first step, and
the order in which more than two ranks add up a number depends on its place in a bucket, so that a resumed run would
differ in the last bits. Here the place of every number is fixed: absent gradients are sent as zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

BUCKET_BYTES = 8 * 2**20

Parameters = frozenset[nn.Parameter]


class GradientAverage:
    """Averages the gradients of `parameters` over so many ranks.

    Args:
        same_graph: all ranks use the same parameters in a step. Otherwise a term may have had nothing to compare on
            one of them: the ranks then tell each other what they used.
        overlap: send gradients during the backward; otherwise all of them after it.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        world: int,
        same_graph: bool,
        overlap: bool = True,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._world, self._same_graph, self._overlap = world, same_graph, overlap
        self._trained = [each for each in parameters if each.requires_grad] if world > 1 else []
        self._buckets = list(_buckets(self._trained[::-1], bucket_bytes))
        self._expected: dict[str, Parameters] = {}
        """By kind of batch."""
        self._under_way: _Sending | None = None
        if overlap:
            for parameter in self._trained:
                parameter.register_post_accumulate_grad_hook(self._accumulated)  # type: ignore[no-untyped-call]

    @contextmanager
    def over_ranks(self, kind: str, *, one_backward: bool) -> Iterator[None]:
        """The body computes gradients; afterwards they are means over the ranks.

        A parameter that no rank has used has none. Where the body has more than `one_backward` pass, nothing is
        sent before its end.
        """
        if self._world == 1:
            yield
            return
        expected = self._expected.get(kind, frozenset(self._trained))
        sending = _Sending(self._buckets, expected)
        self._under_way = sending if one_backward else None
        try:
            yield
        finally:
            self._under_way = None
        sending.send_rest()
        used = self._used_anywhere()
        sending.send_late(used - expected)
        sending.receive(used, self._world)
        self._expected[kind] = used

    def _accumulated(self, parameter: Tensor) -> None:
        if self._under_way is not None:
            self._under_way.accumulated(parameter)

    def _used_anywhere(self) -> Parameters:
        """What this rank has used and, if they may differ, what the others have."""
        used = [each.grad is not None for each in self._trained]
        if not self._same_graph and used:
            flags = torch.tensor(used, dtype=torch.uint8, device=self._trained[0].device)
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
            used = flags.bool().tolist()
        return frozenset(each for each, is_used in zip(self._trained, used, strict=True) if is_used)


@dataclass(frozen=True)
class _Sent:
    """A bucket on its way, with the gradients of `members` in it and zeros in place of all others."""

    bucket: Sequence[nn.Parameter]
    members: Collection[nn.Parameter]
    flat: Tensor
    work: Any


class _Sending:
    """The buckets of one step. All ranks send the same ones in the same order, whatever is ready first."""

    def __init__(self, buckets: Sequence[Sequence[nn.Parameter]], expected: Parameters) -> None:
        self._expected = [[each for each in bucket if each in expected] for bucket in buckets]
        self._buckets = buckets
        self._bucket_of = {each: number for number, members in enumerate(self._expected) for each in members}
        self._missing = [len(members) for members in self._expected]
        self._next = 0
        self._sent: list[_Sent] = []

    def accumulated(self, parameter: Tensor) -> None:
        """The gradient of `parameter` is complete."""
        number = self._bucket_of.get(parameter)  # type: ignore[call-overload]
        if number is None:
            return
        self._missing[number] -= 1
        while self._next < len(self._buckets) and self._missing[self._next] == 0:
            self._send_next()

    def send_rest(self) -> None:
        """All expected gradients that are not yet sent."""
        while self._next < len(self._buckets):
            self._send_next()

    def send_late(self, late: Parameters) -> None:
        """Gradients that were not expected."""
        for bucket in self._buckets:
            if members := [each for each in bucket if each in late]:
                self._send(bucket, members)

    def receive(self, used: Parameters, world: int) -> None:
        """Wait for everything, and replace the gradients of what was used."""
        for sent in self._sent:
            sent.work.wait()
            means = torch.split(sent.flat.div_(world), [each.numel() for each in sent.bucket])
            members = used.intersection(sent.members)
            for parameter, mean in zip(sent.bucket, means, strict=True):
                if parameter in members and parameter.grad is None:
                    parameter.grad = mean.view_as(parameter).clone()
                elif parameter in members:
                    parameter.grad.copy_(mean.view_as(parameter))  # type: ignore[union-attr]

    def _send_next(self) -> None:
        bucket, members = self._buckets[self._next], self._expected[self._next]
        self._next += 1
        if members:
            self._send(bucket, members)

    def _send(self, bucket: Sequence[nn.Parameter], members: Sequence[nn.Parameter]) -> None:
        chosen = frozenset(members)
        parts = [
            each.grad.flatten() if each in chosen and each.grad is not None else torch.zeros_like(each).flatten()
            for each in bucket
        ]
        flat = torch.cat([part.detach() for part in parts])
        self._sent.append(_Sent(bucket, chosen, flat, dist.all_reduce(flat, async_op=True)))


def _buckets(parameters: Iterable[nn.Parameter], most_bytes: int) -> Iterator[list[nn.Parameter]]:
    """Parameters of one dtype in groups of some megabytes; a larger one is a group of its own."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        if bucket and (size + own > most_bytes or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += own
    if bucket:
        yield bucket
