"""Gradients are averaged over ranks while the backward goes on, to the same bits as after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import on_ranks
from torch import Tensor, nn
from torch import distributed as dist

from dalr.training.averaging import GradientAverage

LAYERS, WIDTH, ROWS = 6, 16, 8
LAYER_BYTES = 4 * (WIDTH * WIDTH + WIDTH)
ALL_REDUCE = dist.all_reduce
Gradients = dict[str, Tensor | None]


class Model(nn.Module):
    """An encoder, and two heads of which a batch may use one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
        self.heads = nn.ModuleDict({"text": nn.Linear(WIDTH, 1), "pair": nn.Linear(WIDTH, 1)})

    def forward(self, rows: Tensor, heads: tuple[str, ...]) -> Tensor:
        vectors = self.encoder(rows).tanh()
        return torch.stack([self.heads[head](vectors).square().mean() for head in heads]).sum()

    def gradients(self) -> Gradients:
        return {n: None if p.grad is None else p.grad.clone() for n, p in self.named_parameters()}


def rows_of(rank: int, world: int, step: int) -> Tensor:
    drawn = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(step))
    return drawn.chunk(world)[rank]


@dataclass
class Seen:
    """Of the steps on one rank: gradients, and for each the buckets under way when its backward ended."""

    gradients: list[Gradients] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    sent_in_all: list[int] = field(default_factory=list)


def together(body: Callable[[int], Any]) -> Callable[[int], Any]:
    """`body` inside a process group."""

    def inside(rank: int) -> Any:
        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
        found = body(rank)
        dist.barrier()
        dist.destroy_process_group()
        return found

    return inside


def steps(rank: int, world: int, used: list[Callable[[int], tuple[str, ...]]], **settings: Any) -> Seen:
    """So many steps as `used` has functions of the rank, which say the heads that it uses."""
    model, seen = Model(), Seen()
    average = GradientAverage(
        model.parameters(), world=world, **{"same_graph": True, "bucket_bytes": LAYER_BYTES, **settings}
    )
    sent = counted_reductions()
    for step, heads in enumerate(used):
        model.zero_grad(set_to_none=True)
        sent.clear()
        with average.over_ranks("text", one_backward=True):
            model(rows_of(rank, world, step), heads(rank)).backward()
            seen.sent.append(len(sent))
        seen.sent_in_all.append(len(sent))
        seen.gradients.append(model.gradients())
    return seen


def counted_reductions() -> list[Tensor]:
    """What `all_reduce` is called with from now on."""
    calls: list[Tensor] = []
    reduce = ALL_REDUCE

    def counting(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        calls.append(tensor)
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counting
    return calls


def of_one(step: int, *heads: tuple[str, ...]) -> Gradients:
    """Means of the gradients of ranks with these heads, computed in this process."""
    model = Model()
    world = len(heads)
    for rank, own in enumerate(heads):
        (model(rows_of(rank, world, step), own) / world).backward()
    return model.gradients()


def require_same(found: Gradients, expected: Gradients) -> None:
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-7), name  # type: ignore[arg-type]


def equal(one: Gradients, other: Gradients) -> bool:
    return all(
        one[name] is other[name] is None or torch.equal(one[name], other[name])  # type: ignore[arg-type]
        for name in one
    )


def text(_: int) -> tuple[str, ...]:
    return ("text",)


def both(_: int) -> tuple[str, ...]:
    return ("text", "pair")


@pytest.mark.parametrize("world", [2, 4])
def test_gradients_are_the_means_and_the_same_bits_with_and_without_overlap(world: int, tmp_path: Path) -> None:
    used = [both, both, text, text, both]

    def body(rank: int) -> list[Seen]:
        return [steps(rank, world, used, overlap=overlap) for overlap in (True, False)]

    ranks = on_ranks(world, tmp_path, together(body))
    for step, heads in enumerate(used):
        expected = of_one(step, *[heads(rank) for rank in range(world)])
        for overlapped, after in ranks:
            require_same(overlapped.gradients[step], expected)
            assert equal(overlapped.gradients[step], after.gradients[step])
            assert equal(overlapped.gradients[step], ranks[0][0].gradients[step]), "all ranks have the same"
    [[overlapped, after], *_] = ranks
    assert after.sent == [0] * len(used)
    assert overlapped.sent[1] == overlapped.sent_in_all[1] > LAYERS, "all are under way when the backward ends"


def test_an_unused_head_holds_nothing_up(tmp_path: Path) -> None:
    [seen, _] = on_ranks(2, tmp_path, together(lambda rank: steps(rank, 2, [text, text, text])))
    assert seen.sent[0] < seen.sent_in_all[0], "which parameters a kind uses is known after its first batch"
    assert seen.sent[1:] == seen.sent_in_all[1:]
    assert seen.gradients[1]["heads.pair.weight"] is None


def test_a_place_in_a_bucket_does_not_depend_on_earlier_steps(tmp_path: Path) -> None:
    """With four ranks the order of a sum does, so that otherwise a resumed run had other bits."""

    def body(rank: int) -> list[Seen]:
        later = steps(rank, 4, [text, both, text, text])
        torch.manual_seed(0)
        return [later, steps(rank, 4, [text])]

    for later, first in on_ranks(4, tmp_path, together(body)):
        assert equal(later.gradients[0], first.gradients[0])


@pytest.mark.parametrize("first", [both, text])
def test_one_rank_has_nothing_to_compare(first: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """The head is expected or not expected, and used on one of the ranks: the other adds zeros."""
    used = [first, lambda rank: ("text", "pair") if rank else ("text",), text]
    ranks = on_ranks(2, tmp_path, together(lambda rank: steps(rank, 2, used, same_graph=False)))
    for seen in ranks:
        require_same(seen.gradients[1], of_one(1, ("text",), ("text", "pair")))
        require_same(seen.gradients[2], of_one(2, ("text",), ("text",)))


def test_nothing_is_sent_between_several_backward_passes(tmp_path: Path) -> None:
    """As gradient caching makes them; a gradient sent after the first would lack what the second adds."""

    def body(rank: int) -> tuple[int, Gradients]:
        model = Model()
        average = GradientAverage(model.parameters(), world=2, same_graph=True, bucket_bytes=LAYER_BYTES)
        sent = counted_reductions()
        with ExitStack() as stack:
            stack.enter_context(average.over_ranks("text", one_backward=False))
            for part in rows_of(rank, 2, 0).split(2):
                (model(part, ("text",)) / 2).backward()
            before = len(sent)
        return before, model.gradients()

    for before, gradients in on_ranks(2, tmp_path, together(body)):
        assert before == 0
        require_same(gradients, of_one(0, ("text",), ("text",)))


def test_one_rank_sends_nothing() -> None:
    model = Model()
    average = GradientAverage(model.parameters(), world=1, same_graph=True)
    with average.over_ranks("text", one_backward=True):
        model(rows_of(0, 1, 0), ("text",)).backward()
    require_same(model.gradients(), of_one(0, ("text",)))
