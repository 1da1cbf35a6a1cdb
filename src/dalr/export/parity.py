"""Whether an exported graph computes what PyTorch computes, at shapes that would show a frozen dimension.

A dimension of an exported graph can freeze silently at the size of the example that it was traced with, or be taken
for 1 or for "at least 2". So every graph is run at (1, 1), (1, 7) and (5, longest), with padding in the last one.
The difference is measured against the largest number of the expected output where that is beyond 1: in fp32, a
state of size 10 is not known to 1e-5 more than one of size 1 to 1e-6. States of padding are compared by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64

from dalr.errors import NumericsError
from dalr.export.graph import TOKENS
from dalr.seed import generator

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.export.graph import GroundingGraph, SentenceGraph

TOLERANCE = 1e-5
LONGEST_CHECKED = 1_024
"""Tokens; attention over longer rows would take more memory than the model."""

Arrays = Mapping[str, np.ndarray]
Runner = Callable[[Arrays], Arrays]
"""Inputs by name to outputs by name."""


def require_parity(
    graph: SentenceGraph | GroundingGraph, run: Runner, encoder: SentenceTransformer, *, longest: int, what: str
) -> float:
    """The largest difference found.

    Raises:
        NumericsError: it is beyond `TOLERANCE`, or the graph cannot be run at one of the shapes.
    """
    worst = 0.0
    for ids, mask in check_batches(encoder, longest):
        shape = f"{what} at batch {ids.shape[0]}, length {ids.shape[1]}"
        try:
            found = run({"input_ids": ids, "attention_mask": mask})
        except Exception as error:
            reason = " ".join(str(error).split())
            raise NumericsError(f"{shape}: cannot be run ({reason:.200}); nothing was written") from error
        for name, expected in expected_of(graph, ids, mask).items():
            difference = _difference(expected, found[name], mask if name == TOKENS else None)
            if not difference <= TOLERANCE:
                what_to_do = "nothing was written; please report the model, and use it with PyTorch"
                raise NumericsError(
                    f"{shape}: {name} differs by {difference:.1e} from PyTorch, expected at most {TOLERANCE:.0e}; "
                    f"{what_to_do}"
                )
            worst = max(worst, difference)
    return worst


def expected_of(
    graph: SentenceGraph | GroundingGraph, ids: Int64[np.ndarray, "n l"], mask: Int64[np.ndarray, "n l"]
) -> dict[str, np.ndarray]:
    """What PyTorch computes, by the names of the outputs."""
    with torch.inference_mode():
        outputs = graph(torch.from_numpy(ids), torch.from_numpy(mask))
    return {name: output.numpy() for name, output in zip(graph.outputs, outputs, strict=True)}


def check_batches(
    encoder: SentenceTransformer, longest: int
) -> Iterator[tuple[Int64[np.ndarray, "n l"], Int64[np.ndarray, "n l"]]]:
    """Ordinary tokens drawn at random, and masks: one token, seven, and five rows of very different lengths."""
    special = set(encoder.tokenizer.all_special_ids)
    ordinary = np.array([number for number in range(len(encoder.tokenizer)) if number not in special], np.int64)
    random = generator(0, "export")
    full = min(longest, LONGEST_CHECKED)
    for rows, length in ((1, 1), (1, min(7, full)), (5, full)):
        ids = random.choice(ordinary, (rows, length)).astype(np.int64)
        mask = np.ones_like(ids)
        if rows > 1:
            lengths = np.array([full, full // 2, 7, 2, 1]).clip(1, full)
            mask = (np.arange(full) < lengths[:, None]).astype(np.int64)
            ids[mask == 0] = encoder.tokenizer.pad_token_id or 0
        yield ids, mask


def _difference(expected: np.ndarray, found: np.ndarray, mask: np.ndarray | None) -> float:
    if expected.shape != found.shape:
        return float("inf")
    gap = np.abs(expected.astype(np.float64) - found)
    if mask is not None:
        gap, expected = gap[mask == 1], expected[mask == 1]
    return float(gap.max() / max(1.0, np.abs(expected).max()))
