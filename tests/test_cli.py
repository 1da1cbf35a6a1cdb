"""The command line: what it answers, in how many imports, and with which exit code it refuses.

Most commands run in this process through the entry point; a few run as a user runs them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dalr import __version__
from dalr.errors import (
    ConfigError,
    CorruptFileError,
    DalrError,
    DataError,
    ModelFileError,
    NumericsError,
    Problem,
    StorageError,
)
from dalr.features.store import open_store
from dalr.recipe.loading import shipped_recipes
from stores import as_matrix
from tiny import Outcome, TinyData, Toys, write_pairs

Cli = Callable[..., Outcome]


def child(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "dalr", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def require_clean(outcome: Outcome | subprocess.CompletedProcess[str]) -> None:
    text = outcome.err if isinstance(outcome, Outcome) else outcome.stderr
    assert "Traceback" not in text, text


class TestAnswers:
    IMPORTS = """
import sys
sys.argv = ["dalr", *sys.argv[1:]]
from dalr.cli import main
try:
    main()
except SystemExit as stopped:
    print("code", stopped.code or 0, *sys.modules)
"""

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["--version"], ["train", "--help"], ["features", "--help"], ["report", "--help"]]
    )
    def test_help_and_version_import_nothing_heavy(self, arguments: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-c", self.IMPORTS, *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        _, code, *modules = done.stdout.splitlines()[-1].split()
        heavy = {"torch", "transformers", "sentence_transformers", "numpy", "scipy", "rich", "yaml"}
        if len(arguments) == 1:
            heavy.add("pydantic")  # typer itself needs it for the help of a command
        assert heavy & set(modules) == set()
        assert code == "0"

    def test_help_names_every_command(self, cli: Cli) -> None:
        outcome = cli("--help")
        assert outcome.code == 0
        for command in ("demo", "check", "train", "evaluate", "recipe", "features", "cache", "report"):
            assert f"\n  {command} " in outcome.out

    @pytest.mark.parametrize(
        "command", ["demo", "check", "train", "evaluate", "recipe", "features", "cache", "report"]
    )
    def test_every_command_has_help(self, cli: Cli, command: str) -> None:
        outcome = cli(command, "--help")
        assert outcome.code == 0
        assert outcome.out.startswith("Usage: ")
        assert command in outcome.out.splitlines()[0]

    def test_version(self, cli: Cli) -> None:
        assert cli("--version") == Outcome(code=0, out=f"dalr {__version__}\n", err="")

    def test_as_a_module_and_as_a_script(self) -> None:
        assert child("--version").stdout == f"dalr {__version__}\n"
        script = Path(sys.executable).with_name("dalr")
        if script.is_file():
            done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout == f"dalr {__version__}\n"

    @pytest.mark.parametrize(
        "arguments",
        [["trian"], ["train"], ["train", "x", "--nonsense"], ["evaluate"], ["demo", "--seed", "-1"]],
    )
    def test_a_wrong_use_exits_with_2(self, cli: Cli, arguments: list[str]) -> None:
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert outcome.err.startswith("Usage: ")


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ConfigError, 2),
            (DataError, 3),
            (ModelFileError, 4),
            (CorruptFileError, 4),
            (NumericsError, 5),
            (StorageError, 6),
        ],
    )
    def test_each_class_of_error_has_its_code_and_no_traceback(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, error: type[DalrError], code: int
    ) -> None:
        def fail() -> None:
            raise error([Problem(where="a.txt:3", what="is wrong"), Problem(where="", what="so is this")])

        monkeypatch.setattr("dalr.io.cache.cache_use", fail)
        outcome = cli("cache")
        assert outcome == Outcome(code=code, out="", err="error: a.txt:3: is wrong\nso is this\n")

    def test_an_interrupt_exits_with_130(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("dalr.io.cache.cache_use", stop)
        outcome = cli("cache")
        assert outcome.code == 130
        require_clean(outcome)

    def test_configuration(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        outcome = cli("train", toys.recipe(tmp_path), "-s", "training.batch_size=1", "-s", "sed=1")
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert "training.batch_size: expected greater than or equal to 2, found 1" in outcome.err
        assert "sed: unknown key; did you mean 'seed'?" in outcome.err

    def test_an_unknown_recipe(self, cli: Cli) -> None:
        outcome = cli("train", "simsce")
        assert outcome.code == 2
        assert "did you mean 'simcse'?" in outcome.err

    def test_a_missing_file(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        setting = f"data.text={tmp_path}/no.txt"
        outcome = cli("train", toys.recipe(tmp_path), "-s", setting, "--out", tmp_path / "run")
        assert outcome.code == 3
        assert f"{tmp_path}/no.txt: no such file" in outcome.err
        assert not (tmp_path / "run").exists()

    def test_a_line_that_is_not_utf8(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        (tmp_path / "bad.txt").write_bytes(b"fine\na caf\xe9\n")
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"data.text={tmp_path}/bad.txt")
        assert outcome.code == 3
        assert f"{tmp_path}/bad.txt:2: byte 6 is 0xe9, not UTF-8" in outcome.err

    def test_an_empty_caption(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        write_pairs(tmp_path / "p.jsonl", ["000.jpg"], [["fine", " "]])
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"data.pairs={tmp_path}/p.jsonl")
        assert outcome.code == 3
        assert "p.jsonl:1: caption 1 of image '000.jpg' is empty" in outcome.err

    def test_another_number_of_features_than_names(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        (tmp_path / "ids.txt").write_text("a\nb\n")
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"features.image_ids={tmp_path}/ids.txt")
        assert outcome.code == 3
        assert "24 rows of features" in outcome.err
        assert "names 2 ids" in outcome.err

    def test_an_unknown_image(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        write_pairs(tmp_path / "p.jsonl", ["000.jpg", "unseen.jpg"], [["one"], ["two"]])
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"data.pairs={tmp_path}/p.jsonl")
        assert outcome.code == 3
        assert "image 'unseen.jpg': no such id among the 24 rows" in outcome.err

    def test_features_of_the_wrong_dim(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        sections = {
            "objective": {"infonce": {}, "cross_modal_alignment": {"space": "raw"}},
            "teachers": [{"model": str(toys.teacher)}],
        }
        outcome = cli("check", toys.recipe(tmp_path, **sections))
        assert outcome.code == 2
        assert "the student's dimension is 32 and the image features' is 16" in outcome.err

    def test_nan_in_a_feature_row(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        features = toys.data.features.copy()
        features[6, 0] = np.nan
        np.save(tmp_path / "bad.npy", features)
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"features.image={tmp_path}/bad.npy")
        assert outcome.code == 3
        assert "bad.npy: row 7: value 1 is nan" in outcome.err

    def test_a_model_folder_that_is_missing(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        outcome = cli(
            "train", toys.recipe(tmp_path), "-s", "student.model=/nowhere/bert", "--out", tmp_path / "run", "-q"
        )
        assert outcome.code == 4
        assert outcome.err == "error: model '/nowhere/bert': no such folder: /nowhere/bert\n"

    def test_a_model_that_cannot_be_had_offline(self, cli: Cli, tmp_path: Path) -> None:
        outcome = cli("evaluate", "some/encoder", "--data", tmp_path)
        assert outcome.code == 4
        assert "hf download some/encoder" in outcome.err

    def test_numbers_that_are_not_finite(
        self, cli: Cli, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dalr.losses import TERMS

        compute = TERMS["infonce"].__call__
        monkeypatch.setattr(TERMS["infonce"], "__call__", lambda self, inputs: compute(self, inputs) * float("nan"))
        outcome = cli("train", toys.recipe(tmp_path), "--out", tmp_path / "run", "-q")
        assert outcome.code == 5
        assert outcome.err.startswith("error: step 1 (pair batch): ")
        assert "infonce = nan" in outcome.err
        require_clean(outcome)

    def test_a_folder_in_use(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        outcome = cli("train", toys.recipe(tmp_path), "--out", tmp_path)
        assert outcome.code == 6
        assert "choose another --out" in outcome.err

    def test_a_store_cut_short(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        cli("features", "import", toys.data.matrix, "--ids", toys.data.ids, "--out", tmp_path / "store")
        (tmp_path / "store" / "ids.jsonl").write_text("")
        recipe = toys.recipe(tmp_path, features={"image": str(tmp_path / "store")})
        outcome = cli("check", recipe)
        assert outcome.code == 4
        assert "ids.jsonl: expected" in outcome.err
        assert "create the store again" in outcome.err

    def test_in_a_process_of_its_own(self, toys: Toys, tmp_path: Path) -> None:
        done = child("check", toys.recipe(tmp_path), "-s", "sed=1")
        assert (done.returncode, done.stdout) == (2, "")
        assert "did you mean 'seed'?" in done.stderr
        done = child("check", toys.recipe(tmp_path), "-s", "data.text=/nowhere")
        assert (done.returncode, done.stdout) == (3, "")
        require_clean(done)


class TestRecipe:
    def test_list_has_a_line_for_each(self, cli: Cli) -> None:
        outcome = cli("recipe", "list")
        assert outcome.code == 0
        names = [line.split()[0] for line in outcome.out.splitlines()]
        assert names == shipped_recipes()
        assert {"dalr", "dalr-release", "kdmcse", "mcse", "rankcse", "simcse"} <= set(names)
        assert all(len(line.split()) > 4 for line in outcome.out.splitlines())

    def test_list_needs_no_data_of_this_machine_to_be_in_order(
        self, cli: Cli, tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One recipe that does not fit the features found here must not hide the names of all."""
        monkeypatch.setenv("DALR_DATA", str(tmp_path))
        store = tmp_path / "flickr30k" / "clip-vit-l-14"
        cli("features", "import", tiny_data.matrix, "--ids", tiny_data.ids, "--out", store)
        monkeypatch.setattr("dalr.recipe.checks.peek_config", lambda *_: {"hidden_size": 768})
        outcome = cli("recipe", "list")
        assert (outcome.code, len(outcome.out.splitlines())) == (0, len(shipped_recipes())), outcome.err

    def test_show_prints_the_recipe_as_it_is_written(self, cli: Cli) -> None:
        assert cli("recipe", "show", "mcse").out.startswith("# MCSE (Zhang et al. 2022)")

    def test_show_resolved_has_every_default_and_is_a_recipe(self, cli: Cli, tmp_path: Path) -> None:
        shown = cli("recipe", "show", "mcse", "--resolved", "-s", "seed=4").out
        assert "seed: 4\n" in shown
        assert "clip_norm: 1.0\n" in shown
        assert "extends" not in shown
        (tmp_path / "mine.yaml").write_text(shown)
        assert cli("recipe", "show", tmp_path / "mine.yaml", "--resolved").out == shown

    def test_show_of_an_unknown_name(self, cli: Cli) -> None:
        outcome = cli("recipe", "show", "dlar")
        assert outcome.code == 2
        assert "did you mean 'dalr'?" in outcome.err


