"""How are final runs scored? Each once; what a folder has of the same weights and settings is kept.

Only final runs come here. A trial that was not chosen never meets a test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dalr.errors import Attempts, ConfigError, DalrError, DataError, Problem
from dalr.evaluation.graded import load_graded_pairs, pairs_sha256
from dalr.evaluation.models import settings_of
from dalr.evaluation.request import Request, locate
from dalr.evaluation.results import (
    RUN_RESULT,
    CaptionsResult,
    Evaluation,
    RetrievalResult,
    Settings,
    StsResult,
    TransferResult,
    read_results,
)
from dalr.evaluation.run import Loaded, evaluate_one, keep, load
from dalr.evaluation.tasks import CAPTIONS, RETRIEVAL, STS_TASKS, resolve_tasks
from dalr.io.console import Console
from dalr.io.paths import exists, is_dir
from dalr.losses import Need
from dalr.models.config import EncoderConfig
from dalr.recipe.paths import expand
from dalr.recipe.schema import Recipe
from dalr.study.config import EvaluateConfig
from dalr.study.fingerprint import Failure

DEV = "dev"
STS_AVG, CLEAN_AVG, TRANSFER_AVG = "STS avg", "STS avg without overlap", "transfer avg"
WITHOUT_OVERLAP = " without overlap"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The scores of a run, or why there are none."""

    evaluation: Evaluation | None = None
    failure: Failure | None = None
    earlier: bool = False
    """Whether all of it was there already."""


class Scorers:
    """A scorer for each seed, since seeds may have data of their own; one for all where they have not."""

    def __init__(self, config: EvaluateConfig, console: Console) -> None:
        self.config, self.console = config, console
        self._known: list[Scorer] = []

    def at(self, seed: int) -> Scorer:
        """The one that scores runs of this seed."""
        config = self.config.at(seed)
        found = next((each for each in self._known if each.config == config), None)
        if found is None:
            found = Scorer(config, self.console)
            self._known.append(found)
        return found

    def require_data(self, seeds: Sequence[int]) -> None:
        """Read what will be needed under every seed.

        Raises:
            ConfigError, DataError: as `Scorer.require_data`.
        """
        attempt = Attempts()
        for scorer in {id(found): found for found in map(self.at, seeds)}.values():
            attempt(scorer.require_data)
        attempt.require()


class Scorer:
    """Scores runs as one study asks for it; the data of all tasks is read once."""

    def __init__(self, config: EvaluateConfig, console: Console) -> None:
        self.config, self.console = config, console
        self._loaded: Loaded | None = None

    @cached_property
    def _graded(self) -> Mapping[str, str]:
        """Content of the graded pairs, of those that can be read."""
        found = {}
        for name, path in self.config.graded_pairs.items():
            with suppress(DataError):
                found[name] = pairs_sha256(load_graded_pairs(expand(path), name))
        return found

    def _has(self, found: Evaluation, task: str) -> bool:
        """Whether an evaluation has a task, of the pairs that the study's files hold now."""
        result = found.tasks.get(task)
        if isinstance(result, StsResult) and task in self._graded:
            return result.pairs_sha256 == self._graded[task]
        return result is not None

    def require_data(self) -> None:
        """Read what will be needed, so that a study does not train for days towards missing files.

        Raises:
            ConfigError, DataError: with everything that is not there or not as it should be.
        """
        request = self._request(resolve_tasks([*self.config.tasks, *self.config.on_first_seed]))
        try:
            failed = load(dataclasses.replace(request, exclude_overlap=None)).failed
            problems = [Problem(where=each.task, what=each.reason) for each in failed]
        except (ConfigError, DataError) as error:
            problems = [_in_study(problem) for problem in error.problems]
        if request.exclude_overlap is not None and not exists(request.exclude_overlap):
            what = f"nothing there: {request.exclude_overlap}"
            problems.append(Problem(where="evaluate.exclude_overlap", what=what))
        if problems:
            raise DataError(problems)

    def has_scored(self, recipe: Recipe, recorded: Evaluation | None, *, first_seed: bool) -> bool:
        """Whether a run's record has all that is asked of it."""
        earlier = self._of_these_settings(recorded)
        wanted = self._tasks(recipe, first_seed=first_seed)
        return earlier is not None and all(self._has(earlier, task) for task in wanted)

    def score(self, recipe: Recipe, folder: Path, *, recorded: Evaluation | None, first_seed: bool) -> Evaluated:
        """The scores of a finished run: those of its record where it is known by that, or else of its folder."""
        try:
            tasks = self._tasks(recipe, first_seed=first_seed)
            earlier = self._of_these_settings(recorded) if recorded is not None else self._earlier(folder)
            missing = [task for task in tasks if earlier is None or not self._has(earlier, task)]
            if missing:
                request = self._request(missing)
                evaluation = evaluate_one(locate(str(folder), request), self._those(missing), request)
                earlier = keep(evaluation, folder / RUN_RESULT, self.console)
            return Evaluated(evaluation=earlier, earlier=not missing)
        except DalrError as error:
            return Evaluated(failure=Failure(reason=str(error), exit_code=error.exit_code))

    def _tasks(self, recipe: Recipe, *, first_seed: bool) -> list[str]:
        names = [*self.config.tasks, *(self.config.on_first_seed if first_seed else ())]
        cannot = {RETRIEVAL: not finds_images(recipe), CAPTIONS: not _tests_captions(recipe)}
        tasks = [name for name in resolve_tasks(names) if not cannot.get(name, False)]
        return [*tasks, *self.config.graded_pairs]

    def _those(self, tasks: Sequence[str]) -> Loaded:
        """These tasks out of all."""
        if self._loaded is None:
            self._loaded = load(self._request([*self.config.tasks, *self.config.on_first_seed]))
        return dataclasses.replace(
            self._loaded,
            tasks=[each for each in self._loaded.tasks if each.name in tasks],
            failed=[each for each in self._loaded.failed if each.task in tasks],
            own_tasks=[each for each in self._loaded.own_tasks if each in tasks],
        )

    def _request(self, tasks: Sequence[str]) -> Request:
        config = self.config
        return Request(
            data=expand(config.data) if config.data is not None else None,
            tasks=tasks,
            graded_pairs={name: expand(path) for name, path in config.graded_pairs.items()},
            classifier=config.classifier,
            exclude_overlap=expand(config.exclude_overlap) if config.exclude_overlap is not None else None,
            allow_changed_data=config.allow_changed_data,
            map_method="none",
            console=self.console,
        )

    def _earlier(self, folder: Path) -> Evaluation | None:
        """What the folder has, if it is of these settings and of the weights there."""
        from dalr.models.loading import encoder_sha256

        try:
            (found,), _ = read_results(folder / RUN_RESULT)
        except (DataError, ValueError):
            return None
        model = folder / "model"
        if is_dir(model) and found.model_sha256 != encoder_sha256(EncoderConfig(model=str(model))):
            return None
        return self._of_these_settings(found)

    def _of_these_settings(self, found: Evaluation | None) -> Evaluation | None:
        if found is None:
            return None
        return found if self._settings(found.settings) == self._settings(settings_of(self._request(()))) else None

    def _settings(self, settings: Settings) -> Settings:
        """Without what is found while scoring, and with the overlap's file as the study names it: records do."""
        overlap = self.config.exclude_overlap
        named = overlap is not None and settings.overlap_with == str(expand(overlap))
        return settings.model_copy(
            update={"data_changed": (), "overlap_with": overlap if named else settings.overlap_with}
        )


