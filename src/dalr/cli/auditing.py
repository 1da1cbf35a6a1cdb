"""Do my captions tell their images apart? `dalr audit`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import Columns, Device, Format, Json, Quiet, Split, Verbose, claimed_json, reading_of
from dalr.io.console import Console, show


def audit(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Captions and image names.")],
    features: Annotated[Path, typer.Option(help="Vectors of the images: a store or an .npy matrix.")],
    image_ids: Annotated[
        Path | None, typer.Option(help="Names of the rows of a --features matrix [default: PAIRS].")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Vectors of the captions (dalr features text, or a dual encoder's).")
    ] = None,
    text_ids: Annotated[Path | None, typer.Option(help="Names (IMAGE#k) of the rows of a --text matrix.")] = None,
    model: Annotated[str | None, typer.Option(help="In place of --text: a sentence encoder.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="In place of --text: a run with heads that never saw the images.")
    ] = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    neighbours: Annotated[int, typer.Option(min=1, max=1_000, help="Nearest images to tell apart.")] = 10,
    json_file: Json = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the worst cases.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the image files, for the thumbnails.")] = None,
    worst: Annotated[int, typer.Option(min=1, max=1_000, help="Cases of each kind on the page.")] = 24,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find captions that do not tell their image from others.

    Each pair of a caption and an image gets a score: 0 is a pair by chance, 1 a typical caption with its own image.

    \b
    Example:
      dalr audit photos/captions.jsonl --features stores/images --text stores/teacher --html audit.html
    """
    from dalr.audit.page import write_audit_page
    from dalr.audit.result import write_audit
    from dalr.audit.run import audit_pairs
    from dalr.audit.scoring import TextSource
    from dalr.errors import ConfigError, Problem
    from dalr.features.thumbnails import require_folder, thumbnails_shown
    from dalr.io.atomic import remedy
    from dalr.io.output_file import PAGE, claimed_file

    if images is not None and html is None:
        raise ConfigError(Problem(where="--images", what="is for the thumbnails of --html; name it too"))
    require_folder(images)
    source = TextSource(store=text, store_ids=text_ids, model=model, run=run, device=device)
    console = Console(quiet=quiet, verbose=verbose)
    with ExitStack() as held:
        held.enter_context(claimed_json(json_file))
        if html is not None:
            held.enter_context(claimed_file(html, PAGE, "--html"))
        found = audit_pairs(
            pairs,
            features,
            source,
            image_ids=image_ids,
            reading=reading_of(pairs, format, columns, split),
            neighbours=neighbours,
            console=console,
        )
        show(found.table())
        for sentence in found.verdict():
            show(sentence)
        if json_file is not None:
            with remedy("choose another --json file"):
                write_audit(found, json_file)
        if html is not None:
            shown = write_audit_page(found, html, images=images, worst=worst)
            console.say(f"{html}: {thumbnails_shown(shown, images)}")
