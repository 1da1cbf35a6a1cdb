"""Learning rates: their schedules, and one of their own for the heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import look_inside, metrics, train

from dalr.errors import ConfigError
from dalr.training.config import LearningRateSchedule
from dalr.training.optim import learning_rate_share
from tiny import Toys


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [0, 0.5, 1, 0.853553, 0.5, 0.146447, 0]),
        ("constant", [0, 0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_shares_of_the_learning_rate(kind: LearningRateSchedule, expected: list[float]) -> None:
    share = learning_rate_share(kind, steps=6, warmup=2)
    assert [share(done) for done in range(7)] == pytest.approx(expected, abs=1e-6)


def test_the_warm_up_is_a_number_of_steps_or_a_share_of_all(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    constant = "training.learning_rate_schedule=constant"
    train(recipe, tmp_path / "steps", "training.warmup_steps=2", constant)
    train(recipe, tmp_path / "ratio", "training.warmup_ratio=0.3", constant)
    for run in ("steps", "ratio"):
        rates = [line["learning_rate"] for line in metrics(tmp_path / run) if "loss" in line]
        assert rates == pytest.approx([0, 5e-4, 1e-3, 1e-3])
    with pytest.raises(ConfigError, match=r"one of warmup_steps \(2\) and warmup_ratio \(0.3\), not both"):
        train(recipe, tmp_path / "both", "training.warmup_steps=2", "training.warmup_ratio=0.3")


def test_heads_may_learn_at_a_rate_of_their_own(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[dict[str, float]] = []
    names: dict[int, str] = {}
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        names.update({id(p): name for name, p in inside.made.task.named_parameters()})
        rates.append({names[id(p)]: group["lr"] for group in self.param_groups for p in group["params"]})
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    inside = look_inside(monkeypatch)
    train(toys.recipe(tmp_path), tmp_path / "run", "training.head_learning_rate=1e-2", "training.max_steps=2")
    assert len(rates) == 2
    for seen, share in zip(rates, (1.0, 0.5), strict=True):
        assert {name.partition(".")[0] for name in seen} == {"student", "heads"}
        for name, rate in seen.items():
            assert rate == pytest.approx(share * (1e-2 if name.startswith("heads.") else 1e-3)), name
