"""Where else do the records of `metrics.jsonl` go? `report_to`: TensorBoard, Weights & Biases or Trackio.

Each by its own interface, of which three calls are used: begin with the resolved recipe, log numbers at a step,
end. Nothing is sent anywhere: TensorBoard and Trackio keep files, and Weights & Biases is offline unless
`WANDB_MODE` says otherwise (`wandb sync` sends it later).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dalr.errors import ConfigError, Problem, install
from dalr.training.config import Reporter


@runtime_checkable
class Report(Protocol):
    """Where numbers go."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Every report that a recipe asks for."""

    several: tuple[Report, ...] = ()

    def write(self, record: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`: its numbers, by names such as `terms/infonce`."""
        if self.several:
            numbers = dict(_numbers(record))
            for report in self.several:
                report.log(int(record["step"]), numbers)


@contextmanager
def reports(names: Sequence[Reporter], *, run: Path, project: str, recipe: Mapping[str, Any]) -> Iterator[Reports]:
    """The reports of `names`, started with the resolved recipe as their configuration, and ended at the exit.

    Raises:
        ConfigError: packages that are not installed, all at once.
    """
    if missing := missing_reporters(names):
        raise ConfigError([Problem(where="training.report_to", what=what) for what in missing])
    with ExitStack() as stack:
        several = tuple(_begin(name, run, project, recipe) for name in names)
        for report in several:
            stack.callback(report.close)
        yield Reports(several=several)


def missing_reporters(names: Sequence[Reporter]) -> list[str]:
    """What to say of each that is not installed."""
    return [f"{name} is not installed; {install(name)}" for name in names if importlib.util.find_spec(name) is None]


def _begin(name: Reporter, run: Path, project: str, recipe: Mapping[str, Any]) -> Report:
    if name == "tensorboard":
        return _TensorBoard(run, recipe)
    said = {"project": project, "name": run.name, "config": dict(recipe)}
    if name == "wandb":
        import wandb

        return _Logged(wandb, dir=str(run), mode=os.environ.get("WANDB_MODE", "offline"), **said)
    import trackio

    return _Logged(trackio, embed=False, **said)


class _TensorBoard:
    """`tensorboard --logdir RUN`, with the recipe among its texts."""

    def __init__(self, run: Path, recipe: Mapping[str, Any]) -> None:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run / "tensorboard"))
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
        self.writer.add_text("recipe", "".join(f"    {line}\n" for line in text.split("\n")))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Logged:
    """Weights & Biases, and Trackio, which has its interface."""

    def __init__(self, library: Any, **options: Any) -> None:
        self.library = library
        with redirect_stdout(sys.stderr):  # standard output is for results
            self.library.init(**options)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.library.log(dict(numbers), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self.library.finish()


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and prefix + name != "step":
            yield prefix + name, float(value)
