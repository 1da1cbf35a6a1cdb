"""`dalr init`: what it writes is accepted by `dalr check` as it stands, and trains."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from dalr.data.holdout import read_sides
from dalr.recipe.loading import load_recipe
from tiny import Outcome, TinyData, Toys, write_data, write_pairs

Cli = Callable[..., Outcome]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the real encoder."""
    monkeypatch.setattr("dalr.recipe.starter._MINILM", "package:none_such/model")
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("gt_all") else find(name))


@pytest.fixture
def store(cli: Cli, tiny_data: TinyData, tmp_path: Path) -> Path:
    cli("features", "import", tiny_data.matrix, "--ids", tiny_data.ids, "--out", tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize("with_store", [False, True])
def test_check_accepts_it_as_it_stands(
    cli: Cli, tiny_data: TinyData, store: Path, tmp_path: Path, with_text: bool, with_store: bool
) -> None:
    out = tmp_path / "mine.yaml"
    text = ("--text", tiny_data.text) if with_text else ()
    features = ("--features", store) if with_store else ()
    outcome = cli("init", "--pairs", tiny_data.pairs, "--out", out, *text, *features)
    assert (outcome.code, outcome.out) == (0, f"{out}\n"), outcome.err
    assert f"next: dalr check {out}" in outcome.err
    checked = cli("check", out)
    assert checked.code == 0, checked.err
    recipe = load_recipe(str(out))
    assert (recipe.data.text is not None) == with_text
    assert (recipe.objective.term("grounding") is not None) == with_store
    assert recipe.data.holdout is not None
    assert recipe.data.holdout.file == str(tmp_path / "mine.split.jsonl")
    sides = read_sides(tmp_path / "mine.split.jsonl")
    assert Counter(sides.values()) == {"test": 2, "validation": 2}


def test_the_marked_lines_are_a_recipe_with_pictures_once_there_is_a_store(
    cli: Cli, tiny_data: TinyData, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine.yaml"
    cli("init", "--pairs", tiny_data.pairs, "--out", out, "--text", tiny_data.text)
    written = out.read_text()
    assert re.search(
        r"dalr features images --pairs \S+ --images FOLDER --model \S+ --out \S*stores/images", written
    )
    out.write_text(re.sub(r"(?m)^#\+ ", "", written))
    (tmp_path / "stores").mkdir()
    store.rename(tmp_path / "stores" / "images")
    monkeypatch.chdir(tmp_path)
    checked = cli("check", out)
    assert checked.code == 0, checked.err
    recipe = load_recipe(str(out))
    assert recipe.validation is not None
    assert recipe.validation.kind == "retrieval"
    assert recipe.objective.term("grounding") is not None


@pytest.mark.parametrize("with_store", [False, True])
def test_it_trains(cli: Cli, toys: Toys, store: Path, tmp_path: Path, plain: None, with_store: bool) -> None:
    out = tmp_path / "mine.yaml"
    features = ("--features", store) if with_store else ()
    cli("init", "--pairs", toys.data.pairs, "--text", toys.data.text, "--out", out, *features)
    assert load_recipe(str(out)).student.model == "bert-base-uncased"
    settings = (
        f"student.model={toys.student}",
        "training.max_steps=3",
        "heads.grounding_dim=8",
        "heads.aligner_dim=8",
    )
    outcome = cli(
        "train", out, "--out", tmp_path / "run", "-q", *(part for each in settings for part in ("-s", each))
    )
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "run" / "model" / "modules.json").is_file()


def test_splits_empty_captions_and_pictures_that_are_missing_are_told(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {
            "image": f"{number}.jpg",
            "split": "train" if number < 20 else "test",
            "captions": [f"caption {number}", ""],
        }
        for number in range(24)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.jpg").touch()
    outcome = cli(
        *("init", "--pairs", tmp_path / "p.jsonl", "--images", tmp_path / "photos", "--out", tmp_path / "r.yaml")
    )
    assert outcome.code == 0, outcome.err
    assert f"note: 19 images are not in {tmp_path}/photos, the first is '1.jpg'" in outcome.err
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert (recipe.data.split, recipe.data.on_empty) == ("train", "drop")
    assert "20 empty captions or lines are left out" in (tmp_path / "r.yaml").read_text()
    assert cli("check", tmp_path / "r.yaml").code == 0


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/passwd", "a\x00b", "x" * 5000])
def test_names_that_lead_out_of_the_folder_are_not_looked_at(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "outside.jpg").touch()
    write_pairs(tmp_path / "p.jsonl", [name, "b", "c", "d"], [["one"], ["two"], ["three"], ["four"]])
    outcome = cli(
        *("init", "--pairs", tmp_path / "p.jsonl", "--images", tmp_path / "photos", "--out", tmp_path / "r.yaml")
    )
    assert outcome.code == 0
    assert "note: 4 images are not in" in outcome.err


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Captions under names of its own, in two splits, in a file whose name says nothing."""
    rows = [(f"{n}.jpg", f"a red dog {n}", "val" if n % 3 == 0 else "fit") for n in range(24)]
    path = tmp_path / "captions.txt"
    path.write_text("file,its text,part\n" + "".join(",".join(row) + "\n" for row in rows))
    return path


AS_TABLE = ("--format", "csv", "--columns", "image=file,caption=its text,split=part")


@pytest.mark.parametrize(
    ("split", "key", "images"), [(None, "all", 24), ("fit", "fit", 16), ("val,fit", ("val", "fit"), 24)]
)
def test_how_the_pairs_are_read_goes_into_the_recipe(
    cli: Cli, tmp_path: Path, table: Path, split: str | None, key: str | tuple[str, ...], images: int
) -> None:
    out = tmp_path / "mine.yaml"
    named = ("--split", split) if split is not None else ()
    outcome = cli("init", "--pairs", table, *AS_TABLE, *named, "--out", out)
    assert outcome.code == 0, outcome.err
    assert f"{images} captions of {images} images" in outcome.err
    data = load_recipe(str(out)).data
    assert (data.format, data.split) == ("csv", key)
    assert data.columns.model_dump() == {"image": "file", "caption": "its text", "split": "part"}
    checked = cli("check", out)
    assert checked.code == 0, checked.err
    features = next(line for line in out.read_text().splitlines() if "dalr features images" in line)
    told = shlex.split(features.removeprefix("#"))
    assert told[5:9] == list(AS_TABLE)
    assert ("--split" in told) == (split is not None)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(cli: Cli, tmp_path: Path, table: Path) -> None:
    outcome = cli("init", "--pairs", table, *AS_TABLE, "--split", "train", "--out", tmp_path / "r.yaml")
    assert outcome.code == 3
    assert "no image of split 'train'; found val 8, fit 16" in outcome.err
    assert not (tmp_path / "r.yaml").exists()


def test_images_without_a_vector_are_told(cli: Cli, tiny_data: TinyData, store: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text(tiny_data.pairs.read_text() + '{"image": "new.jpg", "caption": "a new dog"}\n')
    outcome = cli("init", "--pairs", more, "--features", store, "--out", tmp_path / "r.yaml")
    assert outcome.code == 0
    assert f"note: 1 images have no vector in {store}, the first is 'new.jpg'; compute theirs" in outcome.err


def test_features_that_are_no_store_are_refused(cli: Cli, tiny_data: TinyData, tmp_path: Path) -> None:
    outcome = cli("init", "--pairs", tiny_data.pairs, "--features", tmp_path / "no", "--out", tmp_path / "r.yaml")
    assert outcome.code == 4
    assert f"{tmp_path / 'no'}: no manifest.json" in outcome.err
    assert not (tmp_path / "r.yaml").exists()


def test_an_existing_recipe_is_never_overwritten(cli: Cli, tiny_data: TinyData, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("mine")
    outcome = cli("init", "--pairs", tiny_data.pairs, "--out", tmp_path / "r.yaml")
    assert outcome.code == 6
    assert "was not overwritten" in outcome.err
    assert (tmp_path / "r.yaml").read_text() == "mine"


def test_bad_data_is_refused_with_every_problem_and_nothing_is_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("nonsense\n3\n")
    outcome = cli(
        "init", "--pairs", tmp_path / "p.jsonl", "--text", tmp_path / "no.txt", "--out", tmp_path / "r.yaml"
    )
    assert outcome.code == 3
    assert len(outcome.err.splitlines()) == 3
    assert not (tmp_path / "r.yaml").exists()


@pytest.mark.parametrize("folder", ["with space", "1e5", "it's", 'quo"te', "日本", "a: b", "# x", "[y]"])
def test_paths_come_back_as_they_are(
    cli: Cli, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    pairs = Path(folder) / data.pairs.name
    assert cli("init", "--pairs", pairs, "--out", Path(folder) / "r.yaml").code == 0
    assert load_recipe(str(Path(folder) / "r.yaml")).data.pairs == str(pairs)


@pytest.mark.parametrize("folder", ["$HOME", "a\nb", "~x"])
def test_paths_that_a_recipe_cannot_hold_are_refused(
    cli: Cli, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    outcome = cli("init", "--pairs", Path(folder) / "pairs.jsonl", "--out", "r.yaml")
    assert outcome.code == 2
    assert "cannot be written into a recipe" in outcome.err or "home folder that ~x stands for" in outcome.err


def test_a_matrix_is_named_by_the_lines_of_the_pairs(cli: Cli, tmp_path: Path) -> None:
    rows = [{"image": f"{n}.jpg", "captions": [f"a red dog {n}", f"a cat near {n}"]} for n in range(12)]
    pairs, matrix, out = tmp_path / "pairs.jsonl", tmp_path / "images.npy", tmp_path / "recipe.yaml"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(matrix, np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32))
    assert cli("init", "--pairs", pairs, "--features", matrix, "--out", out).code == 0
    assert yaml.safe_load(out.read_text())["features"] == {"image": str(matrix), "image_ids": str(pairs)}
    checked = cli("check", out)
    assert checked.code == 0, checked.err

    np.save(matrix, np.ones((7, 6), np.float32))
    short = cli("init", "--pairs", pairs, "--features", matrix, "--out", tmp_path / "short.yaml")
    assert short.code == 3
    assert "7 rows of features, but" in short.err
    (tmp_path / "pairs.csv").write_text("image,caption\na.jpg,a dog\n")
    other = cli("init", "--pairs", tmp_path / "pairs.csv", "--features", matrix, "--out", tmp_path / "other.yaml")
    assert other.code == 2
    assert "makes a store" in other.err


def test_links_out_of_the_folder_of_images_are_followed_where_that_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.jpg", "caption": "a dog"}\n')
    (tmp_path / "store" / "x").write_bytes(b"x")
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "store" / "x")
    given = ("init", "--pairs", tmp_path / "pairs.jsonl", "--images", tmp_path / "images")
    without = cli(*given, "--out", tmp_path / "one.yaml")
    assert "1 images are not in" in without.err
    followed = cli(*given, "--out", tmp_path / "two.yaml", "--follow-links", tmp_path / "store")
    assert "images are not in" not in followed.err
    assert f"--follow-links {tmp_path / 'store'}" in (tmp_path / "two.yaml").read_text()
    missing = cli(*given, "--out", tmp_path / "three.yaml", "--follow-links", tmp_path / "nothing")
    assert (missing.code, "--follow-links: no such folder" in missing.err) == (3, True)
    idle = cli("init", "--pairs", tmp_path / "pairs.jsonl", "--follow-links", tmp_path, "--out", tmp_path / "x")
    assert (idle.code, "name it too" in idle.err) == (2, True)
