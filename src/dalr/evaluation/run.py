"""How are one or several named models evaluated?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import ConfigError, DalrError, DataError, Problem, StorageError
from dalr.evaluation.bootstrap import compare
from dalr.evaluation.graded import check_task_name, load_graded_pairs
from dalr.evaluation.loaded import LoadedTask, Options, StsTask, without_overlap
from dalr.evaluation.models import model_in_memory, multimodal_model, text_model
from dalr.evaluation.mteb import MtebTask, find_mteb_tasks, score_mteb_tasks
from dalr.evaluation.overlap import training_sentences
from dalr.evaluation.own_photos import OwnSet, require_one_set
from dalr.evaluation.request import Place, Request, locate
from dalr.evaluation.results import (
    RUN_RESULT,
    Comparison,
    Evaluation,
    Evaluations,
    Failed,
    merged,
    read_results,
    write_results,
)
from dalr.evaluation.retrieval_data import OwnData, captions_task, text_retrieval, zero_training_retrieval
from dalr.evaluation.score import evaluate as score
from dalr.evaluation.score import failure, load_tasks
from dalr.evaluation.senteval.selection import CLASSIFIERS
from dalr.evaluation.tasks import CAPTIONS, OWN_TASKS, RETRIEVAL, resolve_tasks
from dalr.io.console import Console
from dalr.io.lock import locked_output
from dalr.io.paths import is_dir, is_file
from dalr.models.absent import require_there
from dalr.models.config import EncoderConfig

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.models.vision import VisionModel

_RECORD_SECONDS = 10.0
"""How long another process may take to write a run's record, which takes a moment."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Everything that a request asks for, read and checked; good for any number of models."""

    tasks: Sequence[LoadedTask]
    failed: Sequence[Failed]
    mteb: Sequence[MtebTask]
    own: OwnData
    """Captions and images of the request, or those that runs held out."""
    own_tasks: Sequence[str]
    """Which of the tasks on them are asked for."""


def evaluate(models: Sequence[str], request: Request) -> Evaluations:
    """Score models on the same tasks; with several, every pair of them is compared.

    Of several models, one that cannot be scored is listed as failed, and the others are scored.

    Raises:
        ConfigError: an unknown task or classifier, or tasks without what they need.
        DataError: a folder or file that is not there. A task whose files are wrong is only listed as failed.
        ModelFileError, CorruptFileError: the one model cannot be loaded.
    """
    if len(models) == 1:
        require_there(models[0])
    loaded = load(request)
    if loaded.own_tasks and request.pairs is None:
        loaded.own.common = _common_run(models, loaded.own, request)
    evaluations: list[Evaluation] = []
    failed: list[Failed] = []
    for model in models:
        try:
            evaluations.append(_evaluate_named(model, loaded, request))
        except DalrError as error:
            if len(models) == 1:
                raise
            failed.append(failure(model, error))
    comparisons: list[Comparison] = []
    for index, a in enumerate(evaluations):
        for b in evaluations[index + 1 :]:
            comparisons += compare((a, b))
    return Evaluations(models=tuple(evaluations), comparisons=tuple(comparisons), failed=tuple(failed))


def _common_run(models: Sequence[str], own: OwnData, request: Request) -> Path | None:
    """The run whose test images all are scored on; a run without any says so when its turn comes.

    Raises:
        ConfigError: runs with different test images.
    """
    found: dict[Path, OwnSet] = {}
    for model in models:
        with suppress(DalrError):
            place = locate(model, request)
            if place.run is not None and (test := own.photos(place.run).test) is not None:
                found[place.run] = test
    require_one_set(list(found.values()))
    return next(iter(found), None)


def _evaluate_named(model: str, loaded: Loaded, request: Request) -> Evaluation:
    place = locate(model, request)
    evaluation = evaluate_one(place, loaded, request)
    if place.run is not None and evaluation.tasks:  # a wrong folder is no result of the run
        keep(evaluation, place.run / RUN_RESULT, request.console)
        _update_card(place.run, request.console)
    return evaluation


def _update_card(run: Path, console: Console) -> None:
    """Let the model's card show the scores that were kept."""
    from dalr.export.card import write_card

    try:
        write_card(run)
    except DalrError as error:
        console.say(f"warning: the model card is not brought up to date: {error.problems[0]}")


def evaluate_model(model: SentenceTransformer, request: Request) -> Evaluation:
    """Score a model that a program holds in memory.

    Raises:
        ConfigError: as `evaluate`, or retrieval without heads.
        DataError: a folder or file that is not there.
    """
    evaluated = model_in_memory(model, request)
    loaded = load(request)
    tasks = list(loaded.tasks)
    if loaded.own_tasks:
        if RETRIEVAL in loaded.own_tasks and request.heads is None:
            what = "retrieval is measured in the grounding space, and a model in memory has no heads; name the run"
            raise ConfigError(Problem(where="tasks", what=what))
        place = Place(
            name=evaluated.name, encoder=EncoderConfig(model=evaluated.name), heads=request.heads, in_memory=True
        )
        tasks += _own_tasks(place, loaded)
    return score(evaluated, tasks, failed=loaded.failed, map_method=request.map_method, console=request.console)


