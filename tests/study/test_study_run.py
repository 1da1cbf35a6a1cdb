"""The phases of a study, with a trainer that takes no time: what is trained, chosen, scored, kept and refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pretend import Bench, make_bench, not_finite, score

from dalr.data.config import DataConfig
from dalr.data.dataset import Dataset, load_dataset
from dalr.errors import ConfigError, CorruptFileError, DataError, NumericsError, StorageError
from dalr.evaluation.results import Evaluation
from dalr.io.console import Console
from dalr.io.lock import locked
from dalr.study import load_study, make_plan, run_study
from dalr.study.config import EvaluateConfig
from dalr.study.scores import Scorer
from tiny import Toys


@pytest.fixture
def bench(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(toys, tmp_path, monkeypatch)


def with_evaluation(bench: Bench) -> Bench:
    (bench.folder / "senteval").mkdir()
    bench.tree["evaluate"] = {"data": str(bench.folder / "senteval")}
    return bench


def with_teacher(bench: Bench) -> Bench:
    bench.tree["prepare"] = {"teacher": {"recipe": "recipe.yaml", "overrides": {"seed": 5}}}
    bench.tree["methods"]["grounded"]["overrides"] = {
        "teachers": [{"model": "${prepared:teacher}", "pooling": "mean"}],
        "objective.list_net": {},
    }
    return bench


def read_records(bench: Bench) -> dict[str, dict[str, Any]]:
    lines = (bench.out / "results/toy.jsonl").read_text().splitlines()
    return {line["run"]: line for line in map(json.loads, lines)}


def failing(*arguments: object) -> Evaluation:
    raise NumericsError("vectors are not finite")


EVERYTHING = [
    *("plain/trial-00", "plain/trial-01", "grounded/trial-00", "grounded/trial-01"),
    *("plain/seed-1", "grounded/seed-1"),
]


class TestPhases:
    def test_trials_come_first_and_the_chosen_one_is_the_run_of_its_seed(self, bench: Bench) -> None:
        result = bench.run()
        assert bench.trainer.trained == EVERYTHING
        plain = result.methods["plain"]
        assert [trial.chosen for trial in plain.trials] == [False, True]
        assert plain.setting == {"training.learning_rate": 1e-3}
        assert [(each.seed, each.run) for each in plain.seeds] == [
            (0, "runs/plain/trial-01"),
            (1, "runs/plain/seed-1"),
        ]
        assert [each.scores["dev"] for each in plain.seeds] == [80.0, 80.5]

    def test_the_chosen_setting_reaches_the_final_runs(self, bench: Bench) -> None:
        bench.run()
        record = json.loads((bench.out / "runs/grounded/seed-1/run.json").read_text())
        assert record["recipe"]["training"]["learning_rate"] == 1e-3
        assert record["recipe"]["training"]["max_steps"] == 2
        assert record["recipe"]["seed"] == 1
        assert record["recipe"]["name"] == "toy-grounded-seed-1"
        plain = json.loads((bench.out / "runs/plain/seed-1/run.json").read_text())
        assert plain["recipe"]["objective"]["grounding"] is None

    def test_only_final_runs_are_scored(self, bench: Bench) -> None:
        with_evaluation(bench).run()
        assert bench.examined == [
            *("runs/plain/trial-01", "runs/plain/seed-1", "runs/grounded/trial-01", "runs/grounded/seed-1")
        ]
        assert not (bench.out / "runs/plain/trial-00/evaluation.json").exists()

    def test_a_method_without_search_is_trained_as_it_stands(self, bench: Bench) -> None:
        for method in bench.tree["methods"].values():
            del method["search"]
        result = bench.run()
        assert bench.trainer.trained == ["plain/seed-0", "plain/seed-1", "grounded/seed-0", "grounded/seed-1"]
        assert result.methods["plain"].trials == ()

    def test_a_tuning_seed_of_its_own_gives_a_run_for_every_seed(self, bench: Bench) -> None:
        bench.tree["tune_seed"] = 7
        result = bench.run()
        assert bench.trainer.trained.count("plain/seed-0") == bench.trainer.trained.count("plain/seed-1") == 1
        assert result.methods["plain"].trials[0].validation == score(
            make_plan(load_study(bench.write()), bench.out).trials["plain"][0].recipe
        )

    def test_the_command_line_changes_every_run(self, bench: Bench) -> None:
        bench.run("training.batch_size=4")
        sizes = {
            json.loads(path.read_text())["recipe"]["training"]["batch_size"]
            for path in bench.out.glob("runs/*/*/run.json")
        }
        assert sizes == {4}

    def test_prepared_runs_come_first_and_their_models_are_what_others_name(self, bench: Bench) -> None:
        with_teacher(bench).run()
        assert bench.trainer.trained[0] == "prepared/teacher"
        record = json.loads((bench.out / "runs/grounded/seed-1/run.json").read_text())
        assert record["recipe"]["teachers"][0]["model"] == str(bench.out / "prepared/teacher/model")
        bench.trainer.trained.clear()
        bench.run()
        assert bench.trainer.trained == []

    def test_runs_hang_on_the_prepared_run_that_they_read(self, bench: Bench) -> None:
        self.test_prepared_runs_come_first_and_their_models_are_what_others_name(bench)
        bench.tree["prepare"]["teacher"]["overrides"]["seed"] = 6
        bench.run(replace=True)
        assert sorted(bench.trainer.trained) == sorted(
            ["prepared/teacher", "grounded/trial-00", "grounded/trial-01", "grounded/seed-1"]
        )


class TestGoingOn:
    def test_what_is_finished_is_used_again(self, bench: Bench) -> None:
        first = with_evaluation(bench).run()
        bench.trainer.trained.clear()
        bench.examined.clear()
        assert bench.run() == first
        assert bench.trainer.trained == []
        assert bench.examined == []

    def test_the_same_runs_give_the_same_bytes(
        self, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = make_bench(toys, tmp_path, monkeypatch, pages=True)
        with_evaluation(bench).run()
        names = ["study.json", "study.md", "study.tex", "study.html", "results/toy.jsonl"]
        before = [(bench.out / name).read_bytes() for name in names]
        for name in names:
            (bench.out / name).unlink()
        bench.run()
        assert [(bench.out / name).read_bytes() for name in names] == before

    @pytest.mark.parametrize("killed_at", range(1, 7))
    def test_a_study_that_was_killed_ends_like_one_that_was_not(self, bench: Bench, killed_at: int) -> None:
        bench.trainer.killed_at = killed_at
        with pytest.raises(KeyboardInterrupt):
            bench.run()
        bench.trainer.killed_at = None
        bench.run()
        assert [name for number, name in enumerate(bench.trainer.trained, 1) if number != killed_at] == EVERYTHING
        assert not list(bench.out.glob("runs/*/*.unfinished-1")), "the trainer goes on where it was"

    def test_a_study_that_is_stopped_says_how_far_it_came(
        self, bench: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bench.trainer.killed_at = 3
        with pytest.raises(KeyboardInterrupt):
            run_study(load_study(bench.write()), out=bench.out, console=Console())
        assert "stopped with 2 of at most 6 runs; the same command goes on" in capsys.readouterr().err

    def test_more_seeds_and_methods_train_only_what_is_new(self, bench: Bench) -> None:
        bench.run()
        bench.trainer.trained.clear()
        bench.tree["seeds"] = [0, 1, 2]
        bench.tree["methods"]["third"] = bench.tree["methods"]["plain"]
        bench.run()
        assert bench.trainer.trained == [
            *("third/trial-00", "third/trial-01", "plain/seed-2", "grounded/seed-2", "third/seed-1", "third/seed-2")
        ]

    def test_a_folder_of_another_run_is_refused_with_the_difference(self, bench: Bench) -> None:
        bench.run()
        bench.trainer.trained.clear()
        bench.tree["overrides"]["training.max_steps"] = 3
        with pytest.raises(ConfigError) as caught:
            bench.run()
        assert len(caught.value.problems) == 4, "all trials at once, before anything is trained"
        assert "training.max_steps: was 2, now 3" in str(caught.value)
        assert bench.trainer.trained == []

    def test_changed_data_is_another_run(self, bench: Bench, toys: Toys) -> None:
        text = bench.folder / "text.txt"
        text.write_text(toys.data.text.read_text())
        bench.tree["overrides"]["data.text"] = str(text)
        bench.run()
        text.write_text("another line\n" + text.read_text())
        with pytest.raises(ConfigError, match=r"content of data\.text: was"):
            bench.run()

    def test_set_aside_renames_what_differs(self, bench: Bench) -> None:
        bench.run()
        bench.trainer.trained.clear()
        bench.tree["overrides"]["training.max_steps"] = 3
        bench.run(replace=True)
        assert bench.trainer.trained == EVERYTHING
        assert (bench.out / "runs/plain/seed-1.other-1/run.json").is_file()
        assert (bench.out / "runs/plain/seed-1.other-1.fingerprint.json").is_file()

    def test_a_name_in_a_recipe_makes_no_other_run(self, bench: Bench) -> None:
        bench.run()
        bench.trainer.trained.clear()
        bench.tree["name"] = "renamed"
        bench.run()
        assert bench.trainer.trained == []

    def test_a_run_that_the_trainer_can_go_on_with_is_handed_to_it(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.trainer.killed_at = 2
        with pytest.raises(KeyboardInterrupt):
            bench.run()
        bench.trainer.killed_at = None
        resumed = []

        def train(recipe: object, *, out: Path, console: object, resume: bool = False) -> None:
            if resume:
                resumed.append(out.name)
                (out / "run.json").unlink()
            bench.trainer(recipe, out=out, console=console)  # type: ignore[arg-type]

        monkeypatch.setattr("dalr.study.training.train", train)
        bench.run()
        assert resumed == ["trial-01"]

    def test_what_was_begun_otherwise_begins_anew(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """As after another --out: paths of prepared models are part of what a training goes on as."""
        bench.trainer.killed_at = 2
        with pytest.raises(KeyboardInterrupt):
            bench.run()
        bench.trainer.killed_at = None

        def train(recipe: object, *, out: Path, console: object, resume: bool = False) -> None:
            if resume:
                raise ConfigError("the run was begun otherwise")
            bench.trainer(recipe, out=out, console=console)  # type: ignore[arg-type]

        monkeypatch.setattr("dalr.study.training.train", train)
        result = bench.run()
        assert result.failures == ()
        assert result.methods["plain"].setting == {"training.learning_rate": 1e-3}
        assert (bench.out / "runs/plain/trial-01.unfinished-1/run.json").is_file()

    def test_a_model_that_was_deleted_is_made_again(self, bench: Bench) -> None:
        bench.run()
        bench.trainer.trained.clear()
        shutil.rmtree(bench.out / "results")
        shutil.rmtree(bench.out / "runs/plain/seed-1/model")
        assert bench.run().failures == ()
        assert bench.trainer.trained == ["plain/seed-1"]
        assert (bench.out / "runs/plain/seed-1/model").is_dir()

    def test_final_runs_of_others_are_refused_before_any_is_trained(self, bench: Bench) -> None:
        for method in bench.tree["methods"].values():
            method["search"] = {"kind": "grid", "space": {"training.learning_rate": [1e-2, 3e-3]}}
        bench.run()
        bench.trainer.trained.clear()
        for method in bench.tree["methods"].values():
            method["search"]["space"]["training.learning_rate"].append(1e-3)
        with pytest.raises(ConfigError) as caught:
            bench.run()
        assert len(caught.value.problems) == 2
        assert bench.trainer.trained == ["plain/trial-02", "grounded/trial-02"]

    def test_without_trials_final_runs_of_others_are_refused_at_once(self, bench: Bench) -> None:
        for method in bench.tree["methods"].values():
            del method["search"]
        bench.run()
        bench.trainer.trained.clear()
        bench.tree["seeds"] = [0, 1, 2]
        bench.tree["methods"]["grounded"]["overrides"] = {"training.weight_decay": 0.1}
        with pytest.raises(ConfigError, match="holds another run"):
            bench.run()
        assert bench.trainer.trained == []


class TestRecords:
    """A study whose weights are gone: what `results/` says of its runs is enough to build on."""

    @pytest.fixture
    def records(self, bench: Bench) -> Bench:
        with_evaluation(bench).run()
        shutil.rmtree(bench.out / "runs")
        bench.trainer.trained.clear()
        bench.examined.clear()
        return bench

    def test_nothing_is_trained_or_scored_again(self, records: Bench) -> None:
        before = json.loads((records.out / "study.json").read_text())
        records.run()
        assert records.trainer.trained == records.examined == []
        after = json.loads((records.out / "study.json").read_text())
        for difference in before["differences"]:
            difference["items"] = None  # cosines of the pairs went with the runs
        assert after == before
        assert not (records.out / "runs").exists()

    def test_a_copy_of_them_is_a_study_that_can_grow(self, records: Bench) -> None:
        records.tree["seeds"] = [0, 1, 2]
        records.tree["methods"]["third"] = {"like": "grounded", "overrides": {"training.max_steps": 3}}
        result = records.run()
        assert records.trainer.trained == [
            "plain/seed-2",
            "grounded/seed-2",
            *(f"third/seed-{n}" for n in range(3)),
        ]
        assert all(len(method.seeds) == 3 for method in result.methods.values())
        assert all("STS avg" in each.scores for method in result.methods.values() for each in method.seeds)

    def test_scores_that_a_record_lacks_are_made_with_the_run_itself(self, records: Bench) -> None:
        lines = read_records(records)
        for run in lines:
            if run.startswith("runs/plain/"):
                lines[run]["evaluation"] = None
        (records.out / "results/toy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines.values()))
        records.run()
        assert records.trainer.trained == ["plain/trial-01", "plain/seed-1"], "the trial not chosen is not needed"
        assert records.examined == ["runs/plain/trial-01", "runs/plain/seed-1"]

    def test_the_record_of_another_run_is_none(self, records: Bench) -> None:
        records.tree["methods"]["plain"]["overrides"]["training.weight_decay"] = 0.1
        records.run()
        assert records.trainer.trained == ["plain/trial-00", "plain/trial-01", "plain/seed-1"]

    def test_a_prepared_run_is_made_again_for_a_training_that_reads_it(self, bench: Bench) -> None:
        with_teacher(bench).run()
        for name in ("runs", "prepared"):
            shutil.rmtree(bench.out / name)
        bench.trainer.trained.clear()
        bench.run()
        assert bench.trainer.trained == []
        bench.tree["seeds"] = [0, 1, 2]
        bench.run()
        assert bench.trainer.trained == ["plain/seed-2", "prepared/teacher", "grounded/seed-2"]

    def test_scores_of_another_run_go(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        with_evaluation(bench).run()
        bench.tree["overrides"]["training.weight_decay"] = 0.1
        with monkeypatch.context() as patch:
            patch.setattr("dalr.study.scores.evaluate_one", failing)
            bench.run(replace=True)
        assert all(line["evaluation"] is None for line in read_records(bench).values())
        shutil.rmtree(bench.out / "runs")
        bench.examined.clear()
        bench.run()
        assert len(bench.examined) == 4

    def test_a_run_that_was_interrupted_leaves_its_record(self, records: Bench) -> None:
        records.tree["evaluate"]["tasks"] = ["sts", "sts-b-dev"]
        records.trainer.killed_at = 1
        with pytest.raises(KeyboardInterrupt):
            records.run()
        records.tree["evaluate"]["tasks"] = ["sts"]
        records.trainer.killed_at = None
        records.trainer.trained.clear()
        for _ in range(2):
            records.run()
            assert records.trainer.trained == []
            shutil.rmtree(records.out / "runs", ignore_errors=True)

    def test_scores_for_another_purpose_are_not_recorded(self, bench: Bench) -> None:
        with_evaluation(bench).run()
        shutil.rmtree(bench.out / "results")
        file = bench.out / "runs/plain/seed-1/evaluation.json"
        file.write_text(
            file.read_text().replace('"overlap_with": null', '"overlap_with": "/elsewhere/captions.txt"')
        )
        del bench.tree["evaluate"]
        bench.run()
        lines = read_records(bench)
        assert lines["runs/plain/seed-1"]["evaluation"] is None
        assert lines["runs/plain/trial-01"]["evaluation"] is not None

    def test_they_name_no_folder_of_the_machine(self, bench: Bench) -> None:
        with_evaluation(with_teacher(bench)).run()
        moved = bench.out.rename(bench.folder / "moved")
        trained = list(bench.trainer.trained)
        run_study(load_study(bench.write()), out=moved, console=Console(quiet=True))
        assert bench.trainer.trained == trained, "another folder makes no other run"
        text = (moved / "results/toy.jsonl").read_text()
        [record] = [line for line in map(json.loads, text.splitlines()) if line["run"] == "runs/grounded/seed-1"]
        assert record["recipe"]["teachers"][0]["model"] == "${prepared:teacher}"
        assert record["recipe"]["name"] == "toy-grounded-seed-1"
        assert str(bench.out) not in text
        assert str(moved) not in text

    def test_a_record_is_written_after_each_run(self, bench: Bench) -> None:
        bench.trainer.killed_at = 3
        with pytest.raises(KeyboardInterrupt):
            bench.run()
        assert list(read_records(bench)) == ["runs/plain/trial-00", "runs/plain/trial-01"]
        bench.trainer.killed_at = None
        shutil.rmtree(bench.out / "runs")
        bench.trainer.trained.clear()
        bench.run()
        assert bench.trainer.trained == EVERYTHING[2:]

    def test_a_record_holds_its_recipe_once_and_its_curve(self, bench: Bench) -> None:
        with_evaluation(bench).run()
        line = read_records(bench)["runs/plain/seed-1"]
        assert line["recipe"]["training"]["learning_rate"] == 1e-3
        assert "recipe" not in line["record"]
        assert line["record"]["status"] == "finished"
        assert line["metrics"] == [{"step": 1}]
        assert line["evaluation"]["details"]["sts"] == {}

    def test_the_files_of_other_studies_are_read_and_left(self, records: Bench) -> None:
        other = records.out / "results/other.jsonl"
        (records.out / "results/toy.jsonl").rename(other)
        before = other.read_bytes()
        records.tree["seeds"] = [0, 1, 2]
        records.run()
        assert records.trainer.trained == ["plain/seed-2", "grounded/seed-2"]
        assert other.read_bytes() == before
        assert set(read_records(records)) == {"runs/plain/seed-2", "runs/grounded/seed-2"}

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda text: text[: len(text) // 2], "JSON"),
            (lambda text: text.replace('"key"', '"kee"', 1), "key"),
            (lambda text: text.replace('"version":1', '"version":2', 1), "version"),
            (lambda text: text + "\n", "JSON"),
        ],
    )
    def test_a_damaged_file_is_named_and_left(
        self, records: Bench, damage: Callable[[str], str], words: str
    ) -> None:
        file = records.out / "results/toy.jsonl"
        file.write_text(damaged := damage(file.read_text()))
        with pytest.raises(DataError, match=rf"toy\.jsonl:\d+.*{words}"):
            records.run()
        assert file.read_text() == damaged
        assert records.trainer.trained == []


class TestDescriptions:
    """A run's record says what the run is, not what the recipe says that its method starts from."""

    def described(self, bench: Bench) -> dict[str, str]:
        bench.run()
        return {run: line["recipe"]["description"] for run, line in read_records(bench).items()}

    def test_what_is_taken_as_it_is_keeps_the_recipes(self, bench: Bench) -> None:
        recipe = bench.folder / "recipe.yaml"
        recipe.write_text(recipe.read_text() + "\ndescription: a toy\n")
        assert self.described(bench)["runs/grounded/seed-1"] == "a toy"

    def test_a_changed_recipe_is_no_longer_what_it_says(self, bench: Bench) -> None:
        assert self.described(bench)["runs/plain/trial-00"] == "plain: recipe.yaml, with objective.grounding"

    def test_a_methods_own_words_come_first(self, bench: Bench) -> None:
        bench.tree["methods"]["plain"]["description"] = "SimCSE"
        bench.tree["methods"]["control"] = {"like": "plain", "overrides": {"training.weight_decay": 0.1}}
        found = self.described(bench)
        assert found["runs/plain/seed-1"] == "SimCSE"
        assert found["runs/control/seed-1"] == "control: like plain, with training.weight_decay"

    def test_words_make_no_other_run(self, bench: Bench) -> None:
        bench.run()
        bench.trainer.trained.clear()
        bench.tree["methods"]["plain"]["description"] = "SimCSE"
        bench.run()
        assert bench.trainer.trained == []


