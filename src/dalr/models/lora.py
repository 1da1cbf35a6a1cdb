"""How are low-rank adapters trained? LoRA (Hu et al. 2021, arXiv 2106.09685) by peft: W stays, B·A is trained.

Adapters are put into the encoder in place, so that everything else still sees an ordinary encoder. The product
must be one as well: for an export the adapters are merged into a copy, because merging and taking out again would
change the weights that are being trained by rounding.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn

from dalr.errors import ConfigError, Problem, install
from dalr.models.config import LoraSection
from dalr.models.layers import backbone_of, layer_stack

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel


def add_adapters(encoder: SentenceTransformer, config: LoraSection, where: str) -> None:
    """Freeze `encoder` and put adapters beside its linear layers; A is drawn from torch's generator, B is 0.

    Raises:
        ConfigError: peft is not installed, or `target_modules` fit no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        what = f"lora needs peft, which is not installed; {install('lora')}"
        raise ConfigError(Problem(where=where, what=what)) from None

    backbone = backbone_of(encoder, where, "lora")
    encoder.requires_grad_(False)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=_targets(backbone, config, where),
    )
    inject_adapter_in_model(settings, backbone)


def merged(encoder: SentenceTransformer) -> SentenceTransformer:
    """The encoder itself or, if it has adapters, an ordinary copy that computes the same."""
    if not any(_is_adapted(module) for module in encoder.modules()):
        return encoder
    plain = copy.deepcopy(encoder)
    for name, module in list(plain.named_modules()):
        if _is_adapted(module):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(plain.get_submodule(parent), leaf, module.get_base_layer())
    return plain


def _targets(backbone: PreTrainedModel, config: LoraSection, where: str) -> list[str]:
    """Full names of the linear layers that get an adapter; by default all of the stack of layers."""
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if config.target_modules is None:
        stack, _ = layer_stack(backbone, where, "lora")
        return [name for name in linear if name.startswith(f"{stack}.")]
    problems = []
    for wanted in config.target_modules:
        if not any(_ends_in(name, wanted) for name in linear):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            what = f"target_modules names {wanted!r}, which no linear layer is called; there are {known}"
            problems.append(Problem(where=where, what=what))
    if problems:
        raise ConfigError(problems)
    return [name for name in linear if any(_ends_in(name, wanted) for wanted in config.target_modules)]


def _ends_in(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _is_adapted(module: nn.Module) -> bool:
    """Whether peft has wrapped this layer; decided without importing peft, which takes a second."""
    return callable(getattr(module, "get_base_layer", None)) and callable(getattr(module, "merge", None))
