"""A run with grounding heads whose image features were made by a tiny CLIP from image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.features.images import write_image_store
from dalr.models.vision import load_vision_model
from tiny import CAPTIONS_PER_IMAGE, captions, recipe_tree, write_data, write_pairs, write_recipe
from tiny_images import DIM, save_photos, save_tiny_image_model

IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run, the model that made its image features, their store, the files and the pairs."""

    run: Path
    clip: Path
    store: Path
    images: Path
    pairs: Path


def make_run(folder: Path, student: Path, *, space: str | None) -> Trained:
    import dalr

    clip = save_tiny_image_model(folder / "clip", "clip")
    names = save_photos(folder / "images", IMAGES)
    write_image_store(
        folder / "store", ids=tuple(names), root=folder / "images", model=load_vision_model(str(clip)), workers=0
    )
    flat = captions(IMAGES * CAPTIONS_PER_IMAGE)
    pairs = write_pairs(folder / "pairs.jsonl", names, [flat[number::IMAGES] for number in range(IMAGES)])
    tree: dict[str, Any] = recipe_tree(write_data(folder / "data"), student)
    tree["data"] |= {"pairs": str(pairs), "holdout": {"last": 5}}
    tree["features"] = {"image": str(folder / "store")}
    tree["validation"] = {"kind": "retrieval", "every": 2}
    if space is not None:
        tree["objective"]["grounding"]["space"] = space
        tree["heads"]["grounding_dim"] = DIM
    run = dalr.train(str(write_recipe(folder / "recipe.yaml", tree)), out=folder / "run").run
    return Trained(run=run, clip=clip, store=folder / "store", images=folder / "images", pairs=pairs)
