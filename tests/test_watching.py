"""Watching a training: each checkpoint is scored once, whatever the training does to it meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.console import Console
from dalr.errors import ConfigError, DataError
from dalr.evaluation.results import Evaluation
from dalr.io.atomic import write_json
from dalr.io.sealed import write_sealed
from dalr.scoring import Request, evaluate
from dalr.watching import Clock, Watched, watch
from tiny import Outcome, Toys, captions, save_tiny_sentence_transformer

TASK = "sts-b-dev"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a training may have in its checkpoints: three encoders; read only."""
    folder = tmp_path_factory.mktemp("watched-models")
    return [save_tiny_sentence_transformer(folder / str(seed), seed=seed, normalize=False) for seed in range(3)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    place = tmp_path / "senteval" / "STS" / "STSBenchmark"
    place.mkdir(parents=True)
    sentences, gold = captions(24), np.random.default_rng(0).uniform(0, 5, 12)
    rows = [f"g\tf\t2012\t{n}\t{gold[n]:.2f}\t{sentences[n]}\t{sentences[-1 - n]}\n" for n in range(12)]
    (place / "sts-dev.csv").write_text("".join(rows))
    return tmp_path / "senteval"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


class Time:
    """A clock that stands still, and a training that does its next thing whenever the watcher sleeps."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.happenings = list(happenings)
        self.naps = 0

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        assert self.happenings, "the watcher waits, but nothing more will happen"
        self.happenings.pop(0)()

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: 10.0 * self.naps, sleep=self.sleep)


def request(data: Path, **options: Any) -> Request:
    chosen = {"tasks": (TASK,), "console": Console(quiet=True)} | options
    return Request(data=data, allow_changed_data=True, **chosen)


def status(run: Path, value: str) -> None:
    write_json(run / "run.json", {"status": value})


def checkpoint(run: Path, step: int, model: Path) -> Path:
    def fill(folder: Path) -> None:
        shutil.copytree(model, folder / "model")

    folder = run / "checkpoints" / f"step-{step:06d}"
    metadata = {"step": step, "score": step / 2}
    write_sealed(folder, format="dalr-checkpoint", version=1, metadata=metadata, fill=fill)
    return folder


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "watched.jsonl").read_text().splitlines()]


def scores(evaluation: Evaluation) -> dict[str, float]:
    return {name: getattr(result, "spearman", float("nan")) for name, result in evaluation.tasks.items()}


class TestATrainingThatGoesOn:
    def test_checkpoints_are_scored_as_they_appear_and_the_watch_ends_with_the_training(
        self, run: Path, data: Path, models: list[Path]
    ) -> None:
        def better() -> None:
            checkpoint(run, 4, models[1])
            shutil.rmtree(run / "checkpoints" / "step-000002")

        def last() -> None:
            checkpoint(run, 10, models[2])
            status(run, "finished")

        status(run, "training")
        time = Time(lambda: checkpoint(run, 2, models[0]), lambda: None, better, last)
        found = list(watch(run, request(data), clock=time.clock))
        assert [(each.step, each.kept_for) for each in found] == [(2, 1.0), (4, 2.0), (10, 5.0)]
        assert time.happenings == []
        alone = evaluate([str(model) for model in models], request(data)).models
        assert [scores(each.evaluation) for each in found] == [scores(each) for each in alone]
        assert [Watched.model_validate(line) for line in lines(run)] == found
        assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "run.json", "watched.jsonl"]

    def test_a_run_that_has_not_begun_is_waited_for(
        self, run: Path, data: Path, models: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        def begin() -> None:
            checkpoint(run, 2, models[0])
            status(run, "stopped")

        time = Time(lambda: None, begin)
        [found] = watch(run, request(data, console=Console()), clock=time.clock)
        assert found.step == 2
        said = capsys.readouterr().err
        assert said.count(f"waiting for {run / 'run.json'}") == 1
        assert "training stopped, 1 checkpoints scored" in said

    def test_a_checkpoint_removed_while_it_is_scored_is_scored_all_the_same(
        self, run: Path, data: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dalr.models import loading

        folder = checkpoint(run, 2, models[0])
        status(run, "finished")
        real = loading.load_encoder

        def removed_meanwhile(*arguments: Any) -> Any:
            shutil.rmtree(folder)
            return real(*arguments)

        monkeypatch.setattr(loading, "load_encoder", removed_meanwhile)
        [found] = watch(run, request(data))
        assert not folder.exists()
        monkeypatch.undo()
        assert scores(found.evaluation) == scores(evaluate([str(models[0])], request(data)).models[0])

    @pytest.mark.parametrize("kept", [0, 1, 3])
    def test_a_checkpoint_removed_while_it_is_read_is_skipped_with_a_line(
        self,
        run: Path,
        data: Path,
        models: list[Path],
        kept: int,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        import dalr.watching

        folder = checkpoint(run, 2, models[0])
        checkpoint(run, 4, models[1])
        status(run, "finished")
        real, taken = dalr.watching._link, []

        def vanishing(source: str, target: str) -> None:
            if len(taken) == kept:
                shutil.rmtree(folder, ignore_errors=True)
            taken.append(source)
            real(source, target)

        monkeypatch.setattr(dalr.watching, "_link", vanishing)
        found = list(watch(run, request(data, console=Console())))
        assert [each.step for each in found] == [4]
        assert "step-000002: removed while it was being read; skipped" in capsys.readouterr().err

    def test_a_damaged_checkpoint_is_named_once_and_not_scored(
        self, run: Path, data: Path, models: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = checkpoint(run, 2, models[0]) / "model" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
        status(run, "training")
        time = Time(lambda: None, lambda: status(run, "finished"))
        assert list(watch(run, request(data, console=Console()), clock=time.clock)) == []
        said = capsys.readouterr().err
        assert said.count("skipped") == 1
        assert f"{weights}: its content differs from the sealed sha256" in said


class TestASecondWatch:
    def test_what_was_scored_is_not_scored_again(
        self, run: Path, data: Path, models: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        checkpoint(run, 2, models[0])
        status(run, "finished")
        assert len(list(watch(run, request(data)))) == 1
        checkpoint(run, 4, models[1])
        again = list(watch(run, request(data, console=Console())))
        assert [each.step for each in again] == [4]
        assert "step-000002: already in watched.jsonl" in capsys.readouterr().err
        assert [line["step"] for line in lines(run)] == [2, 4]

    def test_another_model_at_the_same_step_other_tasks_or_settings_are(
        self, run: Path, data: Path, models: list[Path]
    ) -> None:
        checkpoint(run, 2, models[0])
        status(run, "finished")
        assert len(list(watch(run, request(data)))) == 1
        assert len(list(watch(run, request(data, pooling="cls")))) == 1
        assert len(list(watch(run, request(data)))) == 0
        shutil.copy(data / "STS/STSBenchmark/sts-dev.csv", data / "STS/STSBenchmark/sts-test.csv")
        assert len(list(watch(run, request(data, tasks=(TASK, "STS-B"))))) == 1
        checkpoint(run, 2, models[1])
        assert len(list(watch(run, request(data)))) == 1

    def test_a_line_that_cannot_be_read_is_left_and_named(
        self, run: Path, data: Path, models: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        checkpoint(run, 2, models[0])
        status(run, "finished")
        (run / "watched.jsonl").write_text('{"step": 2, "kept')
        assert len(list(watch(run, request(data, console=Console())))) == 1
        assert f"{run / 'watched.jsonl'}:1: not a line" in capsys.readouterr().err
        torn, whole = (run / "watched.jsonl").read_text().splitlines()
        assert torn == '{"step": 2, "kept'
        assert json.loads(whole)["step"] == 2


class TestRefusals:
    def test_what_is_no_run_folder(self, tmp_path: Path, data: Path, models: list[Path]) -> None:
        for place, words in ((tmp_path / "absent", "found no folder"), (models[0], "found modules.json")):
            with pytest.raises(ConfigError, match=words):
                next(watch(place, request(data)))

    def test_missing_data_before_anything_is_waited_for(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"sts-dev\.csv"):
            next(watch(run, request(tmp_path / "empty"), clock=Time().clock))


class TestCommand:
    def test_the_watch_of_a_real_training(
        self, toys: Toys, tmp_path: Path, data: Path, cli: Callable[..., Outcome]
    ) -> None:
        run = tmp_path / "trained"
        held_out = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "held_out_images": 6}
        assert cli("train", toys.recipe(tmp_path, data=held_out), "--out", run, "-q").code == 0
        tasks = ("--data", data, "--tasks", f"{TASK},retrieval", "--allow-changed-data")
        outcome = cli("evaluate", run, "--watch", *tasks)
        assert outcome.code == 0, outcome.err
        [line] = lines(run)
        found = line["evaluation"]["tasks"]
        shown = f"{TASK} {found[TASK]['spearman']:.2f} · retrieval {found['retrieval']['text_to_image']['R@1']:.2f}"
        assert outcome.out == f"step {line['step']} · {shown} · {line['seconds']:.1f} s\n"
        assert not (run / "evaluation.json").exists()
        assert cli("evaluate", run, "--json", tmp_path / "alone.json", *tasks).code == 0
        alone = json.loads((tmp_path / "alone.json").read_text())
        assert found == alone["tasks"], "the product is a copy of the checkpoint"

    def test_interruption_ends_with_130(
        self, run: Path, data: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(seconds: float) -> None:
            raise KeyboardInterrupt

        status(run, "training")
        monkeypatch.setattr("time.sleep", interrupt)
        assert cli("evaluate", run, "--watch", "--data", data, "--tasks", TASK, "--allow-changed-data").code == 130

    def test_several_models_and_json_are_refused_together(self, run: Path, cli: Callable[..., Outcome]) -> None:
        outcome = cli("evaluate", run, run, "--watch", "--json", run / "scores.json")
        assert outcome.code == 2
        assert "--watch: watches one training, found 2 models" in outcome.err
        assert "--json: not with --watch" in outcome.err
