"""Image models of a few thousand random parameters, and image files of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiny import save_tiny_bert

SIDE, DIM = 32, 16
_VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}


def save_tiny_image_model(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A random `clip`, `siglip`, `resnet`, `vit` or `dinov2` with its image processor and tokenizer."""
    import torch
    import transformers as t

    square = {"height": SIDE, "width": SIDE}
    processor: Any
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        match kind:
            case "clip":
                vocabulary = _tokenizer(folder)
                text = _TEXT | {"vocab_size": vocabulary, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
                config = t.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=DIM)
                t.CLIPModel(config).save_pretrained(folder)
                processor = t.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
            case "siglip":
                text = _TEXT | {"vocab_size": _tokenizer(folder), "projection_size": 24}
                t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=_VISION)).save_pretrained(folder)
                processor = t.SiglipImageProcessorPil(size=square)
            case "resnet":
                sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
                t.ResNetModel(t.ResNetConfig(**sizes)).save_pretrained(folder)
                processor = t.ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.875)
            case "vit":
                t.ViTModel(t.ViTConfig(**_VISION), add_pooling_layer=False).save_pretrained(folder)
                processor = t.ViTImageProcessorPil(size=square)
            case _:
                t.Dinov2Model(t.Dinov2Config(**_VISION)).save_pretrained(folder)
                processor = t.BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=square)
    processor.save_pretrained(folder)
    return folder


def photo(number: int, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    """A smooth image, another for each number."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    bands = [np.sin(6 * (x * np.cos(number + k) + y * np.sin(number * 2 + k))) for k in range(3)]
    return Image.fromarray(((np.stack(bands, -1) + 1) * 127).astype(np.uint8)).convert(mode)


def save_photos(folder: Path, count: int) -> list[str]:
    """Distinct JPEG files; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        photo(number, (40 + number % 5, 48)).save(folder / name)
    return names


def _tokenizer(folder: Path) -> int:
    """The tests' WordPiece tokenizer; the size of its vocabulary."""
    import json
    import shutil

    plain = save_tiny_bert(folder.with_name(f"{folder.name}-words"))
    folder.mkdir(parents=True, exist_ok=True)
    for path in plain.iterdir():
        if path.name.startswith(("tokenizer", "vocab", "special")):
            shutil.copy(path, folder)
    size: int = json.loads((plain / "config.json").read_bytes())["vocab_size"]
    return size
