"""R3: whatever a loss of power takes, a checkpoint that is left verifies, and there is one from the first on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from power_loss import Change, Tree, apply, durable, recording, states
from torch import nn

from dalr.errors import CorruptFileError
from dalr.training.config import TrainingConfig
from dalr.training.optim import Optimization
from dalr.training.resume import ProgressState, newest_point, points, read_point, save_point

LIMIT = 4096


def save(run: Path, step: int, *, keep: int = 1) -> None:
    """A point with three small files of tensors, as `Progress` seals it."""
    torch.manual_seed(step)
    module = nn.Linear(2, 1)
    state = ProgressState(
        batches={}, term_counts={}, best_step=None, best_score=None, untrained_score=None, seconds=float(step)
    )
    optimization = Optimization(module, TrainingConfig(), steps=4)
    save_point(
        run,
        run_id="one",
        step=step,
        keep=keep,
        task=module,
        optimization=optimization,
        term_sums={},
        state=state,
        metrics=b'{"step": 1}\n',
    )


def content_of(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def visible(tree: Tree) -> Tree:
    return {name: content for name, content in tree.items() if "/." not in f"/{name}"}


def build(folder: Path, tree: Tree) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in sorted(tree.items()):
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("keep", [1, 2])
def test_every_subset_of_what_was_not_synced_leaves_a_whole_checkpoint(tmp_path: Path, keep: int) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save(run, 1)
    before = content_of(run)
    with recording(run) as recorder:
        save(run, 2, keep=keep)
    seen: set[str] = set()
    newest = set()
    count = 0
    for tree in states(before, recorder.log, limit=LIMIT):
        count += 1
        shown = visible(tree)
        key = repr(sorted(shown.items()))
        if key in seen:
            continue
        seen.add(key)
        build(tmp_path / "state", shown)
        for folder in points(tmp_path / "state"):
            read_point(folder, run=tmp_path / "state", run_id="one")  # what has its name is whole
        point, rejected = newest_point(tmp_path / "state", run_id="one")
        assert point is not None
        assert rejected == []
        newest.add(point.step)
    assert newest == {1, 2}
    assert count > 500


def test_a_protocol_without_fsync_of_files_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method sees what it is there to see."""
    run = tmp_path / "run"
    run.mkdir()
    save(run, 1)
    before = content_of(run)
    monkeypatch.setattr("dalr.io.sealed.sync_file", lambda path: None)
    monkeypatch.setattr("dalr.io.atomic.sync_file", lambda path: None)
    with recording(run) as recorder:
        save(run, 2)
    _, open_ = durable(recorder.log)
    lost = [
        change for number in open_ if isinstance(change := recorder.log[number], Change) and change.what == "write"
    ]
    assert len(lost) >= 5
    for change in lost:
        tree = dict(before)
        for other in recorder.log:
            if isinstance(other, Change) and other is not change:
                tree = apply(tree, other)
        build(tmp_path / "state", visible(tree))
        with pytest.raises(CorruptFileError):
            read_point(tmp_path / "state" / "resume" / "step-000002", run=tmp_path / "state", run_id="one")
