"""Where is a model? A folder, a hub id, or a folder inside an installed Python package.

No weights are unpickled here: a model must have safetensors. Nothing imports torch, so that a recipe can ask for
a model's dimension in the first second.
"""

from __future__ import annotations

import glob
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalr.errors import ConfigError, CorruptFileError, ModelFileError, Problem
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.paths import exists, is_dir, is_file, regular, require_regular_below
from dalr.models.absent import near_folder, require_there
from dalr.models.json_object import peek_object
from dalr.models.module_list import is_model2vec
from dalr.models.verification import has_checksums, is_checkpoint, sealed_files, verify_model
from dalr.recipe.paths import expand

CONVERT = "dalr import FOLDER --out NEW converts those of a text encoder; fetch other models as safetensors"
"""What to do about pickled weights."""
_COUNTS_FROM_PADDING = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text", "roberta-prelayernorm"),
    *("longformer", "xmod", "ibert", "luke", "esm"),
)
_LARGE = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
"""What git-LFS may stand for in a model folder: weights and tokenizers."""
_NO_SENTENCES = (
    "an image encoder of a plug-in, which encodes no sentences; name a folder, package:NAME/FOLDER, or a hub id"
)
_HUB_SECONDS = 10.0
_PACKAGE = "package:"
PLUGIN = "plugin:"
"""Before the name of an image encoder that a plug-in registers."""
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*/config.json", "*/*.safetensors"]
"""What is fetched of a hub model; `*` stands for slashes, too, there."""


def inside_run(reference: str) -> str:
    """The model of a run or a checkpoint, where `reference` is such a folder; anything else as it is.

    Raises:
        ConfigError: a run without a finished model.
        ModelFileError: no such run, and others beside it.
        CorruptFileError: the model's files are not those that were written.
    """
    if not reference.strip():
        return reference
    require_there(reference)
    folder = expand(reference)
    inside = folder / "model"
    if is_file(folder / "run.json", ModelFileError) and not is_dir(inside, ModelFileError):
        what = "a run folder without model/: its training has not finished; finish it: dalr train RECIPE --resume"
        raise ConfigError(Problem(where=reference, what=f"{what} --out {reference}, or name a checkpoint of it"))
    if is_checkpoint(folder) or has_checksums(inside):
        verify_model(inside)
        return str(inside)
    return str(inside) if is_file(inside / "modules.json", ModelFileError) else reference


def run_around(model: str | Path) -> Path | None:
    """The run that a model folder belongs to, where it is the one of a finished run."""
    run = expand(str(model)).parent
    return run if is_file(run / "run.json") and is_file(run / "heads.safetensors") else None


def unavailable(reference: str, revision: str | None = None, *, endpoint: str | None = None) -> str | None:
    """Why a model that is not on this machine cannot be had, or None: the hub is asked, and nothing downloaded.

    Args:
        endpoint: address of the hub; None is the usual one.
    """
    if reference.startswith(PLUGIN):
        return _NO_SENTENCES
    from huggingface_hub import HfApi

    try:
        HfApi(endpoint=endpoint).model_info(reference, revision=revision, timeout=_HUB_SECONDS)
    except Exception as error:  # noqa: BLE001 - the hub client raises a dozen kinds
        return _why(reference, revision, error)
    return None


def _why(reference: str, revision: str | None, error: Exception) -> str:
    """What the hub client's refusal means, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            return f"the hub gives it only to those who have agreed to its terms; then: hf download {reference}"
        case RepositoryNotFoundError() | HFValidationError():
            what = "no such folder, and no model of that name on the hub"
            return f"{what}; {near_folder(reference)}name a folder, package:NAME/FOLDER, or a hub id"
        case RevisionNotFoundError():
            return f"the hub has no revision {revision!r} of it; name one that it has"
    return (
        f"no such folder, not in the local hub cache ({constants.HF_HUB_CACHE}), and the hub cannot be reached "
        f"({type(error).__name__}); {near_folder(reference)}with a connection: hf download {reference}; "
        "without one, name a folder"
    )


def find_model(reference: str, revision: str | None = None) -> Path:
    """The local folder of a model; a hub id is downloaded if it is not in the cache.

    Raises:
        ModelFileError: no such folder or package, or a hub id that is not available (offline, unknown, gated).
        CorruptFileError: files that are not those that were written, where there are checksums of them.
    """
    local = _local(reference)
    if local is not None:
        return _checked(reference, local)
    require_there(reference)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(reference, revision=revision, allow_patterns=_FILES))
        if lacking := [name for name in sealed_files(folder) if not exists(folder / name, ModelFileError)]:
            patterns = [*_FILES, *map(glob.escape, lacking)]  # its checksums are compared, so all of it is needed
            folder = Path(snapshot_download(reference, revision=revision, allow_patterns=patterns))
        return _checked(reference, folder)
    except (ModelFileError, CorruptFileError):
        raise
    except Exception as error:  # noqa: BLE001 - the hub client raises a dozen kinds; each means the same here
        what = _why(reference, revision, error)
        raise ModelFileError(Problem(where=f"model {reference!r}", what=what)) from None


def require_if_local(reference: str) -> Path | None:
    """Check a folder or package reference, and return the folder; a hub id is left for when it is loaded.

    Raises:
        ModelFileError: as `find_model`.
    """
    local = _local(reference)
    return _checked(reference, local) if local is not None else None


def peek_config(reference: str, revision: str | None = None) -> dict[str, Any] | None:
    """The model's `config.json` if it is on this machine, without downloading anything."""
    try:
        folder = _local(reference)
    except (ModelFileError, ConfigError):
        return None
    if folder is None:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(reference, "config.json", revision=revision)
        except HFValidationError:
            return None
        path = Path(found) if isinstance(found, str) else None
    else:
        path = folder / "config.json"
    return peek_object(path) if path is not None else None


def is_static(reference: str) -> bool:
    """Whether a model on this machine is one vector per token, without a transformer (model2vec)."""
    try:
        folder = _local(reference)
        if folder is not None and is_model2vec(folder):
            return True
        entries = json.loads(regular(folder / "modules.json").read_bytes()) if folder is not None else []
        return any(str(entry["type"]).endswith(".StaticEmbedding") for entry in entries)
    except (ModelFileError, ConfigError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def states_pooling(reference: str) -> bool:
    """Whether a model on this machine is a SentenceTransformer folder; true where that is unknown."""
    try:
        folder = _local(reference)
    except (ModelFileError, ConfigError):
        return True
    if folder is None or has_checksums(folder):
        return True
    has_modules = is_file(folder / "modules.json", ModelFileError) or is_model2vec(folder)
    return has_modules or not is_file(folder / "config.json", ModelFileError)


def hidden_dim(config: dict[str, Any]) -> int | None:
    """Dimension of the token states that a model's `config.json` states."""
    for key in ("hidden_size", "dim", "d_model"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return None


def number_of_layers(config: dict[str, Any]) -> int | None:
    """How many layers a model's `config.json` states."""
    for key in ("num_hidden_layers", "n_layers", "num_layers"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return None


def token_positions(config: Mapping[str, Any]) -> int | None:
    """The longest input that a model's `config.json` allows; None where it sets no limit.

    RoBERTa and its relatives begin to count behind the padding's id: of 514 positions they use 512.
    """
    stated = config.get("max_position_embeddings")
    if not isinstance(stated, int):
        return None
    padding = config.get("pad_token_id")
    if config.get("model_type") in _COUNTS_FROM_PADDING:
        return stated - (padding if isinstance(padding, int) else 1) - 1
    return stated


def _local(reference: str) -> Path | None:
    """The folder that `reference` names, or None if it reads as a hub id."""
    if reference.startswith(PLUGIN):
        raise ModelFileError(Problem(where=f"model {reference!r}", what=_NO_SENTENCES))
    if reference.startswith(_PACKAGE):
        return _inside_package(reference)
    if not reference.strip():
        raise ModelFileError(Problem(where=f"model {reference!r}", what="expected a folder or a hub id"))
    path = expand(reference)
    if exists(path, ModelFileError):
        return path
    looks_like_path = reference.startswith((".", "/", "~", "$")) or reference.count("/") > 1
    if looks_like_path:
        hint = near_folder(reference)
        what = f"no such folder: {path.absolute()}" + (f"; {hint.strip()}" if hint else "")
        raise ModelFileError(Problem(where=f"model {reference!r}", what=what))
    return None


def _inside_package(reference: str) -> Path:
    name, _, inner = reference.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        what = f"the Python package {name!r} is not installed: pip install {name.replace('_', '-')}"
        raise ModelFileError(Problem(where=f"model {reference!r}", what=what))
    folder = Path(next(iter(spec.submodule_search_locations))) / inner
    if not is_dir(folder, ModelFileError):
        raise ModelFileError(Problem(where=f"model {reference!r}", what=f"the package has no folder {inner!r}"))
    return folder


def _checked(reference: str, folder: Path) -> Path:
    where = f"model {reference!r}"
    if exists(folder, ModelFileError) and not is_dir(folder, ModelFileError):
        raise ModelFileError(Problem(where=where, what=f"expected a model folder, {folder} is a file"))
    pointers = [path for name in _LARGE for path in sorted(folder.rglob(name)) if is_lfs_pointer(path)]
    if pointers:
        raise ModelFileError(
            [Problem(where=where, what=f"{path} is {LFS_ADVICE}") for path in dict.fromkeys(pointers)]
        )
    verify_model(folder)
    if not is_file(folder / "config.json", ModelFileError) and not is_file(folder / "modules.json", ModelFileError):
        what = (
            f"no config.json and no modules.json in {folder}; expected a Hugging Face or SentenceTransformer folder"
        )
        raise ModelFileError(Problem(where=where, what=what))
    require_regular_below(folder, ModelFileError)
    if not any(folder.rglob("*.safetensors")):
        what = f"no safetensors weights in {folder}; pickled .bin weights are not loaded: {CONVERT}"
        raise ModelFileError(Problem(where=where, what=what))
    return folder
