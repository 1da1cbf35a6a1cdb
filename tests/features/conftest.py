"""A tiny image model for the tests of image features."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalr.models.vision import VisionModel, load_vision_model
from tiny_images import save_tiny_image_model


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_image_model(tmp_path_factory.mktemp("model") / "clip", "clip")


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> VisionModel:
    return load_vision_model(str(clip_folder), device="cpu")
