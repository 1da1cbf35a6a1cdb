"""How is evaluation data fetched and verified? `dalr data get`, `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import Columns, Format, Quiet, Split, Verbose, reading_of
from dalr.errors import ConfigError, Problem
from dalr.evaluation.tasks import Group
from dalr.io.console import Console, show
from dalr.io.paths import is_dir, require_place_for_folder


def get_data(
    group: Annotated[Group, typer.Argument(help="The tasks whose data is fetched.")],
    out: Annotated[Path, typer.Option(help="The folder for `dalr evaluate --data`.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="DIR|ARCHIVE|URL", help="A copy of the data [default: the public archive]."),
    ] = None,
    accept_licences: Annotated[
        bool, typer.Option("--accept-licences", help="State that you have read the owners' terms and accept them.")
    ] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Accept files that differ from the official ones.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fetch SentEval's files and compare them with the official ones.

    \b
    Example:
      dalr data get sts --out senteval
    """
    from dalr.evaluation.obtain import obtain, require_licences
    from dalr.io.lock import locked

    require_place_for_folder(out, "--out")
    ask = (
        (lambda: typer.confirm("Do you accept them?", err=True))
        if sys.stdin is not None and sys.stdin.isatty()
        else None
    )
    # the terms are shown under --quiet too
    require_licences(group, accepted=accept_licences, ask=ask, console=Console())
    console = Console(quiet=quiet, verbose=verbose)
    with locked(out):
        show(obtain(group, source, out, console=console, allow_changed=allow_changed_data))


def verify_data(
    folder: Annotated[Path, typer.Argument(help="The folder of `dalr evaluate --data`.")],
    group: Annotated[
        Group | None,
        typer.Option(help="The tasks whose data is checked [default: every group with a file in the folder]."),
    ] = None,
) -> None:
    """Show which of SentEval's files are present, missing or different.

    \b
    Example:
      dalr data verify senteval --group sts
    """
    from dalr.errors import DataError
    from dalr.evaluation.obtain import verification

    if not is_dir(folder):
        raise DataError(Problem(where="FOLDER", what=f"no such folder: {folder.absolute()}"))
    table, bad = verification(folder, group)
    show(table)
    if bad:
        raise DataError([check.problem() for check in bad])


def pack_data(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Captions and image names.")],
    images: Annotated[Path, typer.Option(help="Folder that the image names are relative to.")],
    out: Annotated[Path, typer.Option(help="The folder of shards to write.")],
    size: Annotated[
        str,
        typer.Option("--shard-size", metavar="BYTES|IMAGES", help="Largest shard: 500MB, or 10000 images."),
    ] = "1GB",
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pack images and captions into tar shards (WebDataset).

    \b
    Example:
      dalr data pack photos/captions.jsonl --images photos/images --out shards --shard-size 500MB
    """
    from dalr.data.packing import pack_shards, rows_to_pack, shard_size
    from dalr.io.lock import locked_output

    wanted = shard_size(size)
    if not is_dir(images):
        raise ConfigError(Problem(where="--images", what=f"expected the folder of the images, found {images}"))
    rows = rows_to_pack(pairs, reading_of(pairs, format, columns, split))
    console = Console(quiet=quiet, verbose=verbose)
    with locked_output(out), console.bar("pack", len(rows), "image") as bar:
        report = pack_shards(out, rows, images, wanted, progress=lambda done: bar.update(done))
    last = f"{report.shards - 1:05d}"
    names = f"{{00000..{last}}}.tar" if report.shards > 1 else "00000.tar"
    show(f"{out / names}: {report.images} images with {report.captions} captions")
