"""Which rows are neighbours, and trainings whose batches hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import look_inside, same, train
from safetensors.torch import load_file

from dalr.errors import ConfigError
from dalr.features.store import StoredVectors, open_store, write_store
from dalr.io.console import Console
from dalr.recipe.loading import load_recipe
from dalr.training.batch import Batch
from dalr.training.dry_run import dry_run
from dalr.training.neighbours import nearest_by
from tiny import Toys


def vectors(folder: Path, matrix: np.ndarray) -> StoredVectors:
    write_store(folder, ids=[str(n) for n in range(len(matrix))], blocks=[matrix], source={}, origin="test")
    return StoredVectors(store=open_store(folder), rows=np.arange(len(matrix), dtype=np.int64))


def unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [2048, 7])
def test_nearest_are_those_of_the_weighted_cosines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("dalr.training.neighbours._BLOCK", block)
    random = np.random.default_rng(0)
    one, other = (random.standard_normal((30, dim)).astype(np.float32) for dim in (5, 9))
    sources = [(vectors(tmp_path / "one", one), 0.3), (vectors(tmp_path / "other", other), 0.7)]
    row_of = random.permutation(30)[:20]
    things = random.permutation(20)[:17]
    found = nearest_by(sources, row_of, 3)(things)
    rows = row_of[things]
    wanted = 0.3 * unit(one[rows]) @ unit(one[rows]).T + 0.7 * unit(other[rows]) @ unit(other[rows]).T
    np.fill_diagonal(wanted, -np.inf)
    assert found.tolist() == np.argsort(-wanted, axis=1, kind="stable")[:, :16].tolist()


GROUPS = "training.schedule.groups"


def closeness(features: torch.Tensor) -> float:
    unit_features = torch.nn.functional.normalize(features)
    count = len(features)
    return float(((unit_features @ unit_features.T).sum() - count) / (count * (count - 1)))


def pair_batches(toys: Toys, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> list[Batch]:
    with monkeypatch.context() as patch:
        inside = look_inside(patch)
        train(toys.recipe(folder.parent), folder, *settings)
    return [batch for batch in inside.batches if batch.kind == "pair"]


def test_images_in_a_batch_are_closer_and_bring_their_captions_together(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pair_batches(toys, tmp_path / "plain", monkeypatch)
    near = pair_batches(toys, tmp_path / "near", monkeypatch, f"{GROUPS}.images=4", f"{GROUPS}.captions=2")
    assert all(
        int(batch.targets.same_image.sum()) == len(batch.row_ids)
        for batch in plain
        if batch.targets.same_image is not None
    )
    assert any(
        int(batch.targets.same_image.sum()) > len(batch.row_ids)
        for batch in near
        if batch.targets.same_image is not None
    )
    mean = [
        np.mean([closeness(b.targets.image) for b in found if b.targets.image is not None])
        for found in (plain, near)
    ]
    assert mean[1] > mean[0]


def test_lines_of_text_in_a_batch_are_closer(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()

    def mean_closeness(name: str, *settings: str) -> float:
        with monkeypatch.context() as patch:
            inside = look_inside(patch)
            train(toys.method(tmp_path / "recipes", "rankcse"), tmp_path / name, *settings)
        return float(np.mean([closeness(b.targets.teachers[0]) for b in inside.batches if b.kind == "text"]))

    assert mean_closeness("near", f"{GROUPS}.text=4") > mean_closeness("plain")


def test_a_grouped_training_is_the_same_again(toys: Toys, tmp_path: Path) -> None:
    settings = (f"{GROUPS}.images=4", f"{GROUPS}.text=4", "objective.list_mle.on_text=true")
    recipe = toys.method(tmp_path, "dalr")
    weights = []
    for name in ("one", "other"):
        train(recipe, tmp_path / name, *settings)
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    assert same(*weights)


def test_a_dry_run_of_groups_and_candidates_needs_no_neighbours(toys: Toys, tmp_path: Path) -> None:
    settings = [f"{GROUPS}.images=4", "objective.grounding.candidates=12"]
    found = dry_run(load_recipe(str(toys.recipe(tmp_path)), settings), console=Console(quiet=True))
    assert [trial.kind for trial in found.trials] == ["pair", "text"]
    assert all(np.isfinite(trial.loss) for trial in found.trials)


@pytest.mark.parametrize(
    ("recipe", "settings", "what"),
    [
        ("simcse", [f"{GROUPS}.images=4"], "images are close by their features"),
        ("simcse", [f"{GROUPS}.text=4"], "no term asks the teachers about text"),
        ("dalr-paper", [f"{GROUPS}.text=4"], "no term asks the teachers about text"),
        ("mcse", ["data.text=null", f"{GROUPS}.text=4"], "data.text is not set"),
    ],
)
def test_groups_without_the_vectors_that_tell_neighbours_are_refused(
    recipe: str, settings: list[str], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        load_recipe(recipe, settings)
