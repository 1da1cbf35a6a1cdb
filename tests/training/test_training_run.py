"""A whole run: what it leaves, what of it is the same the second time, what it refuses."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import METHODS, copied, look_inside, metrics, record, same, train
from safetensors.torch import load_file

import dalr
from dalr.errors import ConfigError, DalrError, DataError, ModelFileError, StorageError
from dalr.features.text import write_text_store
from dalr.io.console import Console
from dalr.io.sealed import read_manifest, verify_sealed
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.recipe.loading import load_recipe
from dalr.training.validation import ValidationScore
from tiny import Toys, captions


def digests(folder: Path) -> dict[str, str]:
    """Of all files but the card, which states the recipe and is no part of the model."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "README.md"
    }


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Let the validation score take these values: untrained first, then every 2 steps."""
    values: Iterator[float] = iter(scores)
    monkeypatch.setattr(
        "dalr.training.setup.make_validation_score",
        lambda *_: ValidationScore(name="scripted", score=lambda task: next(values)),
    )


class TestWhatARunLeaves:
    def test_files_and_their_contents(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        result = train(recipe, tmp_path / "run")
        run = tmp_path / "run"
        assert sorted(path.name for path in run.iterdir()) == [
            "checkpoints",
            "heads.safetensors",
            "metrics.jsonl",
            "model",
            "run.json",
        ]
        assert (result.run, result.model, result.steps) == (run, run / "model", 4)
        assert result.validation == "dev.tsv Spearman"
        assert result.best_step in (2, 4)

        written = record(run)
        assert written["status"] == "finished"
        assert written["name"] == "tiny"
        assert written["recipe"] == load_recipe(str(recipe)).model_dump(mode="json")
        assert written["steps"] == 4
        assert written["data"]["captions"] == 72
        assert written["data"]["precision"] == "fp32"
        assert written["data"]["pair_rows"] == 72
        assert written["data"]["text_truncated"] == 0
        assert {"python", "dalr", "torch", "transformers", "sentence-transformers"} <= set(written["versions"])
        assert set(written["machine"]) == {"processor", "cores", "threads"}
        assert written["git_commit"] is None or len(written["git_commit"]) == 40
        assert written["result"]["best_score"] == result.best_score
        assert written["result"]["best_step"] == result.best_step
        assert written["result"]["untrained_score"] == result.untrained_score

        lines = metrics(run)
        scores = {line["step"]: line["validation"]["dev.tsv Spearman"] for line in lines if "validation" in line}
        assert set(scores) == {0, 2, 4}
        assert scores[0] == result.untrained_score
        assert result.best_score == max(scores[2], scores[4]) == scores[result.best_step]
        steps = [line for line in lines if "loss" in line]
        assert [line["step"] for line in steps] == [1, 2, 3, 4]
        assert [line["learning_rate"] for line in steps] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
        assert [set(line["terms"]) for line in steps] == [{"infonce", "grounding"}, {"infonce"}] * 2
        assert steps[-1]["batches"] == {"text": 2, "pair": 2}
        for line in steps:
            weighted = line["terms"]["infonce"] + 0.1 * line["terms"].get("grounding", 0)
            assert line["loss"] == pytest.approx(weighted, rel=1e-6)

    def test_means_over_several_steps_are_over_those_that_had_the_term(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        train(recipe, tmp_path / "each", "training.max_steps=6", "training.schedule.k=3")
        train(recipe, tmp_path / "six", "training.max_steps=6", "training.schedule.k=3", "training.log_every=6")
        each = [line for line in metrics(tmp_path / "each") if "loss" in line]
        [six] = [line for line in metrics(tmp_path / "six") if "loss" in line]
        assert six["steps_with_term"] == {"infonce": 6, "grounding": 2}
        for term in ("infonce", "grounding"):
            values = [line["terms"][term] for line in each if term in line["terms"]]
            assert six["terms"][term] == pytest.approx(np.mean(values), rel=1e-6)
        assert six["loss"] == pytest.approx(np.mean([line["loss"] for line in each]), rel=1e-6)

    def test_how_hard_each_term_pulls_is_measured_once_per_log_line_and_changes_nothing(
        self, toys: Toys, tmp_path: Path
    ) -> None:
        recipe = toys.recipe(tmp_path, validation=None)
        each = train(recipe, tmp_path / "each", "objective.grounding.weight=1e-6")
        last = train(recipe, tmp_path / "last", "objective.grounding.weight=1e-6", "training.log_every=4")
        assert digests(each.model) == digests(last.model)
        lines = [line for line in metrics(tmp_path / "each") if "loss" in line]
        assert [set(line.get("gradient_norms", {})) for line in lines] == [{"infonce", "grounding"}, set()] * 2
        assert next(line for line in metrics(tmp_path / "last") if "gradient_norms" in line)["step"] == 4
        shares = record(tmp_path / "each")["result"]["gradient_shares"]
        assert shares["infonce"] == pytest.approx(1, abs=1e-3)
        assert 0 <= shares["grounding"] < 1e-3

    def test_a_term_that_hardly_pulls_is_named(
        self, toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe = toys.recipe(tmp_path, validation=None)
        dalr.train(recipe, overrides=["objective.grounding.weight=1e-6"], out=tmp_path / "run")
        said = capsys.readouterr().err
        assert (
            "not in effect: grounding 0.0% of the summed gradient norms at the student; give the term more" in said
        )
        dalr.train(recipe, overrides=["objective.grounding.weight=1"], out=tmp_path / "again")
        assert "not in effect" not in capsys.readouterr().err

    def test_the_model_is_the_best_checkpoint_byte_for_byte(self, toys: Toys, tmp_path: Path) -> None:
        result = train(toys.recipe(tmp_path), tmp_path / "run")
        [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
        assert checkpoint.name == f"step-{result.best_step:06d}"
        product = digests(result.model)
        assert product.pop("manifest.json")
        assert digests(checkpoint / "model") == product
        assert (checkpoint / "heads.safetensors").read_bytes() == (result.run / "heads.safetensors").read_bytes()
        manifest = read_manifest(checkpoint, format="dalr-checkpoint", version=1, remedy="")
        verify_sealed(checkpoint, manifest, remedy="")
        assert manifest.metadata == {"step": result.best_step, "score": result.best_score}

    def test_the_exported_model_gives_the_vectors_of_the_trained_student(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sentence_transformers import SentenceTransformer

        inside = look_inside(monkeypatch)
        result = train(toys.recipe(tmp_path, validation=None), tmp_path / "run")
        assert (result.best_step, result.best_score, result.validation) == (4, None, None)
        student = inside.made.task.student
        product = SentenceTransformer(str(result.model), device="cpu")
        sentences = captions(25)
        assert np.abs(product.encode(sentences) - embed(student, sentences)).max() < 1e-6
        weights = product.state_dict()
        assert same(weights, copied(student))
        assert product.max_seq_length == 48, "not the 16 tokens of training"
        assert product[1].pooling_mode == "cls"

    def test_no_head_is_exported_and_heads_have_stable_names(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(
            tmp_path,
            objective={
                "infonce": {},
                "grounding": {"weight": 0.1},
                "consistency": {"weight": 0.1, "classifier_weight": 1.0},
                "cross_modal_alignment": {"weight": 0.1, "learn_temperature": True, "soft_label_mix": 0.3},
            },
            teachers=[{"model": str(toys.teacher)}],
        )
        result = train(recipe, tmp_path / "run")
        heads = load_file(result.run / "heads.safetensors")
        linear = ["0.weight", "0.bias"]
        aligner = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
        assert set(heads) == {
            *(f"sentence.{name}" for name in linear),
            *(f"text_grounding.{name}" for name in linear),
            *(f"image_grounding.{name}" for name in linear),
            *(f"text_aligner.{name}" for name in aligner),
            *(f"image_aligner.{name}" for name in aligner),
            "match_classifier.weight",
            "match_classifier.bias",
            "log_temperatures.cross_modal_alignment",
        }
        assert heads["image_grounding.0.weight"].shape == (8, 16)
        assert heads["sentence.0.weight"].shape == (32, 32)
        original = load_file(toys.student / "model.safetensors")
        exported = load_file(result.model / "model.safetensors")
        assert set(exported) == set(original)
        names = digests(result.model)
        assert not any("heads" in name or name.endswith((".bin", ".pt", ".md")) for name in names)

    def test_without_a_sentence_head_there_is_none(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path, heads={"sentence": False}, features={}, objective={"infonce": {}})
        result = train(recipe, tmp_path / "run")
        assert load_file(result.run / "heads.safetensors") == {}

    @pytest.mark.parametrize("name", METHODS)
    def test_every_shipped_method_trains(self, toys: Toys, tmp_path: Path, name: str) -> None:
        result = train(toys.method(tmp_path, name), tmp_path / "run")
        terms = {term for line in metrics(result.run) if "terms" in line for term in line["terms"]}
        assert terms == {term for term, _ in load_recipe(name).objective.active()}
        assert result.steps == 6
        assert all(np.isfinite(line["loss"]) for line in metrics(result.run) if "loss" in line)

    def test_an_epoch_is_as_long_as_its_batches(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path, training={"batch_size": 16, "epochs": 2, "precision": "fp32"})
        result = train(recipe, tmp_path / "run")
        written = record(result.run)
        assert written["data"]["text_rows_left_over_per_pass"] == 0
        assert written["data"]["pair_rows_left_over_per_pass"] == 72 % 16
        assert result.steps == 2 * (80 // 16 + 72 // 16)
        last = [line for line in metrics(result.run) if "loss" in line][-1]
        assert last["batches"] == {"text": 10, "pair": 8}
        assert last["step"] == 18


class TestChoosing:
    @pytest.mark.parametrize(
        ("scores", "best"),
        [
            ((50.0, 1.0, 3.0, 2.0), 4),
            ((1.0, 3.0, 3.0, 2.0), 2),
            ((1.0, -5.0, -3.0, -4.0), 4),
            ((1.0, 0.0, -3.0, -2.0), 2),
            ((1.0, 0.0, 0.0, 0.0), 2),
            ((1.0, 2.0, 3.0, 4.0), 6),
        ],
    )
    def test_the_best_score_after_training_wins_and_the_earliest_of_equals(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], best: int
    ) -> None:
        scripted(monkeypatch, *scores)
        result = train(toys.recipe(tmp_path), tmp_path / "run", "training.max_steps=6")
        assert result.untrained_score == scores[0]
        assert (result.best_step, result.best_score) == (best, scores[best // 2])
        assert [path.name for path in (result.run / "checkpoints").iterdir()] == [f"step-{best:06d}"]

    def test_a_score_that_is_not_a_number_is_never_the_best(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scripted(monkeypatch, 1.0, float("nan"), 3.0, float("nan"))
        try:
            result = train(toys.recipe(tmp_path), tmp_path / "run", "training.max_steps=6")
        except DalrError:
            return
        assert (result.best_step, result.best_score) == (4, 3.0)

    def test_a_validation_set_whose_scores_are_all_equal_is_refused(self, toys: Toys, tmp_path: Path) -> None:
        """Spearman is undefined on it, so every score would be NaN."""
        (tmp_path / "flat.tsv").write_text("".join(f"5.0\t{a}\t{b}\n" for a, b in zip("abc", "cde", strict=True)))
        recipe = toys.recipe(tmp_path, validation={"kind": "tsv", "data": str(tmp_path / "flat.tsv")})
        with pytest.raises(DalrError):
            train(recipe, tmp_path / "run")

    def test_retrieval_chooses_on_held_out_images(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = look_inside(monkeypatch)
        recipe = toys.recipe(tmp_path, validation={"kind": "retrieval", "every": 2})
        result = train(recipe, tmp_path / "run", "data.holdout.last=4")
        assert result.validation is not None
        assert "R@1" in result.validation
        assert result.best_score is not None
        assert 0 <= result.best_score <= 100
        held_out = set(toys.data.images[-4:])
        pairs = [batch for batch in inside.batches if batch.kind == "pair"]
        trained = {row.partition("#")[0] for batch in pairs for row in batch.row_ids}
        assert trained
        assert not trained & held_out


class TestSameAgain:
    def test_the_same_seed_gives_the_same_weights_and_another_seed_others(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.method(tmp_path, "dalr")
        runs = [
            train(recipe, tmp_path / f"run-{number}", f"seed={seed}").run for number, seed in enumerate((7, 7, 8))
        ]
        weights = [digests(run / "model")["model.safetensors"] for run in runs]
        heads = [load_file(run / "heads.safetensors") for run in runs]
        lines = [(run / "metrics.jsonl").read_text() for run in runs]
        assert weights[0] == weights[1] != weights[2]
        assert same(heads[0], heads[1])
        assert not same(heads[0], heads[2])
        assert lines[0] == lines[1] != lines[2]

    def test_what_ran_before_in_the_process_does_not_matter(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        first = train(recipe, tmp_path / "first")
        torch.manual_seed(99)
        np.random.seed(99)
        torch.rand(7)
        second = train(recipe, tmp_path / "second")
        assert digests(first.model) == digests(second.model)

    def test_the_folder_and_a_full_cache_do_not_matter(
        self, toys: Toys, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = toys.method(tmp_path, "rankcse")
        first = train(recipe, tmp_path / "first")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        second = train(recipe, tmp_path / "second")
        assert digests(first.model) == digests(second.model)

    def test_processes_that_assemble_batches_do_not_matter(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        first = train(recipe, tmp_path / "first")
        second = train(recipe, tmp_path / "second", "training.workers=2")
        assert digests(first.model) == digests(second.model)

    def test_seeds_are_set_before_any_module_is_made(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []

        def noted(place: str, name: str) -> None:
            module = importlib.import_module(place)
            function = getattr(module, name)

            def call(*arguments: Any, **options: Any) -> Any:
                order.append(name)
                return function(*arguments, **options)

            monkeypatch.setattr(module, name, call)

        noted("dalr.training.trainer", "seed_everything")
        noted("dalr.training.setup", "load_encoder")
        noted("dalr.training.setup", "Heads")
        train(toys.recipe(tmp_path), tmp_path / "run", "training.max_steps=1")
        assert order[:3] == ["seed_everything", "load_encoder", "Heads"]

    @pytest.mark.slow
    def test_fresh_processes_give_the_same_bits(self, toys: Toys, tmp_path: Path) -> None:
        """R6: other hash seeds, other folders, with and without processes that assemble batches."""
        recipe = toys.method(tmp_path, "dalr")
        found = set()
        for number, (hash_seed, workers) in enumerate([("1", 0), ("2", 2)]):
            folder = tmp_path / f"cwd-{number}"
            folder.mkdir()
            setting = f"training.workers={workers}"
            subprocess.run(
                [sys.executable, "-m", "dalr", "train", str(recipe), "--out", "run", "-q", "-s", setting],
                cwd=folder,
                env=os.environ | {"PYTHONHASHSEED": hash_seed},
                timeout=600,
                check=True,
            )
            found.add((*digests(folder / "run" / "model").items(), (folder / "run" / "metrics.jsonl").read_text()))
        assert len(found) == 1

    def test_stored_vectors_of_a_teacher_are_as_good_as_the_teacher(self, toys: Toys, tmp_path: Path) -> None:
        ids = [f"{image}#{k}" for image in toys.data.images for k in range(3)]
        sentences = [caption for several in toys.data.captions for caption in several]
        ids += [str(number) for number in range(1, 81)]
        sentences += toys.data.lines
        encoder = EncoderConfig(model=str(toys.teacher))
        write_text_store(tmp_path / "vectors", encoder=encoder, ids=ids, sentences=sentences)
        objective = {"infonce": {}, "list_mle": {"on_text": True}}
        weights = []
        for number, teacher in enumerate([{"model": str(toys.teacher)}, {"features": str(tmp_path / "vectors")}]):
            recipe = toys.recipe(tmp_path, objective=objective, teachers=[teacher], features={})
            weights.append(digests(train(recipe, tmp_path / f"run-{number}").model))
        assert weights[0] == weights[1]


class TestRefusals:
    def test_a_folder_that_holds_something_is_refused_and_left_alone(self, toys: Toys, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("years of work")
        with pytest.raises(StorageError, match="already exists and is not empty") as caught:
            train(toys.recipe(tmp_path), tmp_path / "run")
        assert caught.value.exit_code == 6
        assert digests(tmp_path / "run").keys() == {"thesis.tex"}

    def test_a_finished_run_is_not_overwritten(self, toys: Toys, tmp_path: Path) -> None:
        recipe = toys.recipe(tmp_path)
        train(recipe, tmp_path / "run")
        before = digests(tmp_path / "run")
        with pytest.raises(StorageError):
            train(recipe, tmp_path / "run")
        assert digests(tmp_path / "run") == before

    @pytest.mark.parametrize("place", ["file", "file/run"])
    def test_a_file_in_the_way_is_a_storage_error(self, toys: Toys, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StorageError):
            train(toys.recipe(tmp_path), tmp_path / place)

    def test_an_empty_folder_is_taken(self, toys: Toys, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        train(toys.recipe(tmp_path), tmp_path / "run", "training.max_steps=1")

    def test_bad_data_makes_no_run_folder(self, toys: Toys, tmp_path: Path) -> None:
        (tmp_path / "bad.txt").write_bytes(b"fine\ncaf\xe9\n")
        recipe = toys.recipe(tmp_path)
        with pytest.raises(DataError, match=r"bad\.txt:2: byte 4"):
            train(recipe, tmp_path / "run", f"data.text={tmp_path / 'bad.txt'}")
        assert not (tmp_path / "run").exists()

    def test_problems_of_all_inputs_come_at_once(self, toys: Toys, tmp_path: Path) -> None:
        (tmp_path / "bad.txt").write_bytes(b"fine\ncaf\xe9\n")
        (tmp_path / "bad.tsv").write_text("high\ta\tb\n")
        features = toys.data.features.copy()
        features[2, 3] = np.nan
        np.save(tmp_path / "bad.npy", features)
        recipe = toys.recipe(
            tmp_path,
            features={"image": str(tmp_path / "bad.npy"), "image_ids": str(toys.data.ids)},
            teachers=[{"features": str(tmp_path / "no-store")}],
        )
        with pytest.raises(DataError) as caught:
            train(
                recipe,
                tmp_path / "run",
                f"data.text={tmp_path / 'bad.txt'}",
                f"validation.data={tmp_path / 'bad.tsv'}",
            )
        text = str(caught.value)
        assert "bad.txt:2: byte 4 is 0xe9" in text
        assert "bad.npy: row 3: value 4 is nan" in text
        assert "no-store" in text
        assert "bad.tsv:1: expected a score, found 'high'" in text

    def test_images_without_features_are_named_by_id(self, toys: Toys, tmp_path: Path) -> None:
        names = [*toys.data.images[:-2], "other-1.jpg", "other-2.jpg"]
        (tmp_path / "ids.txt").write_text("".join(f"{name}\n" for name in names))
        features = {"image": str(toys.data.matrix), "image_ids": str(tmp_path / "ids.txt")}
        with pytest.raises(DataError) as caught:
            train(toys.recipe(tmp_path, features=features), tmp_path / "run")
        assert [str(problem).partition(":")[0] for problem in caught.value.problems] == [
            "image '022.jpg'",
            "image '023.jpg'",
        ]

    def test_images_held_out_need_no_features_unless_they_are_scored(self, toys: Toys, tmp_path: Path) -> None:
        np.save(tmp_path / "fewer.npy", toys.data.features[:-4])
        (tmp_path / "ids.txt").write_text("".join(f"{name}\n" for name in toys.data.images[:-4]))
        features = {"image": str(tmp_path / "fewer.npy"), "image_ids": str(tmp_path / "ids.txt")}
        recipe = toys.recipe(tmp_path, features=features)
        train(recipe, tmp_path / "run", "data.holdout.last=4", "training.max_steps=1")
        with pytest.raises(DataError, match=r"held-out image '020\.jpg'"):
            train(
                recipe,
                tmp_path / "other",
                "data.holdout.last=4",
                "validation.kind=retrieval",
                "validation.data=null",
            )

    def test_stored_teacher_vectors_that_lack_a_caption_are_named(self, toys: Toys, tmp_path: Path) -> None:
        write_text_store(
            tmp_path / "vectors",
            encoder=EncoderConfig(model=str(toys.teacher)),
            ids=[f"{image}#{k}" for image in toys.data.images for k in range(2)],
            sentences=captions(48),
        )
        recipe = toys.recipe(
            tmp_path,
            objective={"infonce": {}, "list_mle": {}},
            teachers=[{"features": str(tmp_path / "vectors")}],
            features={},
        )
        with pytest.raises(DataError, match=r"caption '000\.jpg#2'"):
            train(recipe, tmp_path / "run")

    def test_a_batch_that_cannot_be_filled_is_a_data_error_with_the_numbers(
        self, toys: Toys, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError) as caught:
            train(toys.recipe(tmp_path), tmp_path / "run", "training.batch_size=25")
        what = "pair stream: 72 rows give no full batch of 25 without a repeated sentence or image"
        assert what in str(caught.value)

    def test_every_k_that_would_never_read_text_is_refused(self, toys: Toys, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="text would never be read"):
            train(toys.recipe(tmp_path), tmp_path / "run", "training.schedule.k=null")

    def test_a_missing_student_is_a_model_file_error(self, toys: Toys, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="no such folder"):
            train(toys.recipe(tmp_path), tmp_path / "run", "student.model=/nowhere/bert")

    def test_teachers_whose_token_states_do_not_fit_together_are_refused(self, toys: Toys, tmp_path: Path) -> None:
        """`mix: states` adds the states of two teachers token by token, which needs one tokenizer."""
        from tokenizers import Tokenizer
        from transformers import BertTokenizerFast

        recipe = toys.method(tmp_path, "dalr-release")
        folder = tmp_path / "second-teacher"
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        letters = {piece: n for n, piece in enumerate(p for p in vocabulary if len(p.lstrip("#")) == 1 or "[" in p)}
        BertTokenizerFast(vocab=letters, model_max_length=48).save_pretrained(folder)
        with pytest.raises(DalrError):
            train(recipe, tmp_path / "run", "training.schedule.kind=spread", "data.text=null")


class TestInterface:
    def test_a_loaded_recipe_is_trained(self, toys: Toys, tmp_path: Path) -> None:
        recipe = dalr.load_recipe(str(toys.recipe(tmp_path)), ["training.max_steps=1"])
        result = dalr.train(recipe, out=tmp_path / "run", console=Console(quiet=True))
        assert isinstance(result, dalr.TrainResult)
        assert result.steps == 1
        with pytest.raises(ConfigError, match="already loaded cannot be changed"):
            dalr.train(recipe, overrides=["seed=1"], out=tmp_path / "other")

    def test_without_a_folder_one_is_made_under_runs(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        recipe = toys.recipe(tmp_path)
        result = dalr.train(recipe, overrides=["training.max_steps=1"], console=Console(quiet=True))
        [folder] = (tmp_path / "runs").iterdir()
        assert folder.name.startswith("tiny-20")
        assert result.model == Path("runs") / folder.name / "model"

    def test_progress_goes_to_standard_error_and_says_what_happens(
        self, toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        dalr.train(toys.recipe(tmp_path), out=tmp_path / "run", console=Console(verbose=True))
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "train tiny: 4/4" in captured.err
        assert "captions: 72" in captured.err

    def test_quiet_is_quiet(self, toys: Toys, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        train(toys.recipe(tmp_path), tmp_path / "run")
        captured = capfd.readouterr()
        assert captured.out == ""
        assert captured.err == ""


def test_run_json_of_a_run_that_was_interrupted_says_so(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(batch: Any) -> None:
        if batch.step == 1:
            raise KeyboardInterrupt

    look_inside(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        train(toys.recipe(tmp_path), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] != "finished"
    assert not (tmp_path / "run" / "model").exists()
