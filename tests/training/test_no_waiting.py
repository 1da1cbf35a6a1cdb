"""Nothing in a step asks the device for a value, and no term needs more memory than its formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import look_inside, train
from torch.utils._python_dispatch import TorchDispatchMode

from dalr.losses import functional
from dalr.training.config import TrainingConfig
from dalr.training.optim import Optimization
from tiny import Toys


class Waiting(TorchDispatchMode):
    """Notes every call that would have a GPU waited for, and the largest tensor made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal"):
            self.seen.append(name)
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize("name", ["rankcse", "kdmcse", "dalr"])
def test_no_packed_step_waits_for_the_device(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Padded forwards do (T7's teachers, too): transformers looks whether a mask masks anything."""
    inside = look_inside(monkeypatch)
    settings = ("training.padding=packed", "training.schedule.kind=spread", "validation=null")
    train(toys.method(tmp_path, name), tmp_path / "run", *settings)
    task = inside.made.task.train()
    optimization = Optimization(task, TrainingConfig(), steps=10)
    assert {batch.kind for batch in inside.batches} >= {"text"}
    for batch in list(inside.batches):  # running one more adds it
        with Waiting() as waiting:
            task(batch).total.backward()
            optimization.clip()
            optimization.step(unless=torch.zeros(()))
        assert not waiting.seen, batch.kind


def test_waiting_is_noticed() -> None:
    x = torch.arange(4.0)
    with Waiting() as waiting:
        _ = x[x > 1], x.sum().item(), x.nonzero()
    assert set(waiting.seen) == {"index", "_local_scalar_dense", "nonzero"}


def test_token_contrast_needs_the_memory_of_all_scores_once() -> None:
    n, tokens, dim = 12, 30, 8
    sentences = torch.randn(n, dim, requires_grad=True)
    states, mask = torch.randn(n, tokens, dim), torch.ones(n, tokens, dtype=torch.bool)
    with Waiting() as waiting:
        functional.token_contrast(sentences, states, mask, temperature=0.05).backward()
    assert n * n * tokens <= waiting.largest < 1.1 * n * n * tokens, (
        "not n² · l², one score for each pair of tokens"
    )


def test_ranking_terms_need_the_memory_of_the_similarity_matrix() -> None:
    n = 64
    student, teacher = torch.randn(n, n, requires_grad=True), torch.randn(n, n)
    with Waiting() as waiting:
        ranks = functional.ranks_of(teacher, tie_order=torch.randperm(n), include_self=False)
        functional.list_mle(student, ranks, mean_over_list=True).backward()
        functional.list_net(functional.off_diagonal(student), functional.off_diagonal(teacher)).backward()
    assert waiting.largest <= n * n
