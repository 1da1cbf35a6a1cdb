"""Which command answers other programs? `dalr serve`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dalr.cli.options import (
    Columns,
    Device,
    Format,
    MaxTokens,
    Normalize,
    OnLong,
    Plugin,
    Pooling,
    Prompt,
    Quiet,
    Revision,
    SearchedFeatures,
    SearchedImageIds,
    SearchedPairs,
    Split,
    TrainedHeads,
    Verbose,
    reading_of,
    use_plugins,
)
from dalr.errors import ConfigError, Problem, install
from dalr.io.console import Console


def serve(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run folder, model folder or hub id.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 also answers other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model [default: the folder's name or hub id].")
    ] = None,
    search: Annotated[
        bool | None,
        typer.Option("--search/--no-search", help="Also search the run's collection [default: if it has one]."),
    ] = None,
    pairs: SearchedPairs = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    features: SearchedFeatures = None,
    image_ids: SearchedImageIds = None,
    heads: TrainedHeads = None,
    vision: Annotated[
        str | None, typer.Option(help="The model that made the image vectors [default: as stated].")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="How vectors are computed.")] = "fp32",
    normalize: Normalize = None,
    max_tokens: MaxTokens = None,
    on_long: OnLong = "truncate",
    pooling: Pooling = None,
    prompt: Prompt = None,
    revision: Revision = None,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=4_096, help="CPU threads that encode [default: PyTorch's].")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=65_536, help="Most rows encoded at once.")] = 64,
    max_wait_ms: Annotated[
        float, typer.Option(help="Longest wait of a batch for rows of other requests, in milliseconds.")
    ] = 2.0,
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows per request.")] = 2_048,
    max_chars: Annotated[int, typer.Option(min=1, help="Most characters per row.")] = 65_536,
    max_payload_mb: Annotated[int, typer.Option(min=1, max=1_024, help="Largest body of a request.")] = 16,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most rows that wait, of all requests.")] = 8_192,
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Answer requests for embeddings and search over HTTP.

    Embeddings are asked for as in OpenAI's API.

    \b
    Example:
      dalr serve runs/photos --port 8000
    """
    use_plugins(plugin)
    _require_extra()
    from dalr.inference.encode import EncodeOptions
    from dalr.serving.limits import Limits
    from dalr.serving.server import serve as listen
    from dalr.serving.service import ServeOptions

    limits = Limits(
        max_rows=max_rows,
        max_chars=max_chars,
        max_payload_mb=max_payload_mb,
        max_waiting=max_waiting,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
    )
    encode = EncodeOptions(
        precision=precision,
        normalize=normalize,
        max_tokens=max_tokens,
        pooling=pooling,
        prompt=prompt,
        revision=revision,
        device=device,
    )
    options = ServeOptions(
        model=model,
        name=name,
        encode=encode,
        on_long=on_long,
        threads=threads,
        search=search,
        pairs=pairs,
        features=features,
        image_ids=image_ids,
        reading=reading_of(pairs, format, columns, split),
        heads=heads,
        vision=vision,
        limits=limits,
    )
    listen(options, host=host, port=port, console=Console(quiet=quiet, verbose=verbose))


def _require_extra() -> None:
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        what = f"needs FastAPI and uvicorn ({error}); {install('serve')}"
        raise ConfigError(Problem(where="dalr serve", what=what)) from None
    del fastapi, uvicorn
