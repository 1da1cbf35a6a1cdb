"""How many images per second can `dalr features images` reach with a ViT-L/14, when decoding costs nothing?

    python benchmarks/gpu_images.py --out FILE [--tiny] [--device cuda]

Pixels are in memory already, as the decoding workers hand them over; what is timed is `VisionModel.vectors`: the
copy to the device, scaling, the model, the copy back. Weights are random. At the batch size of the command and at
larger ones, in fp32 as shipped, and in bf16 to see what it would give.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from gpu_findings import Findings, PeakMemory

from dalr.models.pixels import load_pixel_reader
from dalr.models.vision import IMAGES_PER_BATCH, VisionModel

SHAPES: dict[str, dict[str, int]] = {
    "ViT-L/14": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 32,
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=None, help="how long each batch size is measured")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    shape = "tiny" if options.tiny else "ViT-L/14"
    seconds = options.seconds or (0.2 if options.tiny else 2.0)
    device, findings = torch.device(options.device), Findings(options.out)
    with tempfile.TemporaryDirectory(prefix="dalr-gpu-images-") as name:
        model = random_model(Path(name), SHAPES[shape], device)
    flops = flops_per_image(model)
    peak = PeakMemory(device)
    findings.add("shape", {"model": shape, "GFLOP per image": flops / 1e9, "memory": peak.kind})
    for batch in (IMAGES_PER_BATCH,) if options.tiny else (IMAGES_PER_BATCH, 128, 512):
        for half in (False, True):
            peak.start()
            rate = images_per_second(model, batch, seconds, half=half)
            found = {"images/s": rate, "TFLOP/s": rate * flops / 1e12, "peak MiB": peak.mib()}
            findings.add(f"batch {batch}, {'bf16' if half else 'fp32'}", found)
    return findings.exit_code()


def random_model(folder: Path, shape: dict[str, int], device: torch.device) -> VisionModel:
    """As `load_vision_model` gives it, without writing and reading a gigabyte of weights."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    CLIPImageProcessorPil().save_pretrained(folder)
    torch.manual_seed(0)
    with device:
        network: Any = CLIPVisionModelWithProjection(CLIPVisionConfig(**shape, projection_dim=768))
    return VisionModel(
        reference="random",
        network=network.eval().requires_grad_(False),
        pixels=load_pixel_reader(folder, "random"),
        device=device,
        dim=768,
        tokenizer=None,
        max_tokens=None,
        source={},
    )


def flops_per_image(model: VisionModel) -> float:
    """Two per weight and token of the transformer, and attention's products."""
    config = model.network.config
    tokens = (model.pixels.height // config.patch_size) ** 2 + 1
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return float(config.num_hidden_layers * (2 * tokens * layer + 4 * tokens**2 * config.hidden_size))


def images_per_second(model: VisionModel, batch: int, seconds: float, *, half: bool) -> float:
    """Vectors come back to the host each time, so that the device has been waited for."""
    random = np.random.default_rng(0)
    size = (batch, 3, model.pixels.height, model.pixels.width)
    pixels = random.integers(0, 256, size, dtype=np.uint8)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        for _ in range(2):
            model.vectors(pixels)
        count, start = 0, perf_counter()
        while perf_counter() - start < seconds:
            model.vectors(pixels)
            count += 1
    return count * batch / (perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
