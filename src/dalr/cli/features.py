"""How are feature stores made? `dalr features images`, `text`, `import`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalr.cli.options import (
    Bf16,
    Columns,
    Device,
    FollowLinks,
    Format,
    Layers,
    MaxTokens,
    PartOf,
    Plugin,
    Pooling,
    Prompt,
    Quiet,
    Revision,
    Split,
    Verbose,
    reading_of,
    use_plugins,
)
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show
from dalr.io.paths import is_dir, require_place_for_folder
from dalr.models.choices import PoolingMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dalr.data.reading import Reading
    from dalr.io.shards import Member
    from dalr.io.share import Share
    from dalr.models.config import EncoderConfig
    from dalr.models.embedding import Embed


Update = Annotated[
    bool,
    typer.Option(
        "--update", help="Compute only what an earlier store at --out lacks; drop what is no longer there."
    ),
]


_OTHER_OR_UPDATE = "choose another --out, or rerun with --update, which drops them"


def features_of_images(
    pairs: Annotated[Path, typer.Option(help="Pairs file; its image names become the row ids.")],
    model: Annotated[
        str, typer.Option(help="Image model (CLIP, ResNet, DINO, ...): a folder, a hub id, or plugin:NAME.")
    ],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder that the image names are relative to; none for tar shards.")
    ] = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    revision: Revision = None,
    device: Device = "auto",
    part: PartOf = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    update: Update = False,
    max_bad_images: Annotated[
        int, typer.Option(min=0, max=1_000_000_000, help="How many unusable images may be left out.")
    ] = 0,
    follow_links: FollowLinks = None,
    max_megapixels: Annotated[int, typer.Option(min=1, max=10_000, help="Largest image that is decoded.")] = 50,
    workers: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Decoding processes [default: one per core].")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images per batch.")] = 32,
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compute image features with a frozen image model.

    \b
    Example:
      dalr features images --pairs photos/captions.jsonl --images photos/images \\
        --model openai/clip-vit-base-patch32 --out stores/images
    """
    use_plugins(plugin)
    from dalr.data.dataset import read_pairs
    from dalr.errors import DataError
    from dalr.features.images import write_image_store
    from dalr.features.part import UPDATE_IN_PARTS, WORK
    from dalr.features.parts import holds_own_parts
    from dalr.features.store import FORMAT
    from dalr.io.lock import locked_output
    from dalr.io.sealed import refuse_foreign
    from dalr.io.share import share_of
    from dalr.models.vision import load_vision_model

    require_place_for_folder(out, "--out")
    share = share_of(part) if part is not None else None
    if share is not None and update:
        raise ConfigError(UPDATE_IN_PARTS)
    reading = reading_of(pairs, format, columns, split)
    problems: list[Problem] = []
    ids = read_pairs(pairs, problems, {}, on_empty="drop", reading=reading).images  # captions are not used here
    if problems:
        raise DataError(problems)
    root, members = _place_of_images(pairs, reading, images)
    console = Console(quiet=quiet, verbose=verbose)
    vision = load_vision_model(model, revision=revision, device=device)
    console.detail(f"{model}: dimension {vision.dim} on {vision.device}, sha256 {vision.source['sha256'][:12]}")
    if share is not None:
        refuse_foreign(out, FORMAT, WORK)
    start = time.monotonic()
    with locked_output(_lock_of(out, share)):
        report = write_image_store(
            out,
            ids=ids,
            root=root,
            members=members,
            model=vision,
            share=share,
            resume=resume or (share is not None and not holds_own_parts(out, share)),
            update=update,
            max_bad_images=max_bad_images,
            follow_links=follow_links,
            max_megapixels=max_megapixels,
            workers=workers,
            batch_size=batch_size,
            console=console,
        )
    seconds = time.monotonic() - start
    if share is not None and not report.complete:
        show(f"{out}: this part is done ({report.distinct} images); then: dalr features merge {out}")
        return
    left_out = f", {report.bad} bad ones listed in {out / 'bad_images.jsonl'}" if report.bad else ""
    computed = f"{report.computed} computed in {seconds:.1f} s, {report.computed / max(seconds, 1e-9):.1f} images/s"
    show(
        f"{out}: {report.rows} images of dimension {report.dim} ({report.distinct} distinct{left_out}); "
        f"{_stayed(report.kept, report.dropped)}{computed}"
    )


def _place_of_images(
    pairs: Path, reading: Reading, images: Path | None
) -> tuple[Path, Mapping[str, Member] | None]:
    """The folder of the images; or the shards, and where in them each image is."""
    from dalr.data.formats.shards import shard_images
    from dalr.io.shards import is_shards

    if reading.format not in (None, "webdataset") or not (reading.format or is_shards(pairs)):
        if images is None:
            what = "name the folder that the image names are relative to; only tar shards hold the images"
            raise ConfigError(Problem(where="--images", what=what))
        return images, None
    if images is not None:
        what = f"the images are in {pairs}: leave it out"
        raise ConfigError(Problem(where="--images", what=what))
    return pairs, shard_images(pairs)


