"""Several ranks: how much of the gradient average is hidden behind the backward, and rows per second on 1, 2 and 4.

OMP_NUM_THREADS=1 python benchmarks/ranks.py              over the loopback interface
OMP_NUM_THREADS=1 python benchmarks/ranks.py --gbit 2     as root: over a link of this rate, in its own network

Each round makes one step without an average, one with the average after the backward, and one with the average
during it; hidden is (after - during) / (after - without), of medians over the rounds. Over the loopback interface
an average costs the same processors as the backward, so hiding needs free cores; a link that sends by itself, as
network cards do, is imitated by the kernel's rate limit (`tc tbf`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import distributed as dist
from training_world import SHAPES, World, make_world

from dalr.training.averaging import GradientAverage
from dalr.training.batch import Batch
from dalr.training.distributed import Ranks, joined
from dalr.training.step import Step

INSIDE = "DALR_BENCH_OWN_NETWORK"
WAYS = ("without", "after", "during")


class NoAverage(GradientAverage):
    """Gradients as they are."""

    @contextmanager
    def over_ranks(self, kind: str, *, one_backward: bool) -> Iterator[None]:
        yield


class StepWithout(Step):
    """A step of ranks that do not average."""

    @cached_property
    def average(self) -> GradientAverage:
        return NoAverage([], world=self.ranks.world, same_graph=True)


def steps_of(world: World, ranks: Ranks) -> dict[str, Step]:
    """A step in each way, of one student."""
    task = world.task(recipe="dalr-paper", precision="fp32", padding="packed").train()
    settings: dict[str, Any] = {"task": task, "ranks": ranks, "gather": True, "mini_batch_size": None, "seed": 0}
    return {
        "without": StepWithout(**settings),
        "after": Step(**settings, overlap=False),
        "during": Step(**settings),
    }


def batches(world: World, ranks: Ranks, count: int) -> list[Batch]:
    dataset = world.dataset(teachers=True)
    own = type(dataset)(**{**vars(dataset), "rank": ranks.rank, "world": ranks.world})
    return [own[planned] for planned in islice(world.plan(("pair",)).batches(), count)]


def measured(world: World, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each way; the first round is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with joined(world.batch) as ranks:
        steps = steps_of(world, ranks)
        for number, batch in enumerate(batches(world, ranks, rounds + 1)):
            for way in WAYS if ranks.world > 1 else ("during",):
                steps[way].task.zero_grad(set_to_none=True)
                if ranks.world > 1:
                    dist.barrier()
                start = perf_counter()
                steps[way].gradients(batch)
                if number > 0:
                    seconds[way].append(perf_counter() - start)
    return seconds


def on_ranks(world: World, count: int, rounds: int) -> dict[str, list[float]]:
    """What the first of so many ranks measures."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    started = [
        context.Process(target=_rank, args=(world, rank, count, port, rounds, results)) for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)
    found: dict[str, list[float]] = results.get()
    return found


def _rank(world: World, rank: int, count: int, port: int, rounds: int, results: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    seconds = measured(world, rounds)
    if rank == 0:
        results.put(seconds)


def in_own_network(gbit: float) -> int:
    """This benchmark again, in a network namespace whose loopback interface has that rate."""
    limit = f"ip link set lo up && tc qdisc add dev lo root tbf rate {gbit}gbit burst 4mb latency 400ms"
    again = ["unshare", "--net", "sh", "-c", f'{limit} && exec "$@"', "sh", sys.executable, *sys.argv]
    return subprocess.run(again, env=os.environ | {INSIDE: "1"}, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=list(SHAPES), default="minilm-6")
    parser.add_argument("--batch", type=int, default=64, help="rows of a step, over all ranks")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--gbit", type=float, help="rate of the link between the ranks, in Gbit/s (root, Linux)")
    options = parser.parse_args()
    if options.gbit is not None and INSIDE not in os.environ:
        return in_own_network(options.gbit)
    link = f"{options.gbit:g} Gbit/s" if options.gbit is not None else "loopback"
    with tempfile.TemporaryDirectory() as folder:
        place, cpu = Path(folder), torch.device("cpu")
        world = make_world(place, model=options.model, batch=options.batch, device=cpu, shared=None, rows=2048)
        machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{options.model}, {options.batch} rows per step, {link}, {machine}")
        one = None
        for count in options.ranks:
            found = on_ranks(world, count, options.rounds)
            seconds = {way: median(each) for way, each in found.items() if each}
            rate = options.batch / seconds["during"]
            one = one or rate
            print(f"{count} rank{'s' * (count > 1)}: {rate:.0f} rows/s ({rate / one:.2f} times)", end="")
            if count > 1:
                cost, left = (seconds[way] - seconds["without"] for way in ("after", "during"))
                shown = ", ".join(f"{way} {1000 * seconds[way]:.0f} ms" for way in WAYS)
                print(f"; average {shown}: {(cost - left) / cost:.0%} hidden", end="")
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