class TestLike:
    """A method that has another's recipe and chosen setting: controls and ablations."""

    @pytest.fixture
    def controlled(self, bench: Bench) -> Bench:
        bench.tree["methods"]["control"] = {"like": "grounded", "overrides": {"data.pairing_control": "broken"}}
        return bench

    def test_it_is_trained_under_every_seed_with_the_setting_chosen_there(self, controlled: Bench) -> None:
        result = controlled.run()
        assert controlled.trainer.trained == [*EVERYTHING, "control/seed-0", "control/seed-1"]
        record = json.loads((controlled.out / "runs/control/seed-1/run.json").read_text())
        assert record["recipe"]["training"]["learning_rate"] == 1e-3
        assert record["recipe"]["data"]["pairing_control"] == "broken"
        control = result.methods["control"]
        assert control.like == "grounded"
        assert control.setting == result.methods["grounded"].setting
        assert control.trials == ()
        assert "Setting taken from another row: control from grounded." in (controlled.out / "study.md").read_text()

    def test_it_is_compared_with_what_it_is_like(self, controlled: Bench) -> None:
        pairs = dict.fromkeys((each.a, each.b) for each in controlled.run().differences)
        assert list(pairs) == [("grounded", "plain"), ("control", "plain"), ("grounded", "control")]
        controlled.tree["baseline"] = "grounded"
        pairs = dict.fromkeys((each.a, each.b) for each in controlled.run().differences)
        assert list(pairs) == [("plain", "grounded"), ("control", "grounded")]

    def test_its_own_changes_come_last(self, controlled: Bench) -> None:
        controlled.tree["methods"]["control"]["overrides"]["training.learning_rate"] = 2e-3
        controlled.run()
        record = json.loads((controlled.out / "runs/control/seed-0/run.json").read_text())
        assert record["recipe"]["training"]["learning_rate"] == 2e-3

    def test_it_falls_with_the_trials_that_it_needs(self, controlled: Bench) -> None:
        error = NumericsError("the loss is not finite")
        controlled.trainer.fails = lambda recipe: error if "grounded" in recipe.name else None
        result = controlled.run()
        assert result.methods["control"].seeds == ()
        assert "control/seed-0" not in controlled.trainer.trained

    def test_a_dry_run_says_what_it_is_like(self, controlled: Bench, cli) -> None:  # type: ignore[no-untyped-def]
        outcome = cli("study", controlled.write(), "--out", controlled.out, "--dry-run")
        assert outcome.code == 0
        assert "control: seeds 0, 1 (like grounded, data.pairing_control=broken)" in outcome.out
        assert "8 trainings: 0 prepared, 4 trials, 4 final" in outcome.out

    def test_a_bad_change_is_found_before_anything_is_trained(self, controlled: Bench) -> None:
        controlled.tree["methods"]["control"]["overrides"] = {"objective.infonce.temprature": 0.1}
        with pytest.raises(ConfigError, match=r"methods\.control\.overrides.*temprature"):
            controlled.run()
        assert controlled.trainer.trained == []


