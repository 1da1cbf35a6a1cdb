"""The command line. Heavy imports happen inside the commands: `dalr --help` answers at once.

Results go to standard output, everything else to standard error. A known error prints its problems and exits
with its code: 2 configuration, 3 data, 4 model or corrupt file, 5 numerics, 6 storage, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import errno
import inspect
import io
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from dalr.errors import ConfigError, DalrError, Problem, StorageError
from dalr.evaluation.tasks import Classifier, MapMethod
from dalr.io.console import Console, occupy_standard_streams, show, tell
from dalr.io.paths import expanded, is_dir, is_file, require_place_for_file
from dalr.models.choices import HeadChoice, PoolingMode
from dalr.version import VERSION

if TYPE_CHECKING:
    from dalr.data.reading import Reading
    from dalr.evaluation.results import Failed
    from dalr.models.config import EncoderConfig

app = typer.Typer(
    name="dalr",
    help="Sentence encoders from image-caption pairs and plain text: train, evaluate, use.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="The recipes that come with dalr.", no_args_is_help=True)
features_app = typer.Typer(help="Frozen vectors, computed once and read by row id.", no_args_is_help=True)
data_app = typer.Typer(help="The field's evaluation data: fetch it, check it.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
app.add_typer(features_app, name="features")
app.add_typer(data_app, name="data")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more of what is going on.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key of the recipe.")
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE|MODULE", help="Python file or module that registers terms; run with your rights."),
]
Layers = Annotated[int | None, typer.Option(min=1, max=10_000, help="Keep only the first layers of the model.")]
Pooling = Annotated[
    PoolingMode | None, typer.Option(help="In place of the model's own, or for a model that states none.")
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Before every sentence: a prompt's name or a text, '' for none [default: the model's own]."),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda:0, ...")]
Format = Annotated[str | None, typer.Option(help="What --pairs is [default: told by its name and content].")]
Columns = Annotated[
    str | None, typer.Option(metavar="image=A,caption=B,split=C", help="What the columns of --pairs are called.")
]
Split = Annotated[str | None, typer.Option(help="Splits of --pairs that are meant, with commas, or all.")]
FollowLinks = Annotated[
    Path | None, typer.Option(help="Folder that symbolic links in --images may lead into [default: --images].")
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]


def main() -> None:
    """Entry point: run a command, turn our errors into messages and exit codes."""
    occupy_standard_streams()
    try:
        sys.exit(_run(sys.argv[1:]))
    except DalrError as error:
        _show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_STREAMS:
            sys.exit(_internal(error))
        tell(f"error: cannot write to standard output: {error.strerror}; send it to another place")
        sys.exit(StorageError.exit_code)
    except Exception as error:  # noqa: BLE001 - the last net: whatever comes here is a bug
        sys.exit(_internal(error))


_OF_STREAMS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
"""What a full device says to `--help`; files of ours say it through `StorageError`."""
_USAGE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What typer raises of options that it cannot read; some versions bring their own copy of click."""


def _run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    _refuse_undecodable(arguments)
    _expand_paths(app)
    command = typer.main.get_command(app)
    try:
        return command(arguments, prog_name="dalr", standalone_mode=False) or 0
    except _USAGE as error:
        words = io.StringIO()
        error.show(file=words)
        tell(words.getvalue(), end="")
        return int(error.exit_code)
    except typer.Abort:
        tell("Aborted!")
        return 1


def _refuse_undecodable(arguments: list[str]) -> None:
    """What cannot be written down again is refused before the work, not at its end."""
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            what = f"not UTF-8, and records of dalr are: {argument!r:.200}; rename the file, or spell it otherwise"
            raise ConfigError(Problem(where=f"argument {number}", what=what)) from None


def _expand_paths(commands: typer.Typer) -> None:
    """Have every path option and argument, of all commands, read by `expanded`, which is told their names."""
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _expand_paths(group.typer_instance)
    for command in commands.registered_commands:
        function: Any = inspect.unwrap(command.callback) if command.callback is not None else None
        function.__annotations__ = get_type_hints(function, include_extras=True)  # typer would make new ones
        for name, hint in function.__annotations__.items():
            if hasattr(hint, "__metadata__") and Path in (get_args(hint)[0], *get_args(get_args(hint)[0])):
                for said in get_args(hint)[1:]:
                    said.parser = partial(expanded, where=_shown_name(name, said))


