"""How are formats that are one JSON value read? Karpathy's splits, and COCO's caption files."""

from __future__ import annotations

from collections.abc import Iterator

from dalr.data.formats.collecting import Collector, Source
from dalr.errors import shown


def read_karpathy(source: Source, into: Collector) -> None:
    """`{"images": [{"filename", "split", "sentences": [{"raw"}]}]}`; COCO's images are `filepath/filename`."""
    for where, image in _objects(source, into, "images"):
        name, folder, split = image.get("filename"), image.get("filepath"), image.get("split")
        sentences = image.get("sentences")
        if not isinstance(name, str) or not name.strip():
            into.problem(where, f"expected a string under 'filename', found {shown(name)}")
        elif not isinstance(folder, str | None):
            into.problem(where, f"expected a string under 'filepath', found {shown(folder)}")
        elif not isinstance(split, str) or not split.strip():
            into.problem(where, f"expected a string under 'split', found {shown(split)}")
        elif not isinstance(sentences, list) or not all(isinstance(one, dict) for one in sentences):
            into.problem(where, f"expected a list of objects under 'sentences', found {shown(sentences)}")
        else:
            key = f"{folder}/{name}" if folder else name
            into.image(key, [sentence.get("raw") for sentence in sentences], where, split, key="sentences[].raw")


def is_karpathy(source: Source) -> bool:
    images = source.tree.get("images") if isinstance(source.tree, dict) else None
    first = images[0] if isinstance(images, list) and images else None
    return isinstance(first, dict) and "sentences" in first


def read_coco(source: Source, into: Collector) -> None:
    """`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`, as captions_*.json has it.

    An image's captions stand in the order of `annotations`.
    """
    found: dict[int, tuple[str, str, list[object]]] = {}
    for where, image in _objects(source, into, "images"):
        number, name = image.get("id"), image.get("file_name")
        if not isinstance(number, int):
            into.problem(where, f"expected a whole number under 'id', found {shown(number)}")
        elif not isinstance(name, str) or not name.strip():
            into.problem(where, f"expected a string under 'file_name', found {shown(name)}")
        elif number in found:
            into.problem(where, f"id {number} is also the id of {found[number][1]}")
        else:
            found[number] = (name, where, [])
    for where, annotation in _objects(source, into, "annotations"):
        number, caption = annotation.get("image_id"), annotation.get("caption")
        if not isinstance(number, int) or number not in found:
            into.problem(where, f"image_id {shown(number)} is the id of no image")
        elif not isinstance(caption, str):
            into.problem(where, f"expected a string under 'caption', found {shown(caption)}")
        else:
            found[number][2].append(caption)
    for name, where, captions in found.values():
        into.image(name, captions, where)


def is_coco(source: Source) -> bool:
    tree = source.tree
    return isinstance(tree, dict) and isinstance(tree.get("images"), list) and "annotations" in tree


def _objects(source: Source, into: Collector, key: str) -> Iterator[tuple[str, dict[str, object]]]:
    """(place, object) of each item of the list under `key`."""
    tree = source.tree
    items = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(items, list):
        into.problem(str(source.path), f"expected an object with a list under {key!r}")
        return
    for number, item in enumerate(items):
        where = f"{source.path}: {key}[{number}]"
        if isinstance(item, dict):
            yield where, item
        else:
            into.problem(where, f"expected an object, found {type(item).__name__}")
