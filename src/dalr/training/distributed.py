"""How do several ranks train as one?

A recipe means the same on any number of ranks: `batch_size` counts the rows of a step over all of them. With
`gather` each rank encodes its part of the batch, the sentence vectors are gathered, and every rank evaluates
heads and objective on the whole batch; frozen vectors need no gathering: every rank reads those of all rows from
its store. All ranks then compute the same loss. A rank's gradient is that of its own rows times the number of
ranks, and the mean over ranks, which is taken for all parameters alike, is the gradient of one rank with the whole
batch (`averaging.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist

from dalr.errors import ConfigError, DalrError, Problem
from dalr.io.environment import local_rank, process_rank, rank_patience, world_size
from dalr.models.device import pick_device
from dalr.training.liveness import Liveness
from dalr.training.meeting import meet

_PATIENCE = timedelta(hours=24)
"""How long ranks wait for each other: while one asks the teachers or computes a score, the others do."""
_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def gather(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "n d"]:
        """The rows of all ranks in their order; the gradient flows back to this rank's own."""
        gathered: Tensor = rows if self.world == 1 else _Gather.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def start_equal(self, module: nn.Module) -> None:
        """Give all ranks the weights and buffers of the first."""
        if self.world > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.data, src=0)

    def mean(self, values: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Means of these values over the ranks."""
        if self.world > 1:
            dist.all_reduce(values)
            values = values / self.world
        return values

    def agree(self, value: T) -> T:
        """The value that the first rank has."""
        if self.world == 1:
            return value
        carried: list[Any] = [value]
        dist.broadcast_object_list(carried, src=0, device=self.device)
        agreed: T = carried[0]
        return agreed

    def all(self, value: T) -> list[T]:
        """The values of all ranks."""
        carried: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(carried, value)
        return carried

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The first rank runs the body before all others, which then find its files in the cache."""
        if self.world > 1 and not self.main:
            dist.barrier()
        yield
        if self.world > 1 and self.main:
            dist.barrier()


@contextmanager
def joined(batch_size: int) -> Iterator[Ranks]:
    """Join the processes that torchrun or `accelerate launch` started, or be the only one.

    Raises:
        ConfigError: a batch that cannot be divided equally among the ranks, a launcher that shards the model.
    """
    world = world_size()
    if world == 1:
        yield Ranks(device=pick_device("auto"))
        return
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            what = (
                f"the launcher asks for {name}; every rank holds whole weights here, because heads and objective "
                "need the whole batch and students fit on any GPU: launch plain data parallelism (--multi_gpu)"
            )
            raise ConfigError(Problem(where=variable, what=what))
    if batch_size % world or batch_size // world < 1:
        what = f"{batch_size} rows cannot be divided equally among {world} ranks"
        raise ConfigError(Problem(where="training.batch_size", what=what))
    local = local_rank()
    cuda = torch.cuda.is_available() and torch.cuda.device_count() > 0
    if cuda and local >= torch.cuda.device_count():
        what = f"rank {local} of this machine has no GPU: the machine has {torch.cuda.device_count()}"
        raise ConfigError(Problem(where="devices", what=what))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    liveness = _meet("nccl" if cuda else "gloo", world)
    with liveness.watched():
        try:
            yield Ranks(rank=liveness.rank, world=world, device=device)
            liveness.rest()
            dist.barrier()  # nobody closes a connection that another still reads
        except DalrError as error:
            liveness.has_spoken()
            error.add_note(f"on rank {liveness.rank}")
            raise
        except BaseException as error:
            if is_lost_connection(error):
                liveness.end(first_line(error))
            liveness.has_spoken()
            raise
        finally:
            dist.destroy_process_group()


def _meet(backend: str, world: int) -> Liveness:
    """Find the other ranks.

    Raises:
        ConfigError: they cannot be reached.
    """
    try:
        meeting = meet(process_rank(), world, patience=_PATIENCE)
        group = dist.PrefixStore("group", meeting.store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=group, rank=meeting.rank, world_size=world, timeout=_PATIENCE)
        return Liveness(meeting, patience=rank_patience())
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        what = (
            f"{world} ranks could not meet at {place} ({first_line(error):.200}); every machine must reach that "
            "address, and GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names the network interface between them"
        )
        raise ConfigError(Problem(where="environment variable MASTER_ADDR", what=what)) from None


def is_lost_connection(error: BaseException) -> bool:
    """Whether an all-reduce has failed because another rank, or the way to it, is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def first_line(error: BaseException) -> str:
    """What a library says, without the place in its source."""
    return str(error).split("] ")[-1].split("\n")[0]


class _Gather(torch.autograd.Function):
    """All rows forward; backward, this rank's rows of the gradient times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.size = ranks, len(rows)
        parts = [torch.empty_like(rows) for _ in range(ranks.world)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        [gradient] = gradients
        start = ctx.ranks.rank * ctx.size
        return gradient[start : start + ctx.size] * ctx.ranks.world, None
