"""How is a text encoder loaded? Any Hugging Face encoder or SentenceTransformer folder, as a SentenceTransformer.

Pooling is stated, never guessed: a plain checkpoint (SimCSE, MCSE, …) would silently load with mean pooling
although it was trained with CLS. Vectors are taken before any Normalize module, so a trailing one is left out.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dalr.errors import ConfigError, DalrError, ModelFileError, Problem
from dalr.io.paths import is_file
from dalr.io.sealed import known_sha256
from dalr.models.agreement import require_agreement, require_files_agree, settle_limit
from dalr.models.choices import PoolingMode
from dalr.models.claims import require_plausible, stored_shapes
from dalr.models.config import POOLINGS, EncoderConfig, StudentConfig
from dalr.models.foreign import refuse_foreign_code
from dalr.models.module_list import is_model2vec, module_entries, module_folders
from dalr.models.prompts import set_prompt, stated_prompts
from dalr.models.reference import CONVERT, find_model
from dalr.models.verification import is_product_manifest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn
    from transformers import PreTrainedModel


TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "hidden_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "dropout_rate",
)


def load_encoder(config: EncoderConfig) -> SentenceTransformer:
    """The encoder in eval mode on the CPU, without a trailing Normalize.

    Raises:
        ModelFileError: missing, unreadable, or not a text encoder.
        ConfigError: a plain encoder without a pooling, or more layers to keep or freeze than it has.
    """
    folder, where = checked_folder(config), f"model {config.model!r}"
    prompts = stated_prompts(folder, where)
    dropout = config.dropout if isinstance(config, StudentConfig) else None
    try:
        encoder = _load(folder, config, _dropout_settings(folder, dropout, where))
        if encoder.transformers_model is not None:
            _refuse_missing_weights(module_folders(folder, where)[0], encoder.transformers_model)
    except DalrError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or repr(error)
        raise ModelFileError(Problem(where=where, what=f"cannot be loaded from {folder}: {reason}")) from error
    if set(encoder.modalities) - {"message"} != {"text"}:  # messages: it has a chat template, which is never run
        what = f"expected a text encoder, found modalities {', '.join(map(str, encoder.modalities))}"
        raise ModelFileError(Problem(where=where, what=what))
    _refuse_decoders(encoder, where)
    if encoder.transformers_model is None and isinstance(config, StudentConfig):
        what = "a student is a transformer, found static embeddings: one vector per token, and no layers to train"
        raise ConfigError(Problem(where=where, what=f"{what}; use it as a teacher, or name another student"))
    set_prompt(encoder, prompts, config.prompt, where)
    from dalr.models.layers import backbone_of, freeze, keep_layers

    if config.pooling == "avg_first_last":
        backbone_of(encoder, where, "pooling avg_first_last").config.output_hidden_states = True
    if config.num_layers is not None:
        keep_layers(encoder, config.num_layers, where)
    if isinstance(config, StudentConfig):
        freeze(encoder, layers=config.freeze_layers, embeddings=config.freeze_embeddings, where=where)
    settle_limit(encoder, config.max_tokens, where)
    encoder.float().eval()
    require_agreement(encoder, where)
    return encoder  # weights stored in half precision are computed with, and trained, in fp32


def checked_folder(config: EncoderConfig) -> Path:
    """The folder of an encoder, after what its files alone say of it has been checked.

    Raises:
        ModelFileError: missing, unsafe, incomplete or contradictory.
        ConfigError: a plain encoder without a pooling.
    """
    folder = find_model(config.model, config.revision)
    where = f"model {config.model!r}"
    listed = is_file(folder / "modules.json", ModelFileError) or is_model2vec(folder)
    if not listed and config.pooling is None:
        what = f"a plain encoder states no pooling; set pooling: {POOLINGS} (SimCSE and its relatives use cls)"
        raise ConfigError(Problem(where=where, what=what))
    folders = module_folders(folder, where)
    _refuse_unsafe_or_incomplete(folders, where)
    refuse_foreign_code(folders, where)
    for place in folders:
        if is_file(place / "config.json", ModelFileError):
            require_plausible(place, shapes=stored_shapes(place, where), where=where)
    require_files_agree(folder, where)
    return folder


def encoder_sha256(config: EncoderConfig) -> str:
    """Content key of an encoder as configured: its files, pooling, number of layers and prompt."""
    folder = find_model(config.model, config.revision)
    prompt = prompt_text(config)
    settings = f"{config.pooling} {config.num_layers}" + (f" prompt {prompt!r}" if prompt else "")
    return files_sha256(folder, settings)


def prompt_text(config: EncoderConfig) -> str:
    """What is put before every sentence of this encoder; empty for none.

    Raises:
        ModelFileError: missing, or what it says of prompts is damaged.
        ConfigError: the prompt's name is not one of the model's.
    """
    where = f"model {config.model!r}"
    return stated_prompts(find_model(config.model, config.revision), where).text(config.prompt, where)


def files_sha256(folder: Path, settings: str = "") -> str:
    """Content key of a model folder's files, used with these settings."""
    digest = hashlib.sha256(settings.encode())
    names = ("*.safetensors", "*.json", "*.txt", "*.model")
    found = {path for name in names for path in folder.rglob(name)}
    for path in sorted(path for path in found if not is_product_manifest(path)):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(known_sha256(path).encode())
    return digest.hexdigest()


