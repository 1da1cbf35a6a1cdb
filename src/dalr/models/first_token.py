"""When is the last layer computed at first tokens only? Where pooling reads nothing else of it.

With CLS pooling no other token's output of the last layer is used: they are needed as its keys and values, but
their output projection and feed-forward (three quarters of the layer) are not. That is 6 % of the arithmetic of a
step of 12 layers and a quarter of one of 3. Known for layers built like BERT's (BERT, RoBERTa, XLM-R, ELECTRA,
…); the layers of other architectures stay whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from torch import Tensor, nn

from dalr.models.prompts import excluded_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@contextlib.contextmanager
def last_layer_at(encoder: SentenceTransformer, tokens: Int[Tensor, " n"]) -> Iterator[bool]:
    """Within, the states that come out of the backbone are those of `tokens` alone, (1, n, d): if True is given.

    Nothing changes (False) where pooling reads more than first tokens, or the layer is built otherwise.
    """
    layer = _last_layer(encoder.transformers_model) if _reads_first_tokens(encoder) else None
    if layer is None:
        yield False
        return

    def select_attended(_: nn.Module, __: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        return output[0][:, tokens], output[1]

    def select_residual(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        attended, residual = arguments
        return attended, residual[:, tokens]

    hooks = [
        layer.get_submodule("attention.self").register_forward_hook(select_attended),
        layer.get_submodule("attention.output").register_forward_pre_hook(select_residual),
    ]
    try:
        yield True
    finally:
        for hook in hooks:
            hook.remove()


def _reads_first_tokens(encoder: SentenceTransformer) -> bool:
    if len(encoder) < 2 or excluded_tokens(
        encoder
    ):  # behind a prompt that pooling leaves out, CLS is no first token
        return False
    return getattr(encoder[1], "pooling_mode", None) in ("cls", ("cls",))


def _last_layer(backbone: nn.Module | None) -> nn.Module | None:
    """The last encoder layer, if it is one of attention (`self`, `output`), `intermediate` and `output`."""
    stacks = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)] if backbone else []
    if len(stacks) != 1 or len(stacks[0]) == 0:
        return None
    layer = stacks[0][-1]
    names = {name for name, _ in layer.named_modules()}
    parts = {"attention", "intermediate", "output"}
    same = parts == {name for name, _ in layer.named_children()}
    return layer if same and {"attention.self", "attention.output"} <= names else None
