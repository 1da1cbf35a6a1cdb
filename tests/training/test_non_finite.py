"""Training never steps on a number that is not one: it stops before the optimizer, and names the place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import Inside, copied, look_inside, record, same, train

from dalr.errors import NumericsError
from dalr.losses import TERMS
from dalr.training import loop
from dalr.training.batch import Batch
from dalr.training.finite import Guard
from dalr.training.resume import newest_point
from tiny import Toys

ALL_TERMS = {
    "infonce": {"on_text": True},
    "grounding": {},
    "consistency": {},
    "cross_modal_alignment": {},
    "list_mle": {"reduction": "sum", "include_self": True},
    "list_net": {},
    "consistency_js": {},
    "intra_modal_alignment": {},
}


def stopped(toys: Toys, folder: Path, *overrides: str, **sections: Any) -> str:
    """The message of a run that must stop for its numbers, and no other reason."""
    with pytest.raises(NumericsError) as caught:
        train(toys.recipe(folder, **sections), folder / "run", *overrides)
    assert caught.value.exit_code == 5
    written = record(folder / "run")
    assert written["status"] == "stopped"
    assert written["reason"] == str(caught.value)
    assert not (folder / "run" / "model").exists()
    message = str(caught.value)
    if not message.startswith("step "):  # of no batch: what was scored
        return message
    bad = bad_batch(folder)
    assert message.startswith(f"step {bad['step']} ({bad['kind']} batch): ")
    assert all(row in message for row in bad["rows"])
    finite = {name: math.isfinite(float(value)) for name, value in bad["terms"].items()}
    assert [name for name in finite if f"{name} = " in message] == [name for name in finite if not finite[name]]
    assert not (math.isfinite(float(bad["loss"])) and math.isfinite(float(bad["gradient_norm"])))
    return message


def bad_batch(folder: Path) -> dict[str, Any]:
    """What the run wrote down about the batch that stopped it."""
    found: dict[str, Any] = json.loads((folder / "run" / "bad_batch.json").read_bytes())
    assert set(found) == {"step", "kind", "loss", "terms", "gradient_norm", "rows"}
    return found


def require_untouched(inside: Inside) -> None:
    """The weights are those with which the bad batch went in, and finite."""
    weights = inside.weights()
    assert same(weights, inside.at_forward)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def spoil(field: str, step: int, value: float) -> Callable[[Batch], Batch | None]:
    """Put one bad number into one tensor of the batch of one step."""

    def tamper(batch: Batch) -> Batch | None:
        if batch.step != step:
            return None
        if field == "image":
            assert batch.targets.image is not None
            image = batch.targets.image.clone()
            image[3, 1] = value
            return replace(batch, targets=replace(batch.targets, image=image))
        teacher = batch.targets.teachers[0].clone()
        teacher[3, 1] = value
        return replace(batch, targets=replace(batch.targets, teachers=(teacher,)))

    return tamper


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [0, 2])
def test_a_bad_image_feature_stops_training_before_the_step(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, value: float
) -> None:
    inside = look_inside(monkeypatch, spoil("image", step, value))
    message = stopped(toys, tmp_path)
    require_untouched(inside)
    assert same(inside.weights(), inside.before) is (step == 0)
    assert f"step {step + 1} (pair batch)" in message
    if math.isnan(value):  # tanh(inf) is 1, so that an infinite feature shows in the gradient only
        assert "grounding = nan" in message
    assert "infonce" not in message
    bad = inside.batches[-1]
    assert bad.step == step
    assert len(bad.row_ids) == 8
    assert all(row in message for row in bad.row_ids)
    assert "the weights were not changed by this step" in message


def test_a_bad_teacher_vector_stops_a_text_step(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = look_inside(monkeypatch, spoil("teachers", 1, float("nan")))
    message = stopped(
        toys,
        tmp_path,
        objective={"infonce": {}, "list_net": {"on_text": True}},
        teachers=[{"model": str(toys.teacher)}],
        features={},
    )
    require_untouched(inside)
    assert "step 2 (text batch)" in message
    assert "list_net = nan" in message
    assert all(row in message for row in inside.batches[-1].row_ids)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ALL_TERMS)
def test_any_term_is_named(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    assert set(ALL_TERMS) | {"global_to_local"} == set(TERMS)
    compute = TERMS[name].__call__
    monkeypatch.setattr(TERMS[name], "__call__", lambda self, inputs: compute(self, inputs) + value)
    inside = look_inside(monkeypatch)
    message = stopped(
        toys,
        tmp_path,
        objective=ALL_TERMS,
        teachers=[{"model": str(toys.teacher)}],
        validation=None,
    )
    require_untouched(inside)
    assert same(inside.weights(), inside.before)
    assert message.startswith("step 1 (pair batch): ")
    assert f" {name} = {value}; " in message
    assert [other for other in ALL_TERMS if f" {other} = " in message] == [name]


def test_a_sum_that_overflows_is_named_as_the_sum(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = look_inside(monkeypatch)
    message = stopped(toys, tmp_path, objective={"infonce": {"weight": 1e39}, "grounding": {}})
    require_untouched(inside)
    assert "the weighted sum = inf" in message


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_gradient_that_is_not_finite_stops_training_before_the_step(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The loss is fine; without a look at the gradients the last step would be exported with NaN weights."""

    def tamper(batch: Batch) -> None:
        if batch.step == step:
            weight = next(inside.made.task.student.parameters())
            weight.register_hook(lambda gradient: gradient * float("nan"))

    inside = look_inside(monkeypatch, tamper)
    message = stopped(toys, tmp_path, validation=None)
    require_untouched(inside)
    assert inside.batches[-1].step == step
    assert f"step {step + 1} ({inside.batches[-1].kind} batch)" in message
    assert "gradient" in message
    assert all(row in message for row in inside.batches[-1].row_ids)


