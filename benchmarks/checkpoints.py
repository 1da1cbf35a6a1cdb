"""What being careful costs: sealing and verifying a resume point of BERT-base, and the guard's share of a step.

    python benchmarks/checkpoints.py [--folder DIR] [--device cpu]

Goals: sealing (writing, fsync, sha256) and verifying at most 1.5 ms per MiB each; the guard at most 1 % of a step.
The disk's own speed is measured beside them: the same bytes copied and synced, without checksums.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from transformers import BertConfig, BertModel

from dalr.losses import Losses, Targets
from dalr.training.batch import Batch, TokenBatch
from dalr.training.config import TrainingConfig
from dalr.training.finite import Guard
from dalr.training.optim import Optimization
from dalr.training.resume import ProgressState, read_point, save_point

ROUNDS, STEPS, BATCH, LENGTH = 5, 7, 64, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write [default: the system's folder for such files]")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = BertModel(BertConfig()).to(options.device)
    optimization = Optimization(model, TrainingConfig(), steps=1000)
    batch = _batch(options.device)
    _step(model, batch, optimization, None)  # so that the optimizer remembers something
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        _checkpoints(Path(name), model, optimization)
        _guard(Path(name), model, batch, optimization)


def _checkpoints(run: Path, model: nn.Module, optimization: Optimization) -> None:
    state = ProgressState(
        batches={}, term_counts={}, best_step=None, best_score=None, untrained_score=None, seconds=0.0
    )

    def seal() -> None:
        save_point(
            run,
            run_id="one",
            step=1,
            keep=1,
            task=model,
            optimization=optimization,
            term_sums={},
            state=state,
            metrics=b"",
        )

    folder = run / "resume" / "step-000001"
    seals = [_seconds(seal) for _ in range(ROUNDS)]
    verifies = [_seconds(lambda: read_point(folder, run=run, run_id="one")) for _ in range(ROUNDS)]
    plain = [_seconds(lambda: _copy(folder, run / "plain")) for _ in range(ROUNDS)]
    mebibytes = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"a resume point of BERT-base: {mebibytes:,.0f} MiB, median of {ROUNDS}")
    for what, taken in (("sealing", seals), ("verifying", verifies), ("plain copy and sync", plain)):
        print(f"{what:28} {1000 * median(taken) / mebibytes:6.2f} ms per MiB  ({median(taken):.2f} s)")


def _copy(folder: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    os.sync()


def _guard(run: Path, model: nn.Module, batch: Batch, optimization: Optimization) -> None:
    guard = Guard(next(model.parameters()).device, run=run, patience=1)
    with_guard: list[float] = []
    for _ in range(STEPS):
        with_guard.append(_seconds(lambda: _step(model, batch, optimization, guard)))
    loss = torch.ones((), device=next(model.parameters()).device)
    losses = Losses(total=loss, terms={f"term {number}": loss for number in range(6)})

    def looks() -> None:
        for _ in range(100):
            guard.watch(batch, losses, loss)
            guard.check()

    alone = median(_seconds(looks) for _ in range(ROUNDS)) / 100
    print(f"a step of {BATCH} sentences of {LENGTH} tokens: {median(with_guard):.3f} s")
    print(f"the guard: {1e6 * alone:.0f} µs a step, {100 * alone / median(with_guard):.4f} % of it")


def _batch(device: str) -> Batch:
    ids = torch.randint(1000, 20_000, (BATCH, LENGTH), device=device)
    return Batch(
        kind="text",
        step=0,
        row_ids=tuple(map(str, range(BATCH))),
        tokens=TokenBatch(ids=ids, mask=torch.ones_like(ids), lengths=(ids.shape[1],) * len(ids)),
        targets=Targets(tie_order=torch.arange(BATCH)),
    )


def _step(model: nn.Module, batch: Batch, optimization: Optimization, guard: Guard | None) -> None:
    loss = model(input_ids=batch.tokens.ids, attention_mask=batch.tokens.mask).last_hidden_state.square().mean()
    loss.backward()
    norm = optimization.clip()
    losses = Losses(total=loss, terms={"square": loss})
    tripped = guard.watch(batch, losses, norm) if guard is not None else torch.zeros_like(norm)
    optimization.step(unless=tripped)
    if guard is not None:
        guard.check()


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
