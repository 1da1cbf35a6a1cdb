"""ONNX by torch's own exporter: sentence-transformers' ONNX backend cannot be installed beside transformers 5.

The example that a graph is traced with has three rows of eight tokens, because a size of 1 would be taken for a
constant, and batch and length are declared as variable. What comes out is run before it is kept (`parity.py`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dalr.errors import ConfigError, ModelFileError, Problem, install
from dalr.export.graph import INPUTS

if TYPE_CHECKING:
    from dalr.export.graph import GroundingGraph, SentenceGraph
    from dalr.export.parity import Arrays, Runner

_ROWS, _LENGTH = 3, 8
_MOST_BYTES = 1_900_000_000
"""A file of the format holds less than 2 GiB; the weights of a larger graph lie beside it."""


def require_onnx(*, format: str = "onnx") -> None:
    """Refuse to start without the packages of the format.

    Raises:
        ConfigError: naming what is not installed.
    """
    needed = ["onnx", "onnxscript", "onnxruntime"] + (["openvino"] if format == "openvino" else [])
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        what = f"needs {', '.join(missing)}, not installed; {install(format)}"
        raise ConfigError(Problem(where=f"--format {format}", what=what))


def write_onnx(graph: SentenceGraph | GroundingGraph, path: Path, *, where: str) -> None:
    """Write a graph with variable batch and length.

    Raises:
        ModelFileError: torch cannot export this architecture.
    """
    import torch

    ids = torch.ones((_ROWS, _LENGTH), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, _LENGTH // 2 :] = 0
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    try:
        with quiet_exporter(), torch.inference_mode():
            program: Any = torch.onnx.export(
                graph,
                (ids, mask),
                dynamo=True,
                dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
                input_names=list(INPUTS),
                output_names=list(graph.outputs),
                verbose=False,
            )
            size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
            program.save(str(path), external_data=size > _MOST_BYTES)
    except Exception as error:
        reason = " ".join(str(error).split()) or repr(error)
        what = f"torch cannot export this architecture ({type(error).__name__}: {reason:.300})"
        raise ModelFileError(Problem(where=where, what=what)) from error


def open_onnx(path: Path, *, threads: int | None = None) -> Runner:
    """A function that runs a graph on the CPU; `threads` None leaves it to onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        found: list[np.ndarray] = session.run(names, dict(inputs))
        return dict(zip(names, found, strict=True))

    return run


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the notices of exporters off our output: deprecations inside torch, torchvision that is not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
