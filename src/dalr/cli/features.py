"""How are feature stores made? `dalr features images`, `text`, `import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr.cli.options import (
    Bf16,
    Columns,
    Device,
    FollowLinks,
    Format,
    Layers,
    MaxTokens,
    OnRay,
    PartOf,
    Plugin,
    Pooling,
    Prompt,
    Quiet,
    Revision,
    Split,
    Verbose,
    reading_of,
    refuse_ray_with,
    use_plugins,
)
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show
from dalr.io.paths import is_dir, require_place_for_folder
from dalr.models.choices import PoolingMode

if TYPE_CHECKING:
    from dalr.features.images import ImageReport
    from dalr.models.config import EncoderConfig


Update = Annotated[
    bool,
    typer.Option(
        "--update", help="Compute only what an earlier store at --out lacks; drop what is no longer there."
    ),
]


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
    ray: OnRay = None,
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
    from dalr.features.request import ImagesRequest, write_on_ray
    from dalr.io.share import share_of

    require_place_for_folder(out, "--out")
    share = share_of(part) if part is not None else None
    request = ImagesRequest(
        out=out,
        pairs=pairs,
        model=model,
        reading=reading_of(pairs, format, columns, split),
        images=images,
        revision=revision,
        device=device,
        follow_links=follow_links,
        max_megapixels=max_megapixels,
        workers=workers,
        batch_size=batch_size,
        plugins=tuple(plugin or ()),
    )
    console = Console(quiet=quiet, verbose=verbose)
    if ray is not None:
        refuse_ray_with(part=share is not None, update=update)
        _show_merged(out, write_on_ray(request, ray, resume=resume, max_bad_images=max_bad_images, console=console))
        return
    report = request.write(
        share=share, resume=resume, update=update, max_bad_images=max_bad_images, console=console
    )
    if share is not None and not report.complete:
        show(f"{out}: this part is done ({report.distinct} images); then: dalr features merge {out}")
        return
    left_out = f", {report.bad} bad ones listed in {out / 'bad_images.jsonl'}" if report.bad else ""
    rate = report.computed / max(report.seconds, 1e-9)
    computed = f"{report.computed} computed in {report.seconds:.1f} s, {rate:.1f} images/s"
    show(
        f"{out}: {report.rows} images of dimension {report.dim} ({report.distinct} distinct{left_out}); "
        f"{_stayed(report.kept, report.dropped)}{computed}"
    )


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
    ray: OnRay = None,
    resume: Annotated[bool, typer.Option("--resume", help="With --part or --ray: keep what is sealed.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode captions and text with a frozen teacher.

    Each distinct sentence is encoded once; vectors are taken before any Normalize module.

    \b
    Example:
      dalr features text --pairs photos/captions.jsonl --model MODEL --out stores/teacher
    """
    from dalr.features.part import UPDATE_IN_PARTS
    from dalr.features.request import TextRequest, write_on_ray
    from dalr.io.share import share_of

    require_place_for_folder(out, "--out")
    share = share_of(part) if part is not None else None
    if share is not None and update:
        raise ConfigError(UPDATE_IN_PARTS)
    if share is None and ray is None and resume:
        what = (
            "is for --part and --ray; without them all sentences are encoded in one run, and --update keeps those "
            "of a store"
        )
        raise ConfigError(Problem(where="--resume", what=what))
    encoder = _encoder(model, pooling, num_layers, max_tokens)
    request = TextRequest(
        out=out,
        encoder=encoder.model_copy(update={"revision": revision, "prompt": prompt}),
        pairs=pairs,
        reading=reading_of(pairs, format, columns, split),
        text=text,
        device=device,
        precision=precision,
    )
    console = Console(quiet=quiet, verbose=verbose)
    if ray is not None:
        refuse_ray_with(part=share is not None, update=update)
        _show_merged(out, write_on_ray(request, ray, resume=resume, console=console))
        return
    if share is not None:
        part_report = request.write_part(share, resume=resume, console=console)
        done = f"{part_report.done} of {part_report.of} blocks"
        show(f"{out}: this part is done ({done}); then: dalr features merge {out}")
        return
    report = request.write(update=update, console=console)
    show(f"{out}: {report.rows} rows; {_stayed(report.kept, report.dropped)}{report.computed} sentences encoded")


def _stayed(kept: int, dropped: int) -> str:
    """What an update left as it was."""
    return (f"{kept} kept, " if kept else "") + (f"{dropped} rows dropped, " if dropped else "")


def _show_merged(out: Path, report: ImageReport | None) -> None:
    """What the parts came to; None where the store was finished before, as a line above says."""
    if report is None:
        return
    left_out = f", {report.bad} bad ones listed in {out / 'bad_images.jsonl'}" if report.bad else ""
    show(f"{out}: {report.rows} rows of dimension {report.dim} ({report.distinct} distinct{left_out})")


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
        _show_merged(out, merge(out, max_bad_images=max_bad_images))


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
    from dalr.features.making import OTHER_OR_UPDATE, ids_of, refuse_lost_rows
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
        refuse_lost_rows(out, read_ids(ids), OTHER_OR_UPDATE)
    with locked_output(out):
        before = set(ids_of(out))
        import_matrix(file, ids, out)
    store = open_store(out)
    console.detail(f"{len(store.shards)} shards of up to {store.shard_rows} rows, fp16")
    after = set(store.ids)
    changed = f"; {len(before & after)} there before, {len(before - after)} dropped" if before else ""
    show(f"{out}: {len(store)} rows of dimension {store.dim}{changed}")


def _encoder(
    model: str, pooling: PoolingMode | None, num_layers: int | None, max_tokens: int | None = None
) -> EncoderConfig:
    from dalr.models.config import EncoderConfig
    from dalr.models.reference import inside_run

    return EncoderConfig(model=inside_run(model), pooling=pooling, num_layers=num_layers, max_tokens=max_tokens)
