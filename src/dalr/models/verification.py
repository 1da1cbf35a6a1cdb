"""Are the files of a model those that were written? Compared wherever a model is opened.

A damaged weight still loads and scores a little lower, so sizes are not enough: every listed file is hashed, once
per process as long as its size and time stay (about 1 s for 1 GB on one core). Checksums stand in three places: in
`manifest.json` inside a model (an import, the product of a run), in that of a checkpoint whose `model/` is opened,
and in `run.json`, for the product's manifest and for the heads. Further files in a folder, such as a README, are
allowed. Models that others made have no checksums here, and neither have products of dalr before it wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalr.errors import CorruptFileError
from dalr.io.paths import exists, is_dir, is_file, regular
from dalr.io.records import parse_record
from dalr.io.sealed import MANIFEST, known_sha256, read_manifest, verify_sealed

CHECKPOINT, IMPORTED, PRODUCT = "dalr-checkpoint", "dalr-imported-model", "dalr-model"
VERSION = 1
"""Of all three formats."""
RECORD, IMPORT_RECORD, MODEL, HEADS = "run.json", "import.json", "model", "heads.safetensors"
CHECKSUMS = "sha256"
"""The key of `run.json` under which the checksums of a finished run's files stand."""
_REMEDY = (
    "restore the file, or take another checkpoint; if you changed the model yourself, copy its folder elsewhere "
    f"without {MANIFEST} and name the copy"
)
_OUR_KEYS = {"format", "version", "files", "metadata", "sha256"}
_STEP = re.compile(r"step-\d+")


def verify_model(folder: Path) -> None:
    """Compare the files of a model folder with what was written; a folder without checksums is left alone.

    Raises:
        CorruptFileError: naming the file, what was expected, and what was found.
    """
    if is_checkpoint(folder.parent) and folder.name == MODEL:
        _verify_folder(folder.parent, CHECKPOINT)
    manifest, record = folder / MANIFEST, folder.parent / RECORD
    name = f"{MODEL}/{MANIFEST}"
    if folder.name == MODEL and (is_file(manifest, CorruptFileError) or is_file(record, CorruptFileError)):
        try:
            stated = _stated(record)
        except CorruptFileError:
            if not is_file(manifest, CorruptFileError):
                raise  # else it verifies by itself, and who needs the record says what is wrong with it
        else:
            if name in stated:
                _compare(manifest, stated[name], record)
    if is_file(manifest, CorruptFileError) and _is_ours(manifest):
        _verify_folder(folder, IMPORTED if is_file(folder / IMPORT_RECORD, CorruptFileError) else PRODUCT)
    elif is_file(folder / IMPORT_RECORD, CorruptFileError):
        raise CorruptFileError(
            f"{manifest}: expected the checksums of this imported model, found no such file; {_REMEDY}"
        )


def verify_heads(path: Path) -> None:
    """Compare a file of trained heads with what its checkpoint or its run states.

    Raises:
        CorruptFileError: as `verify_model`.
    """
    if is_checkpoint(path.parent):
        _verify_folder(path.parent, CHECKPOINT, only=path.name)
    elif path.name in (stated := _stated(path.parent / RECORD)):
        _compare(path, stated[path.name], path.parent / RECORD)


def has_checksums(folder: Path) -> bool:
    """Whether the files of a model folder are known by their checksums, whatever their state."""
    beside = folder.name == MODEL and (is_checkpoint(folder.parent) or _states_product(folder.parent))
    manifest = folder / MANIFEST
    sealed = is_file(manifest, CorruptFileError) and _is_ours(manifest)
    return beside or sealed or is_file(folder / IMPORT_RECORD, CorruptFileError)


def is_product_manifest(path: Path) -> bool:
    """Whether this is the manifest of a run's product, which is no part of the model's content."""
    return path.name == MANIFEST and f'"format": "{PRODUCT}"'.encode() in regular(path).read_bytes()


def unverified(folder: Path) -> str | None:
    """A line on a run's product that has no checksums, because an earlier dalr wrote it; None for all others."""
    run = folder.parent
    of_run = folder.name == MODEL and is_file(run / RECORD, CorruptFileError)
    if not of_run or is_checkpoint(run) or has_checksums(folder):
        return None
    return f"note: {folder} was written without checksums, so damage to its files cannot be noticed"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a run: by its manifest, or by its place where that is gone."""
    named_so = folder.parent.name == "checkpoints" and _STEP.fullmatch(folder.name) is not None
    manifest = folder / MANIFEST
    if not is_file(manifest, CorruptFileError):
        return named_so and is_dir(folder, CorruptFileError)
    try:
        content = parse_record(regular(manifest).read_bytes())
    except (OSError, ValueError):
        content = None
    format = content.get("format") if isinstance(content, dict) else None
    return format == CHECKPOINT or named_so


def _verify_folder(folder: Path, format: str, *, only: str | None = None) -> None:
    manifest = read_manifest(folder, format=format, version=VERSION, remedy=_REMEDY)
    if only is not None and only not in manifest.files:
        raise CorruptFileError(f"{folder / only}: expected among the files of {folder / MANIFEST}; {_REMEDY}")
    verify_sealed(folder, manifest, remedy=_REMEDY, only=only, checksum=known_sha256)


def _stated(path: Path) -> Mapping[str, str]:
    """The checksums in a run's `run.json`; none where there is no such file or an earlier dalr wrote it."""
    if not is_file(path, CorruptFileError):
        return {}
    try:
        record: Any = parse_record(regular(path).read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: expected the record of a run with the checksums of its files, found {error}; {_REMEDY}"
        ) from None
    stated = record.get(CHECKSUMS, {}) if isinstance(record, dict) else None
    if not isinstance(stated, dict) or not all(isinstance(each, str) for each in stated.values()):
        raise CorruptFileError(f"{path}: expected file names and checksums under {CHECKSUMS}; {_REMEDY}")
    return stated


def _states_product(run: Path) -> bool:
    try:
        return f"{MODEL}/{MANIFEST}" in _stated(run / RECORD)
    except CorruptFileError:
        return False


def _compare(path: Path, expected: str, where: Path) -> None:
    if not exists(path, CorruptFileError):
        raise CorruptFileError(f"{path}: expected sha256 {expected[:12]}… ({where}), found no such file; {_REMEDY}")
    found = known_sha256(path)
    if found != expected:
        raise CorruptFileError(
            f"{path}: expected sha256 {expected[:12]}… ({where}), found {found[:12]}…; {_REMEDY}"
        )


def _is_ours(manifest: Path) -> bool:
    """Whether a `manifest.json` is one of dalr's, also when it is damaged; other programs use the name too."""
    try:
        content = parse_record(regular(manifest).read_bytes())
    except (OSError, ValueError):
        return True
    return isinstance(content, dict) and len(_OUR_KEYS & content.keys()) >= 4
