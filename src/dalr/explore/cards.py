"""How do answers and mistakes look? HTML with thumbnails inside it, for any page; every text is escaped.

Images travel inside the HTML, so that the server opens no file for a browser but those that an answer names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dalr.evaluation.sts import ScoredPairs
from dalr.explore.mistakes import HeldOut, Misjudged, Mistakes
from dalr.explore.models import Model
from dalr.explore.queries import Answer, ImageAnswers
from dalr.features.decoding import ImageRefusedError, read_image
from dalr.features.thumbnails import data_uri, not_below, require_folder, thumbnail
from dalr.inference.collection import Collection
from dalr.io.paths import resolve

_KEPT = 2_000
"""Thumbnails kept in memory, of about 15 kB each."""

Thumbnail = Callable[[str], str | None]
"""The image of a name, as a `src`; None where no usable file is found."""


def thumbnails(images: Path | None) -> Thumbnail:
    """Thumbnails of the files below a folder; without a folder there are none.

    Raises:
        DataError: no such folder.
    """
    if images is None:
        return lambda name: None
    require_folder(images)
    root = resolve(images)
    return lru_cache(maxsize=_KEPT)(lambda name: thumbnail(root, name))


def count_files(collection: Collection, images: Path) -> int:
    """How many images of a collection have a file below a folder; those are not opened."""
    return len(collection.images) - len(not_below(images, collection.images))


def heading(models: Sequence[Model], files: int | None) -> str:
    """What is explored, in a line."""
    collection = models[0].searcher.collection
    made = _parts().heading(
        names=[model.name for model in models],
        images=len(collection.images),
        captions=len(collection.pairs.captions),
        files=files,
    )
    return str(made)


def answers(found: Sequence[Answer], image_of: Thumbnail) -> str:
    """Images and captions, a column per model."""
    return str(_parts().answers(found, image_of))


def image_answers(found: ImageAnswers, image_of: Thumbnail, path: Path | None = None) -> str:
    """The same, below the image that was asked about; `path` is its file where it is none of the collection."""
    query = image_of(found.known) if found.known is not None else None
    if query is None and path is not None:
        query = _of_file(path)
    return str(_parts().query(found, query)) + answers(found.answers, image_of)


def mistakes(found: Sequence[Mistakes], about: HeldOut, image_of: Thumbnail) -> str:
    """Captions that find another image first, a column per model."""
    return str(_parts().mistakes(found, about, image_of))


def misjudged(found: Sequence[Misjudged], pairs: ScoredPairs | None) -> str:
    """Graded pairs out of place, a column per model."""
    return str(_parts().misjudged(found, pairs, _place))


def message(text: str) -> str:
    """A line in place of answers."""
    return str(_parts().message(text))


def _of_file(path: Path) -> str | None:
    try:
        return data_uri(read_image(path))
    except ImageRefusedError:
        return None


def _place(error: float) -> str:
    """A rank error in words."""
    return f"ranked {100 * abs(error):.0f} % of the list too {'high' if error > 0 else 'low'}"


@cache
def style() -> str:
    """The style sheet of all this."""
    return _file("style.css")


@cache
def _parts() -> Any:
    """The macros of the template."""
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True).from_string(_file("cards.html.j2")).module


def _file(name: str) -> str:
    return (resources.files("dalr.explore") / name).read_text(encoding="utf-8")
