"""Which commands give a model to other programs? `dalr export`, `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dalr.cli.options import Pooling, Quiet, Verbose
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show
from dalr.io.paths import require_place_for_folder

Format = Literal["onnx", "openvino", "sentence-transformers"]


def export(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run folder, model folder or hub id.")],
    format: Annotated[
        Format,
        typer.Option(help="onnx or openvino: a graph without torch; sentence-transformers: text and images."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="onnx: also write a model quantized to 8 bits.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="SentEval folder: measure what --int8 loses in STS average.")
    ] = None,
    vision: Annotated[
        str | None, typer.Option(help="sentence-transformers: the CLIP that made the run's image features.")
    ] = None,
    pooling: Pooling = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a model for other programs, compared with PyTorch first.

    \b
    Example:
      dalr export runs/photos --format onnx --out photos-onnx
    """
    require_place_for_folder(out, "--out")
    console = Console(quiet=quiet, verbose=verbose)
    if format == "sentence-transformers":
        idle = {"--int8": int8, "--data": data is not None, "--pooling": pooling is not None}
        _refuse_idle(idle, "is for graphs; leave it out, or say --format onnx")
        if vision is None:
            what = "the image route needs the model that made the run's image features; name it"
            raise ConfigError(Problem(where="--vision", what=what))
        from dalr.export.multimodal import export_multimodal

        for line in export_multimodal(model, vision, out, console=console).lines():
            show(line)
        return
    _refuse_idle({"--vision": vision is not None}, "is for --format sentence-transformers; leave it out")
    from dalr.export.graphs import export_graphs

    exported = export_graphs(model, out, format=format, int8=int8, data=data, pooling=pooling, console=console)
    for line in exported.lines():
        show(line)


def _refuse_idle(options: dict[str, bool], what: str) -> None:
    if problems := [Problem(where=name, what=what) for name, given in options.items() if given]:
        raise ConfigError(problems)


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the Hugging Face hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public [default: private].")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and send nothing.")] = False,
) -> None:
    """Upload the model of a run and its card, and nothing else.

    \b
    Example:
      dalr push runs/photos me/photos --dry-run
    """
    from dalr.export.push import push as upload
    from dalr.models.absent import refuse_swapped

    refuse_swapped(run, repository, "RUN", "dalr push {} {}")
    for line in upload(run, repository, private=not public, dry_run=dry_run).lines():
        show(line)
