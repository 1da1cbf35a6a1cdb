"""A path in a recipe starts at the recipe's file; one on the command line at the current folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dalr.recipe.loading import load_data_section, load_recipe
from dalr.study.reading import load_study
from tiny import Outcome, write_pairs

RECIPE = """
name: shop
data: {pairs: photos/captions.jsonl, text: ../corpus.txt, holdout: {file: shop.split.jsonl}}
features: {image: stores/images}
student: {model: models/mine, pooling: cls}
teachers: [{features: stores/teacher, weight: 0.5}, {model: bert-base-uncased, weight: 0.5}]
objective: {infonce: {}, list_net: {}}
validation: {kind: tsv, data: scored.tsv, every: 10}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "models" / "mine").mkdir(parents=True)
    (tmp_path / "conf" / "shop.yaml").write_text(RECIPE)
    return Path("conf/shop.yaml")


def test_every_path_starts_at_the_file(shop: Path) -> None:
    recipe = load_recipe(shop)
    assert (recipe.data.pairs, recipe.data.text) == ("conf/photos/captions.jsonl", "conf/../corpus.txt")
    assert recipe.data.holdout is not None
    assert recipe.data.holdout.file == "conf/shop.split.jsonl"
    assert recipe.features.image == "conf/stores/images"
    assert recipe.student.model == "conf/models/mine"
    assert [(each.features, each.model) for each in recipe.teachers] == [
        ("conf/stores/teacher", None),
        (None, "bert-base-uncased"),
    ]
    assert recipe.validation is not None
    assert recipe.validation.data == "conf/scored.tsv"
    data = load_data_section(str(shop))
    assert data is not None
    assert data.pairs == recipe.data.pairs


def test_a_recipe_that_is_named_absolutely_works_from_any_folder(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load_recipe(tmp_path / shop)
    assert recipe.data.path(str(recipe.data.pairs)) == tmp_path / "conf" / "photos" / "captions.jsonl"
    assert recipe.student.model == str(tmp_path / "conf" / "models" / "mine")


def test_a_recipe_in_the_current_folder_is_as_it_is_written(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("conf")
    for reference in ("shop.yaml", "./shop.yaml"):
        recipe = load_recipe(reference)
        assert (recipe.data.pairs, recipe.student.model) == ("photos/captions.jsonl", "models/mine")


def test_the_command_line_starts_at_the_current_folder(shop: Path) -> None:
    recipe = load_recipe(shop, ["data.pairs=here.jsonl", "student.model=models/mine", "features={image: here}"])
    assert (recipe.data.pairs, recipe.student.model) == ("here.jsonl", "models/mine")
    assert recipe.features.image == "here"
    assert recipe.data.text == "conf/../corpus.txt"


def test_with_a_root_the_others_start_there(shop: Path) -> None:
    shop.write_text(RECIPE.replace("data: {", "data: {root: ../data, "))
    recipe = load_recipe(shop)
    assert (recipe.data.root, recipe.data.pairs) == ("conf/../data", "photos/captions.jsonl")
    assert recipe.features.image == "stores/images"
    assert load_recipe(shop, ["data.root=data"]).data.root == "data"


@pytest.mark.parametrize("path", ["/data/a.jsonl", "${DATA:-../shared}/a.jsonl", "~/a.jsonl", "hf:owner/name"])
def test_other_paths_stay_as_they_are(shop: Path, path: str) -> None:
    shop.write_text(RECIPE.replace("photos/captions.jsonl", f'"{path}"'))
    assert load_recipe(shop).data.pairs == path


def test_each_file_of_a_chain_says_where_its_own_paths_start(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "months").mkdir()
    (tmp_path / "months" / "nov.yaml").write_text("extends: ../conf/shop.yaml\ndata: {pairs: nov.jsonl}\n")
    recipe = load_recipe("months/nov.yaml")
    assert (recipe.data.pairs, recipe.data.text) == ("months/nov.jsonl", "months/../conf/../corpus.txt")


def test_paths_of_a_study_start_at_its_file(shop: Path) -> None:
    Path("conf/study.yaml").write_text(
        "name: s\nseeds: [0, 1, 2]\nmethods:\n  a: {recipe: shop.yaml, overrides: {data.pairs: a.jsonl}}\n"
        "evaluate: {data: senteval, tasks: [sts], exclude_overlap: seen.txt, graded_pairs: {mine: mine.tsv}}\n"
    )
    study = load_study("conf/study.yaml")
    evaluate = study.config.evaluate
    assert evaluate is not None
    assert (evaluate.data, evaluate.exclude_overlap) == ("conf/senteval", "conf/seen.txt")
    assert evaluate.graded_pairs == {"mine": "conf/mine.tsv"}
    changes = study.changes(("methods", "a", "overrides"), study.config.methods["a"].overrides)
    assert load_recipe(study.recipe_of("methods", "a", "shop.yaml"), changes=changes).data.pairs == "conf/a.jsonl"


def test_init_writes_paths_that_start_at_the_recipe(
    cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.jpg" for number in range(30)]
    write_pairs(Path("captions.jsonl"), names, [[f"a dog number {name}"] for name in names])
    made = cli("init", "--pairs", "captions.jsonl", "--out", "conf/october.yaml")
    assert made.code == 0, made.err
    text = Path("conf/october.yaml").read_text()
    assert "pairs: ../captions.jsonl" in text
    assert "file: october.split.jsonl" in text
    assert "--out conf/stores/images" in text
    assert "features: {image: stores/images}" in text
    assert cli("check", "conf/october.yaml").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("check", tmp_path / "conf" / "october.yaml").code == 0
