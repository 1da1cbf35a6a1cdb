"""`run.py`, written beside an exported model: sentences to vectors without torch and without dalr.

The tokenizer file beside it states where an input is cut and how a batch is padded, so that the runner has nothing
to decide. It is tested by running it: what is written here is what the parity check of the tokens has run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dalr.errors import ModelFileError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

_ONNX = '''"""Sentences to vectors: python run.py "a sentence" ... Needs onnxruntime, tokenizers and numpy."""
import pathlib, sys
import numpy, onnxruntime, tokenizers

here = pathlib.Path(__file__).parent
tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
session = onnxruntime.InferenceSession(str(here / "{graph}"), providers=["CPUExecutionProvider"])

def encode(sentences, output="sentence_embedding"):
    rows = tokenizer.encode_batch([{prompt}sentence for sentence in sentences])
    ids, mask = (numpy.array([getattr(row, name) for row in rows]) for name in ("ids", "attention_mask"))
    return session.run([output], {{"input_ids": ids, "attention_mask": mask}})[0]

if __name__ == "__main__":
    numpy.savetxt(sys.stdout, encode(sys.argv[1:]), fmt="%.6f")
'''
_OPENVINO = '''"""Sentences to vectors: python run.py "a sentence" ... Needs openvino, tokenizers and numpy."""
import pathlib, sys
import numpy, openvino, tokenizers

here = pathlib.Path(__file__).parent
tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
fp32 = {{"INFERENCE_PRECISION_HINT": "f32"}}  # otherwise bf16 where the processor has it
model = openvino.Core().compile_model(str(here / "{graph}"), "CPU", fp32)

def encode(sentences, output="sentence_embedding"):
    rows = tokenizer.encode_batch([{prompt}sentence for sentence in sentences])
    ids, mask = (numpy.array([getattr(row, name) for row in rows]) for name in ("ids", "attention_mask"))
    return model({{"input_ids": ids, "attention_mask": mask}})[output]

if __name__ == "__main__":
    numpy.savetxt(sys.stdout, encode(sys.argv[1:]), fmt="%.6f")
'''
_TEXTS = {"onnx": _ONNX, "openvino": _OPENVINO}


def runner_text(format: str, graph: str, prompt: str) -> str:
    """The runner of a graph in the folder; `prompt` stands before every sentence."""
    return _TEXTS[format].format(graph=graph, prompt=f"{prompt!r} + " if prompt else "")


def write_tokenizer(encoder: SentenceTransformer, path: Path, *, longest: int, where: str) -> Any:
    """Write the tokenizer with its cut and its padding, and return it.

    Raises:
        ModelFileError: it is not of the tokenizers library.
    """
    import tokenizers

    given = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if given is None:
        what = f"its tokenizer ({type(encoder.tokenizer).__name__}) is not one of the tokenizers library"
        raise ModelFileError(Problem(where=where, what=f"{what}, which runs without torch"))
    tokenizer = tokenizers.Tokenizer.from_str(given.to_str())
    hf = encoder.tokenizer
    tokenizer.enable_truncation(max_length=longest, direction=hf.truncation_side)
    tokenizer.enable_padding(direction="right", pad_id=hf.pad_token_id or 0, pad_token=hf.pad_token or "[PAD]")
    tokenizer.save(str(path))
    return tokenizer