def load(request: Request) -> Loaded:
    """Read and check what a request asks for. Retrieval's data may depend on the run: it is read once for each.

    Raises:
        ConfigError, DataError: as `evaluate`.
    """
    names = resolve_tasks(request.tasks)
    mteb = find_mteb_tasks(request.mteb)
    tasks, failed = _load(names, request)

    own_tasks = [name for name in names if name in OWN_TASKS]
    return Loaded(tasks=tasks, failed=failed, mteb=mteb, own=OwnData(request=request), own_tasks=own_tasks)


def _own_tasks(place: Place, loaded: Loaded, vision: VisionModel | None = None) -> Iterator[LoadedTask]:
    """The tasks on one's own images, in the order asked for."""
    for name in loaded.own_tasks:
        if name == CAPTIONS:
            yield captions_task(place, loaded.own)
        elif vision is not None:
            yield zero_training_retrieval(vision, loaded.own, place)
        else:
            yield text_retrieval(place, loaded.own)


def evaluate_one(place: Place, loaded: Loaded, request: Request) -> Evaluation:
    """Score one model on what was loaded."""
    from dalr.models.vision import has_text_tower, load_vision_model

    tasks = list(loaded.tasks)
    if has_text_tower(place.encoder.model):
        vision = load_vision_model(place.encoder.model, device=request.device)
        tasks += _own_tasks(place, loaded, vision)
        model = multimodal_model(place, vision, request)
    else:
        tasks += _own_tasks(place, loaded)
        model = text_model(place, request)
    evaluation = score(model, tasks, failed=loaded.failed, map_method=request.map_method, console=request.console)
    results, failed = score_mteb_tasks(loaded.mteb, model, request.console)
    return evaluation.model_copy(
        update={"tasks": {**evaluation.tasks, **results}, "failed": (*evaluation.failed, *failed)}
    )


def _load(names: Sequence[str], request: Request) -> tuple[list[LoadedTask], list[Failed]]:
    """All tasks but those on one's own images, which depend on the model."""
    if request.classifier not in CLASSIFIERS:
        what = f"unknown classifier {request.classifier!r}; known: {', '.join(CLASSIFIERS)}"
        raise ConfigError(Problem(where="--classifier", what=what))
    tasks, failed = _graded(request)
    from_files = [name for name in names if name not in OWN_TASKS]
    if from_files:
        read, unread = load_tasks(from_files, _require_data(from_files, request), _options(request))
        tasks, failed = [*read, *tasks], [*unread, *failed]
    if tasks and request.exclude_overlap is not None:
        training = training_sentences(request.exclude_overlap)
        with request.console.bar("overlap", len(training), "sentence") as bar:
            tasks, report = without_overlap(tasks, training, bar.update)
        request.console.say(report.table())
    return tasks, failed


def _graded(request: Request) -> tuple[list[LoadedTask], list[Failed]]:
    """The user's own pairs as tasks, and those that could not be read."""
    wrong = [
        Problem(where="--graded-pairs", what=what)
        for name in request.graded_pairs
        if (what := check_task_name(name)) is not None
    ]
    if wrong:
        raise ConfigError(wrong)
    tasks: list[LoadedTask] = []
    failed: list[Failed] = []
    for name, path in request.graded_pairs.items():
        try:
            tasks.append(StsTask(pairs=load_graded_pairs(path, name)))
        except DataError as error:
            failed.append(failure(name, error))
    return tasks, failed


def _options(request: Request) -> Options:
    return Options(classifier=CLASSIFIERS[request.classifier], allow_changed_data=request.allow_changed_data)


def _require_data(from_files: Sequence[str], request: Request) -> Path:
    if request.data is None:
        what = f"needed for {', '.join(from_files)}: a folder in SentEval's layout, as `dalr data get` makes one"
        raise ConfigError(Problem(where="--data", what=what))
    if not is_dir(request.data):
        raise DataError(Problem(where="--data", what=f"no such folder: {request.data.absolute()}"))
    return request.data


def keep(evaluation: Evaluation, path: Path, console: Console) -> Evaluation:
    """Add these scores to those that the run's folder already has of the same model and settings; returns all.

    A folder that cannot be written, such as a colleague's, is a warning: the scores are worth more than the record.
    """
    try:
        with locked_output(path, wait=_RECORD_SECONDS):  # another evaluation of the run may be adding its own
            evaluation = _with_earlier(evaluation, path, console)
            write_results(path, evaluation)
    except StorageError as error:
        console.say(f"warning: these scores are not kept in the run's folder: {error.problems[0].what}")
        return _with_earlier(evaluation, path, Console(quiet=True))
    return evaluation


def _with_earlier(evaluation: Evaluation, path: Path, console: Console) -> Evaluation:
    try:
        if is_file(path):
            (earlier,), _ = read_results(path)
            return merged(earlier, evaluation)
    except (DataError, ValueError) as error:
        console.say(f"warning: {error}; it is replaced by the new scores")
    return evaluation
