"""The model card that every run leaves in `model/README.md`: what it is, how it was made, what it scores.

Written by us, because the library's cards publish training rows. It holds no sentence of the data and no path of
the machine: models given as folders are named by their last part, data by its counts. The card is no part of the
sealed files, so that an evaluation can add its scores; one without its last line is somebody's own and left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dalr.errors import DalrError, ModelFileError
from dalr.evaluation.results import (
    RUN_RESULT,
    Evaluation,
    RetrievalResult,
    StsResult,
    TaskResult,
    TransferResult,
    read_results,
)
from dalr.evaluation.runs import recipe_of_run, run_record
from dalr.io.atomic import write_text
from dalr.io.paths import is_dir, is_file, regular
from dalr.models.reference import require_if_local
from dalr.models.verification import MODEL
from dalr.recipe.schema import Recipe

CARD = "README.md"
LAST_LINE = "<!-- Written by dalr, and again when the run is evaluated; without this line it is left alone. -->"
_PATHS = {"root", "pairs", "text", "image", "image_ids", "clip_text", "clip_text_ids", "data", "features"}
"""Keys of a recipe whose values are paths."""
_PACKAGE = "package:"
_STATED = 64 * 1024
"""Bytes of another model's card that are looked at."""


def write_card(run: Path) -> None:
    """Write the card of a finished run; somebody's own card is left as it is.

    Raises:
        DataError: `run.json` cannot be read.
        StorageError: the card cannot be written.
    """
    model = run / MODEL
    if not is_dir(model, ModelFileError) or not _is_ours(model / CARD):
        return
    write_text(model / CARD, card_text(run))


def card_text(run: Path) -> str:
    """The card, from the run's record and from the scores that an evaluation kept."""
    recipe, record = recipe_of_run(run), run_record(run)
    parts = [
        _front_matter(recipe),
        f"# {recipe.name}\n\n{_what(recipe, record)}",
        _USE.format(name=recipe.name),
        f"## Scores\n\n{_scores(recipe, record, _evaluated(run))}",
        f"## How it was trained\n\n{_training(recipe, record)}",
        f"## Licence\n\n{_licence(recipe)}",
    ]
    return "\n\n".join(parts) + f"\n\n{LAST_LINE}\n"


_USE = """## Use

```python
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("{name}")  # this folder, or the name of its repository
vectors = model.encode(["a dog jumps into the sea", "a cat sleeps"])
```"""


def _front_matter(recipe: Recipe) -> str:
    """What a hub reads: how the model is loaded, and for what."""
    known: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "dalr"],
    }
    if _is_hub_id(recipe.student.model):
        known["base_model"] = recipe.student.model
    return f"---\n{yaml.safe_dump(known, sort_keys=False).strip()}\n---"


def _what(recipe: Recipe, record: Mapping[str, Any]) -> str:
    space = record.get("space")
    lines = [
        f"A sentence encoder, trained by dalr {_version(record)} from "
        f"{_data_of(recipe)}. It starts from {named(recipe.student.model)}."
    ]
    if recipe.description:
        lines.append(recipe.description)
    if isinstance(space, dict):
        where = "CLIP's own space" if space.get("name") == "clip" else "a space of sentences and images"
        lines.append(
            f"Heads that lead into {where} ({space.get('dimension')} dimensions) were trained with it; they are "
            "not in this folder."
        )
    return "\n\n".join(lines)


def _data_of(recipe: Recipe) -> str:
    given = {"image-caption pairs": recipe.data.pairs, "plain text": recipe.data.text}
    kinds = [kind for kind, path in given.items() if path is not None]
    return " and ".join(kinds) or "the data of a program"


def _scores(recipe: Recipe, record: Mapping[str, Any], evaluated: Evaluation | None) -> str:
    """Validation scores of the training, and test scores only where they were measured."""
    outcome = record.get("result", {})
    lines = []
    if outcome.get("best_score") is not None:
        name = outcome.get("validation") or "validation"
        before = outcome.get("untrained_score")
        start = f" (before training {before:.2f})" if before is not None else ""
        lines.append(
            f"Validation, by which the weights were chosen: {name} {outcome['best_score']:.2f}{start}, at step "
            f"{outcome['best_step']} of {outcome['steps']}. It is no test score."
        )
    if evaluated is None or not evaluated.tasks:
        return "\n\n".join([*lines, "It has not been evaluated on a test set."])
    rows = [row for name, result in evaluated.tasks.items() for row in _rows(name, result)]
    table = ["| task | split | score | protocol |", "|---|---|---:|---|", *rows]
    averages = [("STS average", evaluated.sts_avg), ("transfer average", evaluated.transfer_avg)]
    said = [f"{name} {value:.2f}." for name, value in averages if value is not None]
    return "\n\n".join([*lines, "\n".join(table), *([" ".join(said)] if said else [])])


