"""Several ranks train as one: the same loss and gradients, the same files, one voice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import on_ranks
from gradients import gradients, trained
from runs import METHODS, metrics, record
from safetensors.torch import load_file

from dalr.cli import main
from dalr.errors import ConfigError
from dalr.training.distributed import joined
from tiny import Toys


def require_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_several_ranks_have_the_loss_and_gradients_of_one(world: int, toys: Toys, tmp_path: Path) -> None:
    for method in (method for method in METHODS if method != "dalr-release"):
        recipe = toys.method(tmp_path, method)
        expected = gradients(recipe)
        for found in on_ranks(world, tmp_path, lambda _, recipe=recipe: gradients(recipe)):
            require_close(found, expected, tolerance=1e-9)


@pytest.mark.parametrize(
    ("world", "settings"),
    [(2, []), (4, []), pytest.param(2, ["training.mini_batch_size=2"], marks=pytest.mark.slow)],
)
def test_several_ranks_train_to_the_losses_and_weights_of_one(
    world: int, settings: list[str], toys: Toys, tmp_path: Path
) -> None:
    """Text and pair batches, with gradient norms, clipping and overlap; also with gradient caching."""
    recipe = toys.method(tmp_path, "dalr")
    expected = trained(recipe, settings, steps=6)
    for found in on_ranks(world, tmp_path, lambda _: trained(recipe, settings, steps=6)):
        require_close(found, expected, tolerance=1e-9)


def test_two_ranks_with_and_without_gathering(toys: Toys, tmp_path: Path) -> None:
    """With it they are one rank with the whole batch, also in mini-batches; without, each compares its own rows."""
    recipe = toys.recipe(tmp_path, objective={"infonce": {}, "grounding": {"weight": 0.1}, "consistency": {}})
    expected = gradients(recipe)
    for found in on_ranks(2, tmp_path, lambda _: gradients(recipe, ["training.mini_batch_size=3"])):
        require_close(found, expected, tolerance=1e-9)
    alone = on_ranks(2, tmp_path, lambda _: gradients(recipe, ["training.gather=false"]))
    require_close(alone[0], alone[1], tolerance=0)
    assert alone[0].keys() == expected.keys()
    assert (alone[0]["0.loss"] - expected["0.loss"]).abs() > 1e-3, "four rows have fewer negatives than eight"


class TestCommand:
    @pytest.mark.slow
    def test_nproc_trains_as_one_rank_does(self, toys: Toys, tmp_path: Path) -> None:
        import dalr
        from dalr.io.console import Console

        recipe = toys.recipe(tmp_path)
        alone = dalr.train(
            recipe, overrides=["student.dropout=0"], out=tmp_path / "one", console=Console(quiet=True)
        )
        done = self.dalr("train", recipe, "-s", "student.dropout=0", "--out", tmp_path / "two", "--nproc", "2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("model: ") == 1, "one voice"
        assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
            path.name for path in (tmp_path / "one").iterdir()
        )
        written = record(tmp_path / "two")
        assert written["data"]["ranks"] == 2
        assert written["status"] == "finished"
        for one, two in zip(metrics(alone.run), metrics(tmp_path / "two"), strict=True):
            assert one["step"] == two["step"]
            if "loss" in one:
                assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        weights = load_file(tmp_path / "two" / "model" / "model.safetensors")
        for name, tensor in load_file(alone.model / "model.safetensors").items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)

    @pytest.mark.slow
    def test_two_killed_ranks_go_on_to_the_same_bits(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        settings = ["-s", "training.max_steps=40", "-s", "training.save_every=2"]
        whole = self.dalr("train", recipe, *settings, "--out", tmp_path / "whole", "--nproc", "2")
        assert whole.returncode == 0, whole.stderr
        run = tmp_path / "run"
        command = [sys.executable, "-m", "dalr", "train", recipe, *settings, "--out", run, "--nproc", "2"]
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(run.glob("resume/step-*/manifest.json")):
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        first = json.loads((run / ".lock").read_text())["pid"]
        os.kill(first, signal.SIGKILL)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        [line] = [line for line in err.splitlines() if "error" in line or line.startswith("rank ")]
        assert line.startswith("error: rank 0 of 2 was killed by SIGKILL")
        assert line.endswith("run the same command on every machine with --resume")
        assert record(run)["status"] == "training"
        again = self.dalr("train", recipe, *settings, "--out", run, "--nproc", "2", "--resume")
        assert again.returncode == 0, again.stderr
        assert record(run)["resumed_at"][0]["step"] > 0
        assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
        for name in ("heads.safetensors", "model/model.safetensors"):
            assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    @pytest.mark.slow
    def test_a_signal_to_all_ranks_seals_one_point(self, toys: Toys, tmp_path: Path) -> None:
        recipe, run = toys.recipe(tmp_path), tmp_path / "run"
        settings = ["-s", "training.max_steps=100000", "-s", "validation=null", "-s", "training.log_every=3"]
        command = [sys.executable, "-m", "dalr", "train", recipe, *settings, "--out", run, "--nproc", "2"]
        process = subprocess.Popen(
            list(map(str, command)), start_new_session=True, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not (
            (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes()) > 100
        ):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        [point] = (run / "resume").iterdir()
        assert int(point.name.removeprefix("step-")) % 3 == 0

    @pytest.mark.slow
    def test_an_error_is_said_once_with_its_exit_code(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        done = self.dalr("train", recipe, "-s", "data.text=nowhere.txt", "--out", tmp_path / "run", "--nproc", "2")
        assert done.returncode == 3
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "nowhere.txt" in done.stderr
        assert not (tmp_path / "run").exists()

    def test_a_rank_that_is_ahead_lets_the_first_say_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said_before: list[str] = []
        monkeypatch.setattr("time.sleep", lambda _: said_before.append(capsys.readouterr().err))
        monkeypatch.setattr("sys.argv", ["dalr", "train", "nowhere.yaml"])
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(SystemExit) as ended:
            main()
        assert said_before == [""], "it waits to be stopped, and has said nothing"
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("error on rank 1: "), "nobody has stopped it: its own error"

    @pytest.mark.slow
    def test_batch_norm_is_refused(self, toys: Toys, tmp_path: Path) -> None:
        done = self.dalr("train", toys.method(tmp_path, "dalr-release"), "--out", tmp_path / "run", "--nproc", "2")
        assert done.returncode == 2
        assert "heads.aligner_norm" in done.stderr
        assert "Traceback" not in done.stderr

    @staticmethod
    def dalr(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dalr", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


class TestRefusals:
    def test_a_batch_that_cannot_be_shared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "3")
        with (
            pytest.raises(ConfigError, match=r"training.batch_size: 8 rows cannot be divided equally"),
            joined(8),
        ):
            pass

    @pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
    def test_a_launcher_that_shards(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv(variable, "true")
        with pytest.raises(ConfigError, match="every rank holds whole weights"), joined(8):
            pass

    def test_a_launcher_that_restarts_what_does_not_resume(
        self, monkeypatch: pytest.MonkeyPatch, toys: Toys, tmp_path: Path
    ) -> None:
        import dalr

        monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
        with pytest.raises(ConfigError, match=r"--max-restarts: .*3 times at most.*add --resume and --out"):
            dalr.train(toys.recipe(tmp_path), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_ranks_that_cannot_meet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setenv("RANK", "0")
            monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
            monkeypatch.setenv("MASTER_PORT", str(port))
            with pytest.raises(ConfigError, match=rf"2 ranks could not meet at 127.0.0.1:{port}"), joined(8):
                pass

    def test_a_launcher_within_a_launcher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from dalr.training.launch import launch

        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="--nproc"):
            launch(["train", "dalr"], processes=2)
