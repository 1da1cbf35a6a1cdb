"""Graphs for onnxruntime: no dimension frozen, the vectors of PyTorch, and a runner without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_runs import Trained

from dalr.errors import ConfigError, NumericsError
from dalr.export.int8 import StsLoss
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.heads import ground
from dalr.models.loading import load_encoder
from tiny import Outcome, captions
from tiny_images import DIM

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow

SENTENCES = [*captions(5), "", "x.png", "a " * 200]
QUIET = Console(quiet=True)
RUN = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "dalr"):
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

    out = tmp_path_factory.mktemp("onnx") / "out"
    found = export_graphs(str(trained.run), out, format="onnx", int8=True, console=QUIET)
    assert found.files.keys() == {"onnx/model.onnx", "onnx/grounding.onnx"}
    assert max(found.files.values()) < 1e-5
    assert found.loss is None
    assert "not measured: name the STS sets with --data" in found.lines()[-1]
    return out


def graph(path: Path, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    from dalr.export.onnx_graph import open_onnx

    return dict(open_onnx(path)({"input_ids": ids, "attention_mask": mask}))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 9), (5, 48)])
def test_no_dimension_is_frozen(exported: Path, shape: tuple[int, int]) -> None:
    ones = np.full(shape, 7, np.int64)
    found = graph(exported / "onnx" / "model.onnx", ones, np.ones_like(ones))
    assert found["sentence_embedding"].shape == (shape[0], 32)
    assert found["last_hidden_state"].shape == (*shape, 32)
    int8 = graph(exported / "onnx" / "model_int8.onnx", ones, np.ones_like(ones))
    assert int8["sentence_embedding"].shape == (shape[0], 32)


def test_the_runner_gives_the_vectors_without_torch(exported: Path, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "sentences").write_text("\n".join(SENTENCES), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(exported), str(tmp_path / "sentences"), str(tmp_path / "out.npy")],
        env={**os.environ},
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
    found = graph(exported / "onnx" / "grounding.onnx", tokens["input_ids"], tokens["attention_mask"])
    images = np.zeros((1, DIM), np.float32)
    expected, _ = ground(trained.run / "heads.safetensors", sentences=embed(encoder, SENTENCES[:3]), images=images)
    assert np.abs(found["grounding_embedding"] - expected).max() < 1e-5


def test_the_folder_is_sealed_with_what_was_found_and_holds_no_weights(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["format"] == "dalr-export"
    assert manifest["metadata"]["differences_from_pytorch"].keys() == {"onnx/model.onnx", "onnx/grounding.onnx"}
    assert {"run.py", "tokenizer.json", "config.json", "1_Pooling/config.json"} <= manifest["files"].keys()
    assert not list(exported.rglob("*.safetensors"))


def test_normalize_is_in_the_graph_where_the_model_has_it(tiny_teacher: Path, tmp_path: Path) -> None:
    from dalr.export.graphs import export_graphs

    export_graphs(str(tiny_teacher), tmp_path / "out", format="onnx", console=QUIET)
    ids = np.full((2, 5), 9, np.int64)
    vectors = graph(tmp_path / "out" / "onnx" / "model.onnx", ids, np.ones_like(ids))["sentence_embedding"]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_graph_that_computes_something_else_is_refused(tiny_bert: Path) -> None:
    from dalr.export.graph import SentenceGraph
    from dalr.export.parity import expected_of, require_parity

    encoder = load_encoder(EncoderConfig(model=str(tiny_bert), pooling="mean"))
    right = SentenceGraph(encoder)

    def wrong(inputs: object) -> dict[str, np.ndarray]:
        assert isinstance(inputs, dict)
        found = expected_of(right, inputs["input_ids"], inputs["attention_mask"])
        return {name: value + 1e-3 for name, value in found.items()}

    def frozen(inputs: object) -> dict[str, np.ndarray]:
        assert isinstance(inputs, dict)
        return expected_of(right, inputs["input_ids"][:, :1], inputs["attention_mask"][:, :1])

    with pytest.raises(NumericsError, match="batch 1, length 1: sentence_embedding differs by"):
        require_parity(right, wrong, encoder, longest=48, what="it")
    with pytest.raises(NumericsError, match="batch 1, length 7"):
        require_parity(right, frozen, encoder, longest=48, what="it")


def test_options_that_do_not_fit_are_refused(
    tiny_teacher: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    for options, message in (
        (["--format", "openvino", "--int8"], "--int8: is written for onnx, not for openvino"),
        (["--format", "onnx", "--data", tmp_path], "--data: is what the loss of --int8 is measured on"),
    ):
        done = cli("export", tiny_teacher, *options, "--out", tmp_path / "out")
        assert done.code == 2
        assert message in done.err


def test_a_loss_is_the_mean_over_the_tasks() -> None:
    loss = StsLoss(fp32={"STS12": 70.0, "STS13": 80.0}, int8={"STS12": 69.5, "STS13": 80.1})
    assert loss.average == pytest.approx(0.2)


def test_what_lacks_its_packages_says_so() -> None:
    from importlib.util import find_spec

    from dalr.export.onnx_graph import require_onnx

    if find_spec("openvino") is not None:
        pytest.skip("openvino is installed")
    with pytest.raises(
        ConfigError, match=r"needs openvino, not installed; in the clone of dalr: pip install '\.\[openvino\]'"
    ):
        require_onnx(format="openvino")
