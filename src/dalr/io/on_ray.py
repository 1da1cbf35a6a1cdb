"""How do the workers of a Ray cluster compute the parts of a work (`--ray`)? Each task does what `--part i/n` does.

Ray decides where a task runs and repeats one whose worker is lost. What a part is, how it is sealed and how parts
are joined stays with the work: a repeated task keeps what is sealed, and what is half-written has no name yet. So
the result has the bytes of one made by `--part` or at once. Tasks get paths and plain values and give their parts
to the common file system; no vector goes through Ray. Ray is imported here alone, and only when it is asked for.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import dalr.errors as errors
from dalr.errors import ConfigError, DalrError, DataError, Problem, install
from dalr.io.atomic import discard, hidden_beside, storage_errors, write_text
from dalr.io.console import Bar, Console
from dalr.io.paths import exists, regular
from dalr.io.share import Share
from dalr.models.device import usable_cores
from dalr.version import VERSION

LOCAL, AUTO = "local", "auto"
CORES = 4
"""The most cores of a task: more help a small model little, fewer hold model and input in memory more often."""
LOST = 3
"""How often a task is repeated whose worker is lost."""
TAKEOVER_SECONDS = 60.0
"""How long a repeated task waits for the lock of the one before: a worker that is taken for lost may still end."""
_ADDRESS = re.compile(r"(auto|local|\[?[A-Za-z0-9_.:-]+\]?:[0-9]{1,5})\Z")
_POLL_SECONDS, _TELL_SECONDS = 0.25, 0.2
_CONNECT_SECONDS = 5.0
_SHORT_ENOUGH = 40
"""Characters of a folder in which the sockets of a cluster still have names that the system takes (107)."""


PartWork = Callable[[Share, Console, int], bool]
"""Computes and seals the parts of a share with so many cores, keeping those that are sealed.

It says whether the parts now wait to be merged: not if all was finished before. It is sent to other processes.
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How the parts of a work are laid out on a cluster."""

    nodes: Mapping[str, str]
    """Id of a node -> its name, for messages."""
    workers: int
    """Tasks that run at the same time."""
    cores: int
    """Of each task."""
    gpus: int
    """Of each task: 1 or none."""

    @property
    def shares(self) -> int:
        """Tasks in all: a share of one would be the whole work and not a part of it."""
        return max(self.workers, 2)


def compute_on_ray(
    work: PartWork,
    address: str,
    *,
    out: Path,
    needs: Sequence[str | Path],
    device: str,
    bar: tuple[str, str],
    console: Console,
) -> int:
    """Compute all parts of a work on the workers of a cluster; how many shares of them now wait to be merged.

    Args:
        address: `local` starts a cluster on this machine and ends it again; `auto` or HOST:PORT is a running one.
        out: what is written; every worker must see its folder.
        needs: what else every worker must see, of which names that are not there (a hub id) are left out.
        bar: name and unit of the bar of a part that is shown, over all parts.

    Raises:
        ConfigError: no Ray, no such cluster, or a worker that does not see the files.
        DataError: a task that loses its worker again and again. DalrError: what a part says.
    """
    require_address(address, device)
    with _cluster(address) as ray:
        cluster = _layout(ray.nodes(), device, address)
        _require_seen(ray, cluster, address, out, needs)
        console.detail(
            f"Ray: {len(cluster.nodes)} nodes, {cluster.shares} parts, {cluster.workers} at a time with "
            f"{cluster.cores} cores and {cluster.gpus} GPUs each"
        )
        return cluster.shares if _Run(ray, work, cluster, bar, console).all_parts() else 0


def require_address(address: str, device: str = AUTO) -> None:
    """Refuse what is no address of a cluster, and a device that Ray does not hand out.

    Raises:
        ConfigError: naming it.
    """
    if not _ADDRESS.match(address):
        what = f"expected local, auto or HOST:PORT of a running cluster, found {address!r:.80}"
        raise ConfigError(Problem(where="--ray", what=what))
    if device not in (AUTO, "cpu", "cuda"):
        what = f"Ray gives each part its GPU: expected auto, cpu or cuda, found {device!r:.80}"
        raise ConfigError(Problem(where="--device, --ray", what=what))


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster."""
    stated = {"RAY_USAGE_STATS_ENABLED": "0"} | (_LOOPBACK_ONLY if address == LOCAL else {})
    with _variables(stated):
        try:
            import ray
        except ImportError:
            what = f"needs Ray, which is not installed; {install('ray')}"
            raise ConfigError(Problem(where="--ray", what=what)) from None
        logger = logging.getLogger("ray")
        before, terminated = logger.level, _Terminated()
        logger.setLevel(logging.ERROR)
        try:
            with terminated.with_own_code(), _started(ray) if address == LOCAL else _connected(ray, address):
                terminated.listen()  # from here: Ray has just begun to listen itself
                yield ray
        finally:
            logger.setLevel(before)


