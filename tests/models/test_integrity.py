"""Models, checkpoints and heads of ours are compared with what was sealed, wherever they are opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dalr
from dalr.console import Console
from dalr.errors import CorruptFileError
from dalr.io.sealed import MANIFEST
from dalr.models.integrity import verify_heads
from dalr.models.reference import find_model
from tiny import Outcome, Toys


@pytest.fixture(scope="module")
def finished(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a product, heads and the best checkpoint; read only."""
    folder = tmp_path_factory.mktemp("integrity")
    run = folder / "run"
    dalr.train(toys.recipe(folder), out=run, console=Console(quiet=True))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(place: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        path.write_bytes(bytes(content))

    return flip


DAMAGES = {
    "absent": absent,
    "empty": empty,
    "half": half,
    "first bit": flipped(0.0),
    "middle bit": flipped(0.5),
    "last bit": flipped(1.0),
}


def sealed_files(folder: Path) -> list[str]:
    return sorted([*json.loads((folder / MANIFEST).read_text())["files"], MANIFEST])


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_every_file_of_a_product_is_noticed(run: Path, damage: str) -> None:
    names = sealed_files(run / "model")
    assert {"model.safetensors", "config.json", "modules.json", "1_Pooling/config.json"} <= set(names)
    whole = shutil.copytree(run / "model", run.parent / "whole")
    for name in names:
        path = run / "model" / name
        if path.stat().st_size == 0:
            continue
        DAMAGES[damage](path)
        if (damage, name) == ("absent", MANIFEST):  # a product without a manifest is that of an older version
            find_model(str(run / "model"))
        else:
            with pytest.raises(CorruptFileError, match=name.replace(".", r"\.")):
                find_model(str(run / "model"))
        shutil.copy(whole / name, path)
    find_model(str(run / "model"))


@pytest.mark.parametrize("damage", ["absent", "half", "middle bit"])
def test_every_damage_of_a_checkpoint_is_noticed(run: Path, damage: str) -> None:
    [checkpoint] = (run / "checkpoints").iterdir()
    whole = shutil.copytree(checkpoint, run.parent / "whole")
    (checkpoint / "model" / MANIFEST).unlink()  # as older versions sealed checkpoints, by the outer manifest alone
    for path in (checkpoint, whole):
        outer = json.loads((path / MANIFEST).read_text())
        assert any(name.startswith("model/") for name in outer["files"])
    shutil.copy(whole / "model" / MANIFEST, checkpoint / "model" / MANIFEST)
    for name in ("model/model.safetensors", "model/config.json"):
        DAMAGES[damage](checkpoint / name)
        with pytest.raises(CorruptFileError, match=Path(name).name):
            find_model(str(checkpoint / "model"))
        shutil.copy(whole / name, checkpoint / name)
    DAMAGES[damage](checkpoint / "heads.safetensors")
    with pytest.raises(CorruptFileError, match="heads"):
        verify_heads(checkpoint / "heads.safetensors")


@pytest.mark.parametrize("damage", ["empty", "half", "first bit", "last bit"])
def test_heads_of_a_run_are_compared_with_its_record(run: Path, damage: str) -> None:
    verify_heads(run / "heads.safetensors")
    DAMAGES[damage](run / "heads.safetensors")
    with pytest.raises(CorruptFileError, match=r"as run\.json says"):
        verify_heads(run / "heads.safetensors")


def test_a_file_of_another_model_is_noticed(run: Path, toys: Toys) -> None:
    shutil.copy(toys.student / "model.safetensors", run / "model" / "model.safetensors")
    with pytest.raises(CorruptFileError, match=r"model\.safetensors"):
        find_model(str(run / "model"))


def test_files_beside_the_sealed_ones_are_allowed(run: Path) -> None:
    (run / "model" / "README.md").write_text("A model card.\n")
    find_model(str(run / "model"))


def test_a_product_of_an_older_version_opens_with_a_note(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "model" / MANIFEST).unlink()
    record = json.loads((run / "run.json").read_text())
    del record["result"]["heads_sha256"]
    (run / "run.json").write_text(json.dumps(record))
    find_model(str(run / "model"))
    verify_heads(run / "heads.safetensors")
    said = capsys.readouterr().err
    assert "not verified" in said
    assert said.count("note:") == 2


def test_every_command_that_opens_a_damaged_model_refuses_it(
    run: Path, toys: Toys, tmp_path: Path, shared: Path, cli: Callable[..., Outcome]
) -> None:
    flipped(0.9)(run / "model" / "model.safetensors")
    out = tmp_path / "out"
    recipe = toys.recipe(tmp_path, teachers=[{"model": str(run / "model")}], student={"model": str(run / "model")})
    commands = [
        ("evaluate", run, "--data", shared / "data" / "senteval", "--tasks", "sts-b-dev"),
        ("features", "text", "--model", run / "model", "--text", toys.data.text, "--out", out),
        ("check", recipe),
        ("train", recipe, "--out", out),
    ]
    for words in commands:
        found = cli(*words)
        assert (found.code, "model.safetensors" in found.err) == (4, True), (words, found.err)
    assert not out.exists()


def test_sentence_transformers_loads_a_sealed_product(run: Path) -> None:
    from sentence_transformers import SentenceTransformer

    assert np.isfinite(SentenceTransformer(str(run / "model")).encode(["A dog."])).all()
