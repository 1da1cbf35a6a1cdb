"""Heads: which there are, what they compute, and how they are saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dalr.errors import ModelFileError
from dalr.losses import Need
from dalr.models.config import HeadsConfig
from dalr.models.heads import Heads, ground, save_heads

EVERYTHING = frozenset({Need.IMAGE, Need.GROUNDING, Need.ALIGNERS, Need.MATCH_CLASSIFIER, Need.TEACHERS})
NOTHING: Mapping[str, tuple[float, float, float]] = {}


def make(
    config: HeadsConfig | None = None,
    *,
    needs: frozenset[Need] = EVERYTHING,
    image_dim: int | None = 6,
    clip_text_dim: int | None = None,
    temperatures: Mapping[str, tuple[float, float, float]] = NOTHING,
) -> Heads:
    torch.manual_seed(0)
    return Heads(
        config or HeadsConfig(grounding_dim=3, aligner_dim=4),
        student_dim=5,
        image_dim=image_dim,
        clip_text_dim=clip_text_dim,
        needs=needs,
        temperatures=temperatures,
    )


def test_only_what_the_objective_reads_is_made() -> None:
    heads = make(needs=frozenset({Need.IMAGE}))
    assert {name.split(".")[0] for name, _ in heads.named_parameters()} == {"sentence"}
    assert list(make(HeadsConfig(sentence=False), needs=frozenset()).parameters()) == []
    with_branch = frozenset({Need.IMAGE, Need.GROUNDING, Need.CLIP_TEXT_GROUNDING})
    assert make(clip_text_dim=7, needs=with_branch).clip_text_grounding is not None
    assert make(clip_text_dim=7, needs=with_branch - {Need.CLIP_TEXT_GROUNDING}).clip_text_grounding is None


def test_projections_are_tanh_of_an_affine_map() -> None:
    heads = make()
    assert heads.sentence is not None
    h = torch.randn(4, 5)
    expected = torch.tanh(h @ heads.sentence[0].weight.T + heads.sentence[0].bias)
    torch.testing.assert_close(heads.sentence_vectors(h), expected)
    bare = make(HeadsConfig(sentence=False))
    assert torch.equal(bare.sentence_vectors(h), h)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("output", ["linear", "norm_relu"])
def test_aligners_are_those_of_the_method_page(norm: str, output: str) -> None:
    config = HeadsConfig(grounding_dim=3, aligner_dim=4, aligner_norm=norm, aligner_output=output)  # type: ignore[arg-type]
    aligner = make(config).image_aligner
    assert aligner is not None
    kinds = [type(module).__name__ for module in aligner]
    normed = "LayerNorm" if norm == "layer" else "BatchNorm1d"
    assert kinds == ["Linear", normed, "ReLU", "Linear", *([normed, "ReLU"] if output == "norm_relu" else [])]
    found = aligner(torch.randn(8, 6))
    assert found.shape == (8, 4)
    assert bool((found >= 0).all()) is (output == "norm_relu")


def test_the_match_classifier_reads_both_and_their_product() -> None:
    heads = make()
    assert heads.match_classifier is not None
    text, image = torch.randn(2, 4), torch.randn(2, 4)
    expected = heads.match_classifier(torch.cat([text, image, text * image], dim=1))
    assert torch.equal(heads.match_logits(text, image), expected)
    assert expected.shape == (2, 2)


def test_temperatures_start_where_they_are_told_and_stay_inside_their_bounds() -> None:
    heads = make(temperatures={"a": (0.2, 0.1, 0.5), "b": (0.3, 0.1, 0.5)})
    assert heads.temperatures()["a"].item() == pytest.approx(0.2)
    with torch.no_grad():
        heads.log_temperatures["a"].fill_(5.0)
        heads.log_temperatures["b"].fill_(-9.0)
    assert heads.temperatures()["a"].item() == pytest.approx(0.5)
    assert heads.temperatures()["b"].item() == pytest.approx(0.1)


def test_heads_come_back_as_they_were_saved(tmp_path: Path) -> None:
    heads = make(temperatures={"a": (0.2, 0.1, 0.5)})
    save_heads(heads, tmp_path / "heads.safetensors")
    stored = load_file(tmp_path / "heads.safetensors")
    assert stored.keys() == heads.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in heads.state_dict().items())


def test_equal_heads_are_equal_files(tmp_path: Path) -> None:
    """R6: the sha256 of two equal runs are equal. safetensors puts several metadata keys in random order."""
    heads = make()
    contents = set()
    for number in range(10):
        save_heads(heads, tmp_path / f"{number}.safetensors")
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1


def test_saved_heads_ground_sentences_and_images(tmp_path: Path) -> None:
    heads = make()
    assert heads.text_grounding is not None
    assert heads.image_grounding is not None
    save_heads(heads, tmp_path / "heads.safetensors")
    h, v = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    s, u = ground(tmp_path / "heads.safetensors", sentences=h[:, :5], images=v)
    with torch.no_grad():
        np.testing.assert_allclose(s, heads.text_grounding(torch.from_numpy(h[:, :5])), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(u, heads.image_grounding(torch.from_numpy(v)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelFileError, match="image_grounding expects vectors of dimension 6, found 5"):
        ground(tmp_path / "heads.safetensors", sentences=h[:, :5], images=v[:, :5])


def test_heads_without_grounding_say_so(tmp_path: Path) -> None:
    save_heads(make(needs=frozenset()), tmp_path / "heads.safetensors")
    vectors = np.ones((2, 5), np.float32)
    with pytest.raises(ModelFileError, match="no text_grounding in it"):
        ground(tmp_path / "heads.safetensors", sentences=vectors, images=vectors)


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"\xff" * 100], ids=["missing", "empty", "short", "no header"]
)
def test_a_heads_file_that_is_missing_or_broken_is_a_model_file_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "heads.safetensors"
    if content is not None:
        path.write_bytes(content)
    vectors = np.ones((2, 5), np.float32)
    with pytest.raises(ModelFileError, match=r"heads\.safetensors"):
        ground(path, sentences=vectors, images=vectors)
