"""Search without an index step: a run already has the heads, the image vectors and the captions.

A sentence finds images in the grounding space, where they were trained to meet, and captions in the space of the
sentence encoder. An image finds images by the vectors of the frozen image model, and captions in the grounding
space.

```
dalr.Searcher("runs/x").search("a dog jumps into the sea", k=5)
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32

from dalr.data.reading import Reading
from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.request import Place, Request, locate
from dalr.features.text import cached_text_store
from dalr.inference.collection import Collection, open_collection
from dalr.inference.encoders import RowEncoder, open_text_encoder
from dalr.inference.nearest import nearest, unit
from dalr.io.console import Console
from dalr.io.paths import exists, expanded
from dalr.models.embedding import OnProgress
from dalr.models.heads import GroundingHeads, required_grounding

if TYPE_CHECKING:
    from PIL.Image import Image

    from dalr.models.vision import VisionModel

Within = Literal["images", "captions"]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer."""

    rank: int
    score: float
    """Cosine, from -1 to 1."""
    kind: Literal["image", "caption", "row"]
    id: str
    """The image's key, or the caption's id `image#k`."""
    image: str
    captions: tuple[str, ...]
    """All captions of an image, or the caption that was found."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Searcher:
    """Finds images and captions by a sentence or an image."""

    def __init__(
        self,
        run: str | Path,
        *,
        pairs: str | Path | None = None,
        features: str | Path | None = None,
        image_ids: str | Path | None = None,
        reading: Reading | None = None,
        heads: str | Path | None = None,
        held_out: bool = False,
        collection: Collection | None = None,
        device: str = "auto",
        console: Console | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        """Open a run.

        Args:
            run: a run, a checkpoint of one, or a model folder with `pairs`.
            pairs: other captions; `features` are then the vectors of their images.
            held_out: search only among the images that the run held out.
            progress: called while the captions are encoded; what it raises ends that.
            collection: one that is open already, in place of all these.

        Raises:
            ConfigError, DataError, ModelFileError: it cannot be searched.
        """
        self.console = console or Console(quiet=True)
        self.device = device
        self.progress = progress
        self._vision_models: dict[str, VisionModel] = {}
        named = {"pairs": pairs, "features": features, "image_ids": image_ids, "heads": heads}
        paths = {name: expanded(path, name) for name, path in named.items() if path is not None}
        self.place: Place = locate(str(run), Request(heads=paths.pop("heads", None), console=self.console))
        self.collection: Collection = collection or open_collection(
            self.place.run, **paths, reading=reading, held_out=held_out
        )

    def search(self, sentence: str, *, k: int = 10, within: Within = "images") -> list[Hit]:
        """The `k` images or captions that are nearest to a sentence."""
        return self.search_many([sentence], k=k, within=within)[0]

    def search_many(self, sentences: Sequence[str], *, k: int = 10, within: Within = "images") -> list[list[Hit]]:
        """The same for several sentences at once."""
        if not all(sentence.strip() for sentence in sentences):
            raise ConfigError(Problem(where="SENTENCE", what="expected words to search for, found none"))
        return self.search_vectors(self.encoder.encode(list(sentences)).vectors, k=k, within=within)

    def search_vectors(
        self, vectors: Float32[np.ndarray, "n d"], *, k: int = 10, within: Within = "images"
    ) -> list[list[Hit]]:
        """The same by vectors of sentences, as the run's encoder gives them before any Normalize module."""
        if within == "captions":
            return self._hits(unit(vectors), self._captions, k, within)
        return self._hits(unit(self._grounding.of_sentences(vectors)), self._images_grounded, k, within)

    def search_image(
        self, image: str | Path | bytes, *, k: int = 10, within: Within = "images", vision: str | None = None
    ) -> list[Hit]:
        """The `k` images or captions that are nearest to an image; an image is not found by itself.

        Args:
            image: a file, its bytes, or the key of an image of the collection.
            vision: the model that made the image vectors, where their store does not say.
        """
        if isinstance(image, bytes):
            vector, known = self._of_bytes(image, vision), None
        else:
            vector, known = self._image_vector(str(image), vision)
        if within == "captions":
            return self._hits(unit(self._grounding.of_images(vector)), self._captions_grounded, k, within)[0]
        hits = self._hits(unit(vector), self._images, k + 1, within)[0]
        others = [hit for hit in hits if hit.id != known][:k]
        return [_ranked(hit, rank) for rank, hit in enumerate(others, start=1)]

    def knows(self, image: str) -> bool:
        """Whether this is the key of an image of the collection."""
        return self.collection.store is not None and image in self._numbers

    def prepare(self, within: Within) -> None:
        """Make now what the first search of this kind would otherwise wait for.

        Raises:
            ConfigError, DataError, ModelFileError: there is nothing of this kind to search.
        """
        _ = self._captions if within == "captions" else self._images_grounded

    @cached_property
    def encoder(self) -> RowEncoder:
        """The sentence encoder, on its device."""
        return open_text_encoder(self.place.encoder, device=self.device, packed=False)

    @cached_property
    def _images_grounded(self) -> Float32[np.ndarray, "images g"]:
        return unit(self._grounding.of_images(self.collection.vectors))

    @cached_property
    def _images(self) -> Float32[np.ndarray, "images w"]:
        return unit(self.collection.vectors)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The row of each key in the store."""
        return {name: number for number, name in enumerate(self.collection.required_store().ids)}

    @cached_property
    def _caption_vectors(self) -> Float32[np.ndarray, "captions d"]:
        """Vectors of the captions, computed once and kept in the cache."""
        pairs = self.collection.pairs
        with self.console.bar("captions", len(set(pairs.captions)), "caption") as bar:

            def progress(done: int, of: int) -> None:
                bar.update(done)
                if self.progress is not None:
                    self.progress(done, of)

            store = cached_text_store(
                encoder=self.place.encoder,
                ids=pairs.caption_ids,
                sentences=pairs.captions,
                progress=progress,
            )
        return store.read(store.rows_of(pairs.caption_ids, what="caption"))

    @cached_property
    def _captions(self) -> Float32[np.ndarray, "captions d"]:
        return unit(self._caption_vectors)

    @cached_property
    def _captions_grounded(self) -> Float32[np.ndarray, "captions g"]:
        return unit(self._grounding.of_sentences(self._caption_vectors))

    @cached_property
    def _grounding(self) -> GroundingHeads:
        return required_grounding(self.heads())

    def heads(self) -> Path:
        """The file of the trained heads; raises ConfigError where there is none."""
        if self.place.heads is None:
            what = (
                "no heads.safetensors: a sentence and an image meet in the space of trained heads. Name a run, or "
                "--heads; --in captions needs none"
            )
            raise ConfigError(Problem(where=self.place.name, what=what))
        return self.place.heads

    def _image_vector(self, image: str, vision: str | None) -> tuple[Float32[np.ndarray, "1 w"], str | None]:
        """The vector of an image, and its key if it is one of the collection's."""
        store = self.collection.required_store()
        if (key := self.key_of(image)) is not None:
            return store.read(np.asarray([self._numbers[key]], np.int64)), key
        if not exists(Path(image)):
            what = f"neither a file nor one of the {len(store)} images of the collection"
            raise DataError(Problem(where=f"--image {image}", what=what))
        return self._of_file(Path(image), vision), None

    def key_of(self, image: str) -> str | None:
        """The key of the collection's image that a key or a file name means; None where it means none."""
        keys = (image, Path(image).name, Path(image).stem)
        return next((key for key in keys if key in self._numbers), None)

    def _of_file(self, path: Path, vision: str | None) -> Float32[np.ndarray, "1 w"]:
        from dalr.features.decoding import read_image

        return self._computed(lambda: read_image(path), f"--image {path}", vision)

    def _of_bytes(self, data: bytes, vision: str | None) -> Float32[np.ndarray, "1 w"]:
        from dalr.features.decoding import decode

        return self._computed(lambda: decode(data), "image", vision)

    def _computed(self, read: Callable[[], Image], where: str, vision: str | None) -> Float32[np.ndarray, "1 w"]:
        from dalr.features.decoding import ImageRefusedError

        model = self.vision_model(vision, where)
        try:
            return model.embed_images([read()])
        except ImageRefusedError as error:
            raise DataError(Problem(where=where, what=str(error))) from None

    def vision_model(self, vision: str | None = None, where: str = "--image") -> VisionModel:
        """The model that made the image vectors, loaded once.

        Raises:
            ConfigError: it is not known, or `vision` names another one. ModelFileError: it cannot be loaded.
        """
        source = self.collection.required_store().source
        name = vision or source.get("model")
        if (source.get("kind") not in ("images", None) and vision is None) or not isinstance(name, str):
            what = (
                "not an image of the collection, whose vectors were imported, so that the model that made them is "
                "not known; name it with --vision MODEL"
            )
            raise ConfigError(Problem(where=where, what=what))
        if name not in self._vision_models:
            self._vision_models[name] = self._loaded_vision(name, source)
        return self._vision_models[name]

    def _loaded_vision(self, name: str, source: Mapping[str, Any]) -> VisionModel:
        from dalr.models.vision import load_vision_model

        model = load_vision_model(name, revision=source.get("revision"), device=self.device)
        dim = self.collection.required_store().dim
        made_by = source.get("sha256")
        if model.dim != dim or (source.get("kind") == "images" and made_by != model.source["sha256"]):
            what = f"{name} gives other vectors ({model.dim} numbers) than those of the collection ({dim} numbers)"
            raise ConfigError(Problem(where="--vision", what=f"{what}; name the model that made them"))
        return model

    def _hits(
        self, queries: Float32[np.ndarray, "q e"], rows: Float32[np.ndarray, "n e"], k: int, within: Within
    ) -> list[list[Hit]]:
        numbers, scores = nearest(queries, rows, k)
        make = self._image_hit if within == "images" else self._caption_hit
        return [
            [make(number, rank, score) for rank, (number, score) in enumerate(zip(*row, strict=True), start=1)]
            for row in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]

    def _image_hit(self, number: int, rank: int, score: float) -> Hit:
        name = self.collection.images[number]
        captions = tuple(self.collection.captions_of[number])
        return Hit(rank=rank, score=score, kind="image", id=name, image=name, captions=captions)

    def _caption_hit(self, number: int, rank: int, score: float) -> Hit:
        pairs = self.collection.pairs
        return Hit(
            rank=rank,
            score=score,
            kind="caption",
            id=pairs.caption_ids[number],
            image=pairs.images[int(pairs.image_of[number])],
            captions=(pairs.captions[number],),
        )


def _ranked(hit: Hit, rank: int) -> Hit:
    from dataclasses import replace

    return replace(hit, rank=rank)
