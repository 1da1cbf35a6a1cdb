"""Which commands find rows? `dalr search`, `dalr index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dalr.cli.options import (
    Columns,
    Device,
    Format,
    IdColumn,
    MaxTokens,
    Plugin,
    Pooling,
    Prompt,
    Quiet,
    ResumeSame,
    SearchedFeatures,
    SearchedImageIds,
    SearchedPairs,
    SentenceColumn,
    Split,
    TrainedHeads,
    Verbose,
    claimed_page,
    reading_of,
    use_plugins,
)
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show

if TYPE_CHECKING:
    from dalr.inference.searcher import Hit


def search(
    run: Annotated[str, typer.Argument(help="Run folder, or a model folder with --pairs or --index.")],
    sentence: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[
        str | None, typer.Option(help="In place of a sentence: an image file, or the key of an image.")
    ] = None,
    within: Annotated[
        Literal["images", "captions"] | None, typer.Option("--in", help="What to find [default: images].")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100_000, help="How many answers.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the image files, for the thumbnails.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    pairs: SearchedPairs = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    features: SearchedFeatures = None,
    image_ids: SearchedImageIds = None,
    heads: TrainedHeads = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Search only among the images that the run held out.")
    ] = False,
    index: Annotated[Path | None, typer.Option(help="Search an index that dalr index wrote.")] = None,
    vision: Annotated[
        str | None, typer.Option(help="--image: the model that made the image vectors [default: as stated].")
    ] = None,
    device: Device = "auto",
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find images or captions by a sentence or by an image.

    \b
    Example:
      dalr search runs/photos "a dog jumps into the sea" -k 5
    """
    from dalr.features.thumbnails import require_folder, thumbnails_shown
    from dalr.models.absent import refuse_swapped

    refuse_swapped(run, sentence, "RUN", "dalr search {} {}")
    use_plugins(plugin)
    if (sentence is None) == (image is None):
        raise ConfigError(Problem(where="SENTENCE", what=_one_of_two(run, both=sentence is not None)))
    if images is not None and html is None:
        raise ConfigError(Problem(where="--images", what="is for the thumbnails of --html; name it too"))
    require_folder(images)
    console = Console(quiet=quiet, verbose=verbose)
    with claimed_page(html):
        if index is not None:
            _refuse_with_index(image, within, pairs, features, held_out)
            from dalr.inference.index import search_index

            hits = search_index(index, str(run), str(sentence), k=k, device=device)
        else:
            from dalr.inference.searcher import Searcher

            searcher = Searcher(
                run,
                pairs=pairs,
                features=features,
                image_ids=image_ids,
                reading=reading_of(pairs, format, columns, split),
                heads=heads,
                held_out=held_out,
                device=device,
                console=console,
            )
            if image is not None:
                hits = searcher.search_image(image, k=k, within=within or "images", vision=vision)
            else:
                hits = searcher.search(str(sentence), k=k, within=within or "images")
        show(_as_json(hits) if as_json else _as_table(hits))
        if html is not None:
            from dalr.inference.contact_sheet import write_contact_sheet

            shown = write_contact_sheet(html, sentence or f"Like {image}", hits, images)
            console.say(f"{html}: {thumbnails_shown(shown, images)}")


def _one_of_two(run: str, *, both: bool) -> str:
    if both:
        return "say what to look for by a sentence, or --image FILE; found both: leave one out"
    return f'say what to look for: a sentence, or --image FILE; for example: dalr search {run} "a dog in the snow"'


def _refuse_with_index(
    image: str | None, within: str | None, pairs: Path | None, features: Path | None, held_out: bool
) -> None:
    given = {
        "--image": image,
        "--in": within,
        "--pairs": pairs,
        "--features": features,
        "--held-out": held_out or None,
    }
    problems = [
        Problem(where=option, what="does not apply to an index, which holds its own rows; leave it out")
        for option, value in given.items()
        if value is not None
    ]
    if problems:
        raise ConfigError(problems)


def _as_json(hits: list[Hit]) -> str:
    import json

    return json.dumps([hit.as_json() for hit in hits], indent=2, ensure_ascii=False)


def _as_table(hits: list[Hit]) -> str:
    """Rank, score, id and first caption; an answer per line."""
    if not hits:
        return "nothing found"
    longest = min(max(len(hit.id) for hit in hits), 60)
    rows = [("rank", "score", "id", "caption")]
    rows += [
        (str(hit.rank), f"{hit.score:.3f}", hit.id, " ".join("".join(hit.captions[:1]).split())) for hit in hits
    ]
    return "\n".join(f"{a:>4}  {b:>6}  {c:<{longest}}  {d}".rstrip() for a, b, c, d in rows)


def index(
    model: Annotated[str, typer.Argument(help="Run folder, model folder or hub id.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Text, JSONL, CSV, TSV or Parquet file, or -: rows to find later."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The index, a folder.")] = ...,  # type: ignore[assignment]
    column: SentenceColumn = "text",
    id_column: IdColumn = None,
    format: Annotated[
        Literal["lines", "jsonl", "csv", "tsv", "parquet"] | None,
        typer.Option(help="Format of INPUT [default: inferred from its name]."),
    ] = None,
    kind: Annotated[
        Literal["exact", "hnsw", "ivf"], typer.Option(help="exact compares all rows; the others need faiss.")
    ] = "exact",
    add: Annotated[bool, typer.Option("--add", help="Add the rows of INPUT to the index in --out.")] = False,
    delete: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Delete the ids in this file, one per line.")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="How vectors are computed.")] = "fp32",
    max_tokens: MaxTokens = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    device: Device = "auto",
    resume: ResumeSame = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Index the vectors of many rows for `dalr search --index`.

    \b
    Example:
      dalr index runs/photos sentences.txt --out photos-index
    """
    from dalr.inference.encode import EncodeOptions
    from dalr.inference.index import build_index, change_index
    from dalr.inference.rows import Source
    from dalr.models.absent import refuse_swapped

    options = EncodeOptions(
        precision=precision,
        normalize=True,
        max_tokens=max_tokens,
        pooling=pooling,
        prompt=prompt,
        device=device,
        console=Console(quiet=quiet, verbose=verbose),
    )
    refuse_swapped(model, source, "MODEL", f"dalr index {{}} {{}} --out {out}")
    rows = Source(path=source, column=column, id_column=id_column, format=format) if source is not None else None
    if add or delete is not None:
        if add and rows is None:
            raise ConfigError(
                Problem(where="INPUT", what=f"name the rows to add: dalr index {model} new.txt --add --out {out}")
            )
        report = change_index(model, out, add=rows if add else None, delete=delete, options=options)
    else:
        if rows is None:
            raise ConfigError(
                Problem(
                    where="INPUT", what=f"name the rows to find later: dalr index {model} sentences.txt --out {out}"
                )
            )
        report = build_index(model, rows, out, options, kind=kind, resume=resume)
    show(report.line())
