"""How is a sentence or an image answered? By every model, with images and with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dalr.errors import DataError, Problem
from dalr.explore.models import Model
from dalr.inference.searcher import Hit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one model finds."""

    model: str
    images: tuple[Hit, ...]
    captions: tuple[Hit, ...]


@dataclass(frozen=True, kw_only=True)
class ImageAnswers:
    """What an image finds, and which image that was."""

    answers: tuple[Answer, ...]
    known: str | None
    """Its key, where it is one of the collection, whose stored vector was taken; None where it was encoded now."""
    captions: tuple[str, ...] = ()
    """Its captions, where it is known."""


def by_sentence(models: Sequence[Model], sentence: str, *, k: int) -> tuple[Answer, ...]:
    """Raises ConfigError where the sentence is empty."""
    return tuple(
        Answer(
            model=model.name,
            images=tuple(model.searcher.search(sentence, k=k)),
            captions=tuple(model.searcher.search(sentence, k=k, within="captions")),
        )
        for model in models
    )


def by_key(models: Sequence[Model], key: str, *, k: int) -> ImageAnswers:
    """The images and captions like an image of the collection, which is never looked for among files.

    Raises:
        DataError: no image of the collection.
    """
    known = models[0].searcher.key_of(key)
    if known is None:
        count = len(models[0].searcher.collection.images)
        raise DataError(Problem(where="image", what=f"{key!r:.80} is none of the {count} images of the collection"))
    return _by_image(models, known, known, k, None)


def by_file(models: Sequence[Model], path: Path, *, k: int, vision: str | None = None) -> ImageAnswers:
    """The same for an image file. One that is named as an image of the collection is taken to be that image.

    Raises:
        ConfigError: the model that made the image vectors is not known, or `vision` is another one.
        DataError: no usable image.
    """
    return _by_image(models, str(path), models[0].searcher.key_of(str(path)), k, vision)


def _by_image(models: Sequence[Model], image: str, known: str | None, k: int, vision: str | None) -> ImageAnswers:
    answers = tuple(
        Answer(
            model=model.name,
            images=tuple(model.searcher.search_image(image, k=k, vision=vision)),
            captions=tuple(model.searcher.search_image(image, k=k, within="captions", vision=vision)),
        )
        for model in models
    )
    collection = models[0].searcher.collection
    owned = collection.captions_of[collection.images.index(known)] if known in collection.images else []
    return ImageAnswers(answers=answers, known=known, captions=tuple(owned))
