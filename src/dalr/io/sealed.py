"""Is a folder complete and intact? Without a valid manifest it does not exist for us.

Feature stores, token streams and checkpoints are folders of several files that make sense only together. They
are filled under a temporary name, `manifest.json` (format, version, size and sha256 of every file, free
metadata) is written last, and the folder then gets its name in one rename. Sizes are compared at every opening,
sha256 on demand: a 400 MiB checkpoint costs about 0.6 s, which training pays once and a look-up should not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from dalr.errors import CorruptFileError, StorageError
from dalr.io.atomic import (
    apply_umask,
    behind_link,
    discard,
    hidden_beside,
    make_folders,
    put_in_place,
    storage_errors,
    sync_file,
    sync_folder,
    write_json,
)
from dalr.io.claim import require_ours
from dalr.io.paths import entries, is_dir, is_file, refusal, regular
from dalr.io.records import parse_record

MANIFEST = "manifest.json"


class NewerFormatError(CorruptFileError):
    """An intact folder, written by a later version of dalr."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sealed folder says of itself."""

    format: str
    version: int
    files: Mapping[str, tuple[int, str]]
    """Relative name -> (bytes, sha256)."""
    metadata: Mapping[str, Any]


def write_sealed(
    folder: Path,
    *,
    format: str,
    version: int,
    metadata: Mapping[str, Any],
    fill: Callable[[Path], None],
    work: str | None = None,
) -> Manifest:
    """Let `fill` write files into a temporary folder, seal it, and give it the name `folder`.

    `work` names a folder inside `folder` where unfinished work lies: what was made of it is then moved in file by
    file, the manifest last, and only after that is the work deleted, in one step. A kill at any moment leaves one
    of the two.

    Raises:
        StorageError: `folder` exists and is not one of ours of the same format, or the disk refuses.
    """
    refuse_foreign(folder, format, work)
    folder = behind_link(folder)
    name = hidden_beside(folder, "tmp").name
    temporary = folder.with_name(name) if work is None else folder / work / name
    with storage_errors(folder):
        make_folders(temporary.parent)
        temporary.mkdir()
        try:
            with storage_errors(folder):  # said while what takes the space is still there
                fill(temporary)
                manifest = _seal(temporary, format=format, version=version, metadata=metadata)
            if work is None:
                put_in_place(temporary, folder)
            else:
                _move_into(temporary, folder, work)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return manifest


def read_manifest(folder: Path, *, format: str, version: int, remedy: str) -> Manifest:
    """The manifest of a sealed folder whose files all have their stated sizes.

    Raises:
        CorruptFileError: no manifest, another format, a newer version, a file absent or of another size.
    """
    path = folder / MANIFEST
    try:
        raw = parse_record(regular(path).read_bytes())
        content = {key: raw[key] for key in ("format", "version", "metadata", "files")}
        sealed_as = raw["sha256"]
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in raw["files"].items()}
        manifest = Manifest(
            format=str(raw["format"]), version=int(raw["version"]), files=files, metadata=dict(raw["metadata"])
        )
    except FileNotFoundError:
        raise CorruptFileError(
            f"{folder}: no {MANIFEST}, so this is not a finished {format} folder; {remedy}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not a manifest ({error!r:.120}); {remedy}") from None
    if manifest.format != format:
        raise CorruptFileError(f"{folder}: expected a {format} folder, found {manifest.format}; {remedy}")
    if manifest.version > version:
        raise NewerFormatError(
            f"{folder}: {format} version {manifest.version}, but this dalr reads up to {version}; update dalr"
        )
    if (found_as := _content_sha256(content)) != sealed_as:
        raise CorruptFileError(
            f"{path}: its content differs from what was sealed (expected sha256 {sealed_as!s:.12}…, "
            f"found {found_as[:12]}…); {remedy}"
        )
    for name, (size, _) in manifest.files.items():
        if not is_inside(name):
            raise CorruptFileError(f"{path}: {name!r:.80} is not the name of a file in this folder; {remedy}")
        file = folder / name
        found = _size(file)
        if found != size:
            raise CorruptFileError(
                f"{file}: expected {size} bytes, found {'none' if found is None else found}; {remedy}"
            )
    return manifest