@pytest.mark.parametrize(("step", "kind"), [(2, "pair"), (3, "text")])
@pytest.mark.parametrize("name", ["infonce", "list_mle", "list_net", "consistency_js"])
def test_a_term_that_fails_in_the_middle_of_a_run_is_named_with_its_batch(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int, kind: str
) -> None:
    compute = TERMS[name].__call__

    def fail_once(self: Any, inputs: Any) -> torch.Tensor:
        value: torch.Tensor = compute(self, inputs)
        return value + math.nan if inside.batches[-1].step == step else value

    monkeypatch.setattr(TERMS[name], "__call__", fail_once)
    inside = look_inside(monkeypatch)
    objective = {each: {"on_text": True} for each in ("infonce", "list_mle", "list_net", "consistency_js")}
    teachers = [{"model": str(toys.teacher)}]
    message = stopped(toys, tmp_path, objective=objective, teachers=teachers, features={}, validation=None)
    require_untouched(inside)
    assert not same(inside.weights(), inside.before)
    assert message.startswith(f"step {step + 1} ({kind} batch): {name} = nan; ")
    assert tuple(bad_batch(tmp_path)["rows"]) == inside.batches[-1].row_ids


@pytest.mark.parametrize("bad", [1, 4])
def test_what_is_noticed_late_changed_nothing_meanwhile(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """On a GPU the host looks every few steps: from the bad step on, no step may have changed the weights."""

    def tamper(batch: Batch) -> None:
        weights.append(copied(inside.made.task))
        if batch.step == bad:
            next(inside.made.task.student.parameters()).register_hook(lambda gradient: gradient * math.inf)

    weights: list[dict[str, torch.Tensor]] = []
    inside = look_inside(monkeypatch, tamper)
    monkeypatch.setattr(loop, "Guard", lambda device, *, run, patience: Guard(device, run=run, patience=4))
    message = stopped(toys, tmp_path, "training.max_steps=12", validation=None)
    assert message.startswith(f"step {bad + 1} ")
    assert inside.batches[-1].step == (3 if bad < 4 else 7), "noticed late"
    assert bad_batch(tmp_path)["rows"] == list(inside.batches[bad].row_ids)
    assert not same(weights[bad - 1], weights[bad])
    assert all(same(weights[bad], later) for later in [*weights[bad:], inside.weights()])


def test_nothing_is_scored_or_sealed_after_a_bad_step_that_is_noticed_late(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_inside(monkeypatch, spoil("image", 2, math.nan))
    monkeypatch.setattr(loop, "Guard", lambda device, *, run, patience: Guard(device, run=run, patience=100))
    stopped(toys, tmp_path, "training.max_steps=12", "training.save_every=2", "validation.every=2")
    assert [path.name for path in (tmp_path / "run" / "resume").iterdir()] == ["step-000002"]
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.name == "step-000002"
    run = tmp_path / "run"
    assert newest_point(run, run_id=record(run)["id"])[0] is not None


def test_the_last_good_checkpoint_stays(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_inside(monkeypatch, spoil("image", 2, float("nan")))
    stopped(toys, tmp_path, "validation.every=1")
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.name in ("step-000001", "step-000002")


def test_embeddings_that_are_not_finite_stop_the_validation_score(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights spoiled behind our back are found by the score; they are never kept as the best."""

    def tamper(batch: Batch) -> None:
        if batch.step == 1:
            inside.made.task.student.transformers_model.embeddings.LayerNorm.eps = float("nan")

    inside = look_inside(monkeypatch, tamper)
    message = stopped(toys, tmp_path)
    assert "step 2" in message or "embeddings are not finite" in message
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_student_whose_vectors_are_all_equal_is_reported_before_training(toys: Toys, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "collapsed"
    shutil.copytree(toys.student, folder)
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.LayerNorm.weight"
    weights[name] = torch.zeros_like(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = stopped(toys, tmp_path, f"student.model={folder}")
    assert "constant embeddings (std < 1e-06" in message