def _shown_name(name: str, said: Any) -> str:
    """What a person calls an option or argument; typer keeps the first name given in place of a default."""
    if isinstance(said, typer.models.ArgumentInfo):
        return str(said.metavar or name.upper())
    given = [each for each in (said.default, *(said.param_decls or ())) if str(each).startswith("--")]
    return str(given[0]) if given else f"--{name.replace('_', '-')}"


def _show_error(error: DalrError) -> None:
    """The error's lines; of several ranks that find the same, the first says it."""
    from dalr.io.environment import process_rank

    try:
        rank = process_rank()
    except ConfigError:
        rank = 0  # the error that is shown says so
    note = "".join(getattr(error, "__notes__", []))
    if rank and not note:
        from dalr.training.launch import leave_it_to_the_first_rank

        leave_it_to_the_first_rank()
        note = f"on rank {rank}"
    tell(f"error {note}: {error}" if rank else f"error: {error}")


def _internal(error: Exception) -> int:
    """Say that dalr itself is at fault; the exit code."""
    if {"-v", "--verbose"} & set(sys.argv):
        import traceback

        tell("".join(traceback.format_exception(error)), end="")
    what = " ".join(f"{type(error).__name__}: {error}".split())
    tell(f"internal error: {what:.300}; this is a bug in dalr: please report it with the command (-v says more)")
    return 1


def _load_plugins(plugins: list[str] | None) -> None:
    if plugins:
        from dalr.recipe.plugins import load_plugins

        load_plugins(plugins)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        show(f"dalr {VERSION}")
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
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The whole path offline, on a small world made on the spot; ends with a table and report.html."""
    from dalr.demo.run import run_demo

    table = run_demo(out, seed=seed, console=Console(quiet=quiet, verbose=verbose))
    show(table)


@app.command()
def init(
    pairs: Annotated[Path, typer.Option(help="Image-caption pairs, in any format that is read.")],
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures.")] = None,
    text: Annotated[Path | None, typer.Option(help="Plain text, one sentence a line.")] = None,
    features: Annotated[Path | None, typer.Option(help="Store of the images' vectors, if there is one.")] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write; never overwritten.")] = Path("recipe.yaml"),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a commented recipe for your own data; then: dalr check, dalr train."""
    from dalr.recipe.starter import write_starter

    console = Console(quiet=quiet, verbose=verbose)
    reading = _reading(pairs, format, columns, split, otherwise=None)
    for note in write_starter(out, pairs=pairs, reading=reading, images=images, text=text, features=features):
        console.say(note)
    show(f"{out}")


