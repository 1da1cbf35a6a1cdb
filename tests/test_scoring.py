"""Evaluating what a person names: runs, checkpoints, several models; retrieval with no more than the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dalr
from dalr.data.dataset import read_pairs
from dalr.data.formats.collecting import Columns
from dalr.data.reading import Reading
from dalr.errors import ConfigError, DataError
from dalr.evaluation.request import Request
from dalr.evaluation.results import RUN_RESULT, RetrievalResult, StsResult, read_results
from dalr.evaluation.retrieval import retrieval_score
from dalr.evaluation.run import evaluate
from dalr.features.decoding import read_image
from dalr.features.images import write_image_store
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.heads import ground
from dalr.models.loading import load_encoder
from dalr.models.vision import load_vision_model
from senteval import write_senteval
from tiny import Outcome, Toys
from tiny_images import save_photos, save_tiny_image_model

Cli = Callable[..., Outcome]
HELD_OUT = 6


@pytest.fixture(scope="module")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that held out some images."""
    folder = tmp_path_factory.mktemp("scoring")
    recipe = toys.recipe(folder)
    held_out = [f"data.holdout.last={HELD_OUT}", "validation.every=2"]
    return dalr.train(recipe, overrides=held_out, out=folder / "run", console=Console(quiet=True)).run


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be written to."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """STS-B and SICK-R of a few pairs."""
    return write_senteval(tmp_path / "senteval")


@pytest.fixture(autouse=True)
def made_up_data_is_the_official_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalr.evaluation.loaded.check_task", lambda data, task: [])


def request(**options: object) -> Request:
    return Request(**{"console": Console(quiet=True), **options})  # type: ignore[arg-type]


def retrieval_of(models: list[str], **options: object) -> RetrievalResult:
    result = evaluate(models, request(tasks=["retrieval"], **options)).models[0].tasks["retrieval"]
    assert isinstance(result, RetrievalResult)
    return result


class TestRetrieval:
    def expected(self, run: Path, toys: Toys, count: int) -> tuple[float, float]:
        """Recall at 1 over the last `count` images, step by step."""
        pairs = read_pairs(toys.data.pairs, [], {})
        first = len(pairs.images) - count
        chosen = np.flatnonzero(pairs.image_of >= first)
        h = embed(
            load_encoder(EncoderConfig(model=str(run / "model"))), [pairs.captions[index] for index in chosen]
        )
        images = np.load(toys.data.matrix).astype(np.float16).astype(np.float32)[first:]
        sentences, images = ground(run / "heads.safetensors", sentences=h, images=images)
        found = retrieval_score(sentences, images, pairs.image_of[chosen] - first)
        return found.text_to_image.r1, found.image_to_text.r1

    def test_a_run_is_scored_on_the_images_that_it_held_out(self, fresh: Path, toys: Toys) -> None:
        found = retrieval_of([str(fresh)])
        assert (found.images, found.captions, found.space) == (HELD_OUT, 3 * HELD_OUT, "grounding")
        assert (found.text_to_image.r1, found.image_to_text.r1) == self.expected(fresh, toys, HELD_OUT)

    def test_or_on_other_pairs(self, fresh: Path, toys: Toys) -> None:
        options = {"pairs": toys.data.pairs, "features": toys.data.matrix, "image_ids": toys.data.ids}
        found = retrieval_of([str(fresh)], **options)
        count = len(toys.data.images)
        assert found.images == count
        assert (found.text_to_image.r1, found.image_to_text.r1) == self.expected(fresh, toys, count)

    def test_or_on_one_split_of_other_pairs(self, fresh: Path, toys: Toys, tmp_path: Path) -> None:
        """Splits that name the last images give what was held out."""
        rows = [json.loads(line) for line in toys.data.pairs.read_text().splitlines()]
        for number, row in enumerate(rows):
            row["part"] = "test" if number >= len(rows) - HELD_OUT else "train"
        pairs = tmp_path / "split.jsonl"
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = retrieval_of(
            [str(fresh)],
            pairs=pairs,
            reading=Reading(columns=Columns(split="part"), split="test"),
            features=toys.data.matrix,
            image_ids=toys.data.ids,
        )
        assert found.model_copy(update={"split": "held out"}) == retrieval_of([str(fresh)])
        assert found.split == "split.jsonl, test"

    def test_a_checkpoint_has_heads_of_its_own(self, fresh: Path, toys: Toys) -> None:
        (checkpoint,) = (fresh / "checkpoints").iterdir()
        options = {"pairs": toys.data.pairs, "features": toys.data.matrix, "image_ids": toys.data.ids}
        assert retrieval_of([str(checkpoint)], **options) == retrieval_of([str(fresh)], **options)

    def test_what_is_missing_is_said(self, fresh: Path, toys: Toys) -> None:
        with pytest.raises(ConfigError, match="name the heads of a training run with --heads"):
            retrieval_of([str(fresh / "model")])
        with pytest.raises(ConfigError, match="retrieval needs the image features of --pairs"):
            retrieval_of([str(fresh)], pairs=toys.data.pairs)
        heads = fresh / "heads.safetensors"
        with pytest.raises(ConfigError, match="retrieval needs captions and images; name --pairs and --features"):
            retrieval_of([str(fresh / "model")], heads=heads)

    def test_how_pairs_are_read_is_an_option_of_the_command(self, cli: Callable[..., Outcome], fresh: Path) -> None:
        outcome = cli("evaluate", fresh, "--tasks", "retrieval", "--split", "test")
        assert outcome.code == 2
        assert "--split: says how --pairs is read; name it too" in outcome.err

    def test_a_run_that_held_out_nothing_says_so(self, fresh: Path) -> None:
        record = json.loads((fresh / "run.json").read_text())
        record["recipe"]["data"]["holdout"] = None
        (fresh / "split.jsonl").unlink()
        (fresh / "run.json").write_text(json.dumps(record))
        with pytest.raises(ConfigError, match="the run held out no images"):
            retrieval_of([str(fresh)])

    def test_a_run_without_pictures_says_so(self, fresh: Path) -> None:
        record = json.loads((fresh / "run.json").read_text())
        record["recipe"]["features"]["image"] = None
        (fresh / "run.json").write_text(json.dumps(record))
        with pytest.raises(ConfigError, match="read no image features, so that it has no space to find images in"):
            retrieval_of([str(fresh)])

    @pytest.mark.parametrize("content", ["{", "[]", '{"recipe": {"name": 3}}', "{}"])
    def test_a_record_that_is_none_is_a_data_error(self, fresh: Path, content: str) -> None:
        (fresh / "run.json").write_text(content)
        with pytest.raises(DataError, match=r"run\.json: "):
            retrieval_of([str(fresh)])


class TestKeeping:
    def test_the_scores_of_a_run_come_together_in_its_folder(self, fresh: Path, benchmark: Path) -> None:
        for task in ("STS-B", "SICK-R"):
            evaluate([str(fresh)], request(data=benchmark, tasks=[task]))
        (kept,), _ = read_results(fresh / RUN_RESULT)
        assert list(kept.tasks) == ["STS-B", "SICK-R"]

    def test_a_file_that_cannot_be_read_any_more_is_replaced(self, fresh: Path, benchmark: Path) -> None:
        (fresh / RUN_RESULT).write_text("{")
        evaluate([str(fresh)], request(data=benchmark, tasks=["STS-B"]))
        assert list(read_results(fresh / RUN_RESULT)[0][0].tasks) == ["STS-B"]

    def test_a_wrong_folder_is_no_result(self, fresh: Path, tmp_path: Path) -> None:
        before = sorted(fresh.rglob("*"))
        found = evaluate([str(fresh)], request(data=tmp_path, tasks=["STS-B"]))
        assert [each.task for each in found.models[0].failed] == ["STS-B"]
        assert sorted(fresh.rglob("*")) == before

    def test_a_model_folder_is_left_as_it_is(self, fresh: Path, benchmark: Path) -> None:
        before = sorted(fresh.rglob("*"))
        evaluate([str(fresh / "model")], request(data=benchmark, tasks=["STS-B"]))
        assert sorted(fresh.rglob("*")) == before


class TestSeveral:
    def test_every_two_models_are_compared(self, cli: Cli, fresh: Path, toys: Toys, benchmark: Path) -> None:
        outcome = cli(
            *("evaluate", fresh, fresh / "model", toys.teacher, "--data", benchmark, "--tasks", "STS-B"),
            *("--json", benchmark / "all.json", "-q"),
        )
        assert outcome.code == 0, outcome.err
        models, comparisons = read_results(benchmark / "all.json")
        assert [each.model for each in models] == [str(fresh), str(fresh / "model"), str(toys.teacher)]
        assert [(each.a, each.b) for each in comparisons] == [
            (str(fresh), str(fresh / "model")),
            (str(fresh), str(toys.teacher)),
            (str(fresh / "model"), str(toys.teacher)),
        ]
        assert comparisons[0].difference == 0
        assert comparisons[0].p_value == 1
        assert "Paired bootstrap" in outcome.out

    def test_settings_go_into_the_result(self, toys: Toys, benchmark: Path) -> None:
        found = evaluate([str(toys.teacher)], request(data=benchmark, tasks=["STS-B"], num_layers=1, pooling="cls"))
        settings = found.models[0].settings
        assert (settings.num_layers, settings.pooling) == (1, "cls")
        whole = evaluate([str(toys.teacher)], request(data=benchmark, tasks=["STS-B"]))
        assert whole.models[0].model_sha256 != found.models[0].model_sha256


class TestOptions:
    def test_seen_sentences_are_left_out_beside(self, toys: Toys, benchmark: Path, tmp_path: Path) -> None:
        (tmp_path / "seen.txt").write_text("test dog 2\nsomething else\n")
        found = evaluate(
            [str(toys.teacher)], request(data=benchmark, tasks=["STS-B"], exclude_overlap=tmp_path / "seen.txt")
        ).models[0]
        result = found.tasks["STS-B"]
        assert isinstance(result, StsResult)
        assert result.without_overlap is not None
        assert (result.without_overlap.pairs, result.without_overlap.left_out_exact) == (5, 1)
        assert found.settings.overlap_with == str(tmp_path / "seen.txt")

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            ([], 2, "--data: needed for STS-B"),
            (["--classifier", "svm"], 2, "'svm' is not one of 'senteval', 'senteval-fast', 'lbfgs'"),
            (["--classifier", "lbfgs", "--fast"], 2, "--fast: settings of the senteval classifier, not of lbfgs"),
            (["--map", "umap"], 2, "'umap' is not one of 'pca', 'none'"),
            (["--data", "/nowhere"], 3, "--data: no such folder: /nowhere"),
        ],
    )
    def test_bad_options_are_refused(self, cli: Cli, toys: Toys, options: list[str], code: int, words: str) -> None:
        outcome = cli("evaluate", toys.teacher, "--tasks", "STS-B", *options)
        assert outcome.code == code
        assert words in outcome.err

    def test_a_transfer_task_from_the_command_line(self, cli: Cli, toys: Toys, benchmark: Path) -> None:
        outcome = cli(
            *("evaluate", toys.teacher, "--data", benchmark, "--tasks", "CR", "--fast"),
            *("--json", benchmark / "cr.json"),
        )
        assert outcome.code == 0, outcome.err
        written = json.loads((benchmark / "cr.json").read_text())["tasks"]["CR"]
        assert {"acc", "devacc", "split", "classifier"} <= set(written)
        assert "| CR   | acc, 5-fold cross-validation (senteval-fast)" in outcome.out
        assert "CR: 105/105" in outcome.err

    def test_the_same_from_python(self, toys: Toys, benchmark: Path) -> None:
        found = dalr.evaluate(toys.teacher, data=benchmark, tasks=["STS-B"], console=Console(quiet=True))
        assert list(found.tasks) == ["STS-B"]


class TestMultimodal:
    """A model of the CLIP kind finds images without training, and its text tower is an encoder like others."""

    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        return save_tiny_image_model(tmp_path / "clip", "clip")

    @pytest.fixture
    def pairs(self, tmp_path: Path) -> Path:
        rows = [
            {"image": name, "captions": [f"a red dog {number}", f"a cat near {number}"]}
            for number, name in enumerate(save_photos(tmp_path / "photos", 5))
        ]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "pairs.jsonl"

    def test_pictures_and_captions_meet_in_its_own_space(self, clip: Path, pairs: Path, tmp_path: Path) -> None:
        found = retrieval_of([str(clip)], pairs=pairs, images=tmp_path / "photos")
        assert (found.space, found.images, found.captions) == ("model", 5, 10)
        model = load_vision_model(str(clip), device="cpu")
        listed = read_pairs(pairs, [], {})
        images = model.embed_images([read_image(tmp_path / "photos" / name) for name in listed.images])
        expected = retrieval_score(
            model.embed_texts(listed.captions), images.astype(np.float16).astype(np.float32), listed.image_of
        )
        assert found.text_to_image.model_copy(update={"intervals": {}}) == expected.text_to_image
        assert found.image_to_text.model_copy(update={"intervals": {}}) == expected.image_to_text

    def test_stored_vectors_of_the_same_model_serve_as_well(self, clip: Path, pairs: Path, tmp_path: Path) -> None:
        self.store(clip, pairs, tmp_path)
        found = retrieval_of([str(clip)], pairs=pairs, features=tmp_path / "store")
        assert found == retrieval_of([str(clip)], pairs=pairs, images=tmp_path / "photos")

    def test_vectors_of_another_model_are_refused(self, clip: Path, pairs: Path, tmp_path: Path) -> None:
        self.store(save_tiny_image_model(tmp_path / "other", "clip", seed=1), pairs, tmp_path)
        with pytest.raises(ConfigError, match=r"store: made with '.*other' .*, not with '.*clip'"):
            retrieval_of([str(clip)], pairs=pairs, features=tmp_path / "store")

    def test_without_pictures_it_is_said_what_is_needed(self, clip: Path, pairs: Path) -> None:
        with pytest.raises(ConfigError, match="is multimodal: retrieval needs --pairs, and --images or --features"):
            retrieval_of([str(clip)], pairs=pairs)

    def test_its_text_tower_is_scored_on_other_tasks(self, clip: Path, benchmark: Path) -> None:
        found = evaluate([str(clip)], request(data=benchmark, tasks=["STS-B"])).models[0]
        assert isinstance(found.tasks["STS-B"], StsResult)
        assert found.failed == ()

    def store(self, model: Path, pairs: Path, tmp_path: Path) -> None:
        write_image_store(
            tmp_path / "store",
            ids=read_pairs(pairs, [], {}).images,
            root=tmp_path / "photos",
            model=load_vision_model(str(model), device="cpu"),
            workers=0,
            console=Console(quiet=True),
        )
