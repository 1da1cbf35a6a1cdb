"""Tasks of mteb: scored with our vectors, kept by the content of the encoder, refused with what to do.

The package is an extra. Without it the tests of its scores are left out; that of its absence runs always.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from dalr.errors import ConfigError
from dalr.evaluation.mteb import find_mteb_tasks
from dalr.evaluation.request import Request
from dalr.evaluation.results import Evaluation, MtebResult
from dalr.evaluation.run import evaluate
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import ends_in_normalize, load_encoder
from tiny import Outcome, captions, save_tiny_bert, save_tiny_sentence_transformer

NAME = "DalrLocalSTS"
SENTENCES = [*captions(20), "http://127.0.0.1:9/x.jpg", "data:image/png;base64,AAAA"]
GOLD = np.random.default_rng(0).uniform(0, 5, 11).round(2).tolist()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ConfigError, match=r"--mteb: needs the package mteb .*pip install '\.\[mteb\]'"):
        find_mteb_tasks(["STSBenchmark"])
    assert find_mteb_tasks([]) == [], "and is not missed where it is not asked for"


@pytest.fixture
def mteb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, which also knows a task on sentences of ours."""
    package = pytest.importorskip("mteb", exc_type=ImportError)
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS

    class LocalSTS(AbsTaskSTS):  # type: ignore[misc, unused-ignore]
        metadata = package.TaskMetadata(
            name=NAME,
            description="Pairs of made-up captions.",
            dataset={"path": "local/pairs", "revision": "1"},
            type="STS",
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
            bibtex_citation="",
        )

        def load_data(self, *_: Any, **__: Any) -> None:
            pairs = {"sentence1": SENTENCES[:11], "sentence2": SENTENCES[11:], "score": GOLD}
            self.dataset = DatasetDict({"test": Dataset.from_dict(pairs)})
            self.data_loaded = True

    real = package.get_task
    monkeypatch.setattr(package, "get_task", lambda name: LocalSTS() if name == NAME else real(name))
    return package


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every sentence that an encoder was given."""
    from dalr.models import embedding

    seen: list[str] = []

    def watched(encoder: Any, sentences: Any, **options: Any) -> np.ndarray:
        seen.extend(sentences)
        return embed(encoder, sentences, **options)

    monkeypatch.setattr(embedding, "embed", watched)
    return seen


def score(model: Path, **options: Any) -> Evaluation:
    request = Request(tasks=(), mteb=(NAME,), console=Console(quiet=True), **options)
    return evaluate([str(model)], request).models[0]


def result(evaluation: Evaluation) -> MtebResult:
    found = evaluation.tasks[f"mteb:{NAME}"]
    assert isinstance(found, MtebResult)
    return found


@pytest.mark.usefixtures("mteb", "fresh_cache")
class TestScores:
    def test_the_score_is_that_of_our_vectors(self, tiny_teacher: Path, mteb: Any) -> None:
        found = result(score(tiny_teacher))
        vectors = embed(load_encoder(EncoderConfig(model=str(tiny_teacher))), SENTENCES).astype(np.float64)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = (unit[:11] * unit[11:]).sum(axis=1)
        assert found.main_score == pytest.approx(100 * spearmanr(cosines, GOLD).statistic, abs=1e-6)
        assert (found.metric, found.mteb_version) == ("cosine_spearman, test", mteb.__version__)

    def test_vectors_are_of_length_one_where_the_published_model_has_that(
        self, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dalr.evaluation.mteb import MtebEncoder

        given: list[np.ndarray] = []
        real = MtebEncoder.encode

        def watched(self: MtebEncoder, inputs: Any, **options: Any) -> np.ndarray:
            given.append(real(self, inputs, **options))
            return given[-1]

        monkeypatch.setattr(MtebEncoder, "encode", watched)
        plain = save_tiny_sentence_transformer(tmp_path / "plain", normalize=False)
        assert ends_in_normalize(EncoderConfig(model=str(tiny_teacher)))
        assert not ends_in_normalize(EncoderConfig(model=str(plain)))
        for model in (tiny_teacher, plain):
            score(model)
        lengths = [np.linalg.norm(vectors, axis=1) for vectors in given]
        assert np.allclose(np.concatenate(lengths[:2]), 1, atol=1e-5)
        assert not np.allclose(np.concatenate(lengths[2:]), 1, atol=1e-2)

    def test_the_same_model_is_not_encoded_twice_wherever_it_lies(
        self, tiny_teacher: Path, tmp_path: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = score(tiny_teacher)
        assert sorted(encoded) == sorted(SENTENCES)
        encoded.clear()
        elsewhere = Path(shutil.copytree(tiny_teacher, tmp_path / "elsewhere"))
        monkeypatch.setattr("dalr.models.loading.load_encoder", pytest.fail)
        assert result(score(tiny_teacher)) == result(score(elsewhere)) == result(first)
        assert encoded == []

    def test_a_retrained_model_at_the_same_place_gets_a_score_of_its_own(
        self, tmp_path: Path, encoded: list[str]
    ) -> None:
        model = tmp_path / "model"
        before = result(score(save_tiny_sentence_transformer(model, seed=1)))
        shutil.rmtree(model)
        encoded.clear()
        after = result(score(save_tiny_sentence_transformer(model, seed=2)))
        assert sorted(encoded) == sorted(SENTENCES)
        assert after.main_score != before.main_score

    def test_another_pooling_other_data_and_a_damaged_entry_are_scored_anew(
        self, tiny_teacher: Path, encoded: list[str], mteb: Any, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def is_encoded(**options: Any) -> bool:
            encoded.clear()
            score(tiny_teacher, **options)
            return bool(encoded)

        assert is_encoded()
        assert is_encoded(pooling="cls")
        entries = sorted((fresh_cache / "mteb").rglob("*.json"))
        assert len(entries) == 2
        assert not is_encoded()
        for entry in entries:
            entry.write_text(entry.read_text()[:40])
        assert is_encoded()
        assert not is_encoded()
        metadata = type(mteb.get_task(NAME)).metadata
        monkeypatch.setitem(metadata.dataset, "revision", "2")
        local = type(mteb.get_task(NAME))
        monkeypatch.setattr(mteb, "get_task", lambda name: local())
        assert is_encoded()

    def test_nan_is_a_failure_with_the_code_of_numerics(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path
    ) -> None:
        from dalr.models import embedding

        monkeypatch.setattr(
            embedding, "embed", lambda _, sentences, **__: np.full((len(sentences), 4), np.nan, np.float32)
        )
        found = score(save_tiny_sentence_transformer(tmp_path / "model"))
        assert found.tasks == {}
        [failure] = found.failed
        assert (failure.task, failure.exit_code) == (f"mteb:{NAME}", 5)
        assert "not finite" in failure.reason
        assert not list(fresh_cache.rglob("*.json")), "and is not kept"


@pytest.mark.usefixtures("mteb")
def test_a_score_says_over_what_it_is_a_mean() -> None:
    tasks = find_mteb_tasks(["CQADupstackRetrieval", "STS22.v2", NAME])
    assert [task.metric() for task in tasks] == [
        "ndcg_at_10, test, mean of 12 tasks",
        "cosine_spearman, test, mean of 18 subsets",
        "cosine_spearman, test",
    ]


@pytest.mark.usefixtures("mteb", "fresh_cache")
class TestCommand:
    def test_only_mteb_is_scored_where_no_other_tasks_are_named(
        self, tmp_path: Path, cli: Callable[..., Outcome]
    ) -> None:
        plain = save_tiny_bert(tmp_path / "plain")
        written = tmp_path / "scores.json"
        outcome = cli("evaluate", plain, "--pooling", "cls", "--mteb", NAME, "--json", written, "-q")
        assert (outcome.code, outcome.err) == (0, "")
        tasks = json.loads(written.read_text())["tasks"]
        assert set(tasks) == {f"mteb:{NAME}"}
        assert f"{tasks[f'mteb:{NAME}']['main_score']:.2f}" in outcome.out

    def test_unknown_tasks_and_tasks_on_pictures_are_refused_together(
        self, tiny_teacher: Path, cli: Callable[..., Outcome]
    ) -> None:
        outcome = cli("evaluate", tiny_teacher, "--mteb", "STSBenchmrk", "--mteb", "CIFAR10ZeroShot")
        assert outcome.code == 2
        assert "unknown task 'STSBenchmrk' not found. Did you mean: 'STSBenchmark'?" in outcome.err
        assert "CIFAR10ZeroShot is about image; dalr encodes text" in outcome.err

    def test_data_that_is_not_here_is_exit_3_with_what_to_do(
        self, tiny_teacher: Path, cli: Callable[..., Outcome]
    ) -> None:
        outcome = cli("evaluate", tiny_teacher, "--mteb", "STSBenchmark", "--mteb", NAME)
        assert outcome.code == 3
        assert "error: mteb:STSBenchmark: " in outcome.err
        assert "mteb/stsbenchmark-sts" in outcome.err
        assert "Run this once with a connection" in outcome.err
        assert f"mteb:{NAME}" in outcome.out, "the others have their scores"
