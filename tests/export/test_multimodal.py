"""`model-multimodal/`: plain sentence-transformers gives the vectors of the run, of text and of images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_runs import IMAGES, Trained
from PIL import Image

from dalr.evaluation.retrieval import retrieval_score
from dalr.features.store import open_store
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.heads import ground
from dalr.models.loading import load_encoder
from tiny import CAPTIONS_PER_IMAGE, Outcome, captions
from tiny_images import save_tiny_image_model

SENTENCES = [*captions(IMAGES * CAPTIONS_PER_IMAGE), "x.png", "http://example.org/a.jpg"]
LOAD = """
import sys
sys.modules["dalr"] = None  # no dalr, whatever is installed
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
given = open(sys.argv[2], encoding="utf-8").read().split("\\n")
images = [Image.open(path).convert("RGB") for path in sys.argv[4:]]
np.savez(sys.argv[3], text=model.encode([{"text": each} for each in given]), image=model.encode(images))
"""


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dalr.export.multimodal import export_multimodal
    from dalr.io.console import Console

    out = tmp_path_factory.mktemp("multimodal") / "model-multimodal"
    found = export_multimodal(str(trained.run), str(trained.clip), out, console=Console(quiet=True))
    assert found.checked_features
    assert found.dimension == 8
    return out


def loaded_elsewhere(folder: Path, images: list[Path], tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors by a process of its own, which cannot import dalr."""
    (tmp_path / "sentences").write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "sentences"), str(tmp_path / "out.npz")]
    done = subprocess.run(
        [*command, *map(str, images)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        return found["text"], found["image"]


@pytest.mark.slow
def test_its_vectors_and_its_recall_are_those_of_the_run(trained: Trained, folder: Path, tmp_path: Path) -> None:
    paths = sorted(trained.images.iterdir())
    text, image = loaded_elsewhere(folder, paths, tmp_path)
    store = open_store(trained.store)
    features = store.read(store.rows_of([path.name for path in paths], what="image"))
    h = embed(load_encoder(EncoderConfig(model=str(trained.run / "model"))), SENTENCES)
    sentences, images = ground(trained.run / "heads.safetensors", sentences=h, images=features)
    assert np.abs(text - sentences).max() < 1e-6
    assert np.abs(image - images).max() < 1e-3, "the store keeps features in fp16"
    owner = np.arange(len(SENTENCES) - 2) % IMAGES
    assert (
        retrieval_score(text[:-2], image, owner).mean_r1 == retrieval_score(sentences[:-2], images, owner).mean_r1
    )


def test_names_of_files_and_addresses_are_text(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    beside = model.encode([{"text": each} for each in ("a dog", "x.png", "http://example.org/a.jpg")])
    for row, sentence in ((1, "x.png"), (2, "http://example.org/a.jpg")):
        assert np.allclose(beside[row], model.encode([sentence], modality="text")[0], atol=1e-6)
    assert not np.allclose(beside[1], model.encode(Image.new("RGB", (40, 40))), atol=1e-3)


def test_in_clips_space_images_are_what_clip_makes_of_them(
    trained_in_clip_space: Trained, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from dalr.models.vision import load_vision_model

    its = trained_in_clip_space
    done = cli(
        "export", its.run, "--format", "sentence-transformers", "--vision", its.clip, "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    assert "16 dimensions (clip)" in done.out
    images = [Image.open(path).convert("RGB") for path in sorted(its.images.iterdir())[:3]]
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True, trust_remote_code=False)
    expected = load_vision_model(str(its.clip)).embed_images(images)
    assert np.abs(model.encode(images) - expected).max() < 1e-6


def test_another_image_model_than_that_of_the_features_is_refused(
    trained: Trained, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    other = save_tiny_image_model(tmp_path / "other", "clip", seed=1)
    out = tmp_path / "out"
    done = cli("export", trained.run, "--format", "sentence-transformers", "--vision", other, "--out", out)
    assert done.code == 2
    assert "name the model that made them" in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "sentence-transformers"], "--vision: the image route needs the model"),
        (["--format", "onnx", "--vision", "x"], "--vision: is for --format sentence-transformers"),
        (["--format", "sentence-transformers", "--vision", "x", "--int8"], "--int8: is for graphs"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    trained: Trained, cli: Callable[..., Outcome], tmp_path: Path, options: list[str], message: str
) -> None:
    done = cli("export", trained.run, *options, "--out", tmp_path / "out")
    assert done.code == 2
    assert message in done.err


def test_an_image_model_that_is_no_clip_is_refused(
    trained: Trained, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    vit = save_tiny_image_model(tmp_path / "vit", "vit")
    done = cli(
        "export", trained.run, "--format", "sentence-transformers", "--vision", vit, "--out", tmp_path / "out"
    )
    assert done.code == 4
    assert "expected a CLIP with its projection, found vit" in done.err
    done = cli(
        "export",
        trained.run,
        "--format",
        "sentence-transformers",
        "--vision",
        "plugin:x",
        "--out",
        tmp_path / "out",
    )
    assert (done.code, "found an encoder of a plug-in" in done.err) == (4, True), done.err
