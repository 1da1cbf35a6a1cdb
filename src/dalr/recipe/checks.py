"""Do the sections of a recipe agree with each other?

Here is only what one section alone cannot know. The checks read no data and import no torch; embedding dimensions
come from manifests and `config.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dalr.data.config import DataConfig
from dalr.errors import DalrError, install
from dalr.features.source import features_dim, is_matrix
from dalr.io.paths import is_dir, is_file
from dalr.losses import Need
from dalr.losses.alignment import CrossModalAlignment
from dalr.losses.contrastive import Grounding, InfoNCE
from dalr.models.config import POOLINGS, EncoderConfig
from dalr.models.reference import (
    hidden_dim,
    is_static,
    number_of_layers,
    peek_config,
    states_pooling,
    token_positions,
)
from dalr.recipe.schema import Recipe
from dalr.training.reporting import missing_reporters

_WEIGHTS_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Sections that do not fit together; `path` is the key to look at first."""

    path: tuple[str | int, ...]
    what: str


def conflicts(recipe: Recipe) -> list[Conflict]:
    """Every impossible combination in a recipe."""
    return [
        *_path_conflicts(recipe),
        *_data_conflicts(recipe),
        *_group_conflicts(recipe),
        *_need_conflicts(recipe),
        *_teacher_conflicts(recipe),
        *_encoder_conflicts(recipe),
        *_dim_conflicts(recipe),
        *_validation_conflicts(recipe),
        *_package_conflicts(recipe),
    ]


def missing_models(recipe: Recipe) -> list[tuple[str, str | None]]:
    """Models of the recipe that are not on this machine, with the revisions that it names."""
    named = [(recipe.student.model, recipe.student.revision)]
    named += [(teacher.model, teacher.revision) for teacher in recipe.teachers if teacher.model is not None]
    return [(model, revision) for model, revision in dict.fromkeys(named) if peek_config(model, revision) is None]


def _path_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Environment variables that are not set."""
    named: dict[tuple[str | int, ...], str | None] = {
        ("data", "root"): recipe.data.root,
        ("data", "pairs"): recipe.data.pairs,
        ("data", "text"): recipe.data.text,
        ("data", "holdout", "file"): recipe.data.holdout.file if recipe.data.holdout else None,
        ("features", "image"): recipe.features.image,
        ("features", "image_ids"): recipe.features.image_ids,
        ("features", "clip_text"): recipe.features.clip_text,
        ("features", "clip_text_ids"): recipe.features.clip_text_ids,
        ("validation", "data"): recipe.validation.data if recipe.validation else None,
        ("student", "model"): recipe.student.model,
    }
    for number, teacher in enumerate(recipe.teachers):
        named |= {("teachers", number, "model"): teacher.model, ("teachers", number, "features"): teacher.features}
    for path, value in named.items():
        if value is not None:
            try:
                DataConfig().path(value)
            except DalrError as error:
                yield Conflict(path=path, what=str(error))


def _data_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    objective, data = recipe.objective, recipe.data
    if data.pairs is None and data.text is None:
        yield Conflict(path=("data",), what="neither pairs nor text: nothing to train on")
    if not any(True for _ in objective.active()):
        yield Conflict(path=("objective",), what="no term with a weight above 0")
    elif data.text is not None and not any(True for _ in objective.on("text")):
        what = "no term applies to text batches; add infonce, set on_text: true on a term, or remove data.text"
        yield Conflict(path=("objective",), what=what)
    if recipe.training.schedule.kind == "every_k" and (data.pairs is None or data.text is None):
        what = "every_k mixes text and pair batches, and the recipe has only one of data.pairs and data.text"
        yield Conflict(path=("training", "schedule", "kind"), what=what)


def _group_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Neighbours are found by vectors, which must be there."""
    groups = recipe.training.schedule.groups
    if groups is None:
        return
    path = ("training", "schedule", "groups")
    if groups.images is not None and (recipe.data.pairs is None or recipe.features.image is None):
        what = "images are close by their features, but data.pairs or features.image is not set"
        yield Conflict(path=(*path, "images"), what=what)
    if groups.text is None:
        return
    if recipe.data.text is None:
        yield Conflict(path=(*path, "text"), what="lines are to be grouped, but data.text is not set")
    elif Need.TEACHERS not in recipe.objective.needs("text"):
        what = (
            "lines are close by their teachers, but no term asks the teachers about text; set on_text: true on one"
        )
        yield Conflict(path=(*path, "text"), what=what)


