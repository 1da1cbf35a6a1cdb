"""Which commands stand alone? `dalr demo`, `import`, `cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import Quiet, Verbose
from dalr.io.console import Console, show
from dalr.models.choices import HeadChoice, ImportMethod, PoolingMode


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The whole path offline, on a small world made on the spot; ends with a table and report.html."""
    from dalr.demo.run import run_demo

    table = run_demo(out, seed=seed, console=Console(quiet=quiet, verbose=verbose))
    show(table)


def import_model(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder as published: config.json, tokenizer, pytorch_model.bin.")
    ],
    out: Annotated[Path, typer.Option(help="The SentenceTransformer folder to write.")],
    pooling: Annotated[PoolingMode, typer.Option(help="cls is how these methods evaluate.")] = "cls",
    head: Annotated[
        HeadChoice | None,
        typer.Option(help="The trained sentence head [default: as --method evaluates, or drop]."),
    ] = None,
    method: Annotated[ImportMethod | None, typer.Option(help="Whose checkpoint it is [default: not said].")] = None,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Leave out parameters that no known method has.")
    ] = False,
) -> None:
    """Make a SentenceTransformer of a published checkpoint (SimCSE, RankCSE, MCSE, KDMCSE, DALR, ...)."""
    from dalr.io.lock import locked_output
    from dalr.models.importing.checkpoint import import_checkpoint

    with locked_output(out):
        imported = import_checkpoint(
            checkpoint,
            out,
            pooling=pooling,
            head=head,
            method=method,
            drop_unknown=drop_unknown,
        )
    for line in imported.lines():
        show(line)
    show(f"model: {out}")


def cache(
    clean: Annotated[bool, typer.Option("--clean", help="Delete everything in it.")] = False,
) -> None:
    """Show (or clean) the cache of token streams, imported features, teacher vectors and mteb's scores."""
    from dalr.io.cache import cache_root, cache_use, clean_cache

    for use in cache_use():
        show(f"{use.kind}: {use.entries} entries, {use.bytes / 2**20:.1f} MiB")
    if clean:
        clean_cache()
    show(f"{'cleaned' if clean else 'folder'}: {cache_root()}")
