"""Which layers of an encoder are kept, frozen or adapted?

Architectures call it by many names; what they have in common is one list of as many modules as the configuration
states layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dalr.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel


def backbone_of(encoder: SentenceTransformer, where: str, key: str) -> PreTrainedModel:
    """The transformer of an encoder.

    Raises:
        ConfigError: it has none (static embeddings), so that `key` means nothing.
    """
    backbone = encoder.transformers_model
    if backbone is None:
        raise ConfigError(Problem(where=where, what=f"has no transformer, so {key} cannot apply; leave it out"))
    return backbone


def layer_stack(backbone: PreTrainedModel, where: str, key: str) -> tuple[str, nn.ModuleList]:
    """Name and modules of the stack of layers.

    Raises:
        ConfigError: it cannot be told, so that `key` cannot be done.
    """
    depth = int(backbone.config.num_hidden_layers)
    stacks = [
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    names = [name for name, _ in stacks]  # T5's layers are themselves lists, of two parts
    stacks = [each for each in stacks if not any(each[0].startswith(f"{name}.") for name in names)]
    if len(stacks) != 1:
        what = f"cannot tell its stack of {depth} layers (found {len(stacks)} candidates); leave {key} out"
        raise ConfigError(Problem(where=where, what=what))
    return stacks[0]


def keep_layers(encoder: SentenceTransformer, number: int, where: str) -> None:
    """Drop all but the first `number` layers, in the module list and in the configuration.

    Raises:
        ConfigError: there are fewer, or the stack of layers cannot be told.
    """
    backbone = backbone_of(encoder, where, "num_layers")
    depth = int(backbone.config.num_hidden_layers)
    if number > depth:
        raise ConfigError(Problem(where=where, what=f"num_layers is {number}, but the encoder has {depth} layers"))
    name, stack = layer_stack(backbone, where, "num_layers")
    parent, _, leaf = name.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, nn.ModuleList(stack[:number]))
    backbone.config.num_hidden_layers = number
    layer_types = getattr(backbone.config, "layer_types", None)
    if isinstance(layer_types, list):
        backbone.config.layer_types = layer_types[:number]


def freeze(encoder: SentenceTransformer, *, layers: int | None, embeddings: bool, where: str) -> None:
    """Take the embeddings, or the first `layers` layers, out of training: no gradient, no optimizer state.

    Raises:
        ConfigError: no layer would be left, or the stack of layers cannot be told.
    """
    if layers is not None:
        backbone = backbone_of(encoder, where, "freeze_layers")
        _, stack = layer_stack(backbone, where, "freeze_layers")
        if layers > len(stack) or (layers == len(stack) and embeddings):
            left = "and something must be trained" if layers == len(stack) else ""
            what = f"freeze_layers is {layers}, but the encoder has {len(stack)} layers {left}".rstrip()
            raise ConfigError(Problem(where=where, what=what))
        for layer in stack[:layers]:
            layer.requires_grad_(False)
    if embeddings:
        backbone = backbone_of(encoder, where, "freeze_embeddings")
        whole = getattr(backbone, "embeddings", None)  # words, positions and their norm, where they are one module
        module = whole if isinstance(whole, nn.Module) else backbone.get_input_embeddings()
        module.requires_grad_(False)
