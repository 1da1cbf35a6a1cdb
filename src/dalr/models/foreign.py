"""What may the settings of a model folder name? No code, and no other model.

Refusing remote code is not enough. A `config.json` may name attention kernels on the hub, compiled ones, and a
library that has the package for them fetches and runs them. An `adapter_config.json` makes the library load another
model than the one in the folder. A SentenceTransformer's own settings hand any argument to the loaders of weights
and tokenizers, so the arguments that are let through are a list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dalr.errors import ModelFileError, Problem
from dalr.io.paths import is_file, regular

_ADAPTER = "adapter_config.json"
_KERNELS = "_implementation"
_ARGUMENTS = tuple(
    f"{part}_{kind}" for part in ("model", "tokenizer", "processor", "config") for kind in ("args", "kwargs")
)
ALLOWED_ARGUMENTS = (
    *("attn_implementation", "dtype", "torch_dtype", "add_pooling_layer", "use_cache"),
    *("model_max_length", "do_lower_case", "padding_side", "truncation_side", "use_fast", "add_eos_token"),
    *("max_pixels", "min_pixels"),
)
"""What `sentence_bert_config.json` may hand on; none of them names a file, a class or a place."""
_NESTING = 20


def refuse_foreign_code(folders: Sequence[Path], where: str) -> None:
    """Refuse settings that name code or another model.

    Raises:
        ModelFileError: every such setting with its file and what to do.
    """
    problems = [
        Problem(where=where, what=f"{path}: {what}")
        for folder in folders
        for path in _settings(folder)
        for what in _faults(path)
    ]
    if problems:
        raise ModelFileError(problems)


def _settings(folder: Path) -> list[Path]:
    names = ("config.json", _ADAPTER, "sentence_*config.json")
    return sorted({path for name in names for path in folder.glob(name) if is_file(path, ModelFileError)})


def _faults(path: Path) -> Iterator[str]:
    if path.name == _ADAPTER:
        yield "an adapter names the model that it belongs to, which is not looked for; merge the two and save that"
        return
    try:
        settings = json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # whoever needs the file says so
    yield from _kernels(settings)
    activation = settings.get("activation_function") if isinstance(settings, dict) else None
    if "." in str(activation) and not str(activation).startswith("torch.nn."):
        yield f"activation_function is {activation!r:.80}, code outside torch.nn that is not run"
    if path.name != "config.json" and isinstance(settings, dict):
        for key, arguments in settings.items():
            if key in _ARGUMENTS and isinstance(arguments, dict):
                foreign = ", ".join(map(repr, sorted(set(arguments) - set(ALLOWED_ARGUMENTS))))
                if foreign:
                    allowed = ", ".join(ALLOWED_ARGUMENTS)
                    yield f"{key} hands {foreign} to a loader, which is not done; remove it (allowed: {allowed})"


def _kernels(settings: object, depth: int = 0) -> Iterator[str]:
    """Kernels are named OWNER/NAME or by several such names."""
    if not isinstance(settings, Mapping) or depth > _NESTING:
        return
    for key, value in settings.items():
        named: Any = list(value.values()) if isinstance(value, dict) else [value]
        if str(key).endswith(_KERNELS) and any("/" in str(name) for name in named):
            yield f"{key} is {value!r:.80}, code on the hub that is not run; remove the key"
        yield from _kernels(value, depth + 1)
