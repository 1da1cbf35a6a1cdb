"""What the command line refuses at once and how it says it: places, numbers, names that a terminal would obey, and
the last net for what nobody thought of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dalr
from dalr.data.schedule import Plan, ScheduleConfig, Stream
from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.request import Request
from dalr.evaluation.score import failure
from dalr.evaluation.sts import load_sts
from dalr.io.console import Console, printable
from dalr.io.environment import process_rank, require_meeting
from dalr.recipe.loading import load_recipe
from dalr.training.dry_run import _count
from senteval import write_senteval
from tiny import Outcome, Toys, write_pairs

Cli = Callable[..., Outcome]


class TestTheLastNet:
    def fall(self) -> None:
        raise ZeroDivisionError("in the\nmiddle \x1b[31m")

    def test_it_is_one_line_that_asks_for_a_report(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dalr.io.cache.cache_use", self.fall)
        outcome = cli("cache")
        assert outcome.code == 1
        [line] = outcome.err.splitlines()
        assert line.startswith("internal error: ZeroDivisionError: in the middle \\x1b[31m")
        assert "please report it" in line

    def test_the_traceback_is_shown_on_request(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, toys: Toys, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("dalr.training.check.check_recipe", lambda *_, **__: self.fall())
        outcome = cli("check", toys.recipe(tmp_path), "-v")
        assert outcome.err.startswith("Traceback")
        assert outcome.err.splitlines()[-1].startswith("internal error")


class TestPathOptions:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("report", ""), "RUN|JSON...: expected a path"),
            (("report", "x", "--out="), "--out: expected a path"),
            (("check", "simcse", "--json", ""), "--json: expected a path"),
            (("check", "simcse", "--against", "~nosuchuser/x"), "--against: the home folder that ~nosuchuser"),
            (("features", "import", "x.npy", "--out", "y", "--ids", "n" * 256), "--ids: a name in a path"),
            (("data", "verify", ""), "FOLDER: expected a path"),
            (("check", "caf\udce9.yaml"), "argument 2: not UTF-8"),
            (("report", "x", "--title", "caf\udce9"), "argument 4: not UTF-8"),
        ],
    )
    def test_what_can_be_no_path_is_refused_with_its_option(
        self, cli: Cli, arguments: tuple[str, ...], said: str
    ) -> None:
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert outcome.err.startswith(f"error: {said}")

    def test_a_tilde_is_expanded_on_the_command_line_and_in_python(
        self, cli: Cli, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        toys.recipe(tmp_path)
        assert cli("check", "~/recipe.yaml", "--json=~/checked.json").code == 0
        assert (tmp_path / "checked.json").is_file()
        recipe = dalr.load_recipe("~/recipe.yaml", ["training.max_steps=1", "validation=null"])
        assert dalr.train(recipe, out="~/run", console=Console(quiet=True)).run == tmp_path / "run"
        assert Request(data=Path("~/senteval")).data == tmp_path / "senteval"
        write_senteval(tmp_path / "senteval")
        found = dalr.evaluate("~/run", data="~/senteval", tasks=["STS-B"], console=Console(quiet=True))
        assert found.failed[0].task == "STS-B" or "STS-B" in found.tasks
        assert not (tmp_path / "~").exists()

    def test_an_unreadable_recipe_is_not_called_missing(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "loop.yaml").symlink_to("loop.yaml")
        assert "loop" in cli("check", tmp_path / "loop.yaml").err
        assert "expected a file, found a folder" in cli("check", tmp_path).err


class TestPlacesBeforeTheWork:
    @pytest.mark.parametrize("option", ["--out", "--markdown", "--latex"])
    def test_a_report_that_cannot_be_written_is_refused_before_anything_is_read(
        self, cli: Cli, tmp_path: Path, option: str
    ) -> None:
        outcome = cli("report", tmp_path / "not-there.json", option, tmp_path)
        assert outcome.code == 6
        assert f"{option}: {tmp_path} is a folder" in outcome.err
        assert "not-there" not in outcome.err

    def test_a_check_and_an_evaluation_look_at_their_json_first(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for command in ("check", "evaluate"):
            outcome = cli(command, "nothing", "--json", tmp_path / "file" / "x.json")
            assert outcome.code == 6
            assert "choose another --json" in outcome.err


class TestWhatATerminalWouldObey:
    def test_control_characters_are_shown_as_escapes(self) -> None:
        assert printable("a\x1b[31m\x07\x9b\u202e\udcff\tb\n") == "a\\x1b[31m\\x07\\x9b\\u202e\\udcff\tb\n"
        assert printable("émöjí 🐕 中文") == "émöjí 🐕 中文"

    def test_a_name_begins_no_line_of_its_own(self) -> None:
        assert str(Problem(where="x\nerror: y", what="z")) == "x\\nerror: y: z"

    def test_paths_keys_and_captions_of_others_reach_no_terminal(
        self, cli: Cli, toys: Toys, tmp_path: Path
    ) -> None:
        hostile = tmp_path / "\x1b]0;owned\x07.yaml"
        hostile.write_text('"key\\e[31m": 1\nname: "\\e[2J"\n# \x1b[31m\n')
        write_pairs(tmp_path / "p.jsonl", ["a\x1b[2J.jpg", "a\x1b[2J.jpg"], [["x\x07", " "], ["\x9b31m", ""]])
        for arguments in (
            ("check", hostile),
            ("recipe", "show", hostile),
            ("check", tmp_path / "\x1b[31mnothing"),
            ("check", toys.recipe(tmp_path), "-s", f"data.pairs={tmp_path}/p.jsonl"),
            ("\x1b[31m",),
            ("check", "a", "\x1b[31m"),
            ("check", "a", "--\x1b[31m"),
            ("data", "verify", tmp_path, "--group", "\x1b[31m"),
        ):
            outcome = cli(*arguments)
            assert "\\x1b" in outcome.out + outcome.err
            assert not {"\x1b", "\x07", "\x9b"} & set(outcome.out + outcome.err)

    def test_nor_do_they_in_a_table(
        self, cli: Cli, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "300")
        write_pairs(tmp_path / "p.jsonl", ["a\x1b]0;owned\x07.jpg"], [["fine", " "]])
        outcome = cli("check", toys.recipe(tmp_path), "-s", f"data.pairs={tmp_path}/p.jsonl")
        assert "owned" in outcome.err
        assert "\x1b]0" not in outcome.err


class TestNumbers:
    @pytest.mark.parametrize(
        "change",
        [
            "training.max_steps=100000000000000000000",
            "training.max_steps=1e20",
            "training.max_steps=4000000000",
            "training.epochs=99999999",
            "training.batch_size=99999999",
            "training.workers=100000",
            "training.matryoshka_dims=[100000000]",
            "heads.grounding_dim=100000000",
            "heads.aligner_dim=1e8",
            "data.max_tokens=99999999999",
            "validation.every=9999999999999999999",
        ],
    )
    def test_a_slip_of_the_pen_is_a_configuration_error(self, toys: Toys, tmp_path: Path, change: str) -> None:
        key, _, _ = change.partition("=")
        with pytest.raises(ConfigError, match=key) as caught:
            load_recipe(str(toys.recipe(tmp_path)), [change])
        assert "expected" in str(caught.value)
        assert "found" in str(caught.value)

    def test_no_integer_of_a_recipe_is_without_an_upper_bound(self) -> None:
        from dalr.recipe.checks import Recipe

        unbounded: list[str] = []

        def look(schema: object, path: str) -> None:
            if isinstance(schema, dict):
                if schema.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & schema.keys():
                    unbounded.append(path)
                for key, inner in schema.items():
                    look(inner, f"{path}.{key}")
            elif isinstance(schema, list):
                for number, inner in enumerate(schema):
                    look(inner, f"{path}.{number}")

        look(Recipe.model_json_schema(), "")
        assert unbounded == []

    def test_a_dry_run_counts_the_batches_of_any_number_of_steps_at_once(self) -> None:
        streams = (
            Stream(kind="text", text_keys=np.arange(40)),
            Stream(kind="pair", text_keys=np.arange(16)),
        )
        plan = Plan(streams=streams, schedule=ScheduleConfig(), batch_size=4, seed=0)
        exact = [kind for epoch in range(30) for kind in plan.kinds(epoch)]
        for steps in (1, 5, 14, 100):
            assert _count(plan, steps, 1) == {kind: exact[:steps].count(kind) for kind in ("text", "pair")}
        assert _count(plan, None, 3) == {"text": 30, "pair": 12}
        assert _count(plan, 100_000_000, 1) == {"text": 71_428_571, "pair": 28_571_429}
        assert _count(plan, None, 10_000) == {"text": 100_000, "pair": 40_000}


class TestLaunchers:
    def test_without_variables_there_is_one_rank(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
            monkeypatch.delenv(name, raising=False)
        assert process_rank() == 0
        require_meeting()

    def test_the_variables_of_torchrun_are_right(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        assert process_rank() == 1
        require_meeting()


class TestSaidOnce:
    def test_a_task_is_not_named_twice(self) -> None:
        error = DataError([Problem(where="sts-b-dev", what="empty"), Problem(where="other", what="odd")])
        assert failure("sts-b-dev", error).reason == "empty\nother: odd"

    def test_scores_that_are_all_equal_are_told_with_their_file(self, tmp_path: Path) -> None:
        folder = write_senteval(tmp_path / "senteval")
        path = folder / "STS" / "STSBenchmark" / "sts-dev.csv"
        path.write_text("g\tf\t2012\t0\t1.0\ta dog\ta cat\n" * 3)
        with pytest.raises(DataError) as caught:
            load_sts(folder, "sts-b-dev")
        assert str(caught.value).startswith(f"{path}: all gold scores are equal")


class TestAgainst:
    def test_a_recipe_with_errors_is_compared_all_the_same(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        senteval = write_senteval(tmp_path / "senteval")
        arguments = ("check", toys.recipe(tmp_path), "--against", senteval, "--json", tmp_path / "c.json")
        for wrong in ("seed=x", "student.model=/nowhere"):
            outcome = cli(*arguments, "-s", wrong)
            assert outcome.code in (2, 4)
            assert "| STS12" in outcome.out
            assert json.loads((tmp_path / "c.json").read_text())["overlap"]["STS12"]["pairs"] > 0

    def test_where_it_cannot_be_compared_that_is_said(self, cli: Cli, toys: Toys, tmp_path: Path) -> None:
        senteval = write_senteval(tmp_path / "senteval")
        arguments = ("check", toys.recipe(tmp_path), "-s", "data.pairs=/nowhere", "-s", "seed=x")
        outcome = cli(*arguments, "--against", senteval)
        assert outcome.code == 2
        assert "note: --against was not compared" in outcome.err

    def test_a_folder_that_is_not_there_is_one_problem_beside_the_others(
        self, cli: Cli, toys: Toys, tmp_path: Path
    ) -> None:
        outcome = cli("check", toys.recipe(tmp_path), "-s", "seed=x", "--against", tmp_path / "nowhere")
        assert outcome.code == 2
        assert "seed" in outcome.err
        assert outcome.err.count("--against: no such folder") == 1
