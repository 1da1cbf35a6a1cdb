"""OpenVINO's format, converted from the ONNX graph.

OpenVINO computes in bf16 by itself where the processor has it, which differs from PyTorch in the second decimal of
a state. Graphs are checked, and the runner runs them, with fp32 asked for by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dalr.errors import ModelFileError, Problem
from dalr.export.onnx_graph import quiet_exporter

if TYPE_CHECKING:
    from dalr.export.parity import Arrays, Runner

FP32 = {"INFERENCE_PRECISION_HINT": "f32"}


def convert_onnx(source: Path, target: Path, *, where: str) -> None:
    """Write `target` (.xml, and .bin beside it) with the weights in fp32.

    Raises:
        ModelFileError: OpenVINO does not know an operation of the graph.
    """
    import openvino

    try:
        with quiet_exporter():
            openvino.save_model(openvino.convert_model(str(source)), str(target), compress_to_fp16=False)
    except Exception as error:
        reason = " ".join(str(error).split()) or repr(error)
        what = f"OpenVINO cannot convert its graph ({type(error).__name__}: {reason:.300})"
        raise ModelFileError(Problem(where=where, what=what)) from error


def open_openvino(path: Path, *, threads: int | None = None) -> Runner:
    """A function that runs a graph on the CPU in fp32."""
    import openvino

    settings: dict[str, Any] = FP32 | ({"INFERENCE_NUM_THREADS": threads} if threads is not None else {})
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(inputs: Arrays) -> Arrays:
        found = compiled(dict(inputs))
        return {name: np.array(found[name]) for output in compiled.outputs for name in output.get_names()}

    return run
