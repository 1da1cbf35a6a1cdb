"""Image models: the vectors are those of the model's own interface, and captions are only ever text."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalr.errors import ConfigError, ModelFileError
from dalr.models.device import pick_device
from dalr.models.vision import VisionModel, has_text_tower, load_vision_model
from tiny_images import photo, save_tiny_image_model

KINDS = ("clip", "siglip", "resnet", "vit", "dinov2")
PICTURES = [photo(number, (30 + number, 50)) for number in range(4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("image-models")
    return {kind: save_tiny_image_model(base / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def clip(folders: dict[str, Path]) -> VisionModel:
    return load_vision_model(str(folders["clip"]))


def reference(folder: Path, kind: str) -> np.ndarray:
    """What transformers' own processor and model give."""
    import torch
    import transformers as t

    settings = json.loads((folder / "preprocessor_config.json").read_bytes())
    processor = getattr(t, f"{settings['image_processor_type']}Pil")(**settings)
    pixels = processor(images=PICTURES, return_tensors="pt")["pixel_values"]
    model = t.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        match kind:
            case "clip" | "siglip":
                vectors = model.get_image_features(pixel_values=pixels).pooler_output
            case "resnet":
                vectors = model(pixels).last_hidden_state.mean((2, 3))
            case _:
                vectors = model(pixels).last_hidden_state[:, 0]
    return np.asarray(vectors)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_models_own_interface(folders: dict[str, Path], kind: str) -> None:
    model = load_vision_model(str(folders[kind]))
    vectors = model.embed_images(PICTURES)
    assert vectors.shape == (4, model.dim)
    assert np.allclose(vectors, reference(folders[kind], kind), atol=1e-5)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 1e-3
    assert model.source["normalized"] is False
    assert has_text_tower(str(folders[kind])) is (kind in ("clip", "siglip"))


def test_the_source_states_model_and_settings(folders: dict[str, Path], clip: VisionModel) -> None:
    assert clip.source["model"] == str(folders["clip"])
    assert clip.source["output"] == "projected"
    assert len(clip.source["sha256"]) == 64
    assert clip.source["processor"]["crop_size"] == {"height": 32, "width": 32}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_sentences_lie_in_the_space_of_the_images(folders: dict[str, Path], kind: str) -> None:
    import torch
    import transformers as t

    model = load_vision_model(str(folders[kind]))
    sentences = [
        "a red dog runs on the grass",
        "the cat",
        "a red dog runs on the grass",
        "two birds near the beach",
    ]
    vectors = model.embed_texts(sentences)
    assert vectors.shape == (4, model.dim)
    assert np.array_equal(vectors[0], vectors[2])
    own, words = t.AutoModel.from_pretrained(folders[kind]).eval(), t.AutoTokenizer.from_pretrained(folders[kind])
    with torch.no_grad():
        for sentence, vector in zip(sentences, vectors, strict=True):
            padding = {"padding": "max_length", "max_length": 20} if kind == "siglip" else {}
            tokens = words([sentence], return_tensors="pt", **padding)
            mask = {} if kind == "siglip" else {"attention_mask": tokens["attention_mask"]}
            alone = own.get_text_features(input_ids=tokens["input_ids"], **mask).pooler_output
            assert np.allclose(vector, alone[0], atol=1e-5)


def test_captions_are_text_whatever_they_look_like(
    clip: VisionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R29: nothing is fetched (sockets are refused here) and nothing is opened as an image."""
    path = tmp_path / "a.png"
    photo(1).save(path)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a caption was opened"))
    captions = ["http://192.0.2.1/x.jpg", "data:image/png;base64,iVBORw0KGgo=", str(path), "file:///etc/passwd"]
    vectors = clip.embed_texts(captions)
    assert np.isfinite(vectors).all()
    assert len({vector.tobytes() for vector in vectors}) == len(captions)


def test_long_sentences_are_cut_and_counted(clip: VisionModel) -> None:
    assert clip.max_tokens == 20
    assert clip.too_long(["a dog", "red " * 50, "red " * 50, "blue " * 19]) == 2
    assert np.allclose(clip.embed_texts(["red " * 50]), clip.embed_texts(["red " * 60]), atol=1e-6)


def test_nothing_in_gives_nothing_out(clip: VisionModel) -> None:
    assert clip.embed_texts([]).shape == clip.embed_images([]).shape == (0, clip.dim)


def test_a_model_without_a_text_tower_says_so(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelFileError, match="no text tower"):
        load_vision_model(str(folders["vit"])).embed_texts(["a dog"])


def test_no_torchvision_is_imported(folders: dict[str, Path]) -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from dalr.models.vision import load_vision_model\n"
        f"print(load_vision_model({str(folders['clip'])!r}).dim)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["16"], done.stderr
    assert "torchvision" not in done.stderr


class TestRefusals:
    @pytest.fixture
    def broken(self, folders: dict[str, Path], tmp_path: Path) -> Path:
        return Path(shutil.copytree(folders["clip"], tmp_path / "broken"))

    def refused(self, folder: Path) -> str:
        with pytest.raises(ModelFileError) as caught:
            load_vision_model(str(folder))
        assert str(folder) in str(caught.value)
        return str(caught.value)

    def edit(self, path: Path, **changes: object) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_a_text_encoder_is_no_image_model(self, tiny_bert: Path) -> None:
        found = self.refused(tiny_bert)
        assert "architecture 'bert' is not an image model that is known: clip, " in found

    def test_no_processor_settings(self, broken: Path) -> None:
        (broken / "preprocessor_config.json").unlink()
        assert "no preprocessor_config.json" in self.refused(broken)

    def test_an_unknown_processor_names_the_known_ones(self, broken: Path) -> None:
        self.edit(broken / "preprocessor_config.json", image_processor_type="EvilImageProcessor")
        assert "'EvilImageProcessor'; expected one of CLIPImageProcessor, " in self.refused(broken)

    def test_settings_without_one_size(self, broken: Path) -> None:
        self.edit(broken / "preprocessor_config.json", do_center_crop=False)
        assert "images of different sizes" in self.refused(broken)

    def test_a_size_that_the_model_cannot_read(self, broken: Path) -> None:
        self.edit(broken / "preprocessor_config.json", crop_size={"height": 64, "width": 64})
        assert "cannot be loaded" in self.refused(broken)

    def test_weights_that_lack_a_parameter(self, broken: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(broken / "model.safetensors")
        del weights["visual_projection.weight"]
        save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
        assert "1 parameters have no weights in its files, such as visual_projection.weight" in self.refused(broken)

    def test_pickled_weights(self, broken: Path) -> None:
        (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
        assert "pickled .bin weights are not loaded" in self.refused(broken)

    @pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu please"])
    def test_a_device_that_is_not_there(self, name: str) -> None:
        with pytest.raises(ConfigError, match="--device"):
            pick_device(name)


def test_older_names_of_processors_are_understood(folders: dict[str, Path], tmp_path: Path) -> None:
    """OpenAI's CLIP still states `feature_extractor_type: CLIPFeatureExtractor` and numbers for sizes."""
    old = Path(shutil.copytree(folders["clip"], tmp_path / "old"))
    path = old / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    del settings["image_processor_type"]
    path.write_text(
        json.dumps(settings | {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32})
    )
    expected = load_vision_model(str(folders["clip"])).embed_images(PICTURES)
    assert np.array_equal(load_vision_model(str(old)).embed_images(PICTURES), expected)