class _Terminated:
    """SIGTERM stops the work as Ctrl-C does and then has its own exit code.

    Ray itself would print addresses of its code and abort; of an exception in its calls it lets Ctrl-C alone pass.
    """

    def __init__(self) -> None:
        self.came = False

    def stop(self, *_: object) -> NoReturn:
        self.came = True
        raise KeyboardInterrupt

    def listen(self) -> None:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, self.stop)

    @contextmanager
    def with_own_code(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGTERM)
        try:
            yield
        except KeyboardInterrupt:
            if self.came:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        finally:
            if before is not None:
                with suppress(ValueError):
                    signal.signal(signal.SIGTERM, before)


_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""By this, read when Ray is imported, the ports of a cluster of one machine listen on the loopback alone."""
_QUIET = {"log_to_driver": False, "configure_logging": False, "include_dashboard": None}


@contextmanager
def _started(ray: Any) -> Iterator[None]:
    """A new cluster of this machine alone, which leaves nothing behind; its ports ask for a token."""
    place = Path(tempfile.mkdtemp(prefix="dalr-ray-", dir=_short_temporary_folder()))
    token = place / "token"
    token.touch(mode=0o600)
    token.write_text(_token())
    try:
        with _variables({"RAY_AUTH_TOKEN_PATH": str(token)}), _ended(ray):
            _start(ray, place / "ray")  # which Ray opens to everybody
            yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _start(ray: Any, place: Path) -> None:
    try:
        ray.init(
            address=LOCAL,
            num_cpus=usable_cores(),
            object_store_memory=100 << 20,  # nothing large goes through it
            _temp_dir=str(place),
            **_QUIET | {"include_dashboard": False},
        )
    except Exception as error:  # noqa: BLE001 - Ray raises plain exceptions
        what = (
            f"Ray cannot start a cluster on this machine ({_first_line(error)}); try again, or share the work by "
            "--part i/n without Ray"
        )
        raise ConfigError(Problem(where="--ray local", what=what)) from None


@cache
def _token() -> str:
    """Ray reads it once per process, so all clusters of this one have the same."""
    return secrets.token_hex(32)


def _short_temporary_folder() -> str | None:
    return None if len(tempfile.gettempdir()) <= _SHORT_ENOUGH or os.name != "posix" else "/tmp"


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A running cluster."""
    from ray.exceptions import RayError

    with _ended(ray):
        try:
            if address != AUTO:  # Ray itself would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
            ray.init(address=address, **_QUIET)
        except (OSError, OverflowError, RuntimeError, ValueError, RayError) as error:
            what = (
                f"no cluster answers ({_first_line(error)}); start Ray on this machine with ray start --head or "
                "ray start --address HOST:PORT, or say --ray local"
            )
            raise ConfigError(Problem(where=f"--ray {address}", what=what)) from None
        yield