def _rows(name: str, result: TaskResult) -> Iterator[str]:
    """Lines of the table; other kinds of tasks have no one score."""
    if isinstance(result, StsResult):
        yield f"| {name} | {result.split} | {result.spearman:.2f} | Spearman x 100, subsets {result.aggregation} |"
        if (left := result.without_overlap) is not None:
            out = left.left_out_exact + left.left_out_near
            how = f"the same without {out} of {result.pairs} pairs that hold a training sentence"
            yield f"| {name} | {result.split} | {left.spearman:.2f} | {how} |"
    elif isinstance(result, TransferResult):
        yield f"| {name} | {result.split} | {result.acc:.2f} | accuracy in %, classifier {result.classifier} |"
    elif isinstance(result, RetrievalResult):
        size = f"{result.captions} captions, {result.images} images, space {result.space}"
        yield f"| {name}, text to image | own | {result.text_to_image.r1:.2f} | R@1 in %, {size} |"
        yield f"| {name}, image to text | own | {result.image_to_text.r1:.2f} | R@1 in %, {size} |"


def _training(recipe: Recipe, record: Mapping[str, Any]) -> str:
    counts = {name: value for name, value in record.get("data", {}).items() if isinstance(value, int)}
    shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
    parts = [f"Seed {recipe.seed}; {record.get('result', {}).get('steps')} steps. Data: {shown}."]
    parts += [_teacher(number, teacher.model, teacher.weight) for number, teacher in enumerate(recipe.teachers, 1)]
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    parts.append(f"Versions: {versions}.")
    parts.append(f"```yaml\n{yaml.safe_dump(public_recipe(recipe), sort_keys=False, allow_unicode=True)}```")
    return "\n\n".join(parts)


def _teacher(number: int, model: str | None, weight: float) -> str:
    who = named(model) if model is not None else "stored vectors"
    told = (stated_by(model, "datasets") if model is not None else None) or "its folder does not say"
    return f"Teacher {number}: {who}, weight {weight:g}. What it was trained on: {told}."


def _licence(recipe: Recipe) -> str:
    stated = stated_by(recipe.student.model, "license")
    base = f"states {stated}" if stated else "states none in its folder"
    return (
        f"The weights come from {named(recipe.student.model)}, which {base}; its terms apply, and so do those of "
        "the training data and of the teachers. Whoever publishes the model adds a licence here."
    )


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without paths: models by name, data and stores left out."""
    return _without_paths(recipe.model_dump(mode="json"))


def _without_paths(tree: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            kept[key] = _without_paths(value)
        elif isinstance(value, list):
            kept[key] = [_without_paths(each) if isinstance(each, dict) else each for each in value]
        elif key == "model" and isinstance(value, str):
            kept[key] = named(value)
        elif value is not None and key not in _PATHS:
            kept[key] = value
    return kept


def named(reference: str) -> str:
    """A model as others may read of it: a folder by its last part, or the run that it is of."""
    if reference.startswith(_PACKAGE) or _is_hub_id(reference):
        return reference
    path = Path(reference)
    return path.parent.name if path.name == MODEL and path.parent.name else path.name


def _is_hub_id(reference: str) -> bool:
    local = reference.startswith((".", "/", "~", "$", _PACKAGE)) or reference.count("/") > 1
    if local:
        return False
    try:
        return require_if_local(reference) is None
    except DalrError:
        return False


def stated_by(reference: str, key: str) -> str | None:
    """What the card of a model on this machine states under `key` of its front matter."""
    try:
        folder = require_if_local(reference)
        if folder is None:
            return None
        with open(regular(folder / CARD), encoding="utf-8") as file:
            text = file.read(_STATED)
        stated = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (DalrError, OSError, ValueError, IndexError, yaml.YAMLError, RecursionError):
        return None
    value = stated.get(key) if isinstance(stated, dict) else None
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _evaluated(run: Path) -> Evaluation | None:
    path = run / RUN_RESULT
    try:
        found = read_results(path)[0][0] if is_file(path, ModelFileError) else None
    except (DalrError, IndexError):
        return None  # what is wrong with it is said where it is read for itself
    if found is None:
        return None
    changed = {found.settings.pooling, found.settings.num_layers, found.settings.prompt} - {None}
    changed |= {found.settings.precision} - {"fp32"}
    return None if changed else found


def _is_ours(card: Path) -> bool:
    """Whether there is no card, or one of ours."""
    if not is_file(card, ModelFileError):
        return True
    try:
        return LAST_LINE in regular(card).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _version(record: Mapping[str, Any]) -> str:
    return str(record.get("versions", {}).get("dalr", ""))
