"""Which command shows a run in a browser? `dalr explore`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr.cli.options import Device, Plugin, Quiet, Verbose, use_plugins
from dalr.errors import DalrError
from dalr.io.console import Console, show

if TYPE_CHECKING:
    from dalr.explore.mistakes import HeldOut
    from dalr.explore.models import Model


def explore(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[RUN2]", help="A second run, shown beside the first on its collection.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the image files, for the thumbnails.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many answers and mistakes.")] = 12,
    test: Annotated[
        bool, typer.Option("--test", help="Show mistakes on the test images in place of the validation images.")
    ] = False,
    graded_pairs: Annotated[
        Path | None,
        typer.Option(help="Graded sentence pairs: a TSV, or a folder of them [default: the run's validation set]."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="SentEval folder, for the pairs of STS-B.")] = None,
    vision: Annotated[
        str | None, typer.Option(help="Model that made the image vectors, for uploads [default: as stated].")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to serve on; 0 is any free one.")] = 7860,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "auto",
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search a run and see its mistakes in a browser.

    \b
    Example:
      dalr explore runs/photos --images photos/
    """
    use_plugins(plugin)
    from dalr.explore.server import LOOPBACK, address_of, bind, require_gradio

    require_gradio()
    console = Console(quiet=quiet, verbose=verbose)
    with bind(host, port) as bound:
        from dalr.explore.mistakes import graded_pairs as find_graded_pairs
        from dalr.explore.models import open_models, prepare
        from dalr.explore.page import Page, app
        from dalr.explore.server import guarded, own_uploads, serve, terminable
        from dalr.features.thumbnails import lacking, require_folder

        require_folder(images)
        models = open_models([run, *([other] if other is not None else [])], device=device, console=console)
        if images is not None and (note := lacking(images, models[0].searcher.collection.images)) is not None:
            console.say(f"warning: {note}")
        page = Page(
            models=models,
            k=k,
            images=images,
            vision=vision,
            held_out=_held_out(models, test=test),
            graded=find_graded_pairs(models, named=graded_pairs, data=data, test=test),
        )
        prepare(models, console)
        if host not in LOOPBACK:
            console.say(
                "warning: everyone who reaches this machine sees the captions and images; there is no login"
            )
        address = address_of(bound, host)
        with terminable(), own_uploads(), suppress(KeyboardInterrupt):
            served = guarded(app(page), host)
            show(f"{address}  (Ctrl-C stops it)")
            if open_browser:
                import webbrowser

                webbrowser.open(address)
            serve(served, bound)


def _held_out(models: tuple[Model, ...], *, test: bool) -> HeldOut | DalrError:
    """The images whose mistakes are shown; a run without any can still be searched, and the page says why."""
    from dalr.explore.mistakes import held_out

    try:
        return held_out(models, test=test)
    except DalrError as error:
        if test:
            raise
        return error