@app.command()
def check(
    recipe: str,
    settings: Settings = None,
    plugin: Plugin = None,
    against: Annotated[
        Path | None, typer.Option(help="SentEval folder: count the training sentences that occur in its STS sets.")
    ] = None,
    json_file: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Report every configuration and data problem of a recipe at once, before any model is loaded."""
    _load_plugins(plugin)
    from dalr.io.atomic import remedy, write_json
    from dalr.training.check import check_recipe
    from dalr.training.check import show as show_check

    console = Console(quiet=quiet, verbose=verbose)
    if json_file is not None:
        require_place_for_file(json_file, "--json")
    checked = check_recipe(recipe, settings or [], against=against, console=console)
    if json_file is not None:
        with remedy("choose another --json file"):
            write_json(json_file, checked.as_json())
    show_check(checked, console)
    if checked.error is not None:
        raise typer.Exit(checked.error.exit_code)


@app.command()
def train(
    recipe: str,
    settings: Settings = None,
    plugin: Plugin = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, new or empty [default: runs/NAME-TIME].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its newest whole checkpoint.")
    ] = False,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Resume although recipe, data or versions differ; run.json says it."),
    ] = False,
    nproc: Annotated[int, typer.Option(min=1, max=1024, help="Ranks on this machine, one per GPU.")] = 1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Try a batch of each kind: terms, memory, time of the whole. Saves nothing."
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a recipe; RECIPE is a shipped name or a path. Leaves RUN/model, a SentenceTransformer."""
    from dalr.io.environment import process_rank
    from dalr.training.launch import launch

    _load_plugins(plugin)
    if nproc > 1 and not dry_run:
        shown = ["--quiet"] * quiet + ["--verbose"] * verbose
        shown += ["--resume"] * resume + ["--allow-changed"] * allow_changed
        changed = [part for setting in settings or [] for part in ("-s", setting)]
        changed += [part for each in plugin or [] for part in ("--plugin", each)]
        where = ["--out", str(out)] if out is not None else []
        raise typer.Exit(launch(["train", recipe, *changed, *where, *shown], processes=nproc))
    from dalr.api import train as run_training

    console = Console(quiet=quiet, verbose=verbose)
    if dry_run:
        show(run_training(recipe, overrides=settings or [], console=console, dry_run=True).table())
        return
    result = run_training(
        recipe,
        overrides=settings or [],
        out=out,
        resume=resume,
        allow_changed=allow_changed,
        console=console,
    )
    if process_rank() > 0:
        return
    if result.best_score is not None:
        before = f" (untrained {result.untrained_score:.2f})" if result.untrained_score is not None else ""
        show(f"{result.development}: {result.best_score:.2f} at step {result.best_step}{before}")
        if result.untrained_score is not None and result.best_score <= result.untrained_score:
            tell("warning: training did not improve the development score over the untrained student")
    show(f"model: {result.model}  ({result.steps} steps in {result.seconds:.0f} s)")


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Model folder, run folder, checkpoint or hub id.")],
    data: Annotated[Path | None, typer.Option(help="Folder in SentEval's downstream layout.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks or groups, with commas: sts, transfer, geometry, retrieval, STS12, ... "
            "[default: sts; with --mteb: none]"
        ),
    ] = None,
    mteb: Annotated[list[str] | None, typer.Option(metavar="TASK", help="A task of the mteb package.")] = None,
    classifier: Annotated[
        Classifier, typer.Option(help="For transfer tasks; lbfgs is solved to the end, senteval as the protocol.")
    ] = "senteval",
    fast: Annotated[bool, typer.Option("--fast", help="SentEval's quick settings for transfer tasks.")] = False,
    json_file: Json = None,
    pooling: Pooling = None,
    num_layers: Layers = None,
    prompt: Prompt = None,
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
        Path | None, typer.Option(help="Retrieval by a multimodal model: folder of the pictures of --pairs.")
    ] = None,
    follow_links: FollowLinks = None,
    device: Device = "auto",
    exclude_overlap: Annotated[
        Path | None,
        typer.Option(help="Pairs or text that was trained on: STS also without its sentences."),
    ] = None,
    allow_changed_data: Annotated[
        bool,
        typer.Option("--allow-changed-data", help="Score files that are not the official ones, and say so."),
    ] = False,
    map_method: Annotated[MapMethod, typer.Option("--map", help="Plane of the report's map of sentences.")] = "pca",
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score models on the field's tasks, with intervals; two or more are compared pair by pair."""
    _load_plugins(plugin)
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
        tasks=_names(tasks if tasks is not None else "" if mteb else "sts"),
        mteb=mteb or (),
        classifier="senteval-fast" if fast else classifier,
        pooling=pooling,
        num_layers=num_layers,
        prompt=prompt,
        heads=heads,
        pairs=pairs,
        reading=_reading(pairs, format, columns, split),
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
    _exit_for(failed.values())


def _show_failed(failed: Failed) -> None:
    tell(f"error: {failed.task}: {failed.reason}")


def _exit_for(failed: Iterable[Failed]) -> None:
    """Leave with the code of tasks that have no score."""
    from dalr.errors import DataError, NumericsError

    codes = {each.exit_code for each in failed}
    if codes:
        raise typer.Exit(NumericsError.exit_code if NumericsError.exit_code in codes else DataError.exit_code)


@app.command()
def study(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="A shipped name or a path.")] = None,
    settings: Settings = None,
    plugin: Plugin = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The study's folder; what is finished there is used [default: runs/study-NAME]."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the runs; train nothing.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Names and one line on each shipped study.")] = False,
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Rename finished runs that differ from those wanted, and train anew."),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Methods × seeds, tuned alike by development scores, compared in pairs; started again, it goes on."""
    _load_plugins(plugin)
    from dalr.report.markdown import markdown_table
    from dalr.study import load_study, make_plan, run_study, shipped_studies, study_description
    from dalr.study.run import exit_code_of, finished_runs, require_inputs
    from dalr.study.tables import sts_table
    from dalr.study.verdict import verdict
    from dalr.study.writing import MARKDOWN, PAGE

    if list_all:
        names = shipped_studies()
        for name in names:
            show(f"{name:{max(map(len, names))}}  {study_description(name)}")
        return
    if study is None:
        raise ConfigError(Problem(where="STUDY", what="name a study: a path, or one of dalr study --list"))
    loaded = load_study(study, settings or [])
    folder = out if out is not None else Path("runs") / f"study-{loaded.config.name}"
    console = Console(quiet=quiet, verbose=verbose)
    if dry_run:
        plan = make_plan(loaded, folder)
        finished = {} if set_aside else finished_runs(plan, console)  # what would be renamed is refused there
        for line in plan.lines(finished):
            show(line)
        require_inputs(plan, console)
        return
    result = run_study(loaded, out=folder, console=console, replace=set_aside)
    main_table = sts_table(result)
    if main_table is not None:
        show(markdown_table(main_table))
    for sentence in verdict(result):
        show(f"\n{sentence}")
    written = [path for path in (folder / MARKDOWN, folder / PAGE) if is_file(path)]
    show("\n" + ", ".join(map(str, written)))
    for each in result.failures:
        tell(f"error: {each.run} ({each.phase}): {each.reason}")
    if code := exit_code_of(result):
        raise typer.Exit(code)


