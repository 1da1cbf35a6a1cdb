"""Dropout from random bits: the probability, the scale and the seeding of torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dalr.models.dropout import BitDropout, dropout_noise, use_bit_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75, 1e-4])
def test_elements_are_dropped_with_the_probability_and_scaled_by_the_rest(p: float) -> None:
    torch.manual_seed(0)
    noise = dropout_noise((1000, 2001), p, torch.float32)
    share = (noise == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / noise.numel()) ** 0.5)
    assert noise.max().item() == pytest.approx(1 / (1 - p))
    assert set(noise.unique().tolist()) == {0.0, noise.max().item()}


def test_elements_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(1)
    dropped = (dropout_noise((2_000_000,), 0.1, torch.float32) == 0).double()
    for lag in (1, 2, 3, 4, 32, 624, 1248):
        both = (dropped[:-lag] * dropped[lag:]).mean().item()
        assert both == pytest.approx(0.01, abs=5 * (0.01 * 0.99 / len(dropped)) ** 0.5), lag


def test_the_seed_decides() -> None:
    torch.manual_seed(5)
    one, other = dropout_noise((64,), 0.5, torch.float32), dropout_noise((64,), 0.5, torch.float32)
    torch.manual_seed(5)
    assert torch.equal(dropout_noise((64,), 0.5, torch.float32), one)
    assert not torch.equal(one, other)


def test_the_gradient_passes_where_the_value_does() -> None:
    x = torch.ones(50, 7, requires_grad=True)
    dropped = BitDropout(0.3)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything_are_left_to_torch(p: float) -> None:
    x = torch.randn(5, 5)
    assert torch.equal(BitDropout(p)(x), x * (1 - p))
    assert torch.equal(BitDropout(0.5).eval()(x), x)


def test_every_dropout_of_a_module_is_replaced_and_nothing_else_changes() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.2), nn.ReLU()), nn.Dropout(0.4)).eval()
    before = copy.deepcopy(module.state_dict())
    use_bit_dropout(module)
    found = [child for child in module.modules() if isinstance(child, nn.Dropout)]
    assert [(type(child), child.p, child.training) for child in found] == [
        (BitDropout, 0.2, False),
        (BitDropout, 0.4, False),
    ]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
