"""The module that is trained: student, heads and objective in one, with the pooler left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import look_inside, record, same, train
from safetensors.torch import load_file

from dalr.errors import ConfigError
from dalr.training.precision import resolve_precision
from tiny import Toys


def test_heads_and_student_change_in_one_step_and_the_pooler_does_not(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = look_inside(monkeypatch)
    recipe = toys.recipe(
        tmp_path,
        objective={
            "infonce": {},
            "grounding": {},
            "consistency": {"classifier_weight": 1.0},
            "cross_modal_alignment": {"learn_temperature": True},
        },
        teachers=[{"model": str(toys.teacher)}],
    )
    result = train(recipe, tmp_path / "run", "training.max_steps=1")
    before, after = inside.before, inside.weights()
    parameters = dict(inside.made.task.named_parameters())
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    assert frozen
    assert all(".pooler." in name for name in frozen)
    unchanged = {name for name in parameters if torch.equal(before[name], after[name])}
    assert {name for name in unchanged if name.startswith("heads.")} == set()
    assert frozen <= unchanged
    assert unchanged - frozen <= {n for n in parameters if "key.bias" in n}, "a key bias has no gradient"
    stored = load_file(result.run / "heads.safetensors")
    assert same(stored, {k.removeprefix("heads."): v for k, v in after.items() if k.startswith("heads.")})
    assert record(result.run)["trained_parameters"] == sum(
        parameter.numel() for name, parameter in parameters.items() if name not in frozen
    )


def test_clipping_is_over_all_trained_parameters(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped: list[tuple[set[int], float]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(parameters: Any, max_norm: float, *arguments: Any, **options: Any) -> torch.Tensor:
        several = list(parameters)
        norm: torch.Tensor = clip(several, max_norm, *arguments, **options)
        total = torch.stack([p.grad.norm() for p in several if p.grad is not None]).norm().item()
        assert total <= max_norm * 1.001
        clipped.append(({id(p) for p in several}, max_norm))
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    inside = look_inside(monkeypatch)
    train(toys.recipe(tmp_path), tmp_path / "run", "training.clip_norm=0.25")
    trained = {id(p) for p in inside.made.task.parameters() if p.requires_grad}
    assert len(clipped) == 4
    assert all(trained <= seen and norm == 0.25 for seen, norm in clipped)


def test_optimizer_and_schedule_are_those_of_the_recipe(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        groups = self.param_groups
        seen.append({"lr": groups[0]["lr"], "decay": {g["weight_decay"] for g in groups if g["params"]}})
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(toys.recipe(tmp_path), tmp_path / "run", "training.warmup_steps=2", "training.weight_decay=0.0")
    assert [entry["lr"] for entry in seen] == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])
    assert all(entry["decay"] == {0.0} for entry in seen)


def test_the_two_views_differ_by_dropout_alone(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = look_inside(monkeypatch)
    train(toys.recipe(tmp_path), tmp_path / "run", "training.max_steps=1", "validation=null")
    task, batch = inside.made.task, inside.batches[0]
    task.train()
    h_a, h_b = task.two_passes(batch.tokens)
    assert h_a.shape == (8, 32)
    assert (h_a - h_b).abs().max() > 1e-3
    task.eval()
    h_a, h_b = task.two_passes(batch.tokens)
    torch.testing.assert_close(h_a, h_b, rtol=1e-5, atol=1e-6)
    inputs = task.inputs(batch, *task.two_passes(batch.tokens))
    assert inputs.image_grounded is not None
    assert inputs.s_a is not None
    assert inputs.s_a.shape == inputs.image_grounded.shape == (8, 8)
    assert inputs.teachers == ()
    assert inputs.text_aligned is None


def test_training_in_bf16_keeps_weights_and_objective_in_fp32(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = look_inside(monkeypatch)
    result = train(toys.recipe(tmp_path), tmp_path / "run", "training.precision=bf16")
    assert record(result.run)["data"]["precision"] == "bf16"
    task = inside.made.task.eval()
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in load_file(result.model / "model.safetensors").values()} == {torch.float32}
    inputs = task.inputs(inside.batches[0], *task.two_passes(inside.batches[0].tokens))
    assert inputs.h_a.dtype == inputs.z_a.dtype == torch.float32
    task.precision = "fp32"
    exact, _ = task.two_passes(inside.batches[0].tokens)
    assert 1e-4 < (inputs.h_a - exact).abs().max() < 0.1, "the student really ran in bf16"


def test_losses_are_the_same_however_rows_are_laid_out(toys: Toys, tmp_path: Path) -> None:
    losses = {}
    for padding in ("padded", "bucketed", "packed", "auto"):
        settings = (f"training.padding={padding}", "training.precision=fp32", "student.dropout=0.0")
        result = train(toys.method(tmp_path, "dalr"), tmp_path / padding, *settings, "training.learning_rate=1e-3")
        lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
        losses[padding] = [line["loss"] for line in lines if "loss" in line]
        assert record(result.run)["data"]["padding"] == ("packed" if padding == "auto" else padding)
    assert len(losses["padded"]) == 6
    assert losses["auto"] == losses["packed"]
    for padding in ("bucketed", "packed"):
        assert losses[padding] == pytest.approx(losses["padded"], rel=1e-4), padding


def test_packed_rows_are_refused_where_the_student_cannot(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dalr.training.setup.best_layout", lambda student, dtype: "bucketed")
    result = train(toys.recipe(tmp_path), tmp_path / "auto", "training.max_steps=1")
    assert record(result.run)["data"]["padding"] == "bucketed"
    with pytest.raises(ConfigError, match=r"training.padding: packed, but .* only be bucketed on cpu"):
        train(toys.recipe(tmp_path), tmp_path / "packed", "training.padding=packed")


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(True, False, "bf16"), (False, True, "bf16"), (True, True, "bf16"), (False, False, "fp32")],
)
def test_auto_is_bf16_where_the_processor_has_arithmetic_for_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"
    assert resolve_precision("auto", torch.device("meta")) == "fp32"
