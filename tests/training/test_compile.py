"""`training.compile`: the numbers of eager training, few graphs, and a product that knows nothing of it.

What is traced is tested by a backend that compiles nothing; inductor takes its time, and is marked slow.
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
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed, pooled
from dalr.models.loading import load_encoder
from dalr.recipe import load_recipe
from dalr.training import compilation
from dalr.training.compilation import CompiledForward, compiled_layout
from tiny import ARCHITECTURES, Toys, captions, lines, save_tiny_encoder

ON = "training.compile=on"
COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs as they are traced, run by eager kernels."""
    monkeypatch.setattr(compilation, "_BACKEND", "eager")
    yield
    torch.compiler.reset()


@pytest.fixture
def recipe(toys: Toys, tmp_path: Path) -> Path:
    """One layer, on rows of many lengths, a few in a batch."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{line}{' and the river' * (n % 6)}\n" for n, line in enumerate(lines(60))))
    return toys.recipe(
        tmp_path,
        data={"text": str(text), "max_tokens": 32},
        features={},
        student={"model": str(toys.student), "pooling": "cls", "num_layers": 1},
        objective={"infonce": {"temperature": 0.05}},
        training={"batch_size": 4, "max_steps": 6, "learning_rate": 1e-3, "precision": "fp32", "log_every": 1},
    )


class Heard(Console):
    """A console that keeps what was said."""

    def __init__(self) -> None:
        super().__init__(verbose=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.training import setup

    loaded = setup.load_encoder

    def load(*arguments: Any, **options: Any) -> Any:
        student = loaded(*arguments, **options)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return student

    monkeypatch.setattr(setup, "load_encoder", load)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run) if "loss" in line]


def same_losses(recipe: Path, folder: Path, *settings: str) -> Heard:
    """Train with and without; what was said with."""
    heard = Heard()
    train(recipe, folder / "eager", *settings)
    dalr.train(recipe, overrides=[ON, *settings], out=folder / "compiled", console=heard)
    eager = losses(folder / "eager")
    assert len(set(eager)) > 2
    np.testing.assert_allclose(losses(folder / "compiled"), eager, atol=1e-4)
    return heard


@pytest.mark.usefixtures("traced")
class TestWhatIsTraced:
    def test_one_graph_gives_the_losses_of_eager_training_at_every_length(
        self, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = look_inside(monkeypatch)
        without_dropout(monkeypatch)
        heard = same_losses(recipe, tmp_path)
        assert len({batch.tokens.ids.shape for batch in inside.batches}) > 2
        assert "compile: 1 graphs, 0 graph breaks" in heard.lines
        report = record(tmp_path / "compiled")["data"]
        assert (report["compile"], report["padding"]) == ("on", "bucketed")
        assert record(tmp_path / "eager")["data"]["compile"] == "off"

    def test_the_product_knows_nothing_of_it(
        self, recipe: Path, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sentence_transformers import SentenceTransformer

        pytest.importorskip("peft")
        inside = look_inside(monkeypatch)
        lora = ("student.lora.rank=4", "training.learning_rate=0.01", "development.every=6")
        result = train(recipe, tmp_path / "run", ON, *lora)
        student = inside.made.task.student
        assert not any("_orig_mod" in name for name in inside.made.task.state_dict())
        assert "forward" not in vars(student.transformers_model), "only while a step runs"
        stored, untrained = (load_file(each / "model.safetensors") for each in (result.model, toys.student))
        assert stored.keys() == {name for name in untrained if ".layer.1." not in name}
        encoder = SentenceTransformer(str(result.model), local_files_only=True)
        np.testing.assert_allclose(encoder.encode(captions(6)), embed(student, captions(6)), atol=2e-6)

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_any_kind_of_encoder_is_one_graph(self, tmp_path: Path, architecture: str) -> None:
        model = save_tiny_encoder(tmp_path / architecture, architecture, layers=1)
        student = load_encoder(EncoderConfig(model=str(model), pooling="mean")).eval()
        forward = CompiledForward(student, "on", max_tokens=16)
        for lengths in ((3, 9, 5), (12, 4), (7, 7, 7, 2)):
            ids = torch.randint(5, 20, (len(lengths), max(lengths)))
            mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
            with forward.in_place():
                compiled = pooled(student, ids, mask)
            torch.testing.assert_close(compiled, pooled(student, ids, mask))
        assert forward.summary() == "1 graphs, 0 graph breaks"

    def test_a_forward_without_backward_is_one_more_graph(self, recipe: Path, tmp_path: Path) -> None:
        heard = Heard()
        settings = [ON, "training.mini_batch_size=2"]
        dalr.train(recipe, overrides=settings, out=tmp_path / "run", console=heard)
        assert "compile: 2 graphs, 0 graph breaks" in heard.lines

    def test_a_stopped_run_goes_on(self, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from dalr.training.progress import Progress

        save, cut, settings = Progress.save, tmp_path / "cut", [ON, "training.save_every=3"]

        def copied(self: Progress, step: int) -> None:
            save(self, step)
            shutil.copytree(self.out, cut, ignore=shutil.ignore_patterns(".lock"))

        with monkeypatch.context() as patched:
            patched.setattr(Progress, "save", copied)
            train(recipe, tmp_path / "whole", *settings)
        dalr.train(recipe, overrides=settings, out=cut, console=Console(quiet=True), resume=True)
        assert [each["step"] for each in record(cut)["resumed_at"]] == [3]
        assert losses(cut) == losses(tmp_path / "whole")
        whole, again = (load_file(each / "model" / "model.safetensors") for each in (tmp_path / "whole", cut))
        assert all(torch.equal(whole[name], again[name]) for name in whole)


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
        assert "/nowhere/g++" in problem.what
        assert "install a C++ compiler (g++; CXX names another), or use off" in problem.what
        assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_rows_of_cuda_graphs_have_one_width(toys: Toys) -> None:
    """The layout and the shapes; that graphs are replayed needs a GPU."""
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
class TestInductor:
    """The compiler that trainings use; some 30 s a graph."""

    def test_the_losses_are_those_of_eager_training(
        self, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_dropout(monkeypatch)
        heard = same_losses(recipe, tmp_path)
        assert "compile: 1 graphs, 0 graph breaks" in heard.lines

    def test_cached_gradients_see_the_dropout_of_the_first_pass(
        self, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = look_inside(monkeypatch)
        train(recipe, tmp_path / "run", ON, "training.mini_batch_size=2", "training.max_steps=2")
        task, tokens = inside.made.task.train(), inside.batches[0].tokens
        torch.manual_seed(1)
        with torch.no_grad():
            first = task.two_passes(tokens)
        torch.manual_seed(1)
        second = task.two_passes(tokens)
        assert not torch.allclose(first[0], first[1]), "dropout is on"
        for one, other in zip(first, second, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
