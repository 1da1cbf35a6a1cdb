"""Is a model of ours still what was written? Its files are compared with what was sealed, wherever it is opened.

A model that dalr writes carries `manifest.json`, a checkpoint seals the model and its heads together, and the
record of a run has the checksum of its heads. Files that are in no manifest (a model card, a license) may lie
beside. Comparing reads every byte: 0.7 ms per MiB, once per process as long as size and time of a file stay.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

from dalr.errors import CorruptFileError
from dalr.io.json import loads_finite
from dalr.io.sealed import MANIFEST, known_sha256, read_manifest, seal

CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "dalr-checkpoint", 1
MODEL_FORMAT, IMPORTED_FORMAT, MODEL_VERSION = "dalr-model", "dalr-imported-model", 1
HEADS = "heads.safetensors"
_REMEDY = "restore it from a copy, or train again"


def seal_model(folder: Path) -> None:
    """Write down what the files of a model that was just written are."""
    seal(folder, format=MODEL_FORMAT, version=MODEL_VERSION, metadata={})


def verify_model(folder: Path) -> None:
    """Compare the files of a model with what was sealed; a model that dalr did not write is taken as it is.

    Raises:
        CorruptFileError: naming the file, with what was expected and found.
    """
    sealed = [format for format in (MODEL_FORMAT, IMPORTED_FORMAT) if _is_sealed(folder, format)]
    if sealed:
        _compare(folder, sealed[0], MODEL_VERSION)
    elif folder.name == "model" and _is_sealed(folder.parent, CHECKPOINT_FORMAT):
        _compare(folder.parent, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, inside="model/")
    elif folder.name == "model" and (folder.parent / "run.json").is_file():
        _note(f"{folder} has no {MANIFEST}, as older versions of dalr wrote it; its files are not verified")


def verify_heads(path: Path) -> None:
    """Compare a heads file with what its checkpoint or its run says.

    Raises:
        CorruptFileError: it differs.
    """
    folder = path.parent
    if _is_sealed(folder, CHECKPOINT_FORMAT):
        _compare(folder, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, inside=path.name)
        return
    stated = _stated_by_run(folder) if path.name == HEADS else None
    if stated is not None:
        if (found := _sha256(path)) != stated:
            what = f"expected sha256 {stated[:12]}…, as run.json says, found {found[:12]}…"
            raise CorruptFileError(f"{path}: {what}; {_REMEDY}")
    elif path.name == HEADS and (folder / "run.json").is_file():
        _note(f"run.json has no checksum of {path}, as older versions of dalr wrote it; the file is not verified")


def _stated_by_run(run: Path) -> str | None:
    try:
        record = loads_finite((run / "run.json").read_bytes())
        stated = record["result"]["heads_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return stated if isinstance(stated, str) else None


def _is_sealed(folder: Path, format: str) -> bool:
    """Whether a manifest lies there that is of this format, or that nobody can read any more."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    try:
        stated = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(stated, dict) and stated.get("format", format) == format


def _compare(folder: Path, format: str, version: int, *, inside: str = "") -> None:
    manifest = read_manifest(folder, format=format, version=version, remedy=_REMEDY)
    for name, (_, expected) in manifest.files.items():
        if name.startswith(inside) and (found := _sha256(folder / name)) != expected:
            what = f"expected sha256 {expected[:12]}…, as {MANIFEST} says, found {found[:12]}…"
            raise CorruptFileError(f"{folder / name}: {what}; {_REMEDY}")


def _sha256(path: Path) -> str:
    try:
        return known_sha256(path)
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from None


@cache
def _note(text: str) -> None:
    """Say it once per process."""
    sys.stderr.write(f"note: {text}\n")
