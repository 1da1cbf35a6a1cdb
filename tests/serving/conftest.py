"""Services over tiny models, asked in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_toys import LIMITS, serve
from starlette.testclient import TestClient

import dalr
from dalr.inference.encode import EncodeOptions
from dalr.serving.service import ServeOptions
from tiny import Toys


@pytest.fixture(scope="session")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with a collection to search."""
    folder = tmp_path_factory.mktemp("served")
    data = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "max_tokens": 16, "holdout": {"last": 6}}
    return dalr.train(toys.recipe(folder, data=data), out=folder / "photos").run


@pytest.fixture(scope="module")
def of_model(toys: Toys) -> Iterator[TestClient]:
    """A model folder, whose vectors have length 1."""
    encode = EncodeOptions(device="cpu", max_tokens=12)
    service, client = serve(ServeOptions(model=str(toys.teacher), name="tiny", encode=encode, limits=LIMITS))
    yield client
    service.close()


@pytest.fixture(scope="module")
def of_run(run: Path) -> Iterator[TestClient]:
    """A run with all its search."""
    service, client = serve(ServeOptions(model=str(run), search=True, encode=EncodeOptions(device="cpu")))
    yield client
    service.close()
