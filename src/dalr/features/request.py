"""What do `dalr features images` and `text` ask for? Paths and plain values, which any process can carry out.

The command itself, one of several (`--part`) and a worker of a cluster (`--ray`) carry out the same request; they
differ in the parts that they compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dalr.data.dataset import read_pairs, read_text
from dalr.data.formats.shards import shard_images
from dalr.data.reading import Reading
from dalr.errors import ConfigError, DataError, Problem
from dalr.features.images import PART_IMAGES, ImageReport, write_image_store
from dalr.features.making import OTHER_OR_UPDATE, refuse_lost_rows, refuse_other_making, refuse_unfinished
from dalr.features.part import MAKING, UPDATE_IN_PARTS, WORK, require_no_parts
from dalr.features.parts import BLOCK, PartReport, holds_own_parts, merge, write_text_part
from dalr.features.plan import forget_other_plans
from dalr.features.store import FORMAT
from dalr.features.text import (
    TextReport,
    encoder_embedding,
    text_source,
    tower_embedding,
    tower_source,
    write_text_store,
    write_tower_store,
)
from dalr.io.console import Console
from dalr.io.lock import PATIENCE_SECONDS, locked_output
from dalr.io.on_ray import TAKEOVER_SECONDS, compute_on_ray, require_address
from dalr.io.paths import is_file
from dalr.io.sealed import MANIFEST, refuse_foreign
from dalr.io.shards import Member, is_shards
from dalr.io.share import Share
from dalr.models.choices import ComputePrecision
from dalr.models.config import EncoderConfig
from dalr.models.embedding import Embed
from dalr.models.verification import unverified
from dalr.models.vision import VisionModel, has_text_tower, load_vision_model
from dalr.recipe.plugins import load_plugins


@dataclass(frozen=True, kw_only=True)
class ImagesRequest:
    """Vectors of the images of a pairs file."""

    out: Path
    pairs: Path
    model: str
    reading: Reading = field(default_factory=Reading)
    images: Path | None = None
    revision: str | None = None
    device: str = "auto"
    follow_links: Path | None = None
    max_megapixels: int = 50
    workers: int | None = None
    batch_size: int = 32
    part_images: int = PART_IMAGES
    plugins: tuple[str, ...] = ()
    """Of `--plugin`, which the command has loaded."""

    def write(
        self,
        *,
        share: Share | None = None,
        resume: bool = False,
        update: bool = False,
        max_bad_images: int = 0,
        console: Console,
        patience: float = PATIENCE_SECONDS,
    ) -> ImageReport:
        """Write the store, or with a `share` its parts.

        Raises:
            ConfigError, DataError, ModelFileError, StorageError: as the messages say.
        """
        if share is not None and update:
            raise ConfigError(UPDATE_IN_PARTS)
        problems: list[Problem] = []
        # captions are not used here
        ids = read_pairs(self.pairs, problems, {}, on_empty="drop", reading=self.reading).images
        if problems:
            raise DataError(problems)
        root, members = self._place()
        model = load_vision_model(self.model, revision=self.revision, device=self.device)
        sha256 = model.source["sha256"][:12]
        console.detail(f"{self.model}: dimension {model.dim} on {model.device}, sha256 {sha256}")
        if share is not None:
            refuse_foreign(self.out, FORMAT, WORK)
        start = time.monotonic()
        with _locked(self.out, share, patience):
            report = write_image_store(
                self.out,
                ids=ids,
                root=root,
                members=members,
                model=model,
                share=share,
                resume=resume or (share is not None and not holds_own_parts(self.out, share)),
                update=update,
                max_bad_images=max_bad_images,
                follow_links=self.follow_links,
                max_megapixels=self.max_megapixels,
                workers=self.workers,
                batch_size=self.batch_size,
                part_images=self.part_images,
                console=console,
            )
        return replace(report, seconds=time.monotonic() - start)

    def _place(self) -> tuple[Path, Mapping[str, Member] | None]:
        """The folder of the images; or the shards, and where in them each image is."""
        format, images = self.reading.format, self.images
        if format not in (None, "webdataset") or not (format or is_shards(self.pairs)):
            if images is None:
                what = "name the folder that the image names are relative to; only tar shards hold the images"
                raise ConfigError(Problem(where="--images", what=what))
            return images, None
        if images is not None:
            what = f"the images are in {self.pairs}: leave it out"
            raise ConfigError(Problem(where="--images", what=what))
        return self.pairs, shard_images(self.pairs)

    def part_on_ray(self, share: Share, console: Console, cores: int) -> bool:
        """The parts of a share on a worker with so many cores, one of which the model always uses."""
        load_plugins(self.plugins)
        workers = self.workers if self.workers is not None else cores - 1
        there = replace(self, workers=workers)
        return not there.write(share=share, resume=True, console=console, patience=TAKEOVER_SECONDS).complete

    @property
    def needs(self) -> list[str | Path]:
        named = (path for path in (self.images, self.follow_links) if path is not None)
        return [self.model, self.pairs, *named, *self.plugins]


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """Vectors of the captions of a pairs file, and of lines."""

    out: Path
    encoder: EncoderConfig
    pairs: Path | None = None
    reading: Reading = field(default_factory=Reading)
    text: Path | None = None
    device: str = "auto"
    precision: ComputePrecision = "fp32"
    block: int = BLOCK

    def write(self, *, update: bool = False, console: Console) -> TextReport:
        """Write the store.

        Raises:
            ConfigError, DataError, ModelFileError, StorageError: as the messages say.
        """
        ids, sentences = self._rows(console)
        tower = self._tower(sentences, console)
        source = tower_source(tower) if tower is not None else text_source(self.encoder, self.precision)
        require_no_parts(self.out, source)
        if not update:
            refuse_lost_rows(self.out, ids, OTHER_OR_UPDATE)
        with locked_output(self.out), console.bar("encode", len(set(sentences)), "sentence") as bar:
            if tower is not None:
                return write_tower_store(
                    self.out,
                    model=tower,
                    ids=ids,
                    sentences=sentences,
                    progress=lambda done, _: bar.update(done),
                    update=update,
                    console=console,
                )
            return write_text_store(
                self.out,
                encoder=self.encoder,
                ids=ids,
                sentences=sentences,
                progress=lambda done, _: bar.update(done),
                device=self.device,
                precision=self.precision,
                update=update,
                console=console,
            )

    def write_part(
        self, share: Share, *, resume: bool, console: Console, patience: float = PATIENCE_SECONDS
    ) -> PartReport:
        """Compute the parts of a share.

        Raises:
            ConfigError, DataError, ModelFileError, StorageError: as the messages say.
        """
        ids, sentences = self._rows(console)
        tower = self._tower(sentences, console)
        loading: Callable[[], Embed]
        if tower is not None:
            making, loading = tower_source(tower), partial(tower_embedding, tower)
        else:
            making = text_source(self.encoder, self.precision)
            loading = partial(encoder_embedding, self.encoder, self.device, self.precision)
        own = holds_own_parts(self.out, share)
        refuse_other_making(self.out, making, unfinished=self.out / WORK / MAKING, resume=resume or not own)
        refuse_lost_rows(self.out, ids, "choose another --out")
        embed = loading()
        with _locked(self.out, share, patience):
            return write_text_part(
                self.out,
                share,
                ids=ids,
                sentences=sentences,
                making=making,
                embed=embed,
                block=self.block,
                console=console,
            )

    def _rows(self, console: Console) -> tuple[list[str], list[str]]:
        if self.pairs is None and self.text is None:
            raise ConfigError(Problem(where="--pairs, --text", what="name at least one of them"))
        problems: list[Problem] = []
        ids: list[str] = []
        sentences: list[str] = []
        if self.pairs is not None:
            captions = read_pairs(self.pairs, problems, {}, reading=self.reading)
            ids += captions.caption_ids
            sentences += captions.captions
        if self.text is not None:
            lines = read_text(self.text, problems, {})
            ids += lines.ids
            sentences += lines.lines
        if problems:
            raise DataError(problems)
        if (note := unverified(Path(self.encoder.model))) is not None:
            console.say(note)
        console.detail(f"{len(ids)} rows, {len(set(sentences))} distinct sentences")
        return ids, sentences

    def _tower(self, sentences: Sequence[str], console: Console) -> VisionModel | None:
        """The model of the CLIP kind whose text tower is meant, if it is one."""
        encoder = self.encoder
        if not has_text_tower(encoder.model, encoder.revision):
            return None
        unlike: list[Any] = [encoder.pooling, encoder.num_layers, encoder.max_tokens, encoder.prompt]
        if any(unlike) or self.precision != "fp32":
            what = (
                "a text tower has its own; leave --pooling, --num-layers, --max-tokens, --prompt, --precision out"
            )
            raise ConfigError(Problem(where=f"model {encoder.model!r}", what=what))
        tower = load_vision_model(encoder.model, revision=encoder.revision, device=self.device)
        if cut := tower.too_long(sentences):
            console.say(f"note: {cut} sentences are longer than {tower.max_tokens} tokens and are cut")
        return tower

    def part_on_ray(self, share: Share, console: Console, cores: int) -> bool:
        """The parts of a share on a worker."""
        self.write_part(share, resume=True, console=console, patience=TAKEOVER_SECONDS)
        return True

    @property
    def needs(self) -> list[str | Path]:
        return [self.encoder.model, *(path for path in (self.pairs, self.text) if path is not None)]


def write_on_ray(
    request: ImagesRequest | TextRequest,
    address: str,
    *,
    resume: bool = False,
    max_bad_images: int = 0,
    console: Console,
) -> ImageReport | None:
    """Have the workers of a cluster compute all parts, and join them; None where the store was finished before.

    Raises:
        ConfigError, DataError, ModelFileError, StorageError: as the messages say; what is sealed is kept.
    """
    out, images = request.out, isinstance(request, ImagesRequest)
    require_address(address, request.device)
    refuse_foreign(out, FORMAT, WORK)
    if not resume and not is_file(out / MANIFEST):
        refuse_unfinished(out, out / WORK / MAKING)
    with locked_output(out):
        shares = compute_on_ray(
            request.part_on_ray,
            address,
            out=out,
            needs=request.needs,
            device=request.device,
            bar=("images", "image") if images else ("encode", "sentence"),
            console=console,
        )
        if not shares:
            return None
        forget_other_plans(out / WORK, shares)
        return merge(out, max_bad_images=max_bad_images)


def _locked(out: Path, share: Share | None, patience: float) -> AbstractContextManager[None]:
    """Several parts are computed at once, each by one process."""
    return locked_output(out if share is None else out / WORK / share.name, wait=patience)
