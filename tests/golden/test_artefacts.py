"""R11: checkpoints, models and stopped runs of every release keep working; those of a later one are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from write_artefacts import SETTINGS, vectors

import dalr
from dalr.errors import CorruptFileError
from dalr.io.console import Console
from dalr.io.sealed import MANIFEST, read_manifest, write_sealed
from dalr.training.checkpoint import read_checkpoint
from dalr.training.resume import newest_point
from tiny import recipe_tree, write_data, write_recipe

ARTEFACTS = Path(__file__).parent / "artefacts"
RELEASES = sorted(path.name for path in ARTEFACTS.iterdir())


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ARTEFACTS / str(request.param), tmp_path / "release"))


def close(one: list[list[float]], other: list[list[float]]) -> bool:
    return np.allclose(one, other, rtol=0, atol=1e-6)


def test_this_version_has_artefacts() -> None:
    assert dalr.__version__ in RELEASES


def test_a_checkpoint_of_a_release_is_read_and_gives_the_same_vectors(release: Path) -> None:
    [folder] = (release / "run" / "checkpoints").iterdir()
    checkpoint = read_checkpoint(folder)
    assert checkpoint.step == 2
    expected = json.loads((release / "expected.json").read_text())
    assert close(vectors(checkpoint.folder / "model"), expected["checkpoint"])


def test_a_stopped_run_of_a_release_is_gone_on_with(release: Path, tmp_path: Path) -> None:
    tree = recipe_tree(write_data(tmp_path / "data"), release / "student")
    recipe = write_recipe(tmp_path / "recipe.yaml", tree)
    run = release / "run"
    result = dalr.train(
        recipe, overrides=SETTINGS, out=run, resume=True, allow_changed=True, console=Console(quiet=True)
    )
    [resumed] = json.loads((run / "run.json").read_text())["resumed_at"]
    assert resumed["step"] == 2
    expected = json.loads((release / "expected.json").read_text())
    assert close(vectors(result.model), expected["model"])


@pytest.mark.parametrize("kind", ["checkpoints", "resume"])
def test_what_a_later_version_wrote_is_refused_with_both_versions(release: Path, kind: str) -> None:
    run = release / "run"
    folder = run / kind / "step-000002"
    format = json.loads((folder / MANIFEST).read_text())["format"]
    manifest = read_manifest(folder, format=format, version=1, remedy="")

    def fill(temporary: Path) -> None:
        shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))

    write_sealed(folder, format=format, version=7, metadata=manifest.metadata, fill=fill)
    run_id = json.loads((run / "run.json").read_text())["id"]
    with pytest.raises(CorruptFileError, match=r"version 7, but this dalr reads up to 1; update dalr"):
        newest_point(run, run_id=run_id)