def features_of_text(
    model: Annotated[str, typer.Option(help="A SentenceTransformer, Hugging Face encoder, or CLIP (text tower).")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs file whose captions are encoded; row ids are IMAGE#k.")
    ] = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    text: Annotated[
        Path | None, typer.Option(help="Text file whose lines are encoded; row ids are line numbers.")
    ] = None,
    pooling: Pooling = None,
    num_layers: Layers = None,
    prompt: Prompt = None,
    max_tokens: MaxTokens = None,
    precision: Bf16 = "fp32",
    revision: Revision = None,
    device: Device = "auto",
    update: Update = False,
    part: PartOf = None,
    resume: Annotated[bool, typer.Option("--resume", help="With --part: keep what an earlier run sealed.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode captions and text with a frozen teacher.

    Each distinct sentence is encoded once; vectors are taken before any Normalize module.

    \b
    Example:
      dalr features text --pairs photos/captions.jsonl --model MODEL --out stores/teacher
    """
    from dalr.features.making import refuse_lost_rows
    from dalr.features.part import UPDATE_IN_PARTS, require_no_parts
    from dalr.features.text import (
        encoder_embedding,
        text_source,
        tower_embedding,
        tower_source,
        write_text_store,
        write_tower_store,
    )
    from dalr.io.lock import locked_output
    from dalr.io.share import share_of
    from dalr.models.verification import unverified
    from dalr.models.vision import has_text_tower, load_vision_model

    require_place_for_folder(out, "--out")
    share = share_of(part) if part is not None else None
    if share is not None and update:
        raise ConfigError(UPDATE_IN_PARTS)
    if share is None and resume:
        what = "is for --part; without it all sentences are encoded in one run, and --update keeps those of a store"
        raise ConfigError(Problem(where="--resume", what=what))
    ids, sentences = _captions_and_lines(pairs, reading_of(pairs, format, columns, split), text)
    encoder = _encoder(model, pooling, num_layers, max_tokens).model_copy(
        update={"revision": revision, "prompt": prompt}
    )
    console = Console(quiet=quiet, verbose=verbose)
    if (note := unverified(Path(encoder.model))) is not None:
        console.say(note)
    distinct = len(set(sentences))
    console.detail(f"{len(ids)} rows, {distinct} distinct sentences")
    if has_text_tower(encoder.model, revision):
        if pooling or num_layers or max_tokens or prompt or precision != "fp32":
            what = (
                "a text tower has its own; leave --pooling, --num-layers, --max-tokens, --prompt, --precision out"
            )
            raise ConfigError(Problem(where=f"model {model!r}", what=what))
        vision = load_vision_model(encoder.model, revision=revision, device=device)
        if cut := vision.too_long(sentences):
            console.say(f"note: {cut} sentences are longer than {vision.max_tokens} tokens and are cut")
        source = tower_source(vision)
        if share is not None:
            _text_part(out, share, ids, sentences, source, lambda: tower_embedding(vision), resume, console)
            return
        require_no_parts(out, source)
        if not update:
            refuse_lost_rows(out, ids, _OTHER_OR_UPDATE)
        with locked_output(out), console.bar("encode", distinct, "sentence") as bar:
            report = write_tower_store(
                out,
                model=vision,
                ids=ids,
                sentences=sentences,
                progress=lambda done, _: bar.update(done),
                update=update,
                console=console,
            )
    else:
        source = text_source(encoder, precision)
        if share is not None:
            loading = partial(encoder_embedding, encoder, device, precision)
            _text_part(out, share, ids, sentences, source, loading, resume, console)
            return
        require_no_parts(out, source)
        if not update:
            refuse_lost_rows(out, ids, _OTHER_OR_UPDATE)
        with locked_output(out), console.bar("encode", distinct, "sentence") as bar:
            report = write_text_store(
                out,
                encoder=encoder,
                ids=ids,
                sentences=sentences,
                progress=lambda done, _: bar.update(done),
                device=device,
                precision=precision,
                update=update,
                console=console,
            )
    show(f"{out}: {len(ids)} rows; {_stayed(report.kept, report.dropped)}{report.computed} sentences encoded")


def _stayed(kept: int, dropped: int) -> str:
    """What an update left as it was."""
    return (f"{kept} kept, " if kept else "") + (f"{dropped} rows dropped, " if dropped else "")


def _text_part(
    out: Path,
    share: Share,
    ids: list[str],
    sentences: list[str],
    making: dict[str, Any],
    loading: Callable[[], Embed],
    resume: bool,
    console: Console,
) -> None:
    from dalr.features.making import refuse_other_making
    from dalr.features.part import MAKING, WORK
    from dalr.features.parts import holds_own_parts, write_text_part
    from dalr.io.lock import locked_output

    own = holds_own_parts(out, share)
    refuse_other_making(out, making, unfinished=out / WORK / MAKING, resume=resume or not own)
    embed = loading()
    with locked_output(_lock_of(out, share)):
        report = write_text_part(
            out, share, ids=ids, sentences=sentences, making=making, embed=embed, console=console
        )
    show(f"{out}: this part is done ({report.done} of {report.of} blocks); then: dalr features merge {out}")


def _lock_of(out: Path, share: Share | None) -> Path:
    """Several parts are computed at once, each by one process."""
    from dalr.features.part import WORK

    return out if share is None else out / WORK / share.name


def merge_features(
    out: Annotated[Path, typer.Argument(metavar="STORE", help="The --out of every part.")],
    max_bad_images: Annotated[
        int, typer.Option(min=0, max=1_000_000_000, help="How many unusable images may be left out.")
    ] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put together what --part left of a store.

    \b
    Example:
      dalr features merge stores/clip
    """
    from dalr.features.parts import merge
    from dalr.io.lock import locked_output

    Console(quiet=quiet, verbose=verbose).detail(f"{out}: reading the sealed parts")
    with locked_output(out):
        report = merge(out, max_bad_images=max_bad_images)
    left_out = f", {report.bad} bad ones listed in {out / 'bad_images.jsonl'}" if report.bad else ""
    show(f"{out}: {report.rows} rows of dimension {report.dim} ({report.distinct} distinct{left_out})")


def import_features(
    file: Annotated[
        Path, typer.Argument(help="An .npy matrix (rows, dimension); MCSE's .hdf5; KDMCSE's or DALR's .json.")
    ],
    out: Annotated[Path, typer.Option(help="The store to write; for .hdf5, .json a folder of pairs and stores.")],
    ids: Annotated[
        Path | None, typer.Option(help="Names of the rows: .txt, one per line, or .jsonl with `image`.")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="For .hdf5: one caption per line, line i for row i.")
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help=".npy: also drop rows of an earlier store at --out that are no longer there."
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Import vectors that were computed elsewhere.

    \b
    Example:
      dalr features import clip.npy --ids captions.jsonl --out stores/clip
    """
    from dalr.features.importing import import_matrix, read_ids
    from dalr.features.making import ids_of, refuse_lost_rows
    from dalr.features.predecessors import FOLDER_ENDINGS, import_folder
    from dalr.features.store import open_store
    from dalr.io.lock import locked_output
    from dalr.io.text import ending

    require_place_for_folder(out, "--out")
    console = Console(quiet=quiet, verbose=verbose)
    if ending(file) in FOLDER_ENDINGS:
        if update:
            what = f"is for an .npy matrix; import {file} into a folder of its own: choose another --out"
            raise ConfigError(Problem(where="--update", what=what))
        with locked_output(out), console.bar("import", 100, "%") as bar:
            found = import_folder(
                file, out, captions=captions, ids=ids, progress=lambda share: bar.update(int(100 * share))
            )
        for line in found.lines(out):
            show(line)
        return
    if ids is None:
        raise ConfigError(Problem(where="--ids", what="an .npy matrix needs the file that names its rows"))
    if is_dir(out) and not update:
        refuse_lost_rows(out, read_ids(ids), _OTHER_OR_UPDATE)
    with locked_output(out):
        before = set(ids_of(out))
        import_matrix(file, ids, out)
    store = open_store(out)
    console.detail(f"{len(store.shards)} shards of up to {store.shard_rows} rows, fp16")
    after = set(store.ids)
    changed = f"; {len(before & after)} there before, {len(before - after)} dropped" if before else ""
    show(f"{out}: {len(store)} rows of dimension {store.dim}{changed}")


def _captions_and_lines(pairs: Path | None, reading: Reading, text: Path | None) -> tuple[list[str], list[str]]:
    from dalr.data.dataset import read_pairs, read_text
    from dalr.errors import DataError

    if pairs is None and text is None:
        raise ConfigError(Problem(where="--pairs, --text", what="name at least one of them"))
    problems: list[Problem] = []
    ids: list[str] = []
    sentences: list[str] = []
    if pairs is not None:
        captions = read_pairs(pairs, problems, {}, reading=reading)
        ids += captions.caption_ids
        sentences += captions.captions
    if text is not None:
        lines = read_text(text, problems, {})
        ids += lines.ids
        sentences += lines.lines
    if problems:
        raise DataError(problems)
    return ids, sentences


def _encoder(
    model: str, pooling: PoolingMode | None, num_layers: int | None, max_tokens: int | None = None
) -> EncoderConfig:
    from dalr.models.config import EncoderConfig
    from dalr.models.reference import inside_run

    return EncoderConfig(model=inside_run(model), pooling=pooling, num_layers=num_layers, max_tokens=max_tokens)
