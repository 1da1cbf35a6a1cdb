"""How are models scored and shown? `dalr evaluate`, `report`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr.cli.options import (
    Bf16,
    Columns,
    Device,
    FollowLinks,
    Format,
    Json,
    Layers,
    Plugin,
    Pooling,
    Prompt,
    Quiet,
    Split,
    Verbose,
    claimed_json,
    reading_of,
    use_plugins,
)
from dalr.errors import ConfigError, Problem
from dalr.evaluation.tasks import Classifier, MapMethod
from dalr.io.console import Console, show, tell

if TYPE_CHECKING:
    from dalr.evaluation.results import Failed


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Model folder, run folder, checkpoint or hub id.")],
    data: Annotated[Path | None, typer.Option(help="Folder in SentEval's downstream layout.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks or groups, separated by commas: sts, sts-b-dev, transfer, geometry, retrieval, captions, "
            "STS12, ... "
            "[default: sts; with --mteb or --graded-pairs: none]"
        ),
    ] = None,
    graded_pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Your own pairs as a task (repeatable): a TSV of score, sentence, sentence, or a folder of such "
            "files, whose scores are averaged by subfolder.",
        ),
    ] = None,
    mteb: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="A task of the mteb package (repeatable).")
    ] = None,
    classifier: Annotated[
        Classifier, typer.Option(help="Classifier of transfer tasks: SentEval's protocol, or lbfgs to convergence.")
    ] = "senteval",
    fast: Annotated[bool, typer.Option("--fast", help="SentEval's quick settings for transfer tasks.")] = False,
    json_file: Json = None,
    pooling: Pooling = None,
    num_layers: Layers = None,
    prompt: Prompt = None,
    precision: Bf16 = "fp32",
    heads: Annotated[Path | None, typer.Option(help="Retrieval: trained heads [default: the run's].")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Retrieval: captions and images [default: what the run held out].")
    ] = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    features: Annotated[Path | None, typer.Option(help="Retrieval: image features of --pairs.")] = None,
    image_ids: Annotated[
        Path | None, typer.Option(help="Names of the rows of a --features matrix [default: --pairs].")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Retrieval by a multimodal model: folder with the images of --pairs.")
    ] = None,
    follow_links: FollowLinks = None,
    device: Device = "auto",
    exclude_overlap: Annotated[
        Path | None,
        typer.Option(help="Training pairs or text: also score STS without its sentences."),
    ] = None,
    allow_changed_data: Annotated[
        bool,
        typer.Option("--allow-changed-data", help="Score files that differ from the official ones, and say so."),
    ] = False,
    map_method: Annotated[
        MapMethod, typer.Option("--map", help="Projection of the report's map of sentences.")
    ] = "pca",
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score models on STS, transfer and retrieval tasks.

    Each score has a 95 % interval; two or more models are compared in pairs.

    \b
    Example:
      dalr evaluate runs/photos --data senteval --tasks sts,transfer
    """
    use_plugins(plugin)
    from dalr.evaluation.request import Request
    from dalr.evaluation.results import write_results
    from dalr.evaluation.run import evaluate as score
    from dalr.evaluation.table import as_table
    from dalr.io.atomic import remedy
    from dalr.io.writable import require_writable

    if fast and classifier != "senteval":
        raise ConfigError(Problem(where="--fast", what=f"settings of the senteval classifier, not of {classifier}"))
    request = Request(
        data=data,
        tasks=names_of(tasks if tasks is not None else "" if mteb or graded_pairs else "sts"),
        graded_pairs=dict(map(_named_path, graded_pairs or ())),
        mteb=mteb or (),
        classifier="senteval-fast" if fast else classifier,
        pooling=pooling,
        num_layers=num_layers,
        prompt=prompt,
        precision=precision,
        heads=heads,
        pairs=pairs,
        reading=reading_of(pairs, format, columns, split),
        features=features,
        image_ids=image_ids,
        images=images,
        follow_links=follow_links,
        device=device,
        exclude_overlap=exclude_overlap,
        allow_changed_data=allow_changed_data,
        map_method=map_method,
        console=Console(quiet=quiet, verbose=verbose),
    )
    if json_file is not None:
        require_writable(json_file, "--json")
    with claimed_json(json_file):
        found = score(models, request)
        if any(model.tasks for model in found.models):
            show(as_table(found.models, found.comparisons, all_numbers=verbose))
        failed = {each.task: each for model in found.models for each in model.failed}
        for each in (*failed.values(), *found.failed):
            _show_failed(each)
        if json_file is not None:
            with remedy("choose another --json file"):
                write_results(json_file, found.models[0] if len(models) == 1 else found)
    if found.failed:
        raise typer.Exit(found.failed[0].exit_code)
    _exit_with_codes_of(failed.values())


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RUN|JSON...", help="Run folders, or files of `dalr evaluate --json`.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    markdown: Annotated[Path | None, typer.Option(help="Also write the score tables as Markdown.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Also write the score tables as LaTeX (booktabs).")] = None,
    title: Annotated[str | None, typer.Option(help="The page's title [default: the models' names].")] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write one self-contained page about one or more models.

    Scores beside the published ones, training curves, provenance of each number.

    \b
    Example:
      dalr report runs/photos --out photos.html
    """
    use_plugins(plugin)
    from dalr.io.paths import size_of
    from dalr.report.write import write_report

    console = Console(quiet=quiet, verbose=verbose)
    write_report(results, out=out, markdown=markdown, latex=latex, title=title, console=console)
    for written in filter(None, (out, markdown, latex)):
        show(f"{written}: {size_of(written) / 1000:.0f} kB")


def _named_path(given: str) -> tuple[str, Path]:
    name, separator, path = given.partition("=")
    if not separator or not name.strip() or not path.strip():
        what = f"expected NAME=PATH, such as jargon=pairs/jargon.tsv, found {given!r}"
        raise ConfigError(Problem(where="--graded-pairs", what=what))
    return name.strip(), Path(path.strip())


def _show_failed(failed: Failed) -> None:
    tell(f"error: {failed.task}: {failed.reason}")


def _exit_with_codes_of(failed: Iterable[Failed]) -> None:
    """Leave with the code of tasks that have no score."""
    from dalr.errors import DataError, NumericsError

    codes = {each.exit_code for each in failed}
    if codes:
        raise typer.Exit(NumericsError.exit_code if NumericsError.exit_code in codes else DataError.exit_code)


def names_of(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")] if listed else []
