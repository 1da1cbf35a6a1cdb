"""What did each of several processes take the input for? Only parts of equal inputs are joined."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dalr.errors import ConfigError, DataError, Problem
from dalr.io.atomic import storage_errors
from dalr.io.paths import entries, regular
from dalr.io.sealed import read_manifest, verify_sealed, write_sealed
from dalr.io.share import Share

_FORMAT, _VERSION = "dalr-features-plan", 1
_NAME = re.compile(r"plan-(\d+)-of-(\d+)\Z")
_IDS, _PLACES, _STAMPS = "ids.jsonl", "places.bin", "stamps.txt"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of a store, and the parts that they are computed in."""

    ids: tuple[str, ...]
    places: tuple[int, ...]
    """For each row its number among the distinct ones."""
    stamps: tuple[str, ...]
    """Of each part; changes when its content does."""
    of: int
    """How many processes share the parts, for messages."""


def is_plan(path: Path) -> bool:
    """Whether one of several processes left this in the folder of the parts."""
    return _NAME.match(path.name) is not None


def keep_plan(
    work: Path, share: Share, *, ids: Sequence[str], places: Sequence[int], stamps: Sequence[str]
) -> None:
    """Seal in the folder of the parts what this process took the input for."""

    def fill(folder: Path) -> None:
        lines = "".join(json.dumps(name, ensure_ascii=False) + "\n" for name in ids)
        (folder / _IDS).write_bytes(lines.encode("utf-8"))
        (folder / _PLACES).write_bytes(np.asarray(places, "<i8").tobytes())
        (folder / _STAMPS).write_text("".join(f"{stamp}\n" for stamp in stamps))

    folder = work / f"plan-{share.number + 1}-of-{share.of}"
    write_sealed(folder, format=_FORMAT, version=_VERSION, metadata={"rows": len(ids)}, fill=fill)


def forget_other_plans(work: Path, of: int) -> None:
    """Remove what others than these `of` processes, which have looked at all of the input, took it for."""
    for folder in entries(work):
        if (match := _NAME.match(folder.name)) is not None and int(match[2]) != of:
            with storage_errors(folder):
                shutil.rmtree(folder)


def common_plan(work: Path) -> Plan:
    """What all of them took it for.

    Raises:
        ConfigError: none of them has come to its end.
        DataError: they saw different inputs. CorruptFileError: one is damaged.
    """
    plans: dict[str, Plan] = {}
    first: dict[str, str] = {}
    for folder in entries(work):
        match = _NAME.match(folder.name)
        if match is None:
            continue
        remedy = f"run --part {match[1]}/{match[2]} again with --resume"
        manifest = read_manifest(folder, format=_FORMAT, version=_VERSION, remedy=remedy)
        verify_sealed(folder, manifest, remedy=remedy)
        digest = json.dumps(sorted((name, sha256) for name, (_, sha256) in manifest.files.items()))
        first.setdefault(digest, folder.name)
        plans[digest] = _read_plan(folder, int(match[2]))
    if not plans:
        what = f"no part has come to its end in {work}; run each --part i/n again with --resume"
        raise ConfigError(Problem(where=f"merge {work.parent}", what=what))
    if len(plans) > 1:
        named = " and ".join(sorted(first.values())[:2])
        what = (
            f"{named} were made of different inputs (ids, sentences or image files with other times); run them on "
            "the same files (rsync -a keeps times)"
        )
        raise DataError(Problem(where=f"merge {work.parent}", what=what))
    return next(iter(plans.values()))


def _read_plan(folder: Path, of: int) -> Plan:
    ids = tuple(json.loads(line) for line in regular(folder / _IDS).read_bytes().decode("utf-8").split("\n")[:-1])
    places = np.frombuffer(regular(folder / _PLACES).read_bytes(), "<i8")
    stamps = tuple(regular(folder / _STAMPS).read_bytes().decode().split())
    return Plan(ids=ids, places=tuple(places.tolist()), stamps=stamps, of=of)
