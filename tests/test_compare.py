"""`dalr compare`: a run against its baselines on images that it has never seen, with an answer in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dalr.evaluation.results import read_results
from tiny import Outcome, Toys

Cli = Callable[..., Outcome]


@pytest.fixture
def run(cli: Cli, toys: Toys, tmp_path: Path) -> Callable[..., Path]:
    """Trains a run with its own holdout."""

    def trained(name: str, *settings: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        recipe = toys.recipe(folder, training={"batch_size": 4, "max_steps": 2})
        out = folder / "run"
        outcome = cli("train", recipe, "--out", out, "-q", *(part for each in settings for part in ("-s", each)))
        assert outcome.code == 0, outcome.err
        return out

    return trained


def sides_file(path: Path, toys: Toys, test: int, validation: int) -> str:
    images = toys.data.images
    rows = [{"image": name, "split": "test"} for name in images[:test]]
    rows += [{"image": name, "split": "validation"} for name in images[test : test + validation]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.holdout.file={path}"


def test_a_run_is_compared_with_what_it_began_as(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    found = run("a", sides_file(tmp_path / "s.jsonl", toys, 6, 3))
    outcome = cli("compare", found, "--json", tmp_path / "c.json", "-q")
    assert outcome.code == 0, outcome.err
    assert "On 6 images never trained on (18 captions; split: test)" in outcome.out
    assert "(untouched)" in outcome.out
    assert "Verdict: " in outcome.out
    assert "By chance: text→image R@1 16.67, image→text R@1 16.67." in outcome.out
    models, comparisons = read_results(tmp_path / "c.json")
    assert len(models) == 3
    assert {each.metric for each in comparisons} >= {"text→image R@1", "image→text R@1", "captions MAP"}
    assert json.loads((tmp_path / "c.json").read_text())["verdict"]


def test_images_of_one_caption_each_are_compared_by_retrieval_alone(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = tmp_path / "one.jsonl"
    rows = [{"image": name, "captions": [f"{n} dogs"]} for n, name in enumerate(toys.data.images)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run("a", f"data.pairs={pairs}", sides_file(tmp_path / "s.jsonl", toys, 6, 3))
    outcome = cli("compare", found, "-q")
    assert outcome.code == 0, outcome.err
    assert "On 6 images never trained on (6 captions; split: test)" in outcome.out
    assert "captions MAP" not in outcome.out
    outcome = cli("evaluate", found, "--tasks", "captions")
    assert outcome.code == 3
    assert "no image (test) has two captions, so that none can find another of its image" in outcome.err


def test_a_run_that_knows_test_images_is_refused(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    one = run("a", sides_file(tmp_path / "s.jsonl", toys, 6, 3))
    other = run("b", "data.holdout.last=4")
    outcome = cli("compare", one, other, "-q")
    assert outcome.code == 2
    assert f"was trained on 6 of the 6 test images of {one}" in outcome.err


def test_different_test_images_are_not_put_in_one_table(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    one = run("a", sides_file(tmp_path / "s.jsonl", toys, 6, 3))
    other = run("b", "data.holdout.last=4")
    outcome = cli("evaluate", one, other, "--tasks", "retrieval,captions", "-q")
    assert outcome.code == 2
    assert f"{one}: has 18 captions of 6 images (test" in outcome.err
    assert f"{other}: has 12 captions of 4 images (held out" in outcome.err
    assert "different images are not scored in one table" in outcome.err


def test_an_encoder_without_heads_is_scored_beside_a_run(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    one = run("a", sides_file(tmp_path / "s.jsonl", toys, 6, 3))
    outcome = cli("evaluate", one, one / "model", "--tasks", "retrieval,captions", "-q")
    assert outcome.code == 0, outcome.err
    assert "linear map" in outcome.out
    assert "text→image R@1, test" in outcome.out


def test_heads_of_another_student_are_refused(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    one = run("a", "data.holdout.last=4")
    other = run("b", "data.holdout.last=4", "seed=1")
    outcome = cli(
        "evaluate",
        one / "model",
        "--heads",
        other / "heads.safetensors",
        "--tasks",
        "retrieval",
        "--pairs",
        toys.data.pairs,
        "--features",
        toys.data.matrix,
        "--image-ids",
        toys.data.ids,
        "-q",
    )
    assert outcome.code == 2
    assert "were trained with another encoder" in outcome.err


def test_a_model_alone_is_refused(cli: Cli, toys: Toys) -> None:
    outcome = cli("compare", toys.student)
    assert outcome.code == 2
    assert "expected a run folder (with run.json)" in outcome.err


def test_a_run_begins_with_the_weights_and_heads_of_another(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    first = run("a", "data.holdout.last=4")
    recipe = toys.recipe(tmp_path, training={"batch_size": 4, "max_steps": 1, "learning_rate": 1e-9})
    outcome = cli("train", recipe, "--out", tmp_path / "second", "--init-from", first, "-q")
    assert outcome.code == 0, outcome.err
    one, two = (load_file(folder / "heads.safetensors") for folder in (first, tmp_path / "second"))
    assert one.keys() == two.keys()
    assert all(np.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert json.loads((tmp_path / "second" / "run.json").read_text())["init_from"] == str(first)


def test_a_chain_of_runs_is_compared_with_what_the_first_began_as(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    first = run("a", "data.holdout.last=4")
    recipe = toys.recipe(tmp_path, training={"batch_size": 4, "max_steps": 1})
    options = ("-s", "data.holdout.last=4", "--init-from", first, "-q")
    assert cli("train", recipe, "--out", tmp_path / "second", *options).code == 0
    outcome = cli("compare", tmp_path / "second", "-q")
    assert outcome.code == 0, outcome.err
    assert f"{toys.student} (untouched)" in outcome.out
    assert f"{first}/model (untouched)" not in outcome.out


def test_what_is_begun_with_is_a_finished_run(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    outcome = cli("train", toys.recipe(tmp_path), "--init-from", toys.student, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "expected a finished run (run.json, model, heads.safetensors)" in outcome.err


class TestErrorsSayTheNextStep:
    def test_a_recipe_with_another_ending(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        toys.recipe(tmp_path).rename(tmp_path / "shop.yaml")
        outcome = cli("train", tmp_path / "shop.yml")
        assert outcome.code == 2
        assert f"did you mean {tmp_path / 'shop.yaml'}?" in outcome.err

    def test_a_term_without_teachers(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        outcome = cli("check", toys.recipe(tmp_path), "-s", "teachers=[]", "-s", "objective.list_net.weight=1")
        assert outcome.code == 2
        assert "add `teachers:` with" in outcome.err

    def test_a_model_folder_where_heads_are_needed(
        self, cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
    ) -> None:
        found = run("a", "data.holdout.last=4")
        outcome = cli("evaluate", found / "model", "--tasks", "retrieval")
        assert outcome.code == 2
        assert f"or the run itself: {found}" in outcome.err

    def test_a_run_that_is_not_there(self, cli: Cli, run: Callable[..., Path]) -> None:
        found = run("a", "data.holdout.last=4")
        outcome = cli("evaluate", found.parent / "rn", "--tasks", "captions")
        assert outcome.code == 4
        assert f"did you mean {found}? runs there: {found}" in outcome.err

    def test_a_run_folder_as_the_student(
        self, cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
    ) -> None:
        found = run("a", "data.holdout.last=4")
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"student.model={found}")
        assert outcome.code == 2
        assert f"a run folder; use its model: {found}/model" in outcome.err


def test_text_vectors_that_do_not_fit_are_refused_before_the_work(
    cli: Cli, toys: Toys, run: Callable[..., Path], tmp_path: Path
) -> None:
    """Before the models that are named too, of which one is not there."""
    found = run("a", sides_file(tmp_path / "s.jsonl", toys, 6, 3))
    captions = [f"{image}#{k}" for image in toys.data.images for k in range(3)]
    (tmp_path / "captions.txt").write_text("".join(f"{caption}\n" for caption in captions))
    for name, dim, rows in (("other", 5, len(captions)), ("few", 16, 3)):
        np.save(tmp_path / f"{name}.npy", np.ones((rows, dim), np.float32))
        (tmp_path / "ids.txt").write_text("".join(f"{caption}\n" for caption in captions[:rows]))
        assert cli("features", "import", tmp_path / f"{name}.npy", "--ids", tmp_path / "ids.txt", "--out",
                   tmp_path / name).code == 0  # fmt: skip
    outcome = cli("compare", found, "nowhere/model", "--clip-text", tmp_path / "other")
    assert outcome.code == 2
    assert "text vectors of 5 dimensions imported from 'other.npy', by an unknown model" in outcome.err
    assert "image features of 16 imported from 'images.npy', by an unknown model" in outcome.err
    assert "dalr features text --pairs PAIRS --model MODEL --out STORE" in outcome.err
    made = ["--model", toys.teacher, "--pairs", toys.data.pairs, "--out", tmp_path / "encoded"]
    assert cli("features", "text", *made).code == 0
    outcome = cli("compare", found, "nowhere/model", "--clip-text", tmp_path / "encoded")
    assert f"text vectors of 24 dimensions by '{toys.teacher}'" in outcome.err
    outcome = cli("compare", found, "nowhere/model", "--clip-text", tmp_path / "few")
    assert outcome.code == 3
    assert "caption" in outcome.err
    assert "nowhere/model" not in outcome.err