def _need_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    features = recipe.features
    for key, ids, value in (
        ("image", features.image_ids, features.image),
        ("clip_text", features.clip_text_ids, features.clip_text),
    ):
        if value is not None and value.lower().endswith(".npy") and ids is None:
            yield Conflict(
                path=("features", key),
                what=f"a matrix needs features.{key}_ids, the file that names its rows",
            )
    for name, term in recipe.objective.active():
        path = ("objective", name)
        image_needs = term.needs & {Need.IMAGE, Need.CLIP_TEXT, Need.GROUNDING, Need.ALIGNERS}
        if image_needs and recipe.data.pairs is None:
            yield Conflict(path=path, what="the term works on image-caption pairs, but data.pairs is not set")
        if Need.IMAGE in term.needs and features.image is None:
            yield Conflict(path=path, what="the term needs image features, but features.image is not set")
        if Need.CLIP_TEXT in term.needs and features.clip_text is None:
            yield Conflict(path=path, what="the term needs CLIP text features, but features.clip_text is not set")
        gathers = isinstance(term, InfoNCE) and term.positives == "same_image"
        if gathers and not recipe.training.schedule.meets_images_again:
            what = (
                "no batch holds two captions of one image, so a sentence would have none but itself; add "
                "training.schedule.groups: {images: 4, captions: 2}"
            )
            yield Conflict(path=(*path, "positives"), what=what)
        mixes = isinstance(term, CrossModalAlignment) and term.soft_label_mix > 0
        if mixes and recipe.objective.term("consistency") is None:
            what = "soft labels need the consistency term, which trains the aligners; add it"
            yield Conflict(path=(*path, "soft_label_mix"), what=what)
        if term.needs & {Need.TEACHERS, Need.TEACHER_TOKENS} and not recipe.teachers:
            what = "the term learns from teachers, but the recipe has none; add `teachers:` with `- {model: NAME}`"
            yield Conflict(path=path, what=what)


def _teacher_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    total = sum(teacher.weight for teacher in recipe.teachers)
    if recipe.teachers and abs(total - 1) > _WEIGHTS_TOLERANCE:
        weights = " + ".join(f"{teacher.weight:g}" for teacher in recipe.teachers)
        yield Conflict(path=("teachers",), what=f"the weights must add up to 1, found {weights} = {total:g}")
    token_level = recipe.objective.term("global_to_local")
    for number, teacher in enumerate(recipe.teachers):
        if (teacher.model is None) == (teacher.features is None):
            yield Conflict(path=("teachers", number), what="expected either model or features")
        elif teacher.precision == "bf16" and (teacher.model is None or token_level is not None):
            what = "applies to vectors that a model computes once; leave it out with features or global_to_local"
            yield Conflict(path=("teachers", number, "precision"), what=what)
        elif token_level is not None and teacher.model is None:
            what = "global_to_local reads token states, so the teacher must be a model, not stored vectors"
            yield Conflict(path=("teachers", number), what=what)
        elif token_level is not None and teacher.control is not None:
            what = "global_to_local reads token states, which are not dealt out; leave the term or the control out"
            yield Conflict(path=("teachers", number, "control"), what=what)


def _encoder_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """What the encoders' own files say against the recipe, where they are on this machine."""
    positions = token_positions(peek_config(recipe.student.model, recipe.student.revision) or {})
    if positions is not None and recipe.data.max_tokens > positions:
        what = f"{recipe.data.max_tokens} tokens, but the student has {positions} positions"
        yield Conflict(path=("data", "max_tokens"), what=what)
    if "$" not in recipe.student.model and is_file(Path(recipe.student.model) / "run.json"):
        run = recipe.student.model
        what = f"a run folder; use its model: {run}/model, or dalr train … --init-from {run}"
        yield Conflict(path=("student", "model"), what=what)
    if is_static(recipe.student.model):
        what = (
            "a student is a transformer, and these are static embeddings: one vector per token, no layers to train"
        )
        yield Conflict(path=("student", "model"), what=what)
    encoders: list[tuple[tuple[str | int, ...], EncoderConfig]] = [(("student",), recipe.student)]
    encoders += [(("teachers", n), t.encoder()) for n, t in enumerate(recipe.teachers) if t.model is not None]
    for path, encoder in encoders:
        config = peek_config(encoder.model, encoder.revision) or {}
        depth = number_of_layers(config)
        if isinstance(depth, int) and encoder.num_layers is not None and encoder.num_layers > depth:
            what = f"{encoder.num_layers} layers are to be kept, but {encoder.model} has {depth}"
            yield Conflict(path=(*path, "num_layers"), what=what)
        yield from _freezing_conflicts(recipe, depth) if encoder is recipe.student else ()
        if encoder.pooling is None and not states_pooling(encoder.model):
            what = f"a plain encoder states no pooling; set pooling: {POOLINGS} (SimCSE and its relatives use cls)"
            yield Conflict(path=path, what=what)


def _freezing_conflicts(recipe: Recipe, depth: int | None) -> Iterator[Conflict]:
    frozen, kept = recipe.student.freeze_layers, recipe.student.num_layers or depth
    if frozen is not None and kept is not None and frozen > kept:
        what = f"{frozen} layers are to be frozen, but the student has {kept}"
        yield Conflict(path=("student", "freeze_layers"), what=what)
    elif frozen is not None and frozen == kept and recipe.student.freeze_embeddings:
        what = (
            f"all {kept} layers and the embeddings are to be frozen; leave a layer or the embeddings to be trained"
        )
        yield Conflict(path=("student", "freeze_layers"), what=what)