class TestFailures:
    def test_a_failing_method_is_a_gap_and_the_study_goes_on(self, bench: Bench) -> None:
        bench.trainer.fails = not_finite
        space = {"training.learning_rate": [0.9, 1.0]}
        bench.tree["methods"]["plain"]["search"] = {"kind": "grid", "space": space}
        result = bench.run()
        assert [each.run for each in result.failures] == ["plain/trial-00", "plain/trial-01"]
        assert {each.exit_code for each in result.failures} == {5}
        assert result.methods["plain"].seeds == ()
        assert len(result.methods["grounded"].seeds) == 2
        assert result.differences == ()
        table = (bench.out / "study.md").read_text()
        assert re.search(r"\| plain +\| +– \|", table)
        assert "the loss is not finite" in table

    def test_a_failing_trial_is_not_chosen(self, bench: Bench) -> None:
        bench.trainer.fails = not_finite
        space = {"training.learning_rate": [1.0, 1e-5]}
        bench.tree["methods"]["plain"]["search"] = {"kind": "grid", "space": space}
        result = bench.run()
        assert result.methods["plain"].setting == {"training.learning_rate": 1e-5}
        assert len(result.methods["plain"].seeds) == 2

    def test_a_failed_run_is_tried_again(self, bench: Bench) -> None:
        bench.trainer.fails = not_finite
        for method in bench.tree["methods"].values():
            method["search"] = {"kind": "grid", "space": {"training.learning_rate": [1.0, 1e-3]}}
        bench.run()
        fingerprint = json.loads((bench.out / "runs/plain/trial-00.fingerprint.json").read_text())
        assert fingerprint["failure"] == {"reason": "the loss is not finite", "exit_code": 5}
        bench.trainer.fails = lambda recipe: None
        bench.trainer.trained.clear()
        assert bench.run().failures == ()
        assert bench.trainer.trained == ["plain/trial-00", "grounded/trial-00"]
        fingerprint = json.loads((bench.out / "runs/plain/trial-00.fingerprint.json").read_text())
        assert fingerprint["failure"] is None

    def test_what_needs_a_failed_prepared_run_fails_with_it(self, bench: Bench) -> None:
        bench.trainer.fails = not_finite
        prepared = {"recipe": "recipe.yaml", "overrides": {"training.learning_rate": 1.0}}
        bench.tree["prepare"] = {"teacher": prepared}
        bench.tree["methods"]["grounded"]["overrides"] = {
            "teachers": [{"model": "${prepared:teacher}", "pooling": "mean"}],
            "objective.list_net": {},
        }
        result = bench.run()
        assert [each.run for each in result.failures] == [
            *("teacher/prepared", "grounded/trial-00", "grounded/trial-01")
        ]
        assert "teacher" in result.failures[1].reason
        assert len(result.methods["plain"].seeds) == 2

    def test_a_prepared_run_that_fails_takes_no_finished_run_with_it(self, bench: Bench) -> None:
        with_teacher(bench).run()
        shutil.rmtree(bench.out / "prepared")  # its record stays
        bench.tree["seeds"] = [2, 0, 1]
        bench.trainer.fails = lambda recipe: StorageError("no space left") if recipe.seed == 5 else None
        result = bench.run()
        assert [each.run for each in result.failures] == ["teacher/prepared", "grounded/seed-2"]
        assert [each.seed for each in result.methods["grounded"].seeds] == [0, 1]
        bench.trainer.fails = lambda recipe: None
        bench.trainer.trained.clear()
        assert bench.run().failures == ()
        assert bench.trainer.trained == ["prepared/teacher", "grounded/seed-2"]

    def test_missing_evaluation_data_is_found_before_anything_is_trained(self, bench: Bench) -> None:
        from dalr.errors import DataError
        from dalr.evaluation.run import load
        from dalr.study import scores

        bench.tree["evaluate"] = {"data": str(bench.folder / "nowhere")}
        scores.load = load  # the real one again; the fixture's patch is undone after the test
        with pytest.raises(DataError, match="no such folder"):
            bench.run()
        assert bench.trainer.trained == []

    def test_the_command_line_leaves_with_the_code_of_the_failure(self, bench: Bench, cli) -> None:  # type: ignore[no-untyped-def]
        bench.trainer.fails = not_finite
        for method in bench.tree["methods"].values():
            method["search"] = {"kind": "grid", "space": {"training.learning_rate": [1.0, 1e-3]}}
        outcome = cli("study", bench.write(), "--out", bench.out, "-q")
        assert outcome.code == 5
        assert "plain/trial-00 (trial): the loss is not finite" in outcome.err
        assert "80.25 ± 0.35" in outcome.out
        bench.trainer.fails = lambda recipe: None
        assert cli("study", bench.write(), "--out", bench.out, "-q").code == 0


