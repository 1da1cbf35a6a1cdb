"""The command line. Heavy imports happen inside the commands: `dalr --help` answers at once.

Results go to standard output, everything else to standard error. A known error prints its problems and exits
with its code: 2 configuration, 3 data, 4 model or corrupt file, 5 numerics, 6 storage, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr import __version__
from dalr.console import Console
from dalr.errors import ConfigError, DalrError, Problem

if TYPE_CHECKING:
    from dalr.data.rows import Pairs
    from dalr.models.config import EncoderConfig, PoolingMode

app = typer.Typer(
    name="dalr",
    help="Sentence encoders from image-caption pairs and plain text: train, evaluate, use.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="The recipes that come with dalr.", no_args_is_help=True)
features_app = typer.Typer(help="Frozen vectors, computed once and read by row id.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
app.add_typer(features_app, name="features")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more of what is going on.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key of the recipe.")
]
Pooling = Annotated[str | None, typer.Option(help="cls or mean, for a model that states none.")]
Layers = Annotated[int | None, typer.Option(min=1, help="Keep only the first layers of the model.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]


def main() -> None:
    """Entry point: run a command, turn our errors into messages and exit codes."""
    try:
        app(standalone_mode=True)
    except DalrError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"dalr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = None,
) -> None:
    """Holds the options that come before a command."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The whole path offline, on a small world made on the spot; ends with a table and report.html."""
    from dalr.demo.run import run_demo

    table = run_demo(out, seed=seed, console=Console(quiet=quiet, verbose=verbose))
    typer.echo(table)


