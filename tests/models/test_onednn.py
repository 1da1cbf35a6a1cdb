"""Linear layers by oneDNN give the numbers of PyTorch's own."""

from __future__ import annotations

import torch
from torch import nn

from dalr.models.onednn import use_onednn


def test_the_numbers_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 7, bias=False)).eval()
    inputs = [torch.randn(5, 24), torch.randn(1, 9, 24), torch.randn(2, 1, 24)]
    with torch.inference_mode():
        expected = [model(x) for x in inputs]
        changed = use_onednn(model)
        found = [model(x) for x in inputs]
    assert changed in (0, 2)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_other_precisions_are_left_alone() -> None:
    assert use_onednn(nn.Sequential(nn.Linear(4, 4)).double()) == 0
