"""`grounding.space: clip`: sentences are trained into the space of the image features, which stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.errors import ConfigError
from dalr.models.heads import ground, read_grounding
from dalr.recipe.loading import load_recipe, resolved_yaml
from tiny import IMAGE_WIDTH, Outcome, Toys

CLIP = {"infonce": {"temperature": 0.05}, "grounding": {"weight": 0.1, "space": "clip"}}


def recipe_of(toys: Toys, folder: Path, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    data = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "max_tokens": 16, "holdout": {"last": 4}}
    heads = {"grounding_dim": IMAGE_WIDTH, "aligner_dim": 8}
    scored = {"kind": "retrieval", "every": 2}
    return toys.recipe(
        folder, **({"data": data, "objective": CLIP, "heads": heads, "validation": scored} | sections)
    )


@pytest.fixture(scope="module")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import dalr

    folder = tmp_path_factory.mktemp("clip-space")
    recipe = recipe_of(toys, folder)
    return dalr.train(str(recipe), out=folder / "run").run


def test_the_image_features_are_their_own_vectors(run: Path) -> None:
    random = np.random.default_rng(0)
    h, v = random.normal(size=(3, 32)).astype(np.float32), random.normal(size=(5, IMAGE_WIDTH)).astype(np.float32)
    heads = read_grounding(run / "heads.safetensors")
    assert heads is not None
    assert heads.space == "clip"
    assert heads.image is None
    sentences, images = ground(run / "heads.safetensors", sentences=h, images=v)
    assert np.array_equal(images, v)
    assert np.allclose(sentences, h @ heads.text.weight.T + heads.text.bias)


def test_the_record_states_the_space(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["space"] == {"name": "clip", "dimension": IMAGE_WIDTH}
    assert record["recipe"]["objective"]["grounding"]["space"] == "clip"


def test_retrieval_is_evaluated_in_it(run: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    done = cli("evaluate", run, "--tasks", "retrieval", "--json", tmp_path / "scores.json", "-q")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "scores.json").read_text())["tasks"]["retrieval"]["space"] == "clip"


def test_a_dimension_that_is_not_that_of_the_features_is_refused(toys: Toys, tmp_path: Path) -> None:
    recipe = recipe_of(toys, tmp_path, heads={"grounding_dim": 8})
    with pytest.raises(ConfigError, match=rf"{IMAGE_WIDTH} dimensions, found 8; say heads.grounding_dim: 16"):
        load_recipe(str(recipe))


def test_a_recipe_that_does_not_ask_for_it_is_written_as_before(toys: Toys, tmp_path: Path) -> None:
    assert "space:" not in resolved_yaml(load_recipe(str(toys.recipe(tmp_path))))
