"""A run goes on with the threads that it was begun with, whatever the environment of the new process says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trainings import Heard, outcome, record

from dalr.errors import CorruptFileError
from dalr.training.threads import threads_of
from tiny import TinyData, Toys, save_tiny_bert, write_data

STEPS, CUT = 6, 3
CHILD = """
import os, signal, sys
import dalr
import torch
from dalr.training.progress import Progress

threads, recipe, out, cut, *settings = sys.argv[1:]
if int(threads) > 2:  # the environment is obeyed up to the number of cores
    torch.set_num_threads(int(threads))
save = Progress.save

def saved(self, step):
    save(self, step)
    if step == int(cut):
        os.kill(os.getpid(), signal.SIGTERM)

Progress.save = saved
dalr.train(recipe, overrides=settings, out=out, resume=os.path.exists(out))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    """A student whose matrices are large enough to be shared among threads."""
    folder = tmp_path_factory.mktemp("large")
    data: TinyData = write_data(folder / "data", images=64, text=160)
    student = save_tiny_bert(folder / "bert", dim=256)
    return Toys(data=data, student=student, teacher=student)


def train(recipe: Path, out: Path, *, threads: int, cut: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    return subprocess.run(
        [
            *(sys.executable, "-c", CHILD, str(threads), str(recipe), str(out), str(cut)),
            *(f"training.max_steps={STEPS}", "training.batch_size=48", "training.save_every=1"),
            *("validation.every=2", "training.log_every=1"),
        ],
        env=environment | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_run_that_goes_on_under_another_number_of_threads_ends_in_the_same_bits(
    large: Toys, tmp_path: Path
) -> None:
    recipe = large.method(tmp_path, "mcse")
    for begun, other in ((1, 2), (2, 1), (5, 1), (1, 5)):  # five are more than the cores of a small machine
        whole, cut, run = (tmp_path / f"{name}-{begun}-{other}" for name in ("whole", "cut", "run"))
        assert train(recipe, whole, threads=begun).returncode == 0
        assert train(recipe, cut, threads=begun, cut=CUT).returncode != 0
        assert record(cut)["machine"]["threads"] == begun
        shutil.copytree(cut, run, ignore=shutil.ignore_patterns(".lock"))
        done = train(recipe, run, threads=other)
        assert done.returncode == 0, done.stderr
        assert (
            done.stderr.count(f"using {begun} CPU threads, with which the run was begun, instead of {other}") == 1
        )
        assert outcome(run) == outcome(whole), (begun, other)
        assert record(run)["machine"]["threads"] == begun


def test_the_threads_of_before_are_set_again_afterwards() -> None:
    before, heard = torch.get_num_threads(), Heard()
    with threads_of({"machine": {"threads": before + 1}}, heard):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert len(heard.lines) == 1


@pytest.mark.parametrize("earlier", [None, {}, {"machine": None}, {"machine": {}}])
def test_a_run_that_states_no_threads_changes_none(earlier: dict[str, object] | None) -> None:
    before, heard = torch.get_num_threads(), Heard()
    with threads_of(earlier, heard):
        assert torch.get_num_threads() == before
    assert not heard.lines


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.5, 10**9])
def test_a_count_that_cannot_be_is_refused(count: object) -> None:
    with (
        pytest.raises(CorruptFileError, match=r"machine\.threads: expected a count"),
        threads_of({"machine": {"threads": count}}, Heard()),
    ):
        pass
