"""A study file: every problem at once, each with its place, and no way to choose by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalr.errors import ConfigError
from dalr.study import load_study, make_plan
from tiny import Toys

GOOD = """\
name: toy
seeds: [0, 1]
select_by: tsv
methods:
  one:
    recipe: recipe.yaml
    search: {kind: grid, space: {training.learning_rate: [1e-3, 1e-2]}}
  two:
    recipe: recipe.yaml
    search: {kind: random, space: {training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}}
    trials: 2
"""


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        make_plan(load_study(str(path), overrides), folder / "out")
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


@pytest.fixture
def folder(toys: Toys, tmp_path: Path) -> Path:
    toys.recipe(tmp_path)
    return tmp_path


def test_the_good_one_is(folder: Path) -> None:
    path = folder / "study.yaml"
    path.write_text(GOOD, encoding="utf-8")
    plan = make_plan(load_study(str(path)), folder / "out")
    assert plan.trainings == 6
    assert plan.trials["two"][0].folder == folder / "out/runs/two/trial-00"


@pytest.mark.parametrize("test", ["sts", "STS12", "STS-B", "SICK-R", "transfer", "MR", "test"])
def test_a_test_score_never_chooses(folder: Path, test: str) -> None:
    [problem] = problems(folder, GOOD.replace("select_by: tsv", f"select_by: {test}"))
    assert problem.startswith("study.yaml:3: select_by: ")
    assert "is a test score, and a score that selects settings is not a test of them" in problem


def test_retrieval_that_chooses_is_not_scored(folder: Path) -> None:
    text = GOOD.replace("select_by: tsv", "select_by: retrieval") + "evaluate: {tasks: [retrieval]}\n"
    assert any("held-out images, which also choose" in problem for problem in problems(folder, text))


def test_unequal_trials_are_refused_unless_there_is_a_reason(folder: Path) -> None:
    text = GOOD.replace("trials: 2", "trials: 3")
    [problem] = problems(folder, text)
    assert "study.yaml:4: methods: methods have different numbers of trials (one 2, two 3)" in problem
    path = folder / "study.yaml"
    path.write_text(text + "unequal_trials: a third for the second\n", encoding="utf-8")
    assert len(make_plan(load_study(str(path)), folder / "out").trials["two"]) == 3


def test_a_method_that_is_not_searched_beside_one_that_is_counts_as_unequal(folder: Path) -> None:
    text = GOOD + "  three: {recipe: recipe.yaml}\n"
    assert any("three 0" in problem for problem in problems(folder, text))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("trials: 2", "trials: 2\n  three: {}"),
            "study.yaml:12: methods.three: needs a recipe, or `like:",
        ),
        (("trials: 2", "trials: 2\n  three: {like: twoo}"), "three.like: no method 'twoo'; did you mean 'two'?"),
        (("trials: 2", "trials: 2\n  three: {like: four}\n  four: {like: two}"), "'four' is itself like 'two'"),
        (
            ("trials: 2", "trials: 2\n  three: {like: two, trials: 2}"),
            "three.trials: a method like 'two' uses the setting chosen there; remove its trials",
        ),
        (
            ("trials: 2", "trials: 2\n  three: {like: two, search: {kind: grid, space: {seed: [1]}}}"),
            "three.search: a method like 'two' uses the setting chosen there; remove its search",
        ),
        (
            ("trials: 2", "trials: 2\n    like: one"),
            "two.like: a method has a recipe of its own or is like",
        ),
        (("seeds: [0, 1]", "seedz: [0, 1]"), "study.yaml:2: seedz: unknown key; did you mean 'seeds'?"),
        (
            ("recipe: recipe.yaml\n    search: {kind: grid", "recip: recipe.yaml\n    search: {kind: grid"),
            "did you mean 'recipe'?",
        ),
        (
            ("kind: grid", "kind: gird"),
            "study.yaml:7: methods.one.search.kind: expected 'grid' or 'random', found 'gird'",
        ),
        (("seeds: [0, 1]", "seeds: [0, 0]"), "study.yaml:2: seeds: a seed is named twice"),
        (("seeds: [0, 1]", "seeds: []"), "study.yaml:2: seeds: "),
        (("  one:", "  a/b:"), "study.yaml:5: methods.a/b: names are folders"),
        (("name: toy", "name: toy\nbaseline: onne"), "no method 'onne'; did you mean 'one'?"),
        (("name: toy", "name: toy\ncompare: [[one, one]]"), "a method is compared with itself"),
        (("name: toy", "name: toy\nevaluate: {tasks: [sst]}"), "unknown task 'sst'"),
        (("name: toy", "name: toy\nevaluate: {}"), "needs data: a folder in SentEval's layout"),
        (("name: toy", "name: toy\nevaluate: {data: $NOT_SET_HERE}"), "NOT_SET_HERE, which is not set"),
        (("name: toy", "name: toy\noverrides: {seed: 3}"), "study.yaml:2: overrides.seed: set by the study"),
        (("trials: 2", "overrides: {training.learning_rate: 1e-3}\n    trials: 2"), "set here and searched"),
        (
            ("name: toy", "name: toy\noverrides: {student.model: '${prepared:x}'}"),
            "no prepared run 'x' at this point",
        ),
        (
            ("name: toy", "name: toy\noverrides: {training.epoch: 3}"),
            "overrides.training.epoch: training.epoch: unknown key; did you mean 'epochs'?",
        ),
        (("select_by: tsv", "select_by: sts-b"), "the study selects by 'sts-b', but this recipe's is 'tsv'"),
        (
            ("recipe: recipe.yaml\n    search: {kind: grid", "recipe: recpe.yaml\n    search: {kind: grid"),
            "no such file, and no shipped recipe",
        ),
    ],
    ids=lambda value: value[1][:30] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_named_with_its_place(folder: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in GOOD
    found = problems(folder, GOOD.replace(*change, 1))
    assert any(words in problem for problem in found), found


def test_problems_of_file_and_command_line_come_together(folder: Path) -> None:
    found = problems(
        folder, GOOD.replace("seeds: [0, 1]", "seeds: [0, 0]").replace("kind: grid", "kind: x"), "novalue"
    )
    assert len(found) == 2  # what the types refuse hides what hangs on them
    assert found[0].startswith("-s novalue: expected KEY=VALUE")


@pytest.mark.parametrize("override", ["seed=3", "name=x", "training.learning_rate=1e-3"])
def test_the_command_line_leaves_seeds_and_searched_keys_alone(folder: Path, override: str) -> None:
    assert all(problem.startswith(f"-s {override}: ") for problem in problems(folder, GOOD, override))


def test_an_unknown_study_is_named_with_what_it_may_have_been() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper-main'"):
        load_study("paper-mian")


def test_a_study_extends_another(folder: Path) -> None:
    (folder / "base.yaml").write_text(GOOD, encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text("extends: base.yaml\nname: grown\nmethods: {one: {overrides: {training.max_steps: 7}}}\n")
    plan = make_plan(load_study(str(path)), folder / "out")
    assert plan.study.config.name == "grown"
    assert [plan.trials[name][0].recipe.training.max_steps for name in ("one", "two")] == [7, 4]


def test_a_study_takes_out_a_method_of_the_one_that_it_extends(folder: Path) -> None:
    (folder / "base.yaml").write_text(GOOD, encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text("extends: base.yaml\nmethods: {one: null, three: {like: two}}\n")
    assert list(make_plan(load_study(str(path)), folder / "out").trials) == ["two", "three"]
    path.write_text("extends: base.yaml\nbaseline: one\nmethods: {one: null}\n")
    with pytest.raises(ConfigError, match="no method 'one'"):
        load_study(str(path))


def test_a_recipe_is_found_beside_the_file_that_names_it(toys: Toys, tmp_path: Path) -> None:
    base, child = tmp_path / "base", tmp_path / "child"
    for folder in (base, child):
        folder.mkdir()
        toys.recipe(folder)
    other = child / "recipe.yaml"
    other.write_text(other.read_text().replace("weight: 0.1", "weight: 0.9"))
    (base / "study.yaml").write_text(GOOD, encoding="utf-8")
    (child / "study.yaml").write_text("extends: ../base/study.yaml\nmethods: {three: {recipe: recipe.yaml}}\n")
    text = (child / "study.yaml").read_text() + "unequal_trials: it is a test\n"
    (child / "study.yaml").write_text(text)
    plan = make_plan(load_study(str(child / "study.yaml")), tmp_path / "out")
    weights = {
        name: run.recipe.objective.grounding.weight
        for run in plan.first_runs()
        for name in [run.method]
        if run.recipe.objective.grounding is not None
    }
    assert weights == {"one": 0.1, "two": 0.1, "three": 0.9}


def test_what_the_study_sets_is_not_searched(folder: Path) -> None:
    text = GOOD.replace("{training.learning_rate: [1e-3, 1e-2]}", "{seed: [0, 7]}")
    assert "study.yaml:7: methods.one.search.space.seed: set by the study, not searched" in problems(folder, text)


@pytest.mark.parametrize("setting", ["training={max_steps: 2}", "training.learning_rate=1", "training=null"])
def test_the_command_line_leaves_what_is_searched(folder: Path, setting: str) -> None:
    found = problems(folder, GOOD, setting)
    assert f"-s {setting}: searched by method 'one'; nothing would be left to try" in found


def test_prepared_runs_are_looked_for_in_spaces_and_settings(folder: Path) -> None:
    teacher = "prepare: {teacher: {recipe: recipe.yaml}}\n"
    space = '{teachers: [[{model: "${prepared:teacher}"}], [{model: "${prepared:tacher}"}]]}'
    text = GOOD.replace("{training.learning_rate: [1e-3, 1e-2]}", space) + teacher
    assert any("no prepared run 'tacher' at this point; known: teacher" in each for each in problems(folder, text))
    found = problems(folder, GOOD + teacher, 'teachers=[{model: "${prepared:teacher}"}]')
    assert any("no prepared run 'teacher' at this point; known: none" in each for each in found)


def test_a_like_method_is_checked_with_every_setting_that_may_be_chosen(folder: Path) -> None:
    groups = "{training.schedule.groups: [null, {images: 4, captions: 2}]}"
    text = GOOD.replace("{training.learning_rate: [1e-3, 1e-2]}", groups)
    like = "  three: {like: one, overrides: {features.image: null, objective.grounding: null}}\n"
    assert any("methods.one" in each or "methods.three" in each for each in problems(folder, text + like))


def test_a_run_needs_the_prepared_runs_that_it_reads(folder: Path) -> None:
    path = folder / "study.yaml"
    two = '[{model: "${prepared:b}", weight: 0.5}, {model: "${prepared:a}", weight: 0.5}]'
    text = GOOD.replace("  two:", f"    overrides: {{teachers: {two}}}\n  two:")
    text += "  three: {like: one, overrides: {teachers: []}}\n"
    text += '  four: {like: one, overrides: {teachers: [{model: "${prepared:a}"}]}}\n'
    path.write_text(text + "prepare: {a: {recipe: recipe.yaml}, b: {recipe: recipe.yaml}}\n")
    plan = make_plan(load_study(str(path)), folder / "out")
    needs = {method: plan.finals(method, plan.trials["one"][0])[1].needs for method in ("one", "three", "four")}
    assert needs == {"one": ("b", "a"), "three": (), "four": ("a",)}


def test_list_and_help_of_the_command(cli) -> None:  # type: ignore[no-untyped-def]
    listed = cli("study", "--list")
    assert listed.code == 0
    assert "flickr8k-mini " in listed.out
    nameless = cli("study")
    assert nameless.code == 2
    assert "dalr study --list" in nameless.err
