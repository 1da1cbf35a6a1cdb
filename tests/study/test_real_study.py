"""A complete study with a real trainer: stopped, resumed, scored, written; images and their controls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pretend import QUIET

from dalr.study import load_study, run_study
from tiny import Toys


def write(toys: Toys, folder: Path, recipe: Path) -> str:
    searched = {"kind": "random", "space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}}
    study = {
        "name": "toy",
        "seeds": [0, 1],
        "select_by": "tsv",
        "trials": 2,
        "overrides": {"training.max_steps": 2, "data.holdout.last": 4},
        "prepare": {
            "teacher": {
                "recipe": str(recipe),
                "overrides": {"objective.grounding": None, "student.pooling": "mean"},
            }
        },
        "methods": {
            "taught": {
                "recipe": str(recipe),
                "overrides": {"teachers": [{"model": "${prepared:teacher}"}], "objective.list_net": {}},
                "search": searched,
            },
            "shuffled": {
                "recipe": str(recipe),
                "overrides": {"features.image_control": "shuffled", "data.pairing_control": "broken"},
                "search": searched,
            },
            "random": {
                "recipe": str(recipe),
                "overrides": {"features.image_control": "random"},
                "search": searched,
            },
        },
        "evaluate": {"tasks": ["retrieval"]},
        "baseline": "shuffled",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(study)), sort_keys=False))
    return str(path)


@pytest.mark.slow
def test_a_whole_study(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.study import training

    study, out = load_study(write(toys, tmp_path, toys.recipe(tmp_path))), tmp_path / "out"
    train, started = training.train, []

    def stopped(recipe: object, **options: object) -> object:
        started.append(recipe)
        if len(started) == 4:
            raise KeyboardInterrupt
        return train(recipe, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out=out, console=QUIET)
    result = run_study(study, out=out, console=QUIET)
    assert result.failures == ()
    assert len(started) == 1 + 3 * 2 + 3 * 1 + 1, "one was started twice"
    for method in result.methods.values():
        assert len(method.seeds) == 2
        assert {"dev", "t→i R@1", "i→t R@10"} <= set(method.summary)
    record = json.loads((out / "runs/shuffled/seed-1/run.json").read_text())
    assert record["recipe"]["features"]["image_control"] == "shuffled"
    assert record["data"]["captions_with_a_strange_image"] > 0
    taught = json.loads((out / "runs/taught/seed-1/run.json").read_text())
    assert taught["recipe"]["teachers"][0]["model"] == str(out / "prepared/teacher/model")
    assert (out / "study.html").stat().st_size > 10_000
    before = (out / "study.json").read_bytes()
    assert run_study(study, out=out, console=QUIET) == result
    assert (out / "study.json").read_bytes() == before
    assert len(started) == 11
