"""`report_to`: what goes to metrics.jsonl also goes to TensorBoard, Weights & Biases and Trackio."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import metrics, record, train

from dalr.errors import ConfigError
from tiny import Toys


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}/")
        elif name != "step":
            found[f"{prefix}{name}"] = value
    return found


@pytest.mark.filterwarnings("ignore")
def test_a_tensorboard_file_holds_the_numbers_of_metrics_jsonl(toys: Toys, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(
        toys.recipe(
            tmp_path,
            training={"batch_size": 8, "max_steps": 4, "report_to": ["tensorboard"]}
            | {"log_every": 1, "schedule": {"kind": "every_k", "k": 2}},
        ),
        tmp_path / "run",
    )
    events = EventAccumulator(str(result.run / "tensorboard"))
    events.Reload()
    read = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    written = {(name, line["step"]): value for line in metrics(result.run) for name, value in flat(line).items()}
    assert read == pytest.approx(written, rel=1e-6)
    assert {"loss", "learning_rate", "terms/infonce", "terms/grounding", "validation/dev.tsv Spearman"} <= {
        name for name, _ in read
    }
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    shown = "\n".join(line.removeprefix("    ") for line in text.split("\n"))
    assert yaml.safe_load(shown) == record(result.run)["recipe"]


class Library(types.ModuleType):
    """A stand-in with the three functions that are used of wandb and trackio."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.options: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **options: Any) -> None:
        print("* a greeting")  # noqa: T201 - as trackio does
        self.options, self.finished = options, 0

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        assert not self.finished
        self.logged.append((step, numbers))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, Library]:
    made = {name: Library(name) for name in ("wandb", "trackio")}
    for name, library in made.items():
        monkeypatch.setitem(sys.modules, name, library)
    return made


def test_weights_and_biases_and_trackio_get_the_same_records(
    toys: Toys,
    tmp_path: Path,
    libraries: dict[str, Library],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recipe = toys.recipe(tmp_path, training={"batch_size": 8, "max_steps": 2, "report_to": ["wandb", "trackio"]})
    train(recipe, tmp_path / "run")
    for library in libraries.values():
        assert library.logged == [(line["step"], flat(line)) for line in metrics(tmp_path / "run")]
        assert library.options["project"] == "tiny"
        assert library.options["name"] == "run"
        assert library.options["config"] == record(tmp_path / "run")["recipe"]
        assert library.finished == 1
    assert libraries["wandb"].options["mode"] == "offline"
    assert capsys.readouterr().out == "", "standard output is for results"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(recipe, tmp_path / "other", "training.max_steps=1")
    assert libraries["wandb"].options["mode"] == "disabled"


def test_a_report_is_ended_when_training_fails(
    toys: Toys, tmp_path: Path, libraries: dict[str, Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dalr.training.loop.fit", interrupted)
    recipe = toys.recipe(tmp_path, training={"batch_size": 8, "report_to": ["wandb"]})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    assert libraries["wandb"].finished == 1


def test_packages_that_are_missing_are_named_with_their_extras(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name in ("tensorboard", "wandb", "trackio", "peft") else find(name, package)

    monkeypatch.setattr("importlib.util.find_spec", without)
    monkeypatch.setattr("dalr.recipe.checks.find_spec", without)
    recipe = toys.recipe(tmp_path, training={"report_to": ["tensorboard", "trackio"], "batch_size": 8})
    with pytest.raises(ConfigError) as refused:
        train(recipe, tmp_path / "run", "student.lora.rank=4")
    assert [problem.what for problem in refused.value.problems] == [
        "tensorboard is not installed; in the clone of dalr: pip install '.[tensorboard]'",
        "trackio is not installed; in the clone of dalr: pip install '.[trackio]'",
        "lora needs peft, which is not installed; in the clone of dalr: pip install '.[lora]'",
    ]
