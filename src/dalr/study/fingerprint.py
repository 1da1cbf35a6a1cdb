"""What was a run's folder made from, so that it is used again exactly when the same run is wanted?

Beside each run's folder lies `LABEL.fingerprint.json`: the resolved recipe, the checksums of all that it reads, and
a key over both. It is written before training, so that an interrupted run is known too, and it states why a run
failed. The recipe's name and description are not part of the key; models of prepared runs count by their keys.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from dalr.errors import ConfigError, DalrError, Problem, StorageError
from dalr.io.atomic import storage_errors, write_json
from dalr.io.paths import exists, is_dir, is_file, regular
from dalr.io.records import parse_record
from dalr.io.sealed import MANIFEST, known_sha256
from dalr.io.shards import is_shards, shard_paths
from dalr.models.reference import find_model
from dalr.recipe.paths import expand
from dalr.recipe.schema import Recipe
from dalr.training.fingerprint import leaves

_PACKAGE = "package:"
_DEV_FILE = "STS/STSBenchmark/sts-dev.csv"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Failure(_Part):
    """Why a run has no model."""

    reason: str
    exit_code: int


class Fingerprint(_Part):
    """All that a run depends on."""

    key: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, str]
    """What is read -> checksum, or what stands for one."""
    failure: Failure | None = None


def make_fingerprint(recipe: Recipe, prepared: Mapping[str, str]) -> Fingerprint:
    """The fingerprint of a run; `prepared` maps paths of prepared models to their runs' keys."""
    tree = recipe.model_dump(mode="json", exclude={"name", "description"})
    text = json.dumps(tree, sort_keys=True)
    inputs = dict(_inputs(recipe, prepared))
    for number, (model, key) in enumerate(prepared.items()):
        text = text.replace(json.dumps(model), json.dumps(_prepared(number)))
        inputs[f"prepared {number}"] = key
    content = json.loads(text)
    key = hashlib.sha256(json.dumps([content, inputs], sort_keys=True).encode()).hexdigest()
    return Fingerprint(key=key, recipe=content, inputs=inputs)


def with_prepared_named(recipe: Mapping[str, Any], needs: Sequence[str]) -> Mapping[str, Any]:
    """A fingerprint's recipe with `${prepared:NAME}` for each prepared model, which the key numbers."""
    text = json.dumps(recipe)
    for number, name in enumerate(needs):
        text = text.replace(json.dumps(_prepared(number)), json.dumps(f"${{prepared:{name}}}"))
    named: Mapping[str, Any] = json.loads(text)
    return named


def _prepared(number: int) -> str:
    return f"prepared {number}"


def fingerprint_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.fingerprint.json")


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint of a run's folder; None where there is none that can be read."""
    try:
        return Fingerprint.model_validate(parse_record(regular(fingerprint_file(folder)).read_bytes()))
    except (OSError, ValueError):  # a number that is not finite, or a model that does not fit, is one too
        return None


def write_fingerprint(folder: Path, fingerprint: Fingerprint) -> None:
    write_json(fingerprint_file(folder), fingerprint.model_dump(mode="json"))


def differences(was: Fingerprint, now: Fingerprint) -> list[str]:
    """Keys and files that differ, in words."""
    before = {**dict(leaves(was.recipe)), **was.inputs}
    after = {**dict(leaves(now.recipe)), **now.inputs}
    return [
        f"{key}: was {_shown(before.get(key))}, now {_shown(after.get(key))}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def set_aside(folder: Path, why: str) -> Path:
    """Rename a run's folder, and its fingerprint with it, to the next free `NAME.WHY-N`."""
    number = 1
    while exists(aside := folder.with_name(f"{folder.name}.{why}-{number}"), StorageError):
        number += 1
    with storage_errors(folder):
        os.replace(folder, aside)
        if exists(fingerprint_file(folder), StorageError):
            os.replace(fingerprint_file(folder), fingerprint_file(aside))
    return aside


def _inputs(recipe: Recipe, prepared: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(what is read, its checksum) for every file and model that a recipe names."""
    data, features, validation = recipe.data, recipe.features, recipe.validation
    named: list[tuple[str, str | None]] = [
        ("data.pairs", data.pairs),
        ("data.text", data.text),
        ("features.image", features.image),
        ("features.image_ids", features.image_ids),
        ("features.clip_text", features.clip_text),
        ("features.clip_text_ids", features.clip_text_ids),
        *((f"teachers.{n}.features", teacher.features) for n, teacher in enumerate(recipe.teachers)),
    ]
    if validation is not None and validation.data is not None:
        tail = f"/{_DEV_FILE}" if validation.kind == "sts-b" else ""
        named.append(("validation.data", validation.data + tail))
    for key, value in named:
        if value is not None:
            yield f"content of {key}", _content(data.path(value))
    models = [("student.model", recipe.student.model)]
    models += [
        (f"teachers.{n}.model", each.model) for n, each in enumerate(recipe.teachers) if each.model is not None
    ]
    for key, model in models:
        if model not in prepared:
            yield f"content of {key}", _model_content(model)
    for name, sha256 in recipe.objective.sources().items():
        yield f"source of term {name}", sha256


def _model_content(reference: str) -> str:
    try:
        folder = find_model(reference) if reference.startswith(_PACKAGE) else expand(reference)
    except DalrError:
        return "missing"
    return _content(folder) if exists(folder) else "a hub model"


def _content(path: Path) -> str:
    """Checksum of a file, of a sealed folder by its manifest, or of all files of another folder."""
    if is_file(path / MANIFEST):
        path = path / MANIFEST
    if is_file(path):
        return known_sha256(path)
    if is_shards(path):
        found = [(shard.name, known_sha256(shard) if is_file(shard) else "missing") for shard in shard_paths(path)]
        return hashlib.sha256("".join(f"{name} {sha256}\n" for name, sha256 in found).encode()).hexdigest()
    if not is_dir(path):
        return "missing"
    files = sorted(each for each in path.rglob("*") if is_file(each))
    listed = "".join(f"{each.relative_to(path).as_posix()} {known_sha256(each)}\n" for each in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def refuse_other(folder: Path, was: Fingerprint, now: Fingerprint) -> ConfigError:
    """What a folder says that holds another run under the same name."""
    listed = "; ".join(differences(was, now)) or "its fingerprint"
    trial = folder.name.startswith("trial-")
    why = ", for example because another number of trials draws other settings" if trial else ""
    remedy = "choose another --out, or --set-aside to rename what differs and train again"
    what = f"holds another run{why} ({listed}); {remedy}"
    return ConfigError(Problem(where=str(folder), what=what))


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
