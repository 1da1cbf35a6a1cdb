"""Which commands stand alone? `dalr demo`, `import`, `cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import Quiet, Verbose
from dalr.io.console import Console, show
from dalr.models.choices import HeadChoice, ImportMethod, PoolingMode


def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Another seed generates another world.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run the whole path offline on a small generated world.

    Trains five methods, scores them, and ends with a table and report.html. Takes a few minutes.

    \b
    Example:
      dalr demo --out runs/demo
    """
    from dalr.demo.run import run_demo

    table = run_demo(out, seed=seed, console=Console(quiet=quiet, verbose=verbose))
    show(table)


def import_model(
    checkpoint: Annotated[
        Path, typer.Argument(help="Published folder: config.json, tokenizer, pytorch_model.bin.")
    ],
    out: Annotated[Path, typer.Option(help="The SentenceTransformer folder to write.")],
    pooling: Annotated[PoolingMode, typer.Option(help="Pooling; these methods evaluate with cls.")] = "cls",
    head: Annotated[
        HeadChoice | None,
        typer.Option(help="Keep or drop the sentence head [default: as --method evaluates, or drop]."),
    ] = None,
    method: Annotated[ImportMethod | None, typer.Option(help="The method that produced the checkpoint.")] = None,
    drop_unknown: Annotated[
        bool,
        typer.Option(
            "--drop-unknown", help="Leave out parameters that no known method has, instead of refusing them."
        ),
    ] = False,
) -> None:
    """Convert a published checkpoint into a SentenceTransformer.

    Reads checkpoints of SimCSE, RankCSE, DiffCSE, MCSE, KDMCSE and DALR, and accounts for every parameter.

    \b
    Example:
      dalr import unsup-simcse-bert-base-uncased --out models/simcse --method simcse
    """
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
    clean: Annotated[bool, typer.Option("--clean", help="Delete everything in the cache.")] = False,
) -> None:
    """Show or empty the cache.

    It holds token streams, imported features, teacher vectors and mteb scores.

    \b
    Example:
      dalr cache --clean
    """
    from dalr.io.cache import cache_root, cache_use, clean_cache

    for use in cache_use():
        show(f"{use.kind}: {use.entries} entries, {use.bytes / 2**20:.1f} MiB")
    if clean:
        clean_cache()
    show(f"{'cleaned' if clean else 'folder'}: {cache_root()}")
