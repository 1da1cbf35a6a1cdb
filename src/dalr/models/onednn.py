"""Linear layers in fp32 by oneDNN on a CPU, for inference: the weights are reordered once.

PyTorch multiplies fp32 matrices by MKL, which runs at half speed on AMD processors: measured on an EPYC with
AVX-512, one thread, 104 against 214 GFLOP/s. bf16 goes through oneDNN by itself. The numbers differ in their last
bits, so it is decided by what is installed and never by a measurement: a resumed run must give the same bytes. It
costs a second copy of the weights.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

_TOLERANCE = 1e-4


def use_onednn(model: nn.Module) -> int:
    """Let the linear layers of a frozen model on a CPU compute by oneDNN; how many do.

    Weights that are changed afterwards have no effect.
    """
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    layers = [each for each in model.modules() if type(each) is nn.Linear and each.weight.device.type == "cpu"]
    layers = [each for each in layers if each.weight.dtype == torch.float32]
    if not layers or not _works(layers[0]):
        return 0
    for layer in layers:
        layer.forward = partial(_linear, *_reordered(layer))  # type: ignore[method-assign]
    return len(layers)


def _reordered(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return layer.weight.detach().to_mkldnn(), layer.bias.detach() if layer.bias is not None else None


def _linear(weight: Tensor, bias: Tensor | None, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _works(layer: nn.Linear) -> bool:
    """Whether this build of PyTorch has the operation as it is used here."""
    x = torch.linspace(-1, 1, 3 * layer.in_features).view(1, 3, layer.in_features)
    with torch.inference_mode():
        expected = layer(x)
        try:
            found = _linear(*_reordered(layer), x)
        except Exception:  # noqa: BLE001 - whatever a private operation raises says that it cannot be used
            return False
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp(min=1))
