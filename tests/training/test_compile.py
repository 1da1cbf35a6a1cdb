"""`training.compile`: the numbers of eager training, few graphs, and a product that knows nothing of it.

What is traced is tested by a backend that compiles nothing; inductor takes a minute, and is marked slow.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import look_inside, metrics, record, train
from safetensors.torch import load_file

import dalr
from dalr.console import Console
from dalr.errors import ConfigError
from dalr.models.embedding import embed
from dalr.recipe import load_recipe
from dalr.training import compilation
from dalr.training.compilation import CompiledForward, compiled_layout, require_compiler
from tiny import Toys, captions

ON = "training.compile=on"
CPU = torch.device("cpu")
COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs as they are traced and differentiated, run by eager kernels."""
    monkeypatch.setattr(compilation, "_BACKEND", "aot_eager")
    yield
    torch.compiler.reset()


def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.training import setup

    loaded = setup.load_encoder

    def without(*arguments: Any, **options: Any) -> Any:
        student = loaded(*arguments, **options)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        return student

    monkeypatch.setattr(setup, "load_encoder", without)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run) if "loss" in line]


def same_losses(recipe: Path, folder: Path, *settings: str) -> None:
    train(recipe, folder / "eager", *settings)
    train(recipe, folder / "compiled", ON, *settings)
    eager = losses(folder / "eager")
    assert len(set(eager)) > 2
    np.testing.assert_allclose(losses(folder / "compiled"), eager, atol=1e-4)


class Heard(Console):
    def __init__(self) -> None:
        super().__init__(verbose=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.usefixtures("traced")
class TestWhatIsTraced:
    def test_the_losses_are_those_of_eager_training(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        no_dropout(monkeypatch)
        same_losses(toys.recipe(tmp_path), tmp_path)

    def test_several_lengths_share_a_graph_and_the_product_knows_nothing_of_it(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from transformers import AutoModel

        inside, heard = look_inside(monkeypatch), Heard()
        settings = [ON, "training.max_steps=8", "training.batch_size=7"]
        result = dalr.train(toys.recipe(tmp_path), overrides=settings, out=tmp_path / "run", console=heard)
        assert len({batch.tokens.ids.shape for batch in inside.batches}) > 1
        assert "compile: 1 graphs, 0 graph breaks" in heard.lines
        report = record(result.run)["data"]
        assert (report["compile"], report["padding"]) == ("on", "bucketed")
        assert record(result.run)["recipe"]["training"]["compile"] == "on"
        task = inside.made.task
        assert not any("_orig_mod" in name for name in task.state_dict())
        assert "forward" not in vars(task.student.transformers_model), "only while a step runs"
        assert (
            load_file(result.model / "model.safetensors").keys()
            == load_file(toys.student / "model.safetensors").keys()
        )
        AutoModel.from_pretrained(result.model)

    def test_cached_gradients_see_the_dropout_of_the_first_pass(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside, heard = look_inside(monkeypatch), Heard()
        settings = [ON, "training.mini_batch_size=3"]
        dalr.train(toys.recipe(tmp_path), overrides=settings, out=tmp_path / "run", console=heard)
        assert "compile: 2 graphs, 0 graph breaks" in heard.lines, "one without a backward"
        task, tokens = inside.made.task.train(), inside.batches[0].tokens
        torch.manual_seed(1)
        with torch.no_grad():
            first = task.two_passes(tokens)
        torch.manual_seed(1)
        second = task.two_passes(tokens)
        assert not torch.equal(first[0], first[1]), "dropout is on"
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def test_adapters_are_trained_and_merged(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sentence_transformers import SentenceTransformer

        pytest.importorskip("peft")
        inside = look_inside(monkeypatch)
        lora = ("student.lora.rank=4", "training.learning_rate=0.01", "development.every=4")
        result = train(toys.recipe(tmp_path), tmp_path / "run", ON, *lora)
        encoder = SentenceTransformer(str(result.model), local_files_only=True)
        expected = embed(inside.made.task.student, captions(6))
        np.testing.assert_allclose(encoder.encode(captions(6)), expected, atol=2e-6)

    def test_a_stopped_run_goes_on(self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from dalr.training.progress import Progress

        recipe = toys.recipe(tmp_path)
        settings = [ON, "training.save_every=2"]
        train(recipe, tmp_path / "whole", *settings)
        save = Progress.save

        def stop(self: Progress, step: int) -> None:
            save(self, step)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Progress, "save", stop)
            train(recipe, tmp_path / "cut", *settings)
        dalr.train(recipe, overrides=settings, out=tmp_path / "cut", console=Console(quiet=True), resume=True)
        assert record(tmp_path / "cut")["resumed_at"][0]["step"] == 2
        assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
        whole, cut = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
        assert all(torch.equal(whole[name], cut[name]) for name in whole)


class TestWhatIsRefused:
    def test_cuda_graphs_without_cuda(self, toys: Toys, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"training\.compile: cuda-graphs .* CUDA .* on cpu; use on or off"):
            train(toys.recipe(tmp_path), tmp_path / "run", "training.compile=cuda-graphs")
        assert not (tmp_path / "run" / "metrics.jsonl").exists()

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (("compile=on", "padding=packed"), "auto, bucketed, padded"),
            (("compile=cuda-graphs", "padding=bucketed"), "auto, padded"),
            (("compile=cuda-graphs", "mini_batch_size=2"), "writes over the gradients"),
            (("compile=true",), "training.compile"),
        ],
    )
    def test_settings_that_do_not_go_together(
        self, toys: Toys, tmp_path: Path, settings: tuple[str, ...], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            load_recipe(str(toys.recipe(tmp_path)), [f"training.{each}" for each in settings])

    def test_no_compiler_is_said_before_training(self, toys: Toys, tmp_path: Path) -> None:
        import torch._inductor.config as inductor

        with inductor.patch({"cpp.cxx": ("/nowhere/g++",)}), pytest.raises(ConfigError) as refused:
            train(toys.recipe(tmp_path), tmp_path / "run", ON)
        [problem] = refused.value.problems
        assert problem.where == "training.compile"
        assert "install a C++ compiler (g++; CXX names another), or use off" in problem.what
        assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_rows_of_cuda_graphs_have_one_width(toys: Toys) -> None:
    """The layout and the shapes; that graphs are replayed needs a GPU."""
    from dalr.models.config import EncoderConfig
    from dalr.models.loading import load_encoder

    student = load_encoder(EncoderConfig(model=str(toys.student), pooling="cls"))
    forward = CompiledForward(student, "cuda-graphs", max_tokens=16)
    ids, mask = torch.full((3, 5), 7), torch.ones(3, 5, dtype=torch.long)
    wide, real = forward.widened(ids, mask)
    assert wide.shape == real.shape == (3, 16)
    assert real.sum(1).tolist() == [5, 5, 5]
    assert wide[:, 5:].eq(student.tokenizer.pad_token_id).all()
    assert compiled_layout("cuda-graphs", None) == "padded"
    assert CompiledForward(student, "on", max_tokens=16).widened(ids, mask)[0] is ids
    vectors = torch.ones(2)
    assert forward.kept(vectors) is not vectors


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="inductor needs a C++ compiler")
def test_inductor_gives_the_losses_of_eager_training(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_compiler("on", CPU)
    no_dropout(monkeypatch)
    same_losses(toys.recipe(tmp_path), tmp_path)
