"""Which models does the page show? One or two runs, over the captions and images of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dalr.data.rows import Pairs
from dalr.errors import ConfigError, Problem
from dalr.evaluation.request import Request, locate
from dalr.evaluation.runs import recipe_of_run
from dalr.inference.collection import Collection
from dalr.inference.searcher import Searcher
from dalr.io.console import Console
from dalr.models.heads import read_grounding

MOST = 2
"""More columns than two are too narrow for images."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One run that is explored."""

    name: str
    run: Path
    searcher: Searcher


def open_models(runs: Sequence[str], *, device: str = "auto", console: Console | None = None) -> tuple[Model, ...]:
    """The searchers of the runs, all over the captions and images of the first.

    Raises:
        ConfigError: not one or two runs, or a run that has no image part.
        DataError, ModelFileError, CorruptFileError: files of a run; images without a vector of the second run.
    """
    if not 1 <= len(runs) <= MOST:
        raise ConfigError(Problem(where="RUN", what=f"expected one run or two, found {len(runs)}"))
    console = console or Console(quiet=True)
    folders = [_run_with_images(run, console) for run in runs]
    first = Searcher(runs[0], device=device, console=console)
    searchers = [first, *(_among(first.collection.pairs, run, device, console) for run in runs[1:])]
    return tuple(
        Model(name=name, run=folder, searcher=searcher)
        for name, folder, searcher in zip(_names(runs), folders, searchers, strict=True)
    )


def prepare(models: Sequence[Model], console: Console) -> None:
    """Compute what every query needs, so that the first one is answered as fast as the others."""
    for model in models:
        console.say(f"{model.name}: reading the model and the vectors of its captions, computed once and cached")
        model.searcher.search("a", k=1)
        model.searcher.search("a", k=1, within="captions")


def _run_with_images(name: str, console: Console) -> Path:
    """The folder of a run that can compare sentences with images.

    Raises:
        ConfigError: what it lacks.
    """
    place = locate(name, Request(console=console))
    if place.run is None:
        what = "no run.json in it; expected a run of dalr train, whose captions and images are explored"
        raise ConfigError(Problem(where=name, what=what))
    recipe = recipe_of_run(place.run)
    lacks = None
    if recipe.data.pairs is None:
        lacks = "it was trained without image-caption pairs (data.pairs)"
    elif recipe.features.image is None:
        lacks = "it was trained without image vectors (features.image)"
    elif place.heads is None or read_grounding(place.heads) is None:
        lacks = "it has no trained grounding heads (a recipe with objective.grounding makes them)"
    if lacks is not None:
        what = f"the run has no image part: {lacks}. Name a run that has one; text alone: dalr encode, dalr index"
        raise ConfigError(Problem(where=name, what=what))
    return place.run


def _among(pairs: Pairs, run: str, device: str, console: Console) -> Searcher:
    """A run over the captions and images of another one, with its own image vectors."""
    own = Searcher(run, device=device, console=console).collection
    among = Collection(pairs=pairs, store=own.store)
    own.required_store().rows_of(among.images, what="image")  # raises DataError, with the first that is missing
    return Searcher(run, collection=among, device=device, console=console)


def _names(runs: Sequence[str]) -> list[str]:
    """The last part of each path, where that tells the runs apart."""
    short = [Path(run).name or run for run in runs]
    if len(set(short)) == len(runs):
        return short
    if len(set(runs)) < len(runs):
        raise ConfigError(Problem(where="RUN2", what=f"{runs[0]} is there twice; name another run, or only one"))
    return list(runs)
