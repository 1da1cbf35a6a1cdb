"""Several machines train together by torchrun: processes in network namespaces, each with an address of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runs import metrics, record

from tiny import Toys

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs network namespaces")]
SECONDS = 240


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two namespaces with the addresses 10.77.0.1 and 10.77.0.2 on a bridge, as two machines on a switch."""
    names = tuple(f"dalr{os.getpid()}{letter}" for letter in "ab")
    bridge = f"br{os.getpid()}"
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names, start=1):
            outside = f"v{os.getpid()}{number}"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outside, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names[0], names[1]
    finally:
        for name in names:
            ip("netns", "del", name, needed=False)
        ip("link", "del", bridge, needed=False)


def ip(*arguments: str, needed: bool = True) -> None:
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces: the command ip is not installed")
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if needed and done.returncode:
        pytest.skip(f"no network namespaces: ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def started(
    nodes: tuple[str, str], folder: Path, *arguments: object, ranks: int, restarts: int = 0
) -> Iterator[Any]:
    """torchrun on both nodes with `dalr train` and these arguments; standard error in `folder/err-NODE`."""
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
    processes = []
    for number, node in enumerate(nodes, start=1):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={ranks}"]
        torchrun += [f"--max-restarts={restarts}", "--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29400"]
        torchrun += ["--rdzv-id=test", f"--rdzv-conf=is_host={int(number == 1)}", f"--local-addr=10.77.0.{number}"]
        command = ["ip", "netns", "exec", node, *torchrun, "-m", "dalr", "train", *map(str, arguments)]
        with (folder / f"err-{number}").open("w") as err:
            processes.append(
                subprocess.Popen(command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=err)
            )
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)


def codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.wait(SECONDS) for process in processes]


def errors(folder: Path) -> list[str]:
    """What the ranks say beside the launcher's own report."""
    lines = [line for number in (1, 2) for line in (folder / f"err-{number}").read_text().splitlines()]
    return [line for line in lines if line.startswith(("error", "internal error", "rank "))]


def kill_a_rank(launcher: subprocess.Popen[bytes], run: Path) -> None:
    """The last process of a launcher, as soon as there is a point to resume from."""
    while launcher.poll() is None and not list(run.glob("resume/step-*/manifest.json")):
        time.sleep(0.05)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def test_two_nodes_train_as_one_rank_does(nodes: tuple[str, str], toys: Toys, tmp_path: Path) -> None:
    from runs import train

    recipe = toys.recipe(tmp_path)
    alone = train(recipe, tmp_path / "one", "student.dropout=0")
    with started(nodes, tmp_path, recipe, "-s", "student.dropout=0", "--out", tmp_path / "two", ranks=1) as both:
        assert codes(both) == [0, 0], errors(tmp_path)
    assert record(tmp_path / "two")["data"]["ranks"] == 2
    for one, two in zip(metrics(alone.run), metrics(tmp_path / "two"), strict=True):
        assert two.get("loss", 0) == pytest.approx(one.get("loss", 0), rel=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_rank_is_named_in_one_line(ranks: int, nodes: tuple[str, str], toys: Toys, tmp_path: Path) -> None:
    recipe, run = toys.recipe(tmp_path), tmp_path / "run"
    settings = ["-s", "training.max_steps=100000", "-s", "training.save_every=5", "-s", "validation=null"]
    with started(nodes, tmp_path, recipe, *settings, "--out", run, ranks=ranks) as both:
        kill_a_rank(both[1], run)
        assert 0 not in codes(both)
    [line] = errors(tmp_path)
    assert line.startswith("error: rank ")
    assert f"of {2 * ranks} died" in line
    assert line.endswith("run the same command on every machine with --resume")
    assert record(run)["status"] == "stopped"


def test_torchrun_restarts_from_the_newest_resume_point(nodes: tuple[str, str], toys: Toys, tmp_path: Path) -> None:
    """The node whose rank was killed counts a restart, the other does not."""
    recipe, run = toys.recipe(tmp_path), tmp_path / "run"
    settings = ["-s", "training.max_steps=200", "-s", "training.save_every=5", "-s", "validation=null"]
    with started(nodes, tmp_path, recipe, *settings, "--out", run, "--resume", ranks=1, restarts=2) as both:
        kill_a_rank(both[1], run)
        assert codes(both) == [0, 0], errors(tmp_path)
    [resumed] = record(run)["resumed_at"]
    assert resumed["step"] >= 5
    [line] = errors(tmp_path)
    assert "the launcher starts all ranks again from the newest resume point" in line
    steps = [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)), "no step is written twice"