@app.command()
def check(recipe: str, settings: Settings = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Report every configuration and data problem of a recipe at once, before any model is loaded."""
    from dalr.config import missing_models
    from dalr.recipe import load_recipe
    from dalr.training.inputs import load_inputs

    loaded = load_recipe(recipe, settings or [])
    inputs = load_inputs(loaded.job())
    for name, value in inputs.dataset.report.items():
        typer.echo(f"{name}: {value}")
    console = Console(quiet=quiet, verbose=verbose)
    for kind, rows in inputs.plan.left_over().items():
        console.detail(f"{kind} batches in an epoch: {inputs.plan.kinds(0).count(kind)}, rows left over: {rows}")
    for model in missing_models(loaded):
        console.say(f"note: model {model} is not on this machine; training will need a connection to get it")
    console.say("no problems found")


@app.command()
def train(
    recipe: str,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, new or empty [default: runs/NAME-TIME].")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a recipe; RECIPE is a shipped name or a path. Leaves RUN/model, a SentenceTransformer."""
    from dalr.api import train as run_training

    result = run_training(recipe, overrides=settings or [], out=out, console=Console(quiet=quiet, verbose=verbose))
    if result.best_score is not None:
        before = f" (untrained {result.untrained_score:.2f})" if result.untrained_score is not None else ""
        typer.echo(f"{result.development}: {result.best_score:.2f} at step {result.best_step}{before}")
        if result.untrained_score is not None and result.best_score <= result.untrained_score:
            sys.stderr.write("warning: training did not improve the development score over the untrained student\n")
    typer.echo(f"model: {result.model}  ({result.steps} steps in {result.seconds:.0f} s)")


@app.command()
def evaluate(
    model: str,
    data: Annotated[Path, typer.Option(help="Folder in SentEval's downstream layout.")],
    tasks: Annotated[
        str, typer.Option(help="Tasks or groups, separated by commas: sts, sts-b-dev, STS12, ...")
    ] = "sts",
    json_file: Json = None,
    pooling: Pooling = None,
    num_layers: Layers = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a model on the field's tasks; MODEL is a model folder, a run folder or a hub id."""
    from dalr.errors import DataError, NumericsError
    from dalr.evaluation.run import evaluate as score
    from dalr.evaluation.run import report_json
    from dalr.evaluation.table import as_table
    from dalr.evaluation.tasks import resolve_tasks
    from dalr.io.atomic import write_text
    from dalr.models.embedding import embed
    from dalr.models.loading import load_encoder

    chosen = resolve_tasks([name.strip() for name in tasks.split(",")])
    if not data.is_dir():
        raise DataError(Problem(where="--data", what=f"no such folder: {data.absolute()}"))
    encoder = load_encoder(_encoder(model, pooling, num_layers))
    console = Console(quiet=quiet, verbose=verbose)
    console.detail(f"{model}: width {encoder.get_embedding_dimension()}, at most {encoder.max_seq_length} tokens")

    def embed_all(sentences: list[str]):  # type: ignore[no-untyped-def]
        with console.bar("encode", len(set(sentences)), "sentence") as bar:
            return embed(encoder, sentences, progress=lambda done, _: bar.update(done))

    report = score(model, embed_all, data=data, tasks=chosen)
    if json_file is not None:
        write_text(json_file, report_json(report))
    typer.echo(as_table(report))
    for failure in report.failed:
        sys.stderr.write(f"error: {failure.task}: {failure.reason}\n")
    if report.failed:
        codes = {failure.exit_code for failure in report.failed}
        raise typer.Exit(NumericsError.exit_code if NumericsError.exit_code in codes else DataError.exit_code)


@app.command()
def cache(
    clean: Annotated[bool, typer.Option("--clean", help="Delete everything in it.")] = False,
) -> None:
    """Show (or clean) the cache of token streams, imported features and teacher vectors."""
    from dalr.io.cache import cache_root, cache_use, clean_cache

    for use in cache_use():
        typer.echo(f"{use.kind}: {use.entries} entries, {use.bytes / 2**20:.1f} MiB")
    if clean:
        clean_cache()
    typer.echo(f"{'cleaned' if clean else 'folder'}: {cache_root()}")


@recipe_app.command("list")
def recipe_list() -> None:
    """Names and one line on each shipped recipe."""
    from dalr.recipe import recipe_description, shipped_recipes

    for name in shipped_recipes():
        typer.echo(f"{name:14} {recipe_description(name)}")


@recipe_app.command("show")
def recipe_show(
    name: str,
    settings: Settings = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> None:
    """Print a recipe as it is written, or resolved."""
    from dalr.recipe import load_recipe, recipe_source, resolved_yaml

    if resolved or settings:
        typer.echo(resolved_yaml(load_recipe(name, settings or [])), nl=False)
    else:
        typer.echo(recipe_source(name), nl=False)


@features_app.command("import")
def features_import(
    matrix: Annotated[Path, typer.Argument(help="An .npy matrix (rows, width).")],
    ids: Annotated[Path, typer.Option(help="Names of the rows: .txt, one a line, or .jsonl with `image`.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a feature store of vectors that somebody else computed."""
    from dalr.features.importing import import_matrix
    from dalr.features.store import open_store

    import_matrix(matrix, ids, out)
    store = open_store(out)
    Console(quiet=quiet, verbose=verbose).detail(
        f"{len(store.shards)} shards of up to {store.shard_rows} rows, fp16"
    )
    typer.echo(f"{out}: {len(store)} rows of width {store.width}")


@features_app.command("text")
def features_text(
    model: Annotated[str, typer.Option(help="A SentenceTransformer or Hugging Face encoder.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    pairs: Annotated[Path | None, typer.Option(help="Captions of this pairs file; ids are image#k.")] = None,
    text: Annotated[Path | None, typer.Option(help="Lines of this text file; ids are line numbers.")] = None,
    pooling: Pooling = None,
    num_layers: Layers = None,
    max_tokens: Annotated[int | None, typer.Option(min=3, help="Longest input [default: the model's own].")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode captions and text with a frozen teacher, each distinct sentence once, before any Normalize."""
    from dalr.features.extraction import write_text_store

    ids, sentences = _captions_and_lines(pairs, text)
    encoder = _encoder(model, pooling, num_layers, max_tokens)
    console = Console(quiet=quiet, verbose=verbose)
    console.detail(f"{len(ids)} rows, {len(set(sentences))} distinct sentences")
    with console.bar("encode", len(set(sentences)), "sentence") as bar:
        write_text_store(
            out, encoder=encoder, ids=ids, sentences=sentences, progress=lambda done, _: bar.update(done)
        )
    typer.echo(f"{out}: {len(ids)} rows")


def _captions_and_lines(pairs: Path | None, text: Path | None) -> tuple[list[str], list[str]]:
    from dalr.data.dataset import read_pairs, read_text
    from dalr.errors import DataError

    if pairs is None and text is None:
        raise ConfigError(Problem(where="--pairs, --text", what="name at least one of them"))
    problems: list[Problem] = []
    ids: list[str] = []
    sentences: list[str] = []
    if pairs is not None:
        captions: Pairs = read_pairs(pairs, problems, {})
        ids += captions.caption_ids
        sentences += captions.captions
    if text is not None:
        lines = read_text(text, problems, {})
        ids += lines.ids
        sentences += lines.lines
    if problems:
        raise DataError(problems)
    return ids, sentences


def _encoder(
    model: str, pooling: str | None, num_layers: int | None, max_tokens: int | None = None
) -> EncoderConfig:
    from dalr.models.config import EncoderConfig

    run = Path(model)
    if (run / "run.json").is_file():
        if not (run / "model").is_dir():
            raise ConfigError(
                Problem(where=str(run), what="a run folder without model/: the training did not finish")
            )
        model = str(run / "model")
    mode: PoolingMode | None
    match pooling:
        case None | "cls" | "mean":
            mode = pooling
        case _:
            raise ConfigError(Problem(where="--pooling", what=f"expected cls or mean, found {pooling!r}"))
    return EncoderConfig(model=model, pooling=mode, num_layers=num_layers, max_tokens=max_tokens)
