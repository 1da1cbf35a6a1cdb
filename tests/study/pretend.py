"""A trainer and an examiner that take no time, and a small study over them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dalr.errors import DalrError, NumericsError
from dalr.evaluation.metrics import spearman
from dalr.evaluation.results import (
    Correlation,
    Details,
    Evaluation,
    PairDetails,
    Settings,
    StsResult,
    SubsetCorrelation,
    sts_average,
)
from dalr.evaluation.tasks import STS_TASKS
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.loading import encoder_sha256
from dalr.recipe.schema import Recipe
from dalr.study import load_study, run_study
from dalr.study.result import StudyResult
from tiny import Toys

QUIET = Console(quiet=True)


@dataclass(kw_only=True)
class Trainer:
    """Stands for `dalr.train`: writes what a finished run has, with a score that the learning rate decides."""

    trained: list[str] = field(default_factory=list)
    fails: Callable[[Recipe], DalrError | None] = lambda recipe: None
    killed_at: int | None = None
    """Number of the training that is interrupted half-way."""

    def __call__(self, recipe: Recipe, *, out: Path, console: Console, resume: bool = False) -> None:
        assert resume or not out.exists() or not any(out.iterdir()), "a used folder"
        self.trained.append(out.relative_to(out.parent.parent).as_posix())
        out.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {
            "recipe": recipe.model_dump(mode="json"),
            "steps": 4,
            "versions": {"dalr": "test"},
            "machine": {"cores": 2},
            "git_commit": None,
            "trained_parameters": 10,
        }
        if self.killed_at == len(self.trained):
            (out / "run.json").write_text(json.dumps(record | {"status": "training"}))
            raise KeyboardInterrupt
        if (error := self.fails(recipe)) is not None:
            raise error
        (out / "model").mkdir()
        (out / "model" / "config.json").write_text(json.dumps({"seed": recipe.seed}))
        (out / "model" / "model.safetensors").write_bytes(recipe.name.encode())
        (out / "metrics.jsonl").write_text('{"step": 1}\n')
        result = {"best_score": score(recipe), "best_step": 2, "seconds": 1.5}
        (out / "run.json").write_text(json.dumps(record | {"status": "finished", "result": result}))


def score(recipe: Recipe) -> float:
    """Best at a learning rate of 1e-3; half a point more for each seed."""
    return 80 - 5 * abs(math.log10(recipe.training.learning_rate / 1e-3)) + recipe.seed / 2


def not_finite(recipe: Recipe) -> DalrError | None:
    return NumericsError("the loss is not finite") if recipe.training.learning_rate > 0.5 else None


def evaluation(
    model: str, quality: float, *, seed: int = 0, sha256: str | None = None, pairs: int = 60
) -> Evaluation:
    """All STS tasks of a model whose cosines are gold and noise; the better the less noise."""
    tasks, details = {}, {}
    for number, task in enumerate(STS_TASKS):
        gold = np.round(np.random.default_rng(number).uniform(0, 5, pairs), 1)
        noise = np.random.default_rng([seed, number]).normal(size=pairs)
        cosine = gold / 5 + noise / quality
        both = Correlation(spearman=100 * spearman(cosine, gold), pearson=50.0)
        tasks[task] = StsResult(
            split="test",
            aggregation="all",
            pairs=pairs,
            spearman=both.spearman,
            pearson=both.pearson,
            interval=(both.spearman - 1, both.spearman + 1),
            mean=both,
            weighted_mean=both,
            subsets={"images": SubsetCorrelation(spearman=both.spearman, pearson=50.0, pairs=pairs)},
        )
        details[task] = PairDetails(
            gold=tuple(gold.tolist()), cosine=tuple(cosine.tolist()), subset_sizes={"images": pairs}, worst=()
        )
    return Evaluation(
        model=model,
        model_sha256=sha256,
        created="2026-11-25T00:00:00+00:00",
        dalr="test",
        settings=Settings(classifier="senteval"),
        tasks=tasks,
        sts_avg=sts_average(tasks),
        transfer_avg=None,
        transfer_devavg=None,
        details=Details(sts=details),
    )


def study_result(**fields: object) -> StudyResult:
    """A study of three seeds, with whatever a test has to say of it."""
    made = StudyResult(
        name="toy",
        description="A toy.",
        dalr="test",
        seeds=(0, 1, 2),
        tune_seed=0,
        select_by="sts-b",
        unequal_trials=None,
        baseline=None,
        methods={},
        differences=(),
        failures=(),
        origins=(),
    )
    return made.model_copy(update=fields)


@dataclass(kw_only=True)
class Bench:
    """A folder with toy recipes and a study over them, run by the pretended trainer."""

    folder: Path
    trainer: Trainer
    examined: list[str] = field(default_factory=list)
    tree: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def write(self) -> str:
        path = self.folder / "study.yaml"
        # through JSON, because YAML writes what is met twice as an alias
        path.write_text(yaml.safe_dump(json.loads(json.dumps(self.tree)), sort_keys=False))
        return str(path)

    def run(self, *overrides: str, replace: bool = False) -> StudyResult:
        return run_study(load_study(self.write(), overrides), out=self.out, console=QUIET, replace=replace)


def make_bench(toys: Toys, folder: Path, monkeypatch: pytest.MonkeyPatch, *, pages: bool = False) -> Bench:
    """Two methods, two trials and two seeds each; `plain` has no images. A page takes a second to draw."""
    toys.recipe(folder)
    bench = Bench(folder=folder, trainer=Trainer())
    searched = {"kind": "grid", "space": {"training.learning_rate": [1e-2, 1e-3]}}
    bench.tree = {
        "name": "toy",
        "seeds": [0, 1],
        "tune_seed": 0,
        "select_by": "tsv",
        "overrides": {"training.max_steps": 2},
        "methods": {
            "plain": {"recipe": "recipe.yaml", "overrides": {"objective.grounding": None}, "search": searched},
            "grounded": {"recipe": "recipe.yaml", "search": dict(searched)},
        },
        "baseline": "plain",
    }

    def load(request: Any) -> Any:
        from dalr.evaluation.retrieval_data import OwnData
        from dalr.evaluation.run import Loaded

        return Loaded(tasks=[], failed=[], mteb=[], own=OwnData(request=request), own_tasks=[])

    def evaluate_one(place: Any, loaded: Any, request: Any) -> Evaluation:
        bench.examined.append(place.run.relative_to(bench.out).as_posix())
        sha256 = encoder_sha256(EncoderConfig(model=str(place.run / "model")))
        grounded = "grounded" in str(place.run)
        seed = int(json.loads((place.run / "model" / "config.json").read_text())["seed"])
        return evaluation(place.name, 4.0 if grounded else 2.0, seed=seed, sha256=sha256)

    if not pages:
        monkeypatch.setattr("dalr.study.writing.study_page", lambda result: None)
        monkeypatch.setattr("dalr.study.writing.render", lambda page: "")
    monkeypatch.setattr("dalr.study.training.train", bench.trainer)
    monkeypatch.setattr("dalr.study.scores.load", load)
    monkeypatch.setattr("dalr.study.scores.evaluate_one", evaluate_one)
    return bench
