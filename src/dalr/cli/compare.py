"""Is it better on my own images? `dalr compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import Device, Json, Plugin, Quiet, Verbose, claimed_json, claimed_page, use_plugins
from dalr.io.console import Console, show, tell


def compare(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that held out images.")],
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Further runs, model folders or hub ids.")
    ] = None,
    clip_text: Annotated[
        Path | None,
        typer.Option(
            help="Store of the captions' vectors by the text tower that goes with the image features "
            "(dalr features text) [default: the recipe's]."
        ),
    ] = None,
    json_file: Json = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    device: Device = "auto",
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Ask whether a run is better than its baselines on held-out images.

    The baselines are the encoder that the run began as, CLIP's own text tower where its vectors are stored, and the
    models that are named. The verdict is in words, with intervals over images.

    \b
    Example:
      dalr compare runs/photos --html photos-compared.html
    """
    use_plugins(plugin)
    from dalr.evaluation.photo_comparison import compare_photos
    from dalr.evaluation.request import Request
    from dalr.evaluation.results import write_results
    from dalr.evaluation.table import as_table
    from dalr.io.atomic import remedy

    with claimed_json(json_file), claimed_page(html):
        console = Console(quiet=quiet, verbose=verbose)
        request = Request(tasks=("retrieval", "captions"), device=device, console=console)
        found = compare_photos(run, models or [], request, clip_text=clip_text)
        show(as_table(found.models, found.comparisons, all_numbers=verbose))
        chance = ", ".join(f"{name} {value:.2f}" for name, value in found.chance.items())
        show(f"By chance: {chance}.\n")
        for sentence in found.verdict:
            show(sentence)
        for each in (*found.failed, *(failed for model in found.models for failed in model.failed)):
            tell(f"error: {each.task}: {each.reason}")
        if json_file is not None:
            with remedy("choose another --json file"):
                write_results(json_file, found.results())
        if html is not None:
            from dalr.report.comparison_page import write_comparison_page

            write_comparison_page(found, html)
            show(f"{html}")
    if found.failed:
        raise typer.Exit(found.failed[0].exit_code)
