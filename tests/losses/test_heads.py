"""Heads: what there is for which need, under which names, and that a file holds all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from dalr.errors import ModelFileError
from dalr.losses import Need
from dalr.models.config import HeadsConfig
from dalr.models.heads import Heads, ground, save_heads

EVERYTHING = frozenset(Need) - {Need.CLIP_SPACE}
CONFIG = HeadsConfig(grounding_dim=5, aligner_dim=4)


def heads(config: HeadsConfig = CONFIG, needs: frozenset[Need] = EVERYTHING) -> Heads:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Heads(
            config,
            student_dim=6,
            image_dim=7,
            clip_text_dim=8,
            needs=needs,
            temperatures={"cross_modal_alignment": (0.45, 0.1, 0.99)},
        )


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_names_and_shapes_are_those_of_saved_checkpoints() -> None:
    """Changing one of these makes every saved run unreadable."""
    assert shapes(heads()) == {
        "sentence.0.weight": (6, 6),
        "sentence.0.bias": (6,),
        "text_grounding.0.weight": (5, 6),
        "text_grounding.0.bias": (5,),
        "image_grounding.0.weight": (5, 7),
        "image_grounding.0.bias": (5,),
        "clip_text_grounding.0.weight": (5, 8),
        "clip_text_grounding.0.bias": (5,),
        "text_aligner.0.weight": (6, 6),
        "text_aligner.0.bias": (6,),
        "text_aligner.1.weight": (6,),
        "text_aligner.1.bias": (6,),
        "text_aligner.3.weight": (4, 6),
        "text_aligner.3.bias": (4,),
        "image_aligner.0.weight": (7, 7),
        "image_aligner.0.bias": (7,),
        "image_aligner.1.weight": (7,),
        "image_aligner.1.bias": (7,),
        "image_aligner.3.weight": (4, 7),
        "image_aligner.3.bias": (4,),
        "match_classifier.weight": (2, 12),
        "match_classifier.bias": (2,),
        "log_temperatures.cross_modal_alignment": (),
    }


def test_released_aligners_have_the_released_names() -> None:
    config = HeadsConfig(aligner_dim=4, aligner_norm="batch", aligner_output="norm_relu")
    aligner = heads(config).text_aligner
    assert aligner is not None
    norms = [f"{layer}.{name}" for layer in (1, 4) for name in ("running_mean", "running_var")]
    counts = ["1.num_batches_tracked", "4.num_batches_tracked"]
    trained = [f"{layer}.{name}" for layer in (0, 1, 3, 4) for name in ("weight", "bias")]
    assert sorted(shapes(aligner)) == sorted([*trained, *norms, *counts])


@pytest.mark.parametrize(
    ("norm", "output", "layers"),
    [
        ("layer", "linear", "Linear LayerNorm ReLU Linear"),
        ("batch", "linear", "Linear BatchNorm1d ReLU Linear"),
        ("layer", "norm_relu", "Linear LayerNorm ReLU Linear LayerNorm ReLU"),
        ("batch", "norm_relu", "Linear BatchNorm1d ReLU Linear BatchNorm1d ReLU"),
    ],
)
def test_aligners_are_laid_out_as_the_recipe_says(norm: str, output: str, layers: str) -> None:
    made = heads(HeadsConfig(aligner_dim=4, aligner_norm=norm, aligner_output=output))
    for aligner in (made.text_aligner, made.image_aligner):
        assert aligner is not None
        assert " ".join(type(layer).__name__ for layer in aligner) == layers


def test_only_a_linear_output_can_say_that_a_pair_does_not_match() -> None:
    """A final ReLU leaves no negative coordinate, hence no negative cosine."""
    rows = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    linear = heads(HeadsConfig(aligner_dim=4)).text_aligner
    released = heads(HeadsConfig(aligner_dim=4, aligner_output="norm_relu")).text_aligner
    assert linear is not None
    assert released is not None
    assert linear(rows).min() < 0 <= released(rows).min()


def test_a_head_exists_only_where_a_term_needs_it() -> None:
    made = heads(needs=frozenset())
    assert set(shapes(made)) == {"sentence.0.weight", "sentence.0.bias", "log_temperatures.cross_modal_alignment"}
    made = heads(needs=frozenset({Need.IMAGE, Need.ALIGNERS}))
    assert made.text_grounding is made.image_grounding is made.match_classifier is None
    assert made.text_aligner is not None


def test_text_only_heads_need_no_dim_of_features() -> None:
    made = Heads(CONFIG, student_dim=6, image_dim=None, clip_text_dim=None, needs=frozenset(), temperatures={})
    assert set(shapes(made)) == {"sentence.0.weight", "sentence.0.bias"}


@pytest.mark.parametrize("need", [Need.GROUNDING, Need.ALIGNERS])
def test_heads_for_images_ask_for_the_dim_of_their_features(need: Need) -> None:
    with pytest.raises(ValueError, match="image features needs their dimension"):
        Heads(
            CONFIG,
            student_dim=6,
            image_dim=None,
            clip_text_dim=None,
            needs=frozenset({need}),
            temperatures={},
        )


def test_without_a_sentence_head_the_student_itself_is_compared() -> None:
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    without = heads(HeadsConfig(sentence=False))
    assert without.sentence is None
    assert without.sentence_vectors(rows) is rows
    made = heads()
    assert made.sentence is not None
    weight, bias = made.sentence[0].weight, made.sentence[0].bias
    torch.testing.assert_close(made.sentence_vectors(rows), torch.tanh(rows @ weight.T + bias))


def test_the_match_classifier_sees_text_image_and_their_product() -> None:
    made = heads()
    assert made.match_classifier is not None
    random = torch.Generator().manual_seed(0)
    text, image = torch.randn(3, 4, generator=random), torch.randn(3, 4, generator=random)
    weight, bias = made.match_classifier.weight, made.match_classifier.bias
    by_hand = text @ weight[:, :4].T + image @ weight[:, 4:8].T + (text * image) @ weight[:, 8:].T + bias
    torch.testing.assert_close(made.match_logits(text, image), by_hand)


def test_trained_temperatures_start_where_they_are_stated() -> None:
    assert heads().temperatures()["cross_modal_alignment"].item() == pytest.approx(0.45)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_file_holds_every_trained_number(tmp_path: Path, norm: str) -> None:
    config = HeadsConfig(grounding_dim=5, aligner_dim=4, aligner_norm=norm)
    made = heads(config)
    save_heads(made, tmp_path / "heads.safetensors")
    stored = load_file(tmp_path / "heads.safetensors")
    assert stored.keys() == made.state_dict().keys()
    again = heads(config)
    for parameter in again.parameters():
        parameter.data.zero_()
    again.load_state_dict(stored)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in made.state_dict().items())
    with safe_open(tmp_path / "heads.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "dalr-heads-1"}


def test_equal_heads_give_equal_bytes(tmp_path: Path) -> None:
    """The library writes more than one entry of metadata in an order that differs from call to call."""
    path = tmp_path / "heads.safetensors"
    found = set()
    for _ in range(20):
        save_heads(heads(), path, student="0" * 64)
        found.add(path.read_bytes())
    assert len(found) == 1
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "dalr-heads-1", "student_sha256": "0" * 64}
    assert all(torch.equal(tensor, load_file(path)[name]) for name, tensor in heads().state_dict().items())


def test_saved_heads_ground_vectors_as_the_trained_modules_do(tmp_path: Path) -> None:
    made, random = heads(), np.random.default_rng(0)
    save_heads(made, tmp_path / "heads.safetensors")
    sentences, images = random.normal(size=(4, 6)).astype(np.float32), random.normal(size=(3, 7)).astype(np.float32)
    s, u = ground(tmp_path / "heads.safetensors", sentences=sentences, images=images)
    assert made.text_grounding is not None
    assert made.image_grounding is not None
    with torch.inference_mode():
        np.testing.assert_allclose(s, made.text_grounding(torch.from_numpy(sentences)).numpy(), atol=1e-6)
        np.testing.assert_allclose(u, made.image_grounding(torch.from_numpy(images)).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("needs", "dims", "message"),
    [
        (frozenset[Need](), (6, 7), "no text_grounding in it; heads of a recipe with grounding are needed"),
        (EVERYTHING, (9, 7), "text_grounding expects vectors of dimension 6, found 9"),
        (EVERYTHING, (6, 9), "image_grounding expects vectors of dimension 7, found 9"),
    ],
)
def test_heads_that_do_not_fit_are_refused_with_both_numbers(
    tmp_path: Path, needs: frozenset[Need], dims: tuple[int, int], message: str
) -> None:
    path = tmp_path / "heads.safetensors"
    save_heads(heads(needs=needs), path)
    with pytest.raises(ModelFileError, match=message):
        ground(path, sentences=np.zeros((2, dims[0]), np.float32), images=np.zeros((2, dims[1]), np.float32))


def test_in_the_space_of_the_image_features_only_sentences_have_a_head() -> None:
    needs = frozenset({Need.GROUNDING, Need.CLIP_SPACE, Need.CLIP_TEXT_GROUNDING})
    config = HeadsConfig(grounding_dim=7)
    made = Heads(config, student_dim=6, image_dim=7, clip_text_dim=7, needs=needs, temperatures={})
    assert shapes(made).keys() == {
        "sentence.0.weight",
        "sentence.0.bias",
        "text_grounding.0.weight",
        "text_grounding.0.bias",
    }
    assert made.text_grounding is not None
    assert made.image_grounding is not None
    v, h = torch.randn(3, 7), torch.randn(3, 6)
    assert torch.equal(made.image_grounding(v), v)
    assert torch.equal(made.text_grounding(h), made.text_grounding[0](h))
    with pytest.raises(ValueError, match="dimension of its features, 8, found grounding_dim 7"):
        Heads(config, student_dim=6, image_dim=8, clip_text_dim=None, needs=needs, temperatures={})