@app.command()
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
    """One self-contained page on one or more models: scores beside the published ones, pictures, provenance."""
    _load_plugins(plugin)
    from dalr.io.paths import size_of
    from dalr.report.write import write_report

    console = Console(quiet=quiet, verbose=verbose)
    write_report(results, out=out, markdown=markdown, latex=latex, title=title, console=console)
    for written in filter(None, (out, markdown, latex)):
        show(f"{written}: {size_of(written) / 1000:.0f} kB")


@app.command("import")
def import_model(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder as published: config.json, tokenizer, pytorch_model.bin.")
    ],
    out: Annotated[Path, typer.Option(help="The SentenceTransformer folder to write.")],
    pooling: Annotated[PoolingMode, typer.Option(help="cls is how these methods evaluate.")] = "cls",
    head: Annotated[
        HeadChoice | None,
        typer.Option(help="The trained sentence head [default: as --method evaluates, or drop]."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="simcse, simcse-supervised, rankcse, diffcse, mcse, kdmcse or dalr.")
    ] = None,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Leave out parameters that no known method has.")
    ] = False,
) -> None:
    """Make a SentenceTransformer of a published checkpoint (SimCSE, RankCSE, MCSE, KDMCSE, DALR, ...)."""
    from dalr.io.lock import locked_output
    from dalr.models.importing.checkpoint import import_checkpoint

    with locked_output(out):
        imported = import_checkpoint(
            checkpoint,
            out,
            pooling=pooling,
            head=head,
            method=method,
            drop_unknown=drop_unknown,
        )
    for line in imported.lines():
        show(line)
    show(f"model: {out}")


@app.command()
def cache(
    clean: Annotated[bool, typer.Option("--clean", help="Delete everything in it.")] = False,
) -> None:
    """Show (or clean) the cache of token streams, imported features, teacher vectors and mteb's scores."""
    from dalr.io.cache import cache_root, cache_use, clean_cache

    for use in cache_use():
        show(f"{use.kind}: {use.entries} entries, {use.bytes / 2**20:.1f} MiB")
    if clean:
        clean_cache()
    show(f"{'cleaned' if clean else 'folder'}: {cache_root()}")


@recipe_app.command("list")
def recipe_list() -> None:
    """Names and one line on each shipped recipe."""
    from dalr.recipe.loading import recipe_description, shipped_recipes

    names = shipped_recipes()
    width = max(map(len, names))
    for name in names:
        show(f"{name:{width}}  {recipe_description(name)}")


