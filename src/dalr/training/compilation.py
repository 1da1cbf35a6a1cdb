"""`training.compile`: the student's forward as one compiled graph, while a step runs and at no other time.

The compiled function takes the place of the backbone's `forward` for the length of a call, so that scores, exports,
copies and state dicts see the module that was loaded, and no name begins with `_orig_mod`. Graphs are kept few by
what goes in: a packed batch would bring Python numbers (its group sizes) and fresh hooks, which mean a new graph
in every step, so rows are bucketed under symbolic shapes (`on`), or all have the same shape (`cuda-graphs`).
Dropout is torch's own, which the compiler fuses; it draws the same bits whether a backward will follow or not, as
gradient caching needs (its first pass, which has none, is one more graph).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from dalr.errors import ConfigError, Problem
from dalr.models.embedding import pad_token_id
from dalr.models.packing import Layout
from dalr.training.config import Compile

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BACKEND = "inductor"
_WHERE = "training.compile"


def require_compiler(mode: Compile, device: torch.device) -> None:
    """Compile a function of one line, so that a missing compiler is found before anything else is done.

    Caches are left out: what an earlier run has left there needs no compiler, and the student's forward may.

    Raises:
        ConfigError: nothing can be compiled for this device, or it has no CUDA graphs.
    """
    if mode == "off":
        return
    if mode == "cuda-graphs" and device.type != "cuda":
        what = f"cuda-graphs replays launches of CUDA kernels, and training is on {device.type}; use on or off"
        raise ConfigError(Problem(where=_WHERE, what=what))
    torch.compiler.reset()  # an earlier run of this process has used up a part of the recompilations
    probe: Callable[[Tensor], Tensor] = torch.compile(_one_line, backend=_BACKEND)
    try:
        no_caches = torch.compiler.config.patch(force_disable_caches=True)  # type: ignore[attr-defined]
        with warnings.catch_warnings(), no_caches:
            warnings.simplefilter("ignore")  # that caches are left out
            probe(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 - whatever stops the compiler stops the training
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        needs = "triton and gcc" if device.type == "cuda" else "a C++ compiler (g++; CXX names another)"
        what = f"{mode}, but nothing can be compiled for {device.type} ({reason}); install {needs}, or use off"
        raise ConfigError(Problem(where=_WHERE, what=what)) from None


def compiled_layout(mode: Compile, layout: Layout | None) -> Layout:
    """How rows are laid out for a compiled forward; `layout` is the recipe's own."""
    if mode == "cuda-graphs":
        return "padded"
    return layout or "bucketed"


class CompiledForward:
    """The forward of a student's backbone, compiled on its first call."""

    def __init__(self, student: SentenceTransformer, mode: Compile, *, max_tokens: int) -> None:
        """Rows become `max_tokens` wide for CUDA graphs.

        Raises:
            ConfigError: the student has no transformer.
        """
        backbone = student.transformers_model
        if backbone is None:
            raise ConfigError(Problem(where=_WHERE, what=f"{mode}, but the student is no transformer; use off"))
        self.backbone: nn.Module = backbone
        self.replays = mode == "cuda-graphs"
        self.width = max_tokens if self.replays else None
        self.pad_id = pad_token_id(student)
        options: dict[str, Any] = {"mode": "reduce-overhead"} if self.replays else {}
        self._forward = torch.compile(backbone.forward, backend=_BACKEND, dynamic=not self.replays, **options)
        self._before = _counts()

    def widened(
        self, ids: Int[Tensor, "n l"], mask: Int[Tensor, "n l"]
    ) -> tuple[Int[Tensor, "n w"], Int[Tensor, "n w"]]:
        """The rows at the one width of CUDA graphs; otherwise as they are."""
        if self.width is None:
            return ids, mask
        missing = (0, self.width - ids.shape[1])
        return F.pad(ids, missing, value=self.pad_id), F.pad(mask, missing)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, calls of the student's backbone run the compiled forward."""
        if self.replays:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        own = vars(self.backbone).get("forward")
        self.backbone.forward = self._forward
        try:
            yield
        finally:
            del self.backbone.forward
            if own is not None:
                self.backbone.forward = own

    def kept(self, vectors: Tensor) -> Tensor:
        """Vectors that outlive the next forward: a replayed graph writes its outputs where the last one did."""
        return vectors.clone() if self.replays else vectors

    def summary(self) -> str:
        """How many graphs were made so far, for `-v`; many of them, or breaks, say why nothing became faster."""
        graphs, breaks = (now - before for now, before in zip(_counts(), self._before, strict=True))
        return f"{graphs} graphs, {breaks} graph breaks"


def _one_line(x: Tensor) -> Tensor:
    return (2 * x).sin()


def _counts() -> tuple[int, int]:
    """Graphs and breaks of this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
