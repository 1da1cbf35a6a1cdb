"""Which command turns rows into vectors? `dalr encode`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from dalr.cli.options import (
    Device,
    IdColumn,
    MaxTokens,
    Normalize,
    OnLong,
    OnRay,
    Plugin,
    Pooling,
    Prompt,
    Quiet,
    ResumeSame,
    Revision,
    SentenceColumn,
    Verbose,
    refuse_ray_with,
    use_plugins,
)
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show, tell


def encode(
    model: Annotated[str | None, typer.Argument(help="Run folder, model folder or hub id.")] = None,
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Text, JSONL, CSV, TSV or Parquet file, - or a folder of images."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.npy, FILE.parquet (id, vector), or a folder: a feature store.")
    ] = None,
    column: SentenceColumn = "text",
    id_column: IdColumn = None,
    format: Annotated[
        Literal["lines", "jsonl", "csv", "tsv", "parquet", "images"] | None,
        typer.Option(help="Format of INPUT [default: inferred from its name]."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "int8", "binary"],
        typer.Option(help="bf16 computes faster; int8 and binary store a byte, or a bit, per dimension."),
    ] = "fp32",
    ranges: Annotated[
        Path | None, typer.Option(help="int8: OUT.json of other vectors, whose ranges are used here too.")
    ] = None,
    truncate_dim: Annotated[int | None, typer.Option(min=1, help="Keep only the first dimensions.")] = None,
    normalize: Normalize = None,
    max_tokens: MaxTokens = None,
    on_long: OnLong = "truncate",
    pooling: Pooling = None,
    prompt: Prompt = None,
    revision: Revision = None,
    device: Device = "auto",
    part: Annotated[
        str | None, typer.Option(metavar="i/n", help="Compute every n-th part only; --merge puts them together.")
    ] = None,
    ray: OnRay = None,
    merge: Annotated[bool, typer.Option("--merge", help="Put together what --part left beside --out.")] = False,
    resume: ResumeSame = False,
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode every row of a file, in order.

    \b
    Example:
      dalr encode runs/photos sentences.txt --out vectors.npy
    """
    use_plugins(plugin)
    from dalr.inference.encode import MERGE, EncodeOptions, encode_file, encode_on_ray, merge_parts
    from dalr.inference.rows import Source
    from dalr.io.share import share_of
    from dalr.models.absent import refuse_swapped

    if out is None or (not merge and (model is None or source is None)):
        raise ConfigError(_incomplete(model, source, out, merge=merge))
    if ray is not None:
        refuse_ray_with(part=part is not None, merge=merge)
    refuse_swapped(model, source, "MODEL", f"dalr encode {{}} {{}} --out {out}")
    if merge:
        if model is not None or part is not None:
            what = "takes only --out: the parts state how the vectors are made"
            raise ConfigError(Problem(where="--merge", what=what))
        report = merge_parts(out)
    else:
        assert model is not None
        assert source is not None
        options = EncodeOptions(
            precision=precision,
            normalize=normalize,
            truncate_dim=truncate_dim,
            max_tokens=max_tokens,
            on_long=on_long,
            pooling=pooling,
            prompt=prompt,
            revision=revision,
            device=device,
            ranges=ranges,
            console=Console(quiet=quiet, verbose=verbose),
        )
        rows = Source(path=source, column=column, id_column=id_column, format=format)
        if ray is not None:
            report = encode_on_ray(model, rows, out, options, ray, resume=resume, plugins=tuple(plugin or ()))
        else:
            share = share_of(part) if part is not None else MERGE
            report = encode_file(model, rows, out, options, share=share, resume=resume)
    first, *notes = report.lines()
    show(first)
    if not quiet:
        for note in notes:
            tell(f"note: {note}")


def _incomplete(model: str | None, source: str | None, out: Path | None, *, merge: bool) -> list[Problem]:
    """What a call lacks, all of it, and a call that lacks nothing."""
    needed = {
        "MODEL": (model, "name a run, a model folder or a hub id"),
        "INPUT": (source, "name a file with the sentences, or a folder of images; - is standard input"),
        "--out": (out, "name FILE.npy, FILE.parquet or a folder"),
    }
    lacking = {where: what for where, (value, what) in needed.items() if value is None}
    if merge:
        example = "dalr encode --merge --out vectors.npy"
        lacking = {"--out": lacking["--out"]}
    else:
        shown = [model or "runs/photos", source or "sentences.txt", str(out or "vectors.npy")]
        example = "dalr encode {} {} --out {}".format(*map(shlex.quote, shown))
    *others, (last, what) = lacking.items()
    return [
        *(Problem(where=where, what=each) for where, each in others),
        Problem(where=last, what=f"{what}; for example: {example}"),
    ]