class TestCheck:
    def test_good_data_is_counted(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        outcome = cli("check", toys.recipe(tmp_path))
        assert outcome.code == 0
        assert "images: 24  (in the pairs file)\n" in outcome.out
        assert "captions: 72  (of these images, empty ones left out)\n" in outcome.out
        assert "text_lines: 80  (sentences" in outcome.out
        assert "no problems found" in outcome.err

    def test_quiet_shows_the_counts_alone(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        outcome = cli("check", toys.recipe(tmp_path), "-q")
        assert "images: 24" in outcome.out
        assert outcome.err == ""

    @pytest.mark.parametrize(
        ("setting", "code"),
        [
            ("training.batch_size=25", 3),
            ("training.schedule.k=null", 2),
            ("student.model=/nowhere/bert", 4),
            ("student.num_layers=9", 2),
        ],
    )
    def test_what_would_stop_training_at_its_start_is_found(
        self, cli: Cli, toys: Toys, tmp_path: Path, setting: str, code: int
    ) -> None:
        """Each of these can be known without loading a model."""
        outcome = cli("check", toys.recipe(tmp_path), "-s", setting)
        assert outcome.code == code
        assert "no problems found" not in outcome.err


class TestFeatures:
    def test_import(self, cli: Cli, tiny_data: TinyData, tmp_path: Path) -> None:
        outcome = cli("features", "import", tiny_data.matrix, "--ids", tiny_data.pairs, "--out", tmp_path / "s")
        assert outcome == Outcome(code=0, out=f"{tmp_path / 's'}: 24 rows of dimension 16\n", err="")
        assert open_store(tmp_path / "s").ids == tiny_data.images

    def test_import_of_nothing(self, cli: Cli, tmp_path: Path) -> None:
        matrix, ids, out = tmp_path / "m.npy", tmp_path / "i.txt", tmp_path / "s"
        outcome = cli("features", "import", matrix, "--ids", ids, "--out", out)
        assert outcome.code == 3
        assert outcome.err.count("no such file") == 2

    def test_a_store_whose_rows_would_be_lost_is_not_written_over(
        self, cli: Cli, toys: Toys, tmp_path: Path
    ) -> None:
        data, out = toys.data, tmp_path / "s"
        (tmp_path / "few.txt").write_text("".join(f"{name}\n" for name in data.images[:2]))
        np.save(tmp_path / "few.npy", data.features[:2])
        fewer = ("features", "import", tmp_path / "few.npy", "--ids", tmp_path / "few.txt", "--out", out)
        whole = ("features", "import", data.matrix, "--ids", data.pairs, "--out", out)
        assert cli(*fewer).code == cli(*whole).code == 0, "more rows than before are fine"
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        outcome = cli(*fewer)
        assert outcome.code == 2
        assert "22 of the 24 rows of the store there would be lost, such as '002.jpg'" in outcome.err
        assert "nothing was overwritten: choose another --out" in outcome.err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        text = ("features", "text", "--model", toys.teacher, "--out", tmp_path / "t", "-q")
        assert cli(*text, "--pairs", data.pairs, "--text", data.text).code == 0
        outcome = cli(*text, "--text", data.text)
        assert outcome.code == 2
        assert "72 of the 152 rows of the store there would be lost" in outcome.err
        assert cli(*text, "--text", data.text, "--update").code == 0

    def test_import_over_something_else(self, cli: Cli, tiny_data: TinyData, tmp_path: Path) -> None:
        outcome = cli("features", "import", tiny_data.matrix, "--ids", tiny_data.ids, "--out", tiny_data.folder)
        assert outcome.code == 6
        assert "nothing was written" in outcome.err

    def test_text(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        data = toys.data
        outcome = cli(
            *("features", "text", "--pairs", data.pairs, "--text", data.text),
            *("--model", toys.teacher, "--out", tmp_path / "s"),
        )
        assert outcome.code == 0
        assert outcome.out == f"{tmp_path / 's'}: 152 rows; 152 sentences encoded\n"
        store = open_store(tmp_path / "s")
        assert store.ids[0] == "000.jpg#0"
        assert store.ids[-1] == "80"
        assert as_matrix(store).shape == (152, 24)

    def test_text_of_a_plain_model_with_its_pooling_layers_and_length(
        self, cli: Cli, toys: Toys, tmp_path: Path
    ) -> None:
        options = ("--model", toys.student, "--text", toys.data.text, "-q")
        assert cli("features", "text", *options, "--out", tmp_path / "a").code == 2
        assert cli("features", "text", *options, "--out", tmp_path / "a", "--pooling", "max").code == 2
        assert cli("features", "text", *options, "--out", tmp_path / "a", "--pooling", "cls").code == 0
        shorter = ("--pooling", "cls", "--num-layers", 1, "--max-tokens", 4)
        assert cli("features", "text", *options, "--out", tmp_path / "b", *shorter).code == 0
        assert open_store(tmp_path / "b").source["encoder"]["num_layers"] == 1
        whole, short = as_matrix(open_store(tmp_path / "a")), as_matrix(open_store(tmp_path / "b"))
        assert not np.allclose(whole, short, atol=0.01)

    def test_text_of_nothing(self, cli: Cli, tmp_path: Path) -> None:
        outcome = cli("features", "text", "--model", "m", "--out", tmp_path / "s")
        assert outcome.code == 2
        assert "--pairs, --text: name at least one of them" in outcome.err

    def test_text_of_one_split_of_a_table_with_columns_of_its_own(
        self, cli: Cli, toys: Toys, tmp_path: Path
    ) -> None:
        table = tmp_path / "captions.txt"
        table.write_text("file,words,part\na.jpg,a red dog,train\nb.jpg,a cat,test\nb.jpg,a black cat,test\n")
        outcome = cli(
            *("features", "text", "--pairs", table, "--format", "csv", "--split", "test"),
            *("--columns", "image=file,caption=words,split=part", "--model", toys.teacher, "--out", tmp_path / "s"),
        )
        assert outcome.code == 0, outcome.err
        assert list(open_store(tmp_path / "s").ids) == ["b.jpg#0", "b.jpg#1"]

    def test_how_pairs_are_read_without_pairs(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        options = ("--text", toys.data.text, "--model", "m", "--out", tmp_path / "s")
        outcome = cli("features", "text", *options, "--split", "train", "--format", "csv")
        assert outcome.code == 2
        assert "--format: says how --pairs is read; name it too" in outcome.err
        assert "--split: says how --pairs is read; name it too" in outcome.err

    def test_text_with_problems_names_them_all(self, cli: Cli, tmp_path: Path) -> None:
        write_pairs(tmp_path / "p.jsonl", ["a"], [[""]])
        (tmp_path / "t.txt").write_bytes(b"\xff\n")
        outcome = cli(
            *("features", "text", "--pairs", tmp_path / "p.jsonl", "--text", tmp_path / "t.txt"),
            *("--model", "m", "--out", tmp_path / "s"),
        )
        assert outcome.code == 3
        assert "p.jsonl:1: caption 0" in outcome.err
        assert "t.txt:1: byte 1 is 0xff" in outcome.err


class TestCache:
    def test_what_is_in_it_is_shown_and_cleaned(
        self, cli: Cli, fresh_cache: Path, toys: Toys, tmp_path: Path
    ) -> None:
        assert cli("cache") == Outcome(code=0, out=f"folder: {fresh_cache}\n", err="")
        cli("check", toys.recipe(tmp_path))
        outcome = cli("cache")
        assert "features: 1 entries, 0.0 MiB" in outcome.out
        assert cli("cache", "--clean").out.endswith(f"cleaned: {fresh_cache}\n")
        assert cli("cache").out == f"folder: {fresh_cache}\n"

    def test_a_failed_check_leaves_nothing_in_it(
        self, cli: Cli, fresh_cache: Path, toys: Toys, tmp_path: Path
    ) -> None:
        cli("check", toys.recipe(tmp_path), "-s", f"features.image_ids={tmp_path}/no.txt")
        assert cli("cache").out == f"folder: {fresh_cache}\n"


class TestTrainAndEvaluate:
    def test_a_run_can_be_trained_and_scored(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        run = tmp_path / "run"
        trained = cli("train", toys.recipe(tmp_path), "--out", run, "-s", "training.max_steps=2")
        assert trained.code == 0
        assert f"model: {run / 'model'}  (2 steps in " in trained.out
        assert "dev.tsv Spearman: " in trained.out
        assert "(untrained " in trained.out
        assert "train tiny: 2/2" in trained.err

        write_benchmark(tmp_path / "senteval")
        for model in (run, run / "model"):
            outcome = cli(
                *("evaluate", model, "--data", tmp_path / "senteval", "--tasks", "STS-B,sts-b-dev"),
                *("--allow-changed-data", "--json", tmp_path / "scores.json", "-q"),
            )
            assert outcome.code == 0, outcome.err
            written = json.loads((tmp_path / "scores.json").read_text())
            assert set(written["tasks"]) == {"STS-B", "sts-b-dev"}
            assert written["failed"] == []
            assert written["sts_avg"] is None
            assert f"{written['tasks']['STS-B']['spearman']:.2f}" in outcome.out

    def test_a_task_without_files_is_listed_and_exits_with_3(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        write_benchmark(tmp_path / "senteval")
        outcome = cli(
            *("evaluate", toys.teacher, "--data", tmp_path / "senteval", "--tasks", "STS-B,SICK-R,STS12"),
            *("--allow-changed-data", "--json", tmp_path / "scores.json", "-q"),
        )
        assert outcome.code == 3
        written = json.loads((tmp_path / "scores.json").read_text())
        assert set(written["tasks"]) == {"STS-B"}
        assert [failure["task"] for failure in written["failed"]] == ["SICK-R", "STS12"]
        assert "error: SICK-R: " in outcome.err

    def test_a_model_without_usable_vectors_exits_with_5(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        import shutil

        import torch
        from safetensors.torch import load_file, save_file

        shutil.copytree(toys.student, tmp_path / "broken")
        weights = load_file(tmp_path / "broken" / "model.safetensors")
        weights["embeddings.LayerNorm.bias"] = torch.full_like(weights["embeddings.LayerNorm.bias"], float("nan"))
        save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
        write_benchmark(tmp_path / "senteval")
        outcome = cli(
            *("evaluate", tmp_path / "broken", "--pooling", "cls", "--data", tmp_path / "senteval"),
            *("--tasks", "STS-B,SICK-R", "--allow-changed-data", "--json", tmp_path / "scores.json", "-q"),
        )
        assert outcome.code == 5
        assert "STS-B: 12 of 12 embeddings are not finite" in outcome.err
        written = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
        assert written["tasks"] == {}

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            (["--tasks", "STS-C"], 2, "did you mean 'STS-B'?"),
            (["--data", "/nowhere"], 3, "no such folder: /nowhere"),
            (["--pooling", "max"], 2, "'max' is not one of"),
            (["--num-layers", "9"], 2, "num_layers is 9, but the encoder has 2 layers"),
        ],
    )
    def test_bad_options_are_refused(
        self, cli: Cli, toys: Toys, tmp_path: Path, options: list[str], code: int, words: str
    ) -> None:
        outcome = cli("evaluate", toys.teacher, "--data", tmp_path, *options)
        assert outcome.code == code
        assert words in outcome.err

    def test_a_run_that_was_not_finished_is_refused(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{}")
        outcome = cli("evaluate", tmp_path, "--data", tmp_path)
        assert outcome.code == 2
        assert "its training has not finished" in outcome.err


def write_benchmark(folder: Path) -> None:
    """STS-B of a few pairs."""
    (folder / "STS" / "STSBenchmark").mkdir(parents=True)
    for split in ("dev", "test"):
        rows = [f"g\tf\t2012\t{n}\t{n / 2}\ta red dog {'runs ' * n}\ta blue cat near {n}\n" for n in range(6)]
        (folder / "STS" / "STSBenchmark" / f"sts-{split}.csv").write_text("".join(rows))