@recipe_app.command("show")
def recipe_show(
    name: str,
    settings: Settings = None,
    plugin: Plugin = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> None:
    """Print a recipe as it is written, or resolved."""
    _load_plugins(plugin)
    from dalr.recipe.loading import load_recipe, recipe_source, resolved_yaml

    if resolved or settings:
        show(resolved_yaml(load_recipe(name, settings or [])), end="")
    else:
        show(recipe_source(name), end="")


@features_app.command("import")
def features_import(
    file: Annotated[
        Path, typer.Argument(help="An .npy matrix (rows, width); MCSE's .hdf5; KDMCSE's or DALR's .json.")
    ],
    out: Annotated[Path, typer.Option(help="The store to write; for .hdf5, .json a folder of pairs and stores.")],
    ids: Annotated[
        Path | None, typer.Option(help="Names of the rows: .txt, one a line, or .jsonl with `image`.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="For .hdf5: one caption a line, line i for row i.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make feature stores of vectors that somebody else computed."""
    from dalr.features.importing import import_matrix
    from dalr.features.predecessors import FOLDER_ENDINGS, import_folder
    from dalr.features.store import open_store
    from dalr.io.lock import locked_output
    from dalr.io.text import ending

    console = Console(quiet=quiet, verbose=verbose)
    if ending(file) in FOLDER_ENDINGS:
        with locked_output(out), console.bar("import", 100, "%") as bar:
            found = import_folder(
                file, out, captions=captions, ids=ids, progress=lambda share: bar.update(int(100 * share))
            )
        for line in found.lines(out):
            show(line)
        return
    if ids is None:
        raise ConfigError(Problem(where="--ids", what="an .npy matrix needs the file that names its rows"))
    with locked_output(out):
        import_matrix(file, ids, out)
    store = open_store(out)
    console.detail(f"{len(store.shards)} shards of up to {store.shard_rows} rows, fp16")
    show(f"{out}: {len(store)} rows of width {store.width}")


@features_app.command("images")
def features_images(
    pairs: Annotated[Path, typer.Option(help="Pairs file; its image names are the ids.")],
    images: Annotated[Path, typer.Option(help="Folder that the image names start from.")],
    model: Annotated[str, typer.Option(help="CLIP, SigLIP, ResNet, ViT, DINO, ...: a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    revision: Revision = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")] = False,
    max_bad_images: Annotated[
        int, typer.Option(min=0, max=1_000_000_000, help="Images that may be unusable and left out.")
    ] = 0,
    follow_links: FollowLinks = None,
    max_megapixels: Annotated[
        int, typer.Option(min=1, max=10_000, help="Largest image; memory grows with it.")
    ] = 50,
    workers: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Decoding processes [default: one per core].")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images in a batch of the model.")] = 32,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compute the vectors of image files with a frozen image model, identical files once."""
    import time

    from dalr.data.dataset import read_pairs
    from dalr.errors import DataError
    from dalr.features.images import write_image_store
    from dalr.io.lock import locked_output
    from dalr.models.vision import load_vision_model

    reading = _reading(pairs, format, columns, split)
    problems: list[Problem] = []
    ids = read_pairs(pairs, problems, {}, on_empty="drop", reading=reading).images  # captions are not used here
    if problems:
        raise DataError(problems)
    console = Console(quiet=quiet, verbose=verbose)
    vision = load_vision_model(model, revision=revision, device=device)
    console.detail(f"{model}: width {vision.width} on {vision.device}, sha256 {vision.source['sha256'][:12]}")
    start = time.monotonic()
    with locked_output(out):
        report = write_image_store(
            out,
            ids=ids,
            root=images,
            model=vision,
            resume=resume,
            max_bad_images=max_bad_images,
            follow_links=follow_links,
            max_megapixels=max_megapixels,
            workers=workers,
            batch_size=batch_size,
            console=console,
        )
    seconds = time.monotonic() - start
    left_out = f", {report.bad} bad ones listed in {out / 'bad_images.jsonl'}" if report.bad else ""
    show(
        f"{out}: {report.rows} images of width {report.width} ({report.distinct} distinct{left_out}); "
        f"{report.computed} computed in {seconds:.1f} s, {report.computed / max(seconds, 1e-9):.1f} images/s"
    )


@features_app.command("text")
def features_text(
    model: Annotated[str, typer.Option(help="A SentenceTransformer, Hugging Face encoder, or CLIP (text tower).")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    pairs: Annotated[Path | None, typer.Option(help="Captions of this pairs file; ids are image#k.")] = None,
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    text: Annotated[Path | None, typer.Option(help="Lines of this text file; ids are line numbers.")] = None,
    pooling: Pooling = None,
    num_layers: Layers = None,
    prompt: Prompt = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=3, max=1_000_000, help="Longest input [default: the model's own].")
    ] = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode captions and text with a frozen teacher, each distinct sentence once, before any Normalize."""
    from dalr.features.making import refuse_other_making
    from dalr.features.text import text_source, tower_source, write_text_store, write_tower_store
    from dalr.io.lock import locked_output
    from dalr.models.verification import unverified
    from dalr.models.vision import has_text_tower, load_vision_model

    ids, sentences = _captions_and_lines(pairs, _reading(pairs, format, columns, split), text)
    encoder = _encoder(model, pooling, num_layers, max_tokens).model_copy(
        update={"revision": revision, "prompt": prompt}
    )
    console = Console(quiet=quiet, verbose=verbose)
    if (note := unverified(Path(encoder.model))) is not None:
        console.say(note)
    distinct = len(set(sentences))
    console.detail(f"{len(ids)} rows, {distinct} distinct sentences")
    if has_text_tower(encoder.model, revision):
        if pooling or num_layers or max_tokens or prompt:
            what = "a text tower has its own; leave --pooling, --num-layers, --max-tokens and --prompt out"
            raise ConfigError(Problem(where=f"model {model!r}", what=what))
        vision = load_vision_model(encoder.model, revision=revision, device=device)
        refuse_other_making(out, tower_source(vision))
        if cut := vision.too_long(sentences):
            console.say(f"note: {cut} sentences are longer than {vision.max_tokens} tokens and are cut")
        with locked_output(out), console.bar("encode", distinct, "sentence") as bar:
            write_tower_store(
                out, model=vision, ids=ids, sentences=sentences, progress=lambda done, _: bar.update(done)
            )
    else:
        refuse_other_making(out, text_source(encoder))
        with locked_output(out), console.bar("encode", distinct, "sentence") as bar:
            write_text_store(
                out,
                encoder=encoder,
                ids=ids,
                sentences=sentences,
                progress=lambda done, _: bar.update(done),
                device=device,
            )
    show(f"{out}: {len(ids)} rows")


@data_app.command("get")
def data_get(
    group: Annotated[str, typer.Argument(help="sts or transfer.")],
    out: Annotated[Path, typer.Option(help="The folder for `dalr evaluate --data`.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="DIR|URL", help="A copy of the data [default: the public archive]."),
    ] = None,
    accept_licences: Annotated[
        bool, typer.Option("--accept-licences", help="You have read the owners' terms and accept them.")
    ] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Take files that differ from the official ones.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring SentEval's files into a folder, compared with the official row counts and checksums."""
    from dalr.evaluation.obtain import obtain, require_group, require_licences
    from dalr.io.lock import locked

    require_group(group)
    ask = (
        (lambda: typer.confirm("Do you accept them?", err=True))
        if sys.stdin is not None and sys.stdin.isatty()
        else None
    )
    # the terms are shown under --quiet too
    require_licences(group, accepted=accept_licences, ask=ask, console=Console())
    console = Console(quiet=quiet, verbose=verbose)
    with locked(out):
        show(obtain(group, source, out, console=console, allow_changed=allow_changed_data))


@data_app.command("verify")
def data_verify(
    folder: Annotated[Path, typer.Argument(help="The folder of `dalr evaluate --data`.")],
    group: Annotated[
        str | None, typer.Option(help="sts or transfer [default: every group that the folder has a file of].")
    ] = None,
) -> None:
    """Show which files of SentEval's are in a folder, which are missing, and which differ."""
    from dalr.errors import DataError
    from dalr.evaluation.obtain import verification

    if not is_dir(folder):
        raise DataError(Problem(where="FOLDER", what=f"no such folder: {folder.absolute()}"))
    table, bad = verification(folder, group)
    show(table)
    if bad:
        raise DataError([check.problem() for check in bad])


def _reading(
    pairs: Path | None, format: str | None, columns: str | None, split: str | None, *, otherwise: str | None = "all"
) -> Reading:
    """How `--pairs` is read; `otherwise` is the split where none is named."""
    from dalr.data.reading import reading_of_options

    given = {"--format": format, "--columns": columns, "--split": split}
    if pairs is None and (idle := [option for option, value in given.items() if value is not None]):
        raise ConfigError([Problem(where=option, what="says how --pairs is read; name it too") for option in idle])
    return reading_of_options(format, columns, split if split is not None else otherwise)


def _captions_and_lines(pairs: Path | None, reading: Reading, text: Path | None) -> tuple[list[str], list[str]]:
    from dalr.data.dataset import read_pairs, read_text
    from dalr.errors import DataError

    if pairs is None and text is None:
        raise ConfigError(Problem(where="--pairs, --text", what="name at least one of them"))
    problems: list[Problem] = []
    ids: list[str] = []
    sentences: list[str] = []
    if pairs is not None:
        captions = read_pairs(pairs, problems, {}, reading=reading)
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
    model: str, pooling: PoolingMode | None, num_layers: int | None, max_tokens: int | None = None
) -> EncoderConfig:
    from dalr.models.config import EncoderConfig
    from dalr.models.reference import inside_run

    return EncoderConfig(model=inside_run(model), pooling=pooling, num_layers=num_layers, max_tokens=max_tokens)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")] if listed else []