def ends_in_normalize(config: EncoderConfig) -> bool:
    """Whether the encoder as published scales its vectors to length 1, a module that `load_encoder` leaves out.

    Raises:
        ModelFileError: missing, or a `modules.json` that is none.
    """
    folder = find_model(config.model, config.revision)
    entries = module_entries(folder, f"model {config.model!r}")
    return any(entry.kind == "Normalize" for entry in entries[-1:])


def _load(folder: Path, config: EncoderConfig, model_kwargs: dict[str, Any]) -> SentenceTransformer:
    with quiet_libraries():
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import (
            Normalize,
            Pooling,
            StaticEmbedding,
            Transformer,
        )

        safe = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
        local = {"local_files_only": True, "trust_remote_code": False}
        modules: list[nn.Module]
        if is_file(folder / "modules.json", ModelFileError):
            stored = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
                config_kwargs=model_kwargs,
            )
            modules = list(stored)
            while isinstance(modules[-1], Normalize):
                modules.pop()
            if config.pooling is not None:
                modules = [
                    part
                    for module in modules
                    for part in (
                        _pooling(module.embedding_dimension, config.pooling, include_prompt=module.include_prompt)
                        if isinstance(module, Pooling)
                        else [module]
                    )
                ]
        elif is_model2vec(folder):
            modules = [StaticEmbedding.load(str(folder))]
        else:
            transformer = Transformer(
                str(folder),
                model_kwargs=safe,
                processor_kwargs=local,
                config_kwargs={**local, **model_kwargs},
            )
            assert config.pooling is not None
            modules = [transformer, *_pooling(transformer.get_embedding_dimension(), config.pooling)]
        return SentenceTransformer(modules=modules, device="cpu")


def _pooling(dim: int, mode: PoolingMode, *, include_prompt: bool = True) -> list[nn.Module]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    from dalr.models.first_and_last import FirstAndLast

    if mode == "avg_first_last":
        return [FirstAndLast(), Pooling(dim, pooling_mode="mean", include_prompt=include_prompt)]
    known: dict[PoolingMode, Literal["cls", "mean", "lasttoken"]] = {
        "cls": "cls",
        "mean": "mean",
        "last": "lasttoken",
    }
    return [Pooling(dim, pooling_mode=known[mode], include_prompt=include_prompt)]


def _routes(folder: Path) -> list[Path]:
    """Folders of the modules inside a module that chooses among several."""
    return sorted(path.parent for name in ("config.json", "*_config.json") for path in folder.glob(f"*/{name}"))


def _refuse_unsafe_or_incomplete(folders: list[Path], where: str) -> None:
    """Pickled weights of any module are not loaded; a tokenizer that is not there would be made up."""
    for place in [inner for folder in folders for inner in (folder, *_routes(folder))]:
        pickled = sorted(place.glob("*.bin"))
        whole = [path for path in pickled if path.name.startswith("pytorch_model")]
        if (pickled and not any(place.glob("*.safetensors"))) or (
            whole and not any(place.glob("model*.safetensors"))
        ):
            what = f"{(whole or pickled)[0]} is pickled and is not loaded, and there are no safetensors: {CONVERT}"
            raise ModelFileError(Problem(where=where, what=what))
    if not any(any(place.glob(name)) for place in folders for name in TOKENIZER_FILES):
        what = (
            f"no tokenizer in {folders[0]}; expected one of {', '.join(TOKENIZER_FILES)}: copy the complete folder"
        )
        raise ModelFileError(Problem(where=where, what=what))


def _refuse_missing_weights(folder: Path, loaded: PreTrainedModel) -> None:
    """transformers fills parameters that the files lack with random numbers and continues; we do not.

    The class that was loaded is asked: of T5 and its relatives that is the encoder alone.
    """
    own_class: Any = type(loaded)
    with quiet_libraries():
        _, report = own_class.from_pretrained(
            folder,
            config=copy.deepcopy(loaded.config),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"{len(missing)} parameters have no weights in its files, such as {missing[0]}")


def _refuse_decoders(encoder: SentenceTransformer, where: str) -> None:
    """A decoder's states are no sentence vectors; a causal model's first token has seen nothing of the sentence."""
    backbone = encoder.transformers_model
    if backbone is None:
        return
    name = type(backbone).__name__
    if backbone.config.is_encoder_decoder and any(part == "decoder" for part, _ in backbone.named_children()):
        what = f"expected an encoder, found {name}, an encoder with a decoder behind it; name another model"
        raise ModelFileError(Problem(where=where, what=what))
    causal = any(getattr(module, "is_causal", False) is True for module in backbone.modules())
    pooling = [str(getattr(module, "pooling_mode", "")) for module in encoder]
    if causal and "cls" in pooling:
        what = f"expected an encoder for pooling: cls, found {name}, whose first token sees itself alone; say last"
        raise ModelFileError(Problem(where=where, what=what))


def _dropout_settings(folder: Path, dropout: float | None, where: str) -> dict[str, Any]:
    """The configuration's own names for dropout, all set to `dropout`."""
    if dropout is None:
        return {}
    from transformers import AutoConfig

    known = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).to_dict()
    names = [name for name in _DROPOUTS if name in known]
    if not names:
        what = f"dropout is {dropout}, but its configuration has none of {', '.join(_DROPOUTS)}"
        raise ConfigError(Problem(where=where, what=what))
    return dict.fromkeys(names, dropout)


class quiet_libraries:  # noqa: N801 - used like a function
    """Keeps the loading bars and notices of the model libraries off our output; errors still come through."""

    def __enter__(self) -> None:
        import transformers.utils.logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        return None