@contextmanager
def well_formed(folder: Path, *, remedy: str) -> Iterator[None]:
    """What a manifest says is read inside: where it is not what dalr writes, the folder is not one of ours.

    A manifest is sealed against accidents and not against people, so its content is data like any other.

    Raises:
        CorruptFileError: instead of what a wrong key, type or number raises.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, EOFError) as error:
        raise CorruptFileError(
            f"{folder}: {MANIFEST} and files do not fit together ({error!r:.120}); {remedy}"
        ) from None


def verify_sealed(
    folder: Path,
    manifest: Manifest,
    *,
    remedy: str,
    only: str | None = None,
    checksum: Callable[[Path], str] | None = None,
) -> None:
    """Compare the sha256 of every file (or of `only` one) with the manifest; `known_sha256` reads files once."""
    for name, (_, expected) in manifest.files.items():
        if only not in (None, name):
            continue
        try:
            found = (checksum or file_sha256)(folder / name)
        except OSError as error:
            raise CorruptFileError(f"{folder / name}: cannot be read ({error.strerror}); {remedy}") from None
        if found != expected:
            raise CorruptFileError(
                f"{folder / name}: its content differs from the sealed sha256 (expected {expected[:12]}…, "
                f"found {found[:12]}…); {remedy}"
            )


def remove_sealed(folder: Path) -> None:
    """Take a sealed folder away, its name first: no kill leaves half of it under that name."""
    retired = hidden_beside(folder, "old")
    with storage_errors(folder):
        os.replace(folder, retired)
    shutil.rmtree(retired, ignore_errors=True)


def sweep(folder: Path, *names: str) -> None:
    """Delete what a killed process left half-written or half-removed of things whose names start with `names`."""
    hidden = tuple(f".{name}" for name in names)
    for path in entries(folder, StorageError):
        if path.name.startswith(hidden) and path.suffix in (".tmp", ".old"):
            discard(path)


def file_sha256(path: Path) -> str:
    with open(regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """The checksum of a file, read once as long as its size and its time stay.

    Raises:
        CorruptFileError: it cannot be read.
    """
    try:
        status = os.stat(regular(path))
        return _as_it_was(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except OSError as error:
        raise refusal(path, error, CorruptFileError) from None


@cache
def _as_it_was(path: Path, *_: int) -> str:
    return file_sha256(path)


def _seal(folder: Path, *, format: str, version: int, metadata: Mapping[str, Any]) -> Manifest:
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(path for path in folder.rglob("*") if is_file(path, StorageError)):
        apply_umask(path)
        sync_file(path)
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, file_sha256(path))
    for path in sorted(path for path in folder.rglob("*") if is_dir(path, StorageError)):
        sync_folder(path)
    entries = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
    content = {"format": format, "version": version, "metadata": dict(metadata), "files": entries}
    write_json(folder / MANIFEST, content | {"sha256": _content_sha256(content)})
    return Manifest(format=format, version=version, files=files, metadata=metadata)


def _move_into(temporary: Path, folder: Path, work: str) -> None:
    """Move the files of `temporary` into `folder`: an old manifest goes first, the new one comes last."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
        sync_folder(folder)  # what is there so far is durable before the next, and before the manifest above all
        os.replace(path, folder / path.name)
    sync_folder(folder)
    retired = hidden_beside(folder, "old")  # a kill must not leave half of the work, which would look unfinished
    with suppress(OSError):
        os.replace(folder / work, retired)
    shutil.rmtree(retired, ignore_errors=True)
    shutil.rmtree(folder / work, ignore_errors=True)


def _content_sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_inside(name: str) -> bool:
    """Whether a name in a manifest stays below its folder; the names of `_seal` do."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name == str(path) != "."


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name that cannot be a file's
        return None


def refuse_foreign(folder: Path, format: str, work: str | None = None) -> None:
    """Refuse to write over a folder that is neither empty, nor sealed in this format, nor holds `work` of ours.

    Raises:
        StorageError: naming the folder.
    """

    def ours() -> bool:
        if is_file(folder / MANIFEST, StorageError):
            with suppress(OSError, ValueError, AttributeError, RecursionError):
                return bool(json.loads(regular(folder / MANIFEST).read_bytes()).get("format") == format)
        return work is not None and is_dir(folder / work, StorageError)

    require_ours(folder, f"a {format} folder", ours=ours)
