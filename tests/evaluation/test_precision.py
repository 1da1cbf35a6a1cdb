"""bf16 is offered to evaluation and teachers as to encode: said in every record, refused where it would be slow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import dalr
from dalr.errors import ConfigError
from dalr.evaluation.results import Settings
from dalr.features.store import open_store
from dalr.features.text import cached_text_store, is_cached
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.device import computes_bf16, require_bf16
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder
from dalr.training.precision import resolve_precision
from stores import as_matrix
from tiny import Outcome, Toys, captions

Cli = Callable[..., Outcome]
CPU = torch.device("cpu")
native = pytest.mark.skipif(not computes_bf16(CPU), reason="this processor has no instructions for bf16")
SENTENCES = captions(20)


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    path = tmp_path / "graded.tsv"
    rows = [f"{n % 5}\t{SENTENCES[n]}\t{SENTENCES[-n - 1]}\n" for n in range(10)]
    path.write_text("".join(rows))
    return path


def test_bf16_is_refused_where_it_would_be_slower() -> None:
    with pytest.raises(ConfigError, match="cpu has no instructions for bf16"):
        require_bf16(CPU, "--precision bf16", native=False)
    require_bf16(CPU, "--precision bf16", native=True)
    assert resolve_precision("auto", CPU) == ("bf16" if computes_bf16(CPU) else "fp32")
    assert not computes_bf16(torch.device("meta"))


@native
def test_bf16_moves_vectors_little(tiny_teacher: Path) -> None:
    encoder = load_encoder(EncoderConfig(model=str(tiny_teacher)))
    whole, half = embed(encoder, SENTENCES), embed(encoder, SENTENCES, bf16=True)
    assert half.dtype == np.float32
    difference = np.abs(whole - half).max() / np.abs(whole).max()
    assert 0 < difference < 0.02


@native
def test_an_evaluation_says_its_precision(tiny_teacher: Path, graded: Path, tmp_path: Path, cli: Cli) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        done = cli(
            *("evaluate", tiny_teacher, "--graded-pairs", f"own={graded}", "--precision", precision),
            *("--device", "cpu", "--json", tmp_path / f"{precision}.json"),
        )
        assert done.code == 0, done.err
        assert ("(bf16)" in done.out) == (precision == "bf16")
        found[precision] = json.loads((tmp_path / f"{precision}.json").read_text())
        assert found[precision]["settings"]["precision"] == precision
    a, b = (found[precision]["tasks"]["own"]["spearman"] for precision in ("fp32", "bf16"))
    assert a == pytest.approx(b, abs=20)
    page = cli("report", tmp_path / "fp32.json", tmp_path / "bf16.json", "--out", tmp_path / "page.html")
    assert page.code == 0, page.err
    assert "(bf16)" in (tmp_path / "page.html").read_text()


@native
def test_a_model_in_memory_is_evaluated_in_bf16(tiny_teacher: Path, graded: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_teacher), device="cpu")
    found = dalr.evaluate(
        model, tasks=(), graded_pairs={"own": graded}, precision="bf16", console=Console(quiet=True)
    )
    assert found.settings.precision == "bf16"


def test_results_of_before_were_computed_in_fp32() -> None:
    assert Settings.model_validate({"pooling": "cls"}).precision == "fp32"


@native
def test_a_teacher_in_bf16_has_vectors_of_its_own(fresh_cache: Path, tiny_teacher: Path) -> None:
    encoder, ids = EncoderConfig(model=str(tiny_teacher)), [str(number) for number in range(len(SENTENCES))]
    whole = cached_text_store(encoder=encoder, ids=ids, sentences=SENTENCES)
    assert not is_cached(encoder, ids, SENTENCES, "bf16")
    half = cached_text_store(encoder=encoder, ids=ids, sentences=SENTENCES, precision="bf16")
    assert is_cached(encoder, ids, SENTENCES, "bf16")
    assert (half.source["precision"], "precision" in whole.source) == ("bf16", False)
    assert 0 < np.abs(as_matrix(whole) - as_matrix(half)).max() < 0.05


@native
def test_features_text_takes_bf16(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    arguments = ("features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher, "--device", "cpu")
    done = cli(*arguments, "--precision", "bf16", "--out", tmp_path / "store")
    assert done.code == 0, done.err
    assert open_store(tmp_path / "store").source["precision"] == "bf16"


@native
def test_a_run_learns_from_a_teacher_in_bf16(toys: Toys, tmp_path: Path, fresh_cache: Path) -> None:
    teacher = {"model": str(toys.teacher), "precision": "bf16"}
    recipe = toys.recipe(tmp_path, teachers=[teacher], objective={"infonce": {}, "list_net": {"on_text": True}})
    dalr.train(recipe, out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [each["precision"] for each in record["recipe"]["teachers"]] == ["bf16"]
    kept = [open_store(path) for path in (fresh_cache / "teachers").iterdir()]
    assert [store.source["precision"] for store in kept] == ["bf16", "bf16"]


def test_bf16_of_stored_vectors_is_refused(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: tiny\ndata: {{pairs: {toys.data.pairs}, text: {toys.data.text}}}\n"
        f"student: {{model: {toys.student}, pooling: cls}}\n"
        "teachers: [{features: vectors, precision: bf16}]\nobjective: {infonce: {}, list_net: {}}\n"
    )
    done = cli("check", recipe)
    assert done.code == 2, done.err
    assert "teachers.0.precision" in done.err
    assert "leave it out with features" in done.err
