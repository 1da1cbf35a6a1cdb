"""Which commands use a trained model? `dalr encode`, `search`, `index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show, tell
from dalr.models.choices import PoolingMode

if TYPE_CHECKING:
    from dalr.inference.searcher import Hit
    from dalr.inference.work import Share

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more of what is going on.")]


def encode(
    model: Annotated[str | None, typer.Argument(help="Run folder, model folder or hub id.")] = None,
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Text, JSONL, CSV, TSV or Parquet file, - or a folder of images."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.npy, FILE.parquet (id, vector), or a folder: a feature store.")
    ] = None,
    column: Annotated[str, typer.Option(help="Column or key that holds the sentences.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="Column of the ids [default: row number from 1].")] = None,
    format: Annotated[
        Literal["lines", "jsonl", "csv", "tsv", "parquet", "images"] | None,
        typer.Option(help="What INPUT is [default: told by its name]."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "int8", "binary"],
        typer.Option(help="bf16 computes faster; int8 and binary store a byte, or a bit, per dimension."),
    ] = "fp32",
    ranges: Annotated[
        Path | None, typer.Option(help="int8: OUT.json of other vectors, whose ranges are used here too.")
    ] = None,
    truncate_dim: Annotated[int | None, typer.Option(min=1, help="Keep only the first dimensions.")] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--no-normalize", help="Length 1 [default: as the model does].")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=3, max=1_000_000, help="Longest input [default: the model's own].")
    ] = None,
    on_long: Annotated[
        Literal["truncate", "error"], typer.Option(help="What to do with longer rows.")
    ] = "truncate",
    pooling: Annotated[
        PoolingMode | None, typer.Option(help="In place of the model's own, or for a model that states none.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Before every sentence: a prompt's name or a text.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda:0, ...")] = "auto",
    part: Annotated[
        str | None, typer.Option(metavar="i/n", help="Compute every n-th part only; --merge puts them together.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Put together what --part left beside --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after a kill, to the same bytes.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Vectors of every row of a file, in order."""
    from dalr.inference.encode import MERGE, EncodeOptions, encode_file, merge_parts
    from dalr.inference.rows import Source

    if out is None:
        raise ConfigError(Problem(where="--out", what="name FILE.npy, FILE.parquet or a folder"))
    if merge:
        if model is not None or part is not None:
            what = "takes nothing but --out: how the vectors are made stands in the parts"
            raise ConfigError(Problem(where="--merge", what=what))
        report = merge_parts(out)
    else:
        if model is None or source is None:
            raise ConfigError(Problem(where="MODEL INPUT", what="name a model and a file; - is standard input"))
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
        report = encode_file(
            model, rows, out, options, share=_share(part) if part is not None else MERGE, resume=resume
        )
    first, *notes = report.lines()
    show(first)
    if not quiet:
        for note in notes:
            tell(f"note: {note}")


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
    pairs: Annotated[
        Path | None, typer.Option(help="Captions and images to search [default: those of the run].")
    ] = None,
    format: Annotated[str | None, typer.Option(help="What --pairs is [default: told by its name].")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="image=A,caption=B", help="What the columns of --pairs are called.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Vectors of the images of --pairs.")] = None,
    image_ids: Annotated[
        Path | None, typer.Option(help="Names of the rows of a --features matrix [default: --pairs].")
    ] = None,
    heads: Annotated[Path | None, typer.Option(help="Trained heads [default: the run's].")] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Search only among the images that the run held out.")
    ] = False,
    index: Annotated[Path | None, typer.Option(help="Search an index that dalr index wrote.")] = None,
    vision: Annotated[
        str | None, typer.Option(help="--image: the model that made the image vectors [default: as stated].")
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda:0, ...")] = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Images or captions nearest to a sentence or an image; no index is needed."""
    if (sentence is None) == (image is None):
        raise ConfigError(Problem(where="SENTENCE", what="say what to look for: a sentence, or --image FILE"))
    console = Console(quiet=quiet, verbose=verbose)
    if html is not None:
        from dalr.io.writable import require_writable

        require_writable(html, "--html")
    if index is not None:
        _refuse_with_index(image, within, pairs, features, held_out)
        from dalr.inference.index import search_index

        hits = search_index(index, str(run), str(sentence), k=k, device=device)
    else:
        from dalr.data.reading import reading_of_options
        from dalr.inference.searcher import Searcher

        searcher = Searcher(
            run,
            pairs=pairs,
            features=features,
            image_ids=image_ids,
            reading=reading_of_options(format, columns, "all"),
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
        hint = "" if shown or images is not None else "; --images DIR adds thumbnails"
        console.say(f"{html}: {shown} thumbnails{hint}")


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
    column: Annotated[str, typer.Option(help="Column or key that holds the sentences.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="Column of the ids [default: row number from 1].")] = None,
    format: Annotated[
        Literal["lines", "jsonl", "csv", "tsv", "parquet"] | None,
        typer.Option(help="What INPUT is [default: told by its name]."),
    ] = None,
    kind: Annotated[
        Literal["exact", "hnsw", "ivf"], typer.Option(help="exact compares all rows; the others need faiss.")
    ] = "exact",
    add: Annotated[bool, typer.Option("--add", help="Add the rows of INPUT to the index in --out.")] = False,
    delete: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Delete the ids in this file, one per line.")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="How vectors are computed.")] = "fp32",
    max_tokens: Annotated[
        int | None, typer.Option(min=3, max=1_000_000, help="Longest input [default: the model's own].")
    ] = None,
    pooling: Annotated[
        PoolingMode | None, typer.Option(help="In place of the model's own, or for a model that states none.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Before every sentence: a prompt's name or a text.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda:0, ...")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue after a kill, to the same bytes.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Vectors of many rows in a folder that dalr search --index reads."""
    from dalr.inference.encode import EncodeOptions
    from dalr.inference.index import build_index, change_index
    from dalr.inference.rows import Source

    options = EncodeOptions(
        precision=precision,
        normalize=True,
        max_tokens=max_tokens,
        pooling=pooling,
        prompt=prompt,
        device=device,
        console=Console(quiet=quiet, verbose=verbose),
    )
    rows = Source(path=source, column=column, id_column=id_column, format=format) if source is not None else None
    if add or delete is not None:
        if add and rows is None:
            raise ConfigError(Problem(where="INPUT", what="name the rows to add"))
        report = change_index(model, out, add=rows if add else None, delete=delete, options=options)
    else:
        if rows is None:
            raise ConfigError(Problem(where="INPUT", what="name the rows to find later"))
        report = build_index(model, rows, out, options, kind=kind, resume=resume)
    show(report.line())


def _share(part: str) -> Share:
    from dalr.inference.work import Share

    number, _, of = part.partition("/")
    if not number.isdigit() or not of.isdigit() or not int(of):
        raise ConfigError(Problem(where="--part", what=f"expected i/n such as 2/8, found {part!r:.40}"))
    return Share(number=int(number) - 1, of=int(of))
