"""How does a published checkpoint of SimCSE or its relatives become a SentenceTransformer folder?

Their files are what a training script of 2021 leaves behind: a pickled state dict of a class that no library has,
with a head that some evaluate with and most do not. Loading one with a library's defaults gives mean pooling, a
random pooler and a warning. An import therefore states all of it: every parameter of the encoder is found and of
the architecture's shape, everything else is named, and pooling and head are written into the model. What it leaves
is safetensors with a record of what was done, and the pickle is not needed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.errors import ConfigError, DalrError, ModelFileError, Problem
from dalr.io.atomic import write_json
from dalr.io.paths import resolve
from dalr.io.sealed import file_sha256, refuse_foreign, write_sealed
from dalr.models.choices import HeadChoice, ImportMethod, PoolingMode
from dalr.models.claims import require_plausible
from dalr.models.config import EncoderConfig
from dalr.models.export import save_encoder
from dalr.models.foreign import refuse_foreign_code
from dalr.models.importing.record import ImportedModel
from dalr.models.importing.weights import never_opened, read_weights, weights_file
from dalr.models.layout import Layout, read_layout
from dalr.models.loading import TOKENIZER_FILES, load_encoder, quiet_libraries
from dalr.models.verification import IMPORT_RECORD, IMPORTED, VERSION

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

METHODS: Mapping[ImportMethod, HeadChoice] = {
    "simcse": "drop",
    "simcse-supervised": "keep",
    "rankcse": "drop",
    "diffcse": "drop",
    "mcse": "drop",
    "kdmcse": "drop",
    "dalr": "drop",
}
"""Method -> what becomes of the sentence head where its authors evaluate."""
_SHOWN = 5


def import_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    pooling: PoolingMode = "cls",
    head: HeadChoice | None = None,
    method: ImportMethod | None = None,
    drop_unknown: bool = False,
) -> ImportedModel:
    """Write the SentenceTransformer folder `out` from a checkpoint folder.

    Args:
        head: None does as the method's authors do where they evaluate, and drops it for an unnamed method.
        drop_unknown: leave out parameters that nothing here knows, instead of refusing them.

    Raises:
        ModelFileError: unreadable, holding more than tensors, or not accounted for name by name; all at once.
        ConfigError: a head to keep where there is none.
        StorageError: `out` is something else's folder, or the disk refuses.
    """
    if pooling == "avg_first_last":
        what = (
            "avg_first_last is for frozen encoders, and no module of sentence-transformers; say cls, mean or last"
        )
        raise ConfigError(Problem(where="--pooling", what=what))
    head = head or (METHODS[method] if method is not None else "drop")
    weights = weights_file(checkpoint)
    refuse_foreign(out, IMPORTED)
    tensors = read_weights(weights)
    refuse_foreign_code([checkpoint], str(checkpoint))
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    require_plausible(checkpoint, shapes=shapes, where=str(checkpoint))
    with quiet_libraries():
        architecture = _architecture(checkpoint)
        tokenizer = _tokenizer(checkpoint)
    layout = read_layout(
        list(tensors), expected=list(architecture.shapes), base=architecture.prefix, where=str(weights)
    )
    problems = list(_problems(layout, tensors, architecture, weights, drop_unknown=drop_unknown))
    problems += _tokenizer_problems(tokenizer, architecture, checkpoint)
    if problems:
        raise ModelFileError(problems)
    if head == "keep" and layout.head is None:
        what = f"no affine sentence head in {weights}; leave --head out, or say --head drop"
        raise ConfigError(Problem(where="--head keep", what=what))
    imported = ImportedModel(
        checkpoint=resolve(checkpoint, ModelFileError),
        weights=weights.name,
        sha256=file_sha256(weights),
        architecture=architecture.config.model_type,
        method=method,
        layout=layout,
        numbers=sum(tensors[name].numel() for name in layout.encoder.values()),
        pooling=pooling,
        head=head,
        max_tokens=_longest_input(tokenizer, architecture.config),
        not_opened=tuple(never_opened(checkpoint, weights)),
    )

    def fill(temporary: Path) -> None:
        plain = temporary / "plain"
        _save_plain(plain, imported, tensors, architecture, tokenizer)
        encoder = load_encoder(EncoderConfig(model=str(plain), pooling=pooling, max_tokens=imported.max_tokens))
        _remove_pooler(encoder)
        if head == "keep":
            _append_head(encoder, imported, tensors)
        save_encoder(encoder, temporary)
        shutil.rmtree(plain)
        write_json(temporary / IMPORT_RECORD, imported.as_json())

    write_sealed(out, format=IMPORTED, version=VERSION, metadata={"checkpoint": imported.sha256}, fill=fill)
    return imported


@dataclass(frozen=True, kw_only=True)
class _Architecture:
    """What `config.json` states: parameters and their shapes, nothing allocated."""

    config: PretrainedConfig
    shapes: Mapping[str, tuple[int, ...]]
    prefix: str
    name: str


def _architecture(folder: Path) -> _Architecture:
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise _unusable(folder / "config.json", error) from error
    return _Architecture(
        config=config,
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        prefix=model.base_model_prefix,
        name=type(model).__name__,
    )


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not any(any(folder.glob(name)) for name in TOKENIZER_FILES):  # transformers would make one up
        what = f"no tokenizer in it; expected one of {', '.join(TOKENIZER_FILES)}: copy the whole folder"
        raise ModelFileError(Problem(where=str(folder), what=what))
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise _unusable(folder, error, "its tokenizer ") from error
    return tokenizer


def _unusable(where: Path, error: Exception, what: str = "") -> DalrError:
    reason = str(error).strip().split("\n")[0] or repr(error)
    return ModelFileError(Problem(where=str(where), what=f"{what}cannot be loaded: {reason:.200}"))


def _problems(
    layout: Layout,
    tensors: Mapping[str, Tensor],
    architecture: _Architecture,
    weights: Path,
    *,
    drop_unknown: bool,
) -> list[Problem]:
    """Everything that does not fit, each kind with its count."""
    found: list[str] = []
    if layout.missing:
        found.append(f"{_count(layout.missing, 'encoder parameter')} missing: {_some(layout.missing)}")
    shapes = [
        f"{name} {tuple(tensors[stored].shape)} for {architecture.shapes[name]}"
        for name, stored in layout.encoder.items()
        if tuple(tensors[stored].shape) != architecture.shapes[name]
    ]
    if shapes:
        found.append(f"{_count(shapes, 'encoder parameter')} of another shape than config.json: {_some(shapes)}")
    broken = [
        stored
        for name, stored in layout.encoder.items()
        if not tensors[stored].is_floating_point() or not bool(tensors[stored].isfinite().all())
    ]
    if broken:
        found.append(f"{_count(broken, 'encoder parameter')} not finite numbers: {_some(broken)}")
    if not drop_unknown:
        found += [
            f"{_count(group.names, 'parameter')} of {group.group!r}, which no known method has "
            f"({_some(group.names)}); --drop-unknown leaves them out"
            for group in layout.unknown
        ]
    return [Problem(where=str(weights), what=what) for what in found]


def _tokenizer_problems(
    tokenizer: PreTrainedTokenizerBase, architecture: _Architecture, folder: Path
) -> list[Problem]:
    rows = getattr(architecture.config, "vocab_size", None)
    if isinstance(rows, int) and len(tokenizer) > rows:
        what = f"its tokenizer has {len(tokenizer)} tokens, the encoder {rows}: not this checkpoint's tokenizer"
        return [Problem(where=str(folder), what=what)]
    return []


def _longest_input(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Positions that there are, or the tokenizer's own limit; RoBERTa's positions begin behind its padding id."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet"):
        positions -= int(config.pad_token_id or 0) + 1
    return min(positions, int(tokenizer.model_max_length))


def _save_plain(
    folder: Path,
    imported: ImportedModel,
    tensors: Mapping[str, Tensor],
    architecture: _Architecture,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """The encoder alone, as a library saves it: what the checks of every model then load."""
    import torch
    from safetensors.torch import save_file

    config = architecture.config
    config.architectures = [architecture.name]
    config.dtype = torch.float32
    for foreign in ("auto_map", "_name_or_path", "task_specific_params"):
        if hasattr(config, foreign):
            delattr(config, foreign)
    tokenizer.chat_template = None  # a program, if a small one, that nothing here needs
    with quiet_libraries():
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    encoder = {name: tensors[stored].float().contiguous() for name, stored in imported.layout.encoder.items()}
    save_file(_unshared(encoder), folder / "model.safetensors", metadata={"format": "pt"})


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """safetensors refuses tensors that share memory."""
    pointers = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    return {
        name: tensor.clone() if pointers.count(tensor.untyped_storage().data_ptr()) > 1 else tensor
        for name, tensor in tensors.items()
    }


def _remove_pooler(encoder: SentenceTransformer) -> None:
    """The library has made one of random numbers; the model is better without."""
    backbone: Any = encoder.transformers_model
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None


def _append_head(encoder: SentenceTransformer, imported: ImportedModel, tensors: Mapping[str, Tensor]) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense
    from torch import nn

    assert imported.layout.head is not None
    weight, bias = (tensors[name].float().clone() for name in imported.layout.head)
    encoder.append(
        Dense(
            weight.shape[1],
            weight.shape[0],
            activation_function=nn.Tanh(),
            init_weight=weight,
            init_bias=bias,
        )
    )


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