def test_a_dry_run_lists_the_runs_and_makes_nothing(bench: Bench, cli) -> None:  # type: ignore[no-untyped-def]
    outcome = cli("study", bench.write(), "--out", bench.out, "--dry-run")
    assert outcome.code == 0
    assert "trial     plain/trial-01: training.learning_rate=0.001" in outcome.out
    assert "final     grounded: seeds 1 (seed 0 is the chosen trial)" in outcome.out
    assert "6 trainings: 0 prepared, 4 trials, 2 final" in outcome.out
    assert not bench.out.exists()
    assert bench.trainer.trained == []


@pytest.mark.parametrize("killed_at", [None, 2, 5])
def test_a_dry_run_counts_what_is_there_and_a_run_trains_the_rest(  # type: ignore[no-untyped-def]
    bench: Bench, cli, killed_at: int | None
) -> None:
    with_evaluation(with_teacher(bench))
    bench.trainer.killed_at = killed_at
    with suppress(KeyboardInterrupt):
        bench.run()
    bench.trainer.killed_at = None
    total = 1 + len(EVERYTHING)
    there = killed_at - 1 if killed_at is not None else total
    outcome = cli("study", bench.write(), "--out", bench.out, "--dry-run")
    assert (
        f"{total} trainings: 1 prepared, 4 trials, 2 final; {there} are there already, {total - there} to train"
        in (outcome.out)
    )
    bench.trainer.trained.clear()
    bench.run()
    assert len(bench.trainer.trained) == total - there


