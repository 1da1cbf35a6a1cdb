"""What identifies a run? Recipe, data, arithmetic; it is resumed only with the same.

The recipe is compared key by key, with today's defaults for keys that it did not know; data by its content, since
a path says nothing about it. How many processes assemble batches and when checkpoints are written changes no
number, so these may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import chain
from typing import Any

from dalr.data.rows import sentences_sha256
from dalr.errors import Problem
from dalr.evaluation.graded import pairs_sha256
from dalr.features.store import FORMAT, VERSION, FeatureStore
from dalr.io.sealed import read_manifest
from dalr.models.loading import encoder_sha256
from dalr.recipe.schema import Recipe
from dalr.training.data import TrainingData

CHANGES_NO_NUMBER = frozenset({"name", "description", "training.workers", "training.save_every", "training.keep"})


def identity(recipe: Recipe, data: TrainingData) -> dict[str, str]:
    """Content of the data and models, versions and arithmetic of a run, by name."""
    from dalr.models.device import pick_device
    from dalr.training.precision import resolve_precision

    device = pick_device("auto")
    return dict(_content(recipe, data)) | {
        "dalr major version": metadata.version("dalr").partition(".")[0],
        "torch version": metadata.version("torch"),
        "device": device.type,
        "precision": resolve_precision(recipe.training.precision, device),
    }


def differences(
    earlier: Mapping[str, Any], now: Mapping[str, Any], *, ignored: frozenset[str] = CHANGES_NO_NUMBER
) -> list[Problem]:
    """Every key path whose value differs, old → new."""
    before, after = dict(leaves(earlier)), dict(leaves(now))
    paths = [path for path in dict.fromkeys([*before, *after]) if path not in ignored]
    return [
        Problem(where=path, what=f"{_shown(before, path)} → {_shown(after, path)}")
        for path in paths
        if before.get(path, ...) != after.get(path, ...)
    ]


def _content(recipe: Recipe, data: TrainingData) -> Iterator[tuple[str, str]]:
    for each in data.dataset.streams:
        yield ("captions" if each.kind == "pair" else "text"), sentences_sha256(chain(each.ids, each.sentences))
    held_out, scored = data.dataset.held_out, data.validation_pairs
    if held_out is not None:
        yield "held-out captions", sentences_sha256(chain(held_out.caption_ids, held_out.captions))
    if scored is not None:
        yield "validation pairs", pairs_sha256(scored)
    for name, vectors in (("image features", data.images), ("caption features", data.clip_text)):
        if vectors is not None:
            yield name, _store_sha256(vectors.store)
    yield "student", encoder_sha256(recipe.student)
    for number, (teacher, stored) in enumerate(zip(recipe.teachers, data.teacher_stores, strict=True), start=1):
        sha256 = encoder_sha256(teacher.encoder()) if stored is None else _store_sha256(stored)
        yield f"teacher {number}", sha256
    for name, sha256 in recipe.objective.sources().items():
        yield f"source of term {name}", sha256


def _store_sha256(store: FeatureStore) -> str:
    manifest = read_manifest(store.folder, format=FORMAT, version=VERSION, remedy="make it again")
    return hashlib.sha256(repr(sorted(manifest.files.items())).encode()).hexdigest()


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a tree of mappings and lists, by dotted path."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list | tuple) and tree:
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}.{number}")
    else:
        yield path, tree


def _shown(leaves: Mapping[str, Any], path: str) -> str:
    if path not in leaves:
        return "absent"
    value = leaves[path]
    return value[:12] + "…" if isinstance(value, str) and len(value) == 64 else str(value)