@contextmanager
def _ended(ray: Any) -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _variables(stated: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, for the time of a cluster."""
    before = {name: os.environ.get(name) for name in stated}
    os.environ.update(stated)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _layout(nodes: Sequence[Mapping[str, Any]], device: str, address: str) -> Cluster:
    """A task for each GPU if there are any; else one for each few cores."""
    alive = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    cores = [int(node["Resources"]["CPU"]) for node in alive]
    gpus = [int(node["Resources"].get("GPU", 0)) for node in alive]
    names = {str(node["NodeID"]): str(node["NodeName"]) for node in alive}
    if not alive:
        what = "no node of the cluster has a core to compute on"
        raise ConfigError(Problem(where=f"--ray {address}", what=what))
    if device != "cpu" and any(gpus):
        beside = [have // count for have, count in zip(cores, gpus, strict=True) if count]
        each = max(1, min(CORES, *beside))
        placed = [min(count, have // each) for have, count in zip(cores, gpus, strict=True)]
        return Cluster(nodes=names, workers=sum(placed), cores=each, gpus=1)
    if device == "cuda":
        what = "no node of the cluster has a GPU; say --device auto or cpu"
        raise ConfigError(Problem(where="--device", what=what))
    each = max(1, min(CORES, min(cores) // 2))
    return Cluster(nodes=names, workers=sum(have // each for have in cores), cores=each, gpus=0)


def _require_seen(ray: Any, cluster: Cluster, address: str, out: Path, needs: Sequence[str | Path]) -> None:
    """Ask each node, before the work, whether it has this version of dalr and sees the files.

    Raises:
        ConfigError: with every node that does not, and what it does not see.
    """
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    marker = hidden_beside(out, "tmp")
    word = secrets.token_hex(16)
    write_text(marker, word)
    here = [str(path) for path in needs if exists(Path(path))]
    problems: list[Problem] = []
    try:
        for node, name in cluster.nodes.items():
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            look = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_look)
            where = f"--ray {address}: node {name}"
            try:
                version, unseen = ray.get(look.remote(os.getcwd(), str(marker), word, here))
            except RayError as error:
                what = f"dalr cannot be run there ({_first_line(error)}); install dalr {VERSION} on every node"
                problems.append(Problem(where=where, what=what))
                continue
            if version != VERSION:
                what = f"expected dalr {VERSION} as here, found {version}; install the same on every node"
                problems.append(Problem(where=where, what=what))
            for path in unseen:
                shown = f"the folder of --out {out}" if path == str(marker) else path
                what = (
                    f"does not see {shown}; the input, the model and the folder of --out must be on a file system "
                    "that all nodes share, under the same paths"
                )
                problems.append(Problem(where=where, what=what))
    finally:
        with storage_errors(marker):
            discard(marker)
    if problems:
        raise ConfigError(problems)


def _look(folder: str, marker: str, word: str, needs: Sequence[str]) -> tuple[str, list[str]]:
    """On a node: its version of dalr, and which of the paths it does not see."""
    _enter(folder)
    unseen = [path for path in needs if not exists(Path(path))]
    with suppress(OSError):
        if regular(Path(marker)).read_text() == word:
            return VERSION, unseen
    return VERSION, [marker, *unseen]


def _enter(folder: str) -> None:
    """A relative path, and a model's name in what is written, mean the same as where the command was given."""
    with suppress(OSError):
        os.chdir(folder)


class _Run:
    """The tasks of one work, from the first to the last."""

    def __init__(self, ray: Any, work: PartWork, cluster: Cluster, bar: tuple[str, str], console: Console) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.ray, self.cluster, self.bar, self.console = ray, cluster, bar, console
        self.board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()
        task = ray.remote(
            num_cpus=cluster.cores, num_gpus=cluster.gpus, max_retries=LOST, scheduling_strategy="SPREAD"
        )(_part)
        self.shares = {
            task.remote(
                work,
                number,
                cluster.shares,
                cluster.cores,
                os.getcwd(),
                bar[0],
                console.verbose,
                self.board,
            ): Share(number=number, of=cluster.shares)
            for number in range(cluster.shares)
        }
        self.starts = dict.fromkeys(range(cluster.shares), 1)

    def all_parts(self) -> bool:
        """Wait for all tasks; whether parts wait to be merged."""
        pending, merging = list(self.shares), False
        try:
            with self.console.bar(self.bar[0], None, self.bar[1]) as bar:
                while pending:
                    done, pending = self.ray.wait(pending, timeout=_POLL_SECONDS)
                    self._show(bar)
                    for each in done:
                        merging |= self._result(each)
                self._show(bar)
        except KeyboardInterrupt:
            self.console.say("stopped; what is sealed is kept: rerun with --resume")
            raise
        finally:
            for each in pending:
                self.ray.cancel(each, force=True)
            self.ray.wait(pending, num_returns=len(pending), timeout=10) if pending else None
        return merging

    def _result(self, task: Any) -> bool:
        from ray.exceptions import RayError, RayTaskError

        try:
            found: bool | _Refusal = self.ray.get(task)
        except RayTaskError:
            raise  # a bug in dalr: our own errors are returned
        except RayError as error:
            raise self._too_often(self.shares[task], _first_line(error)) from None
        if isinstance(found, _Refusal):
            raise found.error()
        return found

    def _show(self, bar: Bar) -> None:
        """Progress over all parts, and what their workers say, the same thing once."""
        from ray.exceptions import RayError

        try:
            starts, progress, messages = self.ray.get(self.board.read.remote())
        except RayError:  # the parts do not depend on what is shown of them
            return
        for text in messages:
            self.console.say(text)
        for number, count in starts.items():
            share = Share(number=number, of=self.cluster.shares)
            if count > self.starts[number]:
                self.starts[number] = count
                self.console.say(
                    f"a worker was lost; --part {number + 1}/{share.of} is computed again but for what it sealed"
                )
            if count > LOST + 1:
                raise self._too_often(share, "Ray starts it again and again, as it does where memory runs out")
        totals = [total for total, _ in progress]
        if totals and None not in totals:
            bar.expect(sum(totals))
        bar.update(sum(done for _, done in progress))

    def _too_often(self, share: Share, why: str) -> DataError:
        what = (
            f"lost its worker {LOST + 1} times ({why}): too little memory for {self.cluster.workers} parts at "
            "once, a file that crashes a library, or a node that fails. What is sealed is kept: rerun with "
            f"--resume, or with --part {share.number + 1}/{share.of} --resume on one machine, which says more"
        )
        return DataError(Problem(where=f"--part {share.number + 1}/{share.of}", what=what))


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    """One of our errors, on its way to the command."""

    kind: str
    problems: tuple[tuple[str, str, int], ...]
    total: int

    @classmethod
    def of(cls, error: DalrError) -> _Refusal:
        problems = tuple((each.where, each.what, each.count) for each in error.problems)
        kind = next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))
        return cls(kind=kind, problems=problems, total=error.total)

    def error(self) -> DalrError:
        kind: Any = getattr(errors, self.kind)
        problems = [Problem(where=where, what=what, count=count) for where, what, count in self.problems]
        found: DalrError = kind(problems, total=self.total)
        return found