def test_a_dry_run_counts_records_where_no_weights_are_wanted(bench: Bench, cli) -> None:  # type: ignore[no-untyped-def]
    with_evaluation(with_teacher(bench)).run()
    shutil.rmtree(bench.out / "runs")
    shutil.rmtree(bench.out / "prepared")
    outcome = cli("study", bench.write(), "--out", bench.out, "--dry-run")
    assert "7 are there already, 0 to train" in outcome.out
    assert "trial     plain/trial-00: training.learning_rate=0.01 · there" in outcome.out
    assert "final     plain: seeds 1 (seed 0 is the chosen trial) · there: 1" in outcome.out
    bench.tree["evaluate"]["tasks"] = ["sts", "sts-b-dev"]
    outcome = cli("study", bench.write(), "--out", bench.out, "--dry-run")
    assert "2 are there already, 5 to train" in outcome.out, "four final runs to score, and the teacher they read"


def test_a_dry_run_reads_data_once_that_all_methods_share(
    bench: Bench,
    cli,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str | None] = []

    def counting(config: DataConfig, *, seed: int) -> Dataset:
        read.append(config.text)
        return load_dataset(config, seed=seed)

    monkeypatch.setattr("dalr.study.run.load_dataset", counting)
    assert cli("study", bench.write(), "--out", bench.out, "--dry-run").code == 0
    assert len(read) == 1


