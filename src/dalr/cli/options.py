"""Which options do several commands share, and how are they read?"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dalr.data.choices import FormatName
from dalr.errors import ConfigError, Problem
from dalr.models.choices import ComputePrecision, PoolingMode

if TYPE_CHECKING:
    from dalr.data.reading import Reading


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more detail.")]
Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped name or the path of a file.")]


def _pairs(settings: list[str] | None) -> list[str] | None:
    """Refuse a setting without a value at once: click would only call the value an unexpected argument."""
    from dalr.recipe.document import change_of

    for setting in settings or []:
        change_of(setting)
    return settings


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", callback=_pairs, help="Change one key of the recipe (repeatable)."
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|MODULE",
        help="Python file or module that registers terms or image encoders; runs with your permissions.",
    ),
]
Layers = Annotated[int | None, typer.Option(min=1, max=10_000, help="Keep only the first layers of the model.")]
Pooling = Annotated[
    PoolingMode | None, typer.Option(help="Pooling, in place of the model's own or for a model that states none.")
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Prompt before every sentence: a name or a text, '' for none [default: the model's own]."),
]
Bf16 = Annotated[
    ComputePrecision,
    typer.Option("--precision", help="What vectors are computed in; bf16 needs a processor that has it."),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Device = Annotated[str, typer.Option(help="Device: auto (a GPU if there is one), cpu, cuda:0, ...")]
Format = Annotated[FormatName | None, typer.Option(help="Format of --pairs [default: by file name and content].")]
Columns = Annotated[str | None, typer.Option(metavar="image=A,caption=B,split=C", help="Column names of --pairs.")]
Split = Annotated[str | None, typer.Option(help="Splits of --pairs to use, separated by commas, or all.")]
FollowLinks = Annotated[
    Path | None, typer.Option(help="Folder into which symbolic links in --images may lead [default: --images].")
]
MaxTokens = Annotated[
    int | None, typer.Option(min=3, max=1_000_000, help="Longest input in tokens [default: the model's own].")
]
Normalize = Annotated[
    bool | None,
    typer.Option("--normalize/--no-normalize", help="Scale vectors to unit length [default: as the model does]."),
]
OnLong = Annotated[Literal["truncate", "error"], typer.Option(help="What to do with longer rows.")]
SearchedPairs = Annotated[
    Path | None, typer.Option(help="Captions and images to search [default: those of the run].")
]
SearchedFeatures = Annotated[Path | None, typer.Option(help="Vectors of the images of --pairs.")]
SearchedImageIds = Annotated[
    Path | None, typer.Option(help="Names of the rows of a --features matrix [default: --pairs].")
]
TrainedHeads = Annotated[Path | None, typer.Option(help="Trained heads [default: the run's].")]
SentenceColumn = Annotated[str, typer.Option(help="Column or key that holds the sentences.")]
IdColumn = Annotated[str | None, typer.Option(help="Column of the ids [default: row number from 1].")]
ResumeSame = Annotated[
    bool, typer.Option("--resume", help="Resume after an interruption; the output is identical.")
]
PartOf = Annotated[
    str | None,
    typer.Option("--part", metavar="i/n", help="Compute only every n-th part; then features merge."),
]
OnRay = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|local",
        help="Compute the parts on a Ray cluster: local, auto or HOST:PORT (extra ray).",
    ),
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]


def refuse_ray_with(**others: bool) -> None:
    """Refuse options that do not go with `--ray`, of those that are given."""
    why = {
        "--part": "Ray computes all parts: leave one of the two out",
        "--merge": "Ray's parts are merged at once: leave one of the two out",
        "--update": "a store is updated by one process: leave one of the two out",
    }
    problems = [Problem(where=f"--ray, {name}", what=what) for name, what in why.items() if others.get(name[2:])]
    if problems:
        raise ConfigError(problems)


def use_plugins(plugins: list[str] | None) -> None:
    """Let the plug-ins that a command line names register what they offer."""
    if plugins:
        from dalr.recipe.plugins import load_plugins

        load_plugins(plugins)


def claimed_json(path: Path | None) -> AbstractContextManager[None]:
    """The file of `--json`, held for the work whose result it gets."""
    from dalr.io.output_file import RESULT, claimed_file

    return claimed_file(path, RESULT, "--json") if path is not None else nullcontext()


def claimed_page(path: Path | None) -> AbstractContextManager[None]:
    """The page of `--html`, held in the same way."""
    from dalr.io.output_file import PAGE, claimed_file

    return claimed_file(path, PAGE, "--html") if path is not None else nullcontext()


def reading_of(
    pairs: Path | None,
    format: FormatName | None,
    columns: str | None,
    split: str | None,
    *,
    otherwise: str | None = "all",
) -> Reading:
    """How `--pairs` is read; `otherwise` is the split where none is named."""
    from dalr.data.reading import reading_of_options

    given = {"--format": format, "--columns": columns, "--split": split}
    if pairs is None and (idle := [option for option, value in given.items() if value is not None]):
        raise ConfigError([Problem(where=option, what="says how --pairs is read; name it too") for option in idle])
    return reading_of_options(format, columns, split if split is not None else otherwise)
