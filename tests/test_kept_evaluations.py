"""A finished evaluation is printed, whatever becomes of its record; a bad place is refused before the work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dalr
from dalr.errors import StorageError
from dalr.io.console import Console
from dalr.io.writable import require_writable
from senteval import write_senteval
from tiny import Outcome, Toys

Cli = Callable[..., Outcome]
NOBODY = 65534


@pytest.fixture(scope="module")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    return dalr.train(toys.recipe(folder), out=folder / "run", console=Console(quiet=True)).run


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """The options of a quick evaluation."""
    monkeypatch.setattr("dalr.evaluation.loaded.check_task", lambda data, task: [])
    return ("--data", write_senteval(tmp_path / "senteval"), "--tasks", "sts-b-dev", "--map", "none")


def test_a_place_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    cli: Cli, tmp_path: Path, ask: tuple[object, ...]
) -> None:
    (tmp_path / "file").write_text("")
    for bad, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "scores.json", "is a file")):
        outcome = cli("evaluate", tmp_path / "no-such-model", *ask, "--json", bad)
        assert outcome.code == 6
        assert words in outcome.err
        assert "no-such-model" not in outcome.err


def test_nothing_is_left_behind_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("before")
    require_writable(tmp_path / "scores.json")
    require_writable(tmp_path / "new" / "deep" / "scores.json")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    assert (tmp_path / "scores.json").read_text() == "before"


def test_devices_pipes_and_links_are_left_as_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target" / "scores.json")
    for name in ("pipe", "link"):
        require_writable(tmp_path / name)
    (tmp_path / "folder").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError, match="is a folder"):
        require_writable(tmp_path / "folder")


def test_a_full_file_system_is_refused_before_the_work(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        with pytest.raises(OSError, match="No space left"):
            (place / "much").write_bytes(bytes(1 << 20))
        with pytest.raises(StorageError, match="no space left"):
            require_writable(place / "scores.json")
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_run_that_cannot_be_written_is_scored_with_a_warning(
    cli: Cli, fresh: Path, ask: tuple[object, ...]
) -> None:
    (fresh / "evaluation.json").mkdir()
    outcome = cli("evaluate", fresh, *ask)
    assert outcome.code == 0, outcome.err
    assert "sts-b-dev" in outcome.out.lower()
    assert "warning: these scores are not kept in the run's folder" in outcome.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_colleagues_run_is_scored_with_a_warning(fresh: Path, tmp_path: Path, ask: tuple[object, ...]) -> None:
    """In a process of another user, who may read the run and write nothing in it."""
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    code = (
        "import os, sys, dalr.cli, dalr.evaluation.run, dalr.models.embedding, dalr.models.loading\n"
        "import sentence_transformers\n"
        "from unittest.mock import patch\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"sys.argv = ['dalr', 'evaluate', {str(fresh)!r}, *{[str(each) for each in ask]!r}]\n"
        "with patch('dalr.evaluation.loaded.check_task', lambda data, task: []):\n"
        "    dalr.cli.main()\n"
    )
    if not _open_to_all(tmp_path):
        pytest.skip("the temporary folder is closed to other users")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sts-b-dev" in done.stdout.lower()
    assert "no permission" in done.stderr
    assert not (fresh / "evaluation.json").exists()


def _open_to_all(folder: Path) -> bool:
    """Let other users through the folders above, as far as these are of this test session."""
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    return all(path.stat().st_mode & 0o001 for path in folder.parents)


def test_of_several_models_one_that_fails_does_not_end_the_call(
    cli: Cli, fresh: Path, tmp_path: Path, ask: tuple[object, ...]
) -> None:
    broken = shutil.copytree(fresh, tmp_path / "broken")
    (broken / "model" / "model.safetensors").write_bytes(b"")
    scores = tmp_path / "scores.json"
    outcome = cli("evaluate", broken, fresh, tmp_path / "none-such" / "at" / "all", *ask, "--json", scores)
    assert outcome.code == 4
    assert str(fresh) in outcome.out or "sts-b-dev" in outcome.out.lower()
    assert f"error: {broken}:" in outcome.err
    assert "none-such" in outcome.err
    written = json.loads(scores.read_bytes())
    assert [each["model"] for each in written["models"]] == [str(fresh)]
    assert [each["task"] for each in written["failed"]] == [str(broken), str(tmp_path / "none-such" / "at" / "all")]


def test_the_table_is_printed_though_the_file_cannot_be_written_in_the_end(
    cli: Cli, fresh: Path, tmp_path: Path, ask: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills while models are scored."""

    def full(path: Path, text: str) -> None:
        raise StorageError(f"no space left writing {path}: free some and start again")

    monkeypatch.setattr("dalr.evaluation.results.write_text", full)
    outcome = cli("evaluate", fresh, *ask, "--json", tmp_path / "scores.json")
    assert outcome.code == 6
    assert "sts-b-dev" in outcome.out.lower()
    assert outcome.err.count("no space left") == 2, "a warning for the run's own record, an error for the file"