def test_a_dry_run_names_everything_that_is_not_there_once(bench: Bench, cli) -> None:  # type: ignore[no-untyped-def]
    bench.tree["evaluate"] = {
        "data": str(bench.folder / "nothing"),
        "exclude_overlap": str(bench.folder / "no.txt"),
    }
    bench.tree["overrides"] = {**bench.tree.get("overrides", {}), "data.text": str(bench.folder / "lost.txt")}
    outcome = cli("study", bench.write(), "--out", bench.out, "--dry-run")
    assert outcome.code == 3
    assert "6 trainings" in outcome.out
    assert outcome.err.count("lost.txt") == 1
    assert "evaluate.exclude_overlap: nothing there" in outcome.err


def test_evaluation_data_that_is_missing_is_named_by_the_keys_of_a_study(tmp_path: Path) -> None:
    config = EvaluateConfig(data=str(tmp_path / "nothing"), exclude_overlap=str(tmp_path / "no.txt"))
    with pytest.raises(DataError) as refused:
        Scorer(config, Console(quiet=True)).require_data()
    assert [problem.where for problem in refused.value.problems] == ["evaluate.data", "evaluate.exclude_overlap"]


def test_one_process_at_a_time_runs_a_study(bench: Bench) -> None:
    with locked(bench.out), pytest.raises(StorageError, match="in use by process"):
        bench.run()
    bench.run()


class TestRecordsThatCannotBe:
    @pytest.mark.parametrize("score", ["1e400", "-1e400", "NaN", "Infinity", "100.5", "-101", "true", '"99"', "[]"])
    def test_a_score_that_cannot_be_one_is_refused(self, bench: Bench, score: str) -> None:
        bench.run()
        path = next(model.parent / "run.json" for model in sorted(bench.out.rglob("trial-00/model")))
        text = path.read_text()
        before = json.dumps(json.loads(text)["result"]["best_score"])
        path.write_text(text.replace(f'"best_score": {before}', f'"best_score": {score}'))
        assert path.read_text() != text
        with pytest.raises(CorruptFileError, match=r"run\.json.*expected") as refused:
            bench.run()
        assert str(path) in str(refused.value)
