"""How are recipes written, checked and trained? `dalr init`, `check`, `train`, `study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli.options import Columns, Format, Json, Plugin, Quiet, Settings, Split, Verbose, reading_of, use_plugins
from dalr.errors import ConfigError, Problem
from dalr.io.console import Console, show, tell
from dalr.io.paths import is_file, require_place_for_file


def init(
    pairs: Annotated[Path, typer.Option(help="Image-caption pairs, in any format that is read.")],
    format: Format = None,
    columns: Columns = None,
    split: Split = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    text: Annotated[Path | None, typer.Option(help="Plain text, one sentence a line.")] = None,
    features: Annotated[Path | None, typer.Option(help="Store of the images' vectors, if there is one.")] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write; never overwritten.")] = Path("recipe.yaml"),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a commented recipe for your own data; then: dalr check, dalr train."""
    from dalr.recipe.starter import write_starter

    console = Console(quiet=quiet, verbose=verbose)
    reading = reading_of(pairs, format, columns, split, otherwise=None)
    for note in write_starter(out, pairs=pairs, reading=reading, images=images, text=text, features=features):
        console.say(note)
    show(f"{out}")


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
    use_plugins(plugin)
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
    init_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin with the weights and heads of this finished run.")
    ] = None,
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

    use_plugins(plugin)
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
    """Methods × seeds, tuned alike by validation scores, compared in pairs; started again, it goes on."""
    use_plugins(plugin)
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