def _dim_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Terms that compare vectors of different encoders directly need equal dimensions."""
    student = _encoder_dim(recipe.student.model, recipe.student.revision)
    largest = max(recipe.training.matryoshka_dims, default=0)
    if student is not None and largest > student:
        what = f"{largest} exceeds the student's embedding dimension ({student})"
        yield Conflict(path=("training", "matryoshka_dims"), what=what)
    cross_modal = recipe.objective.term("cross_modal_alignment")
    if isinstance(cross_modal, CrossModalAlignment) and cross_modal.space == "raw":
        image = _stored_dim(recipe, recipe.features.image)
        if student is not None and image is not None and student != image:
            what = (
                f"space: raw compares sentence vectors with image features directly, but the student's dimension "
                f"is {student} and the image features' is {image}; use features of dimension {student}, or "
                "space: grounding"
            )
            yield Conflict(path=("objective", "cross_modal_alignment"), what=what)
    yield from _clip_space_conflicts(recipe)
    yield from _dual_encoder_conflicts(recipe)
    if recipe.objective.term("global_to_local") is None:
        return
    for number, teacher in enumerate(recipe.teachers):
        dim = _encoder_dim(teacher.model, teacher.revision) if teacher.model is not None else None
        if student is not None and dim is not None and student != dim:
            what = (
                f"global_to_local compares sentence vectors with token states, but the student's dimension is "
                f"{student} and this teacher's is {dim}"
            )
            yield Conflict(path=("teachers", number), what=what)


def _dual_encoder_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """What compares CLIP text with image features needs both from one dual encoder."""
    comparing: list[tuple[str, str, str]] = []
    grounding = recipe.objective.term("grounding")
    if isinstance(grounding, Grounding) and grounding.threshold_quantile is not None:
        comparing.append(("grounding", "threshold_quantile", "threshold_quantile"))
    cross_modal = recipe.objective.term("cross_modal_alignment")
    if isinstance(cross_modal, CrossModalAlignment) and cross_modal.target == "clip":
        comparing.append(("cross_modal_alignment", "target", "target: clip"))
    if not comparing:
        return
    image, text = _stored_dim(recipe, recipe.features.image), _stored_dim(recipe, recipe.features.clip_text)
    if image is None or text is None or image == text:
        return
    for term, key, said in comparing:
        what = f"{said} compares CLIP text with image features, but their dimensions are {text} and {image}"
        yield Conflict(path=("objective", term, key), what=what)


def _clip_space_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """In the space of the features themselves, the text head must lead to their dimension."""
    if not any(Need.CLIP_SPACE in term.needs for _, term in recipe.objective.active()):
        return
    found = {"image features": recipe.features.image}
    if any(Need.CLIP_TEXT_GROUNDING in term.needs for _, term in recipe.objective.active()):
        found["CLIP text features"] = recipe.features.clip_text
    for name, features in found.items():
        dim = _stored_dim(recipe, features)
        if dim is not None and dim != recipe.heads.grounding_dim:
            what = (
                f"grounding.space: clip trains sentences into the space of the {name}, which have {dim} "
                f"dimensions, found {recipe.heads.grounding_dim}; say heads.grounding_dim: {dim}"
            )
            yield Conflict(path=("heads", "grounding_dim"), what=what)


def _validation_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    validation = recipe.validation
    if validation is None:
        return
    if validation.kind in ("sts-b", "tsv") and validation.data is None:
        wanted = "a SentEval folder" if validation.kind == "sts-b" else "a file of score, sentence, sentence"
        yield Conflict(path=("validation",), what=f"kind {validation.kind} needs data: {wanted}")
    if validation.kind == "retrieval":
        if recipe.data.holdout is None or not recipe.data.holdout.may_validate:
            what = "retrieval needs images of its own: data.holdout with a validation_fraction, or last: 2 or more"
            yield Conflict(path=("validation", "kind"), what=what)
        if not any(Need.GROUNDING in term.needs for _, term in recipe.objective.active()):
            what = "retrieval is measured in the grounding space, but no term trains grounding heads"
            yield Conflict(path=("validation", "kind"), what=what)


def _package_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Optional packages that the recipe needs."""
    for what in missing_reporters(recipe.training.report_to):
        yield Conflict(path=("training", "report_to"), what=what)
    if recipe.student.lora is not None and find_spec("peft") is None:
        what = f"lora needs peft, which is not installed; {install('lora')}"
        yield Conflict(path=("student", "lora"), what=what)


def _encoder_dim(model: str, revision: str | None) -> int | None:
    config = peek_config(model, revision)
    return hidden_dim(config) if config is not None else None


def _stored_dim(recipe: Recipe, features: str | None) -> int | None:
    if features is None:
        return None
    try:
        path = recipe.data.path(features)
        if is_matrix(path) or is_dir(path):
            return features_dim(path)
    except DalrError:
        pass  # what is wrong with the features is reported with the data
    return None
