"""How are recipes written, checked and trained? `dalr init`, `check`, `train`, `study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import (
    Columns,
    FollowLinks,
    Format,
    Json,
    Plugin,
    Quiet,
    Recipe,
    Settings,
    Split,
    Verbose,
    claimed_json,
    reading_of,
    use_plugins,
)
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show, tell
from dalr.io.paths import is_file, require_place_for_folder


def init(
    pairs: Annotated[Path, typer.Option(help="Image-caption pairs, in any supported format.")],
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    text: Annotated[Path | None, typer.Option(help="Plain text, one sentence per line.")] = None,
    features: Annotated[Path | None, typer.Option(help="Feature store of the images, if there is one.")] = None,
    follow_links: FollowLinks = None,
    out: Annotated[Path, typer.Option(help="The recipe to write; never overwritten.")] = Path("recipe.yaml"),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a commented recipe for your own data.

    \b
    Example:
      dalr init --pairs photos/captions.jsonl --features stores/images --out photos.yaml
    """
    from dalr.recipe.starter import write_starter

    console = Console(quiet=quiet, verbose=verbose)
    reading = reading_of(pairs, format, columns, split, otherwise=None)
    notes = write_starter(
        out,
        pairs=pairs,
        reading=reading,
        images=images,
        text=text,
        features=features,
        follow_links=follow_links,
    )
    for note in notes:
        console.say(note)
    show(f"{out}")


def check(
    recipe: Recipe,
    settings: Settings = None,
    plugin: Plugin = None,
    against: Annotated[
        Path | None, typer.Option(help="SentEval folder: count training sentences that occur in its STS sets.")
    ] = None,
    json_file: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Report every problem of a recipe and its data at once.

    No model is loaded. The exit code says which kind of problem it is.

    \b
    Example:
      dalr check photos.yaml
    """
    use_plugins(plugin)
    from dalr.io.atomic import remedy, write_json
    from dalr.training.check import check_recipe
    from dalr.training.check import show as show_check

    console = Console(quiet=quiet, verbose=verbose)
    with claimed_json(json_file):
        checked = check_recipe(recipe, settings or [], against=against, console=console)
        if json_file is not None:
            with remedy("choose another --json file"):
                write_json(json_file, checked.as_json())
    show_check(checked, console)
    if checked.error is not None:
        raise typer.Exit(checked.error.exit_code)


def train(
    recipe: Recipe,
    settings: Settings = None,
    plugin: Plugin = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, new or empty [default: runs/NAME-TIME].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in --out from its newest intact checkpoint.")
    ] = False,
    allow_changed: Annotated[
        bool,
        typer.Option(
            "--allow-changed", help="Resume although recipe, data or versions differ; recorded in run.json."
        ),
    ] = False,
    init_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin with the weights and heads of this finished run.")
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, max=1024, help="Ranks on this machine, one per GPU.")] = 1,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Try one batch of each kind: terms, memory, estimated time. Saves nothing."),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a recipe and write RUN/model, a SentenceTransformer.

    \b
    Example:
      dalr train photos.yaml -s training.learning_rate=1e-4 --out runs/photos
    """
    from dalr.io.environment import process_rank
    from dalr.training.launch import launch

    use_plugins(plugin)
    if out is not None:
        require_place_for_folder(out, "--out")
    if nproc > 1 and not dry_run:
        shown = ["--quiet"] * quiet + ["--verbose"] * verbose
        shown += ["--resume"] * resume + ["--allow-changed"] * allow_changed
        changed = [part for setting in settings or [] for part in ("-s", setting)]
        changed += [part for each in plugin or [] for part in ("--plugin", each)]
        where = ["--out", str(out)] if out is not None else []
        where += ["--init-from", str(init_from)] if init_from is not None else []
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
        init_from=init_from,
    )
    if process_rank() > 0:
        return
    if result.best_score is not None:
        before = f" (untrained {result.untrained_score:.2f})" if result.untrained_score is not None else ""
        show(f"{result.validation}: {result.best_score:.2f} at step {result.best_step}{before}")
        if result.untrained_score is not None and result.best_score <= result.untrained_score:
            tell("warning: training did not improve the validation score over the untrained student")
    show(f"model: {result.model}  ({result.steps} steps in {result.seconds:.0f} s)")


def study(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="A shipped name or a path.")] = None,
    settings: Settings = None,
    plugin: Plugin = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The study's folder; finished runs in it are reused [default: runs/study-NAME]."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the runs; train nothing.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List the shipped studies with a line on each.")] = False,
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Rename finished runs that differ from the study, and train them again."),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tune, train and compare methods over several seeds.

    Every method gets the same number of trials; settings are chosen by a validation metric alone. A study that is
    started again resumes.

    \b
    Example:
      dalr study my-study.yaml --dry-run
    """
    use_plugins(plugin)
    if out is not None:
        require_place_for_folder(out, "--out")
    from dalr.report.markdown import markdown_table
    from dalr.study import load_study, make_plan, run_study, shipped_studies, study_description
    from dalr.study.run import exit_code_of, finished_runs, require_inputs, require_study_folder
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
        require_study_folder(folder)
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
