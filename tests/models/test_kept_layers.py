"""Freezing: no gradient, no optimizer state, no change; and errors with both numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dalr.errors import ConfigError
from dalr.models.config import StudentConfig
from dalr.models.loading import load_encoder
from dalr.recipe.loading import load_recipe
from tiny import ARCHITECTURES, Toys, save_tiny_encoder


def frozen_names(model: Path, **settings: Any) -> tuple[set[str], set[str]]:
    """Names of frozen and of trained parameters."""
    encoder = load_encoder(StudentConfig(model=str(model), pooling="cls", **settings))
    parameters = list(encoder.named_parameters())
    return {n for n, p in parameters if not p.requires_grad}, {n for n, p in parameters if p.requires_grad}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_layers_and_the_embeddings(tmp_path: Path, architecture: str) -> None:
    model = save_tiny_encoder(tmp_path / architecture, architecture)
    frozen, trained = frozen_names(model, freeze_layers=2, freeze_embeddings=True)
    assert {name for name in trained if "embeddings." in name and "rel_" not in name} == set()
    layers = {int(name.split("layer")[1].split(".")[1]) for name in frozen if ".0." in name or ".1." in name}
    assert layers == {0, 1}
    assert not any("layer.2." in name or "layers.2." in name for name in frozen)
    only_embeddings, _ = frozen_names(model, freeze_embeddings=True)
    assert only_embeddings
    assert only_embeddings < frozen
    assert frozen_names(model)[0] == set()


def test_frozen_weights_have_no_optimizer_state_and_do_not_change(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runs import look_inside, record, train

    states: dict[int, Any] = {}
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        result = step(self, *arguments, **options)
        states.update({id(p): state for p, state in self.state.items()})
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    inside = look_inside(monkeypatch)
    settings = ("student.freeze_layers=1", "student.freeze_embeddings=true", "training.weight_decay=0.1")
    result = train(toys.recipe(tmp_path), tmp_path / "run", *settings)
    before, after = inside.before, inside.weights()
    parameters = dict(inside.made.task.named_parameters())
    frozen = {name for name in parameters if ".embeddings." in name or ".layer.0." in name}
    assert len(frozen) > 10
    for name in frozen:
        assert parameters[name].grad is None
        assert id(parameters[name]) not in states
        assert torch.equal(before[name], after[name])
    trained = {name for name, p in parameters.items() if p.requires_grad}
    assert {id(parameters[name]) for name in trained} == set(states)
    assert record(result.run)["trained_parameters"] == sum(parameters[name].numel() for name in trained)


def test_something_must_be_left(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    with pytest.raises(ConfigError, match="3 layers are to be frozen, but the student has 2"):
        load_recipe(str(recipe), ["student.freeze_layers=3"])
    with pytest.raises(ConfigError, match="2 layers are to be frozen, but the student has 1"):
        load_recipe(str(recipe), ["student.freeze_layers=2", "student.num_layers=1"])
    with pytest.raises(ConfigError, match="all 2 layers and the embeddings are to be frozen"):
        load_recipe(str(recipe), ["student.freeze_layers=2", "student.freeze_embeddings=true"])
    with pytest.raises(ConfigError, match="and something must be trained"):
        load_encoder(StudentConfig(model=str(toys.student), pooling="cls", freeze_layers=2, freeze_embeddings=True))
    with pytest.raises(ConfigError, match="freeze_layers is 3, but the encoder has 2 layers"):
        load_encoder(StudentConfig(model=str(toys.student), pooling="cls", freeze_layers=3))
