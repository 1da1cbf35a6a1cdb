"""Which modules does a SentenceTransformer folder list in its `modules.json`?

Only classes of sentence-transformers are loaded, and only from folders inside the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dalr.errors import ModelFileError, Problem
from dalr.io.paths import is_dir, is_file, regular

_WITHOUT_FILES = ("Normalize",)
"""Classes that save nothing; git keeps no empty folder of theirs."""


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One module: the last part of its class's name, and its folder."""

    kind: str
    folder: Path


def module_entries(folder: Path, where: str) -> list[ModuleEntry]:
    """The modules that `modules.json` names, in order; empty where there is no such file.

    Raises:
        ModelFileError: not a list of modules, code of others, or a folder that is outside or missing.
    """
    path = folder / "modules.json"
    if not is_file(path, ModelFileError):
        return []
    try:
        listed = [(str(entry["type"]), str(entry["path"])) for entry in json.loads(regular(path).read_bytes())]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(
            Problem(where=where, what=f"{path} is not a list of modules: {error!r:.120}")
        ) from None
    foreign = [name for name, _ in listed if not name.startswith("sentence_transformers.")]
    if foreign:
        what = f"{path} names code outside sentence-transformers, which is not run: {', '.join(foreign)}"
        raise ModelFileError(Problem(where=where, what=what))
    outside = [place for _, place in listed if not _is_inside(folder / place, folder)]
    if outside:
        what = f"{path} names folders outside of the model, which are not opened: {', '.join(map(repr, outside))}"
        raise ModelFileError(Problem(where=where, what=what))
    entries = [ModuleEntry(kind=name.rpartition(".")[2], folder=folder / place) for name, place in listed]
    missing = [
        each for each in entries if each.kind not in _WITHOUT_FILES and not is_dir(each.folder, ModelFileError)
    ]
    if missing:
        named = ", ".join(f"{each.folder.name}/ ({each.kind})" for each in missing)
        what = f"{path} names {named}, and there is no such folder in {folder}: copy the whole model folder"
        raise ModelFileError(Problem(where=where, what=what))
    unsettled = [
        each
        for each in entries
        if each.kind == "Pooling" and not is_file(each.folder / "config.json", ModelFileError)
    ]
    if unsettled:
        what = (
            f"expected the pooling's config.json in {unsettled[0].folder}, found none: copy the whole model folder"
        )
        raise ModelFileError(Problem(where=where, what=what))
    return entries


def module_folders(folder: Path, where: str) -> list[Path]:
    """The folders of the modules; the folder itself where there is no list, or an empty one.

    Raises:
        ModelFileError: as `module_entries`.
    """
    return [entry.folder for entry in module_entries(folder, where)] or [folder]


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        path.exists()  # some names fail here alone; a module without files has no folder
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that cannot be a path
        return False
