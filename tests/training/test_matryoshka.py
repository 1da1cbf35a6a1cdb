"""Several dimensions: the objective at each of them, validation scores of each, and an export that states them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import look_inside, metrics, same, train

from dalr.errors import ConfigError
from dalr.evaluation.similarity import score_pairs
from dalr.evaluation.sts import load_scored_tsv
from dalr.losses.inputs import Inputs
from dalr.losses.matryoshka import leading, make_matryoshka
from dalr.models.embedding import embed
from dalr.models.outputs import inputs_of, truncated_inputs
from dalr.recipe.loading import load_recipe
from tiny import Toys, captions

EVERY_TERM = {
    "infonce": {},
    "grounding": {},
    "consistency": {"classifier_weight": 1.0},
    "cross_modal_alignment": {"soft_label_mix": 0.3, "learn_temperature": True},
    "list_mle": {},
    "list_net": {"on_text": True},
    "consistency_js": {},
    "intra_modal_alignment": {},
}


def test_the_whole_dim_alone_is_the_plain_objective(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toys.recipe(tmp_path, objective=EVERY_TERM, teachers=[{"model": str(toys.teacher)}])
    inside = look_inside(monkeypatch)
    train(recipe, tmp_path / "plain")
    plain = inside.weights()
    tree = {"training": {"batch_size": 8, "max_steps": 4, "matryoshka_dims": [32]}}
    whole = toys.recipe(
        tmp_path,
        objective=EVERY_TERM,
        teachers=[{"model": str(toys.teacher)}],
        training=tree["training"]
        | {"learning_rate": 1e-3, "precision": "fp32", "log_every": 1, "schedule": {"kind": "every_k", "k": 2}},
    )
    train(whole, tmp_path / "whole")
    assert same(plain, inside.weights())
    assert metrics(tmp_path / "plain") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("sentence_head", [True, False])
def test_a_dim_is_the_objective_of_the_leading_numbers_alone(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence_head: bool
) -> None:
    """Whatever stands behind the first k numbers of h changes no term, and gets no gradient."""
    recipe = toys.recipe(
        tmp_path,
        objective=EVERY_TERM,
        teachers=[{"model": str(toys.teacher)}],
        heads={"grounding_dim": 8, "aligner_dim": 8, "sentence": sentence_head},
    )
    inside = look_inside(monkeypatch)
    train(recipe, tmp_path / "run", "validation=null")
    task = inside.made.task.train()
    batch = next(batch for batch in inside.batches if batch.kind == "pair")
    h_a, h_b = (h.detach().requires_grad_() for h in task.two_passes(batch.tokens))
    whole = inputs_of(task.heads, h_a, h_b, batch.targets)
    losses = task.objective(truncated_inputs(task.heads, whole, 12), "pair")
    losses.total.backward()
    for h in (h_a, h_b):
        assert h.grad is not None
        assert not h.grad[:, 12:].any()
        assert h.grad[:, :12].any()
    otherwise = torch.cat([h_b[:, :12], h_a[:, 12:]], dim=1)
    other = inputs_of(task.heads, leading(h_a, 12) + 0, otherwise, batch.targets)
    again = task.objective(truncated_inputs(task.heads, other, 12), "pair")
    assert {name: value.item() for name, value in again.terms.items()} == pytest.approx(
        {name: value.item() for name, value in losses.terms.items()}, rel=1e-6
    )
    differing = task.objective(whole, "pair").terms
    assert all(differing[name].item() != value.item() for name, value in losses.terms.items())


def test_without_a_head_cosines_are_those_of_cut_vectors(toys: Toys, tmp_path: Path) -> None:
    objective = load_recipe(str(toys.recipe(tmp_path, objective={"infonce": {}}))).objective
    h_a, h_b = torch.randn(6, 32), torch.randn(6, 32)
    order = torch.arange(6)
    padded = Inputs(h_a=h_a, h_b=h_b, z_a=leading(h_a, 8), z_b=leading(h_b, 8), tie_order=order)
    cut = Inputs(h_a=h_a, h_b=h_b, z_a=h_a[:, :8], z_b=h_b[:, :8], tie_order=order)
    torch.testing.assert_close(objective(padded, "text").total, objective(cut, "text").total)


def test_losses_are_weighted_means_over_the_dims(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {
        "batch_size": 8,
        "max_steps": 2,
        "matryoshka_dims": [32, 8],
        "matryoshka_weights": [3, 1],
        "log_every": 1,
    }
    inside = look_inside(monkeypatch)
    train(toys.recipe(tmp_path, training=training), tmp_path / "run", "training.precision=fp32")
    task, batch = inside.made.task.eval(), inside.batches[0]
    inputs = task.inputs(batch, *task.two_passes(batch.tokens))
    whole, narrow = (task.objective(truncated_inputs(task.heads, inputs, k), batch.kind) for k in (32, 8))
    both = task(batch)
    assert both.total.item() == pytest.approx(0.75 * whole.total.item() + 0.25 * narrow.total.item(), rel=1e-5)
    for name, value in both.terms.items():
        expected = 0.75 * whole.terms[name] + 0.25 * narrow.terms[name]
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    line = next(line for line in metrics(tmp_path / "run") if "loss" in line)
    weighted = line["terms"]["infonce"] + 0.1 * line["terms"].get("grounding", 0)
    assert line["loss"] == pytest.approx(weighted, rel=1e-6)


def test_scores_of_each_dim_and_an_export_that_can_be_cut(toys: Toys, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    training = {"batch_size": 8, "max_steps": 2, "matryoshka_dims": [8, 32, 16]}
    result = train(toys.recipe(tmp_path, training=training), tmp_path / "run")
    name = "dev.tsv Spearman"
    scores = [line["validation"] for line in metrics(result.run) if "validation" in line]
    assert [set(each) for each in scores] == [{name, f"{name} @16", f"{name} @8"}] * 2
    assert scores[-1][name] == result.best_score
    config = json.loads((result.model / "config.json").read_bytes())
    assert config["matryoshka_dimensions"] == [32, 16, 8]
    pairs = load_scored_tsv(toys.data.validation)
    whole = SentenceTransformer(str(result.model), local_files_only=True).encode(captions(3))
    for dim in (16, 8):
        short = SentenceTransformer(str(result.model), truncate_dim=dim, local_files_only=True)
        np.testing.assert_allclose(short.encode(captions(3)), whole[:, :dim], atol=1e-6)
        cut = embed(short, pairs.sentences())[:, :dim]
        assert score_pairs(pairs, cut) == pytest.approx(scores[-1][f"{name} @{dim}"], abs=1e-3)


def test_retrieval_at_a_width(toys: Toys, tmp_path: Path) -> None:
    tree = {"pairs": str(toys.data.pairs), "holdout": {"last": 6}, "max_tokens": 16}
    training = {"batch_size": 8, "max_steps": 2, "matryoshka_dims": [32, 8]}
    recipe = toys.recipe(tmp_path, data=tree, training=training, validation={"kind": "retrieval", "every": 2})
    result = train(recipe, tmp_path / "run")
    last = metrics(result.run)[-1]["validation"]
    assert set(last) == {"held-out R@1", "held-out R@1 @8"}


def test_dims_that_cannot_be(toys: Toys, tmp_path: Path) -> None:
    def refused(**training: object) -> str:
        recipe = toys.recipe(tmp_path, training={"batch_size": 8, **training})
        with pytest.raises(ConfigError) as found:
            load_recipe(str(recipe))
        return str(found.value)

    assert "48 exceeds the student's embedding dimension (32)" in refused(matryoshka_dims=[48, 8])
    assert "matryoshka_dims name each dimension once" in refused(matryoshka_dims=[8, 8])
    assert "1 matryoshka_weights for 2 matryoshka_dims" in refused(
        matryoshka_dims=[16, 8], matryoshka_weights=[1.0]
    )
    with pytest.raises(ValueError, match="1 weights for 2 dimensions"):
        make_matryoshka([16, 8], [1.0])