def _part(
    work: PartWork, number: int, of: int, cores: int, folder: str, bar: str, verbose: bool, board: Any
) -> bool | _Refusal:
    """On a worker: the parts of one share."""
    _enter(folder)
    os.environ |= {"OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}  # before torch is imported
    board.start.remote(number)
    try:
        return work(Share(number=number, of=of), _Telling(number, bar, verbose, board), cores)
    except DalrError as error:
        return _Refusal.of(error)


class _Board:
    """Where the parts say how far they are: an actor beside the command."""

    def __init__(self) -> None:
        self.starts: dict[int, int] = {}
        self.progress: dict[int, tuple[int | None, int]] = {}
        self.said: dict[str, bool] = {}
        """What was said -> whether it was read."""

    def start(self, number: int) -> None:
        self.starts[number] = self.starts.get(number, 0) + 1

    def tell(self, number: int, total: int | None, done: int) -> None:
        """How much a task has to do and has done; a repeated one has less to do, as parts of it are sealed."""
        before, most = self.progress.get(number, (total, 0))
        if total is not None and before is not None:
            done += before - total
        self.progress[number] = before, max(done, most)

    def say(self, text: str) -> None:
        self.said.setdefault(text, False)

    def read(self) -> tuple[dict[int, int], list[tuple[int | None, int]], list[str]]:
        new = [text for text, read in self.said.items() if not read]
        self.said |= dict.fromkeys(new, True)
        return self.starts, list(self.progress.values()), new


class _Telling(Console):
    """Tells the command what a part would show on a terminal."""

    def __init__(self, number: int, shown: str, verbose: bool, board: Any) -> None:
        super().__init__(verbose=verbose)
        self.number, self.shown, self.board = number, shown, board

    def say(self, text: str) -> None:
        self.board.say.remote(text)

    @contextmanager
    def bar(self, name: str, total: int | None, unit: str = "it") -> Iterator[Bar]:
        if name != self.shown:
            yield Bar()
            return
        telling = _TellingBar(self.number, total, self.board)
        telling.tell()
        yield telling
        telling.tell()


class _TellingBar(Bar):
    def __init__(self, number: int, total: int | None, board: Any) -> None:
        super().__init__()
        self.number, self.total, self.board = number, total, board
        self.done, self.told = 0, 0.0

    def update(self, done: int, **fields: str) -> None:
        self.done = done
        if time.monotonic() - self.told > _TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        self.told = time.monotonic()
        self.board.tell.remote(self.number, self.total, self.done)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines and lines[-1] else type(error).__name__:.200}"
