"""Graphs for OpenVINO, where it is installed: the vectors of PyTorch, any shape, and a runner without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_runs import Trained

from dalr.errors import ModelFileError
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.heads import ground
from dalr.models.loading import load_encoder
from tiny import captions
from tiny_images import DIM

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow

SENTENCES = [*captions(5), "", "x.png", "a " * 200]
RUN = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "onnxruntime", "dalr"):
    sys.modules[name] = None  # whatever is installed
sys.path.insert(0, sys.argv[1])
import numpy, run
given = open(sys.argv[2], encoding="utf-8").read().split("\\n")
numpy.save(sys.argv[3], run.encode(given))
"""


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run: CLS pooling, no Normalize, heads."""
    from dalr.export.graphs import export_graphs

    out = tmp_path_factory.mktemp("openvino") / "out"
    found = export_graphs(str(trained.run), out, format="openvino", console=Console(quiet=True))
    assert found.files.keys() == {"openvino/openvino_model.xml", "openvino/grounding.xml"}
    assert max(found.files.values()) < 1e-5
    return out


def graph(path: Path, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    from dalr.export.openvino_graph import open_openvino

    return dict(open_openvino(path)({"input_ids": ids, "attention_mask": mask}))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 9), (5, 48)])
def test_no_dimension_is_frozen(exported: Path, shape: tuple[int, int]) -> None:
    ones = np.full(shape, 7, np.int64)
    found = graph(exported / "openvino" / "openvino_model.xml", ones, np.ones_like(ones))
    assert found["sentence_embedding"].shape == (shape[0], 32)
    assert found["last_hidden_state"].shape == (*shape, 32)


def test_the_runner_gives_the_vectors_without_torch(exported: Path, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "sentences").write_text("\n".join(SENTENCES), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(exported), str(tmp_path / "sentences"), str(tmp_path / "out.npy")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = embed(load_encoder(EncoderConfig(model=str(trained.run / "model"))), SENTENCES)
    assert np.abs(np.load(tmp_path / "out.npy", allow_pickle=False) - expected).max() < 1e-5


def test_the_second_graph_leads_into_the_space_of_the_images(exported: Path, trained: Trained) -> None:
    encoder = load_encoder(EncoderConfig(model=str(trained.run / "model")))
    tokens = encoder.tokenizer(SENTENCES[:3], padding=True, return_tensors="np")
    found = graph(exported / "openvino" / "grounding.xml", tokens["input_ids"], tokens["attention_mask"])
    images = np.zeros((1, DIM), np.float32)
    expected, _ = ground(trained.run / "heads.safetensors", sentences=embed(encoder, SENTENCES[:3]), images=images)
    assert np.abs(found["grounding_embedding"] - expected).max() < 1e-5


def test_the_folder_is_sealed_and_holds_one_format(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["format"] == "dalr-export"
    assert {"openvino/openvino_model.xml", "openvino/openvino_model.bin", "run.py"} <= manifest["files"].keys()
    assert not [*exported.rglob("*.safetensors"), *exported.rglob("*.onnx")]


def test_a_graph_that_openvino_cannot_read_is_said(tmp_path: Path) -> None:
    from dalr.export.openvino_graph import convert_onnx

    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelFileError, match="OpenVINO cannot convert its graph"):
        convert_onnx(tmp_path / "model.onnx", tmp_path / "model.xml", where="model")