def finds_images(recipe: Recipe) -> bool:
    """Whether a run trains grounding heads and holds out images to find."""
    grounded = any(Need.GROUNDING in term.needs for _, term in recipe.objective.active())
    return (
        grounded
        and recipe.data.holdout is not None
        and recipe.data.holdout.may_test
        and recipe.features.image is not None
    )


def _tests_captions(recipe: Recipe) -> bool:
    """Whether a run holds out captions for a test."""
    return recipe.data.pairs is not None and recipe.data.holdout is not None and recipe.data.holdout.may_test


def scores_of(evaluation: Evaluation | None, validation: float | None) -> dict[str, float]:
    """Every score of a run by its name in the tables; subsets are `TASK/SUBSET`. What it lacks is not there."""
    found: dict[str, float | None] = {DEV: validation}
    if evaluation is None:
        return _there(found)
    clean: dict[str, float] = {}
    for name, result in evaluation.tasks.items():
        match result:
            case StsResult():
                found[name] = result.spearman
                found |= {f"{name}/{group}": each.spearman for group, each in result.groups.items()}
                found |= {f"{name}/{subset}": each.spearman for subset, each in result.subsets.items()}
                if result.without_overlap is not None:
                    left = result.without_overlap
                    clean[name] = found[name + WITHOUT_OVERLAP] = left.spearman
                    found |= {
                        f"{name}/{subset}{WITHOUT_OVERLAP}": each.spearman for subset, each in left.subsets.items()
                    }
            case TransferResult():
                found[name] = result.acc
            case RetrievalResult():
                for arrow, recall in (("t→i", result.text_to_image), ("i→t", result.image_to_text)):
                    found |= {f"{arrow} R@1": recall.r1, f"{arrow} R@5": recall.r5, f"{arrow} R@10": recall.r10}
            case CaptionsResult():
                found |= {"captions R@1": result.r1, "captions R@10": result.r10, "captions MAP": result.map}
            case _:
                pass
    found |= {STS_AVG: evaluation.sts_avg, TRANSFER_AVG: evaluation.transfer_avg}
    if set(STS_TASKS) <= set(clean):
        found[CLEAN_AVG] = sum(clean[task] for task in STS_TASKS) / len(STS_TASKS)
    return _there(found)


def _there(found: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in found.items() if value is not None}


def _in_study(problem: Problem) -> Problem:
    """A problem of an option, named by the key of a study that stands for it."""
    if not problem.where.startswith("--"):
        return problem
    return dataclasses.replace(problem, where=f"evaluate.{problem.where.removeprefix('--').replace('-', '_')}")
