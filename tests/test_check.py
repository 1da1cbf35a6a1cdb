"""`dalr check`: everything that is wrong at once, as lines, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dalr.errors import ConfigError, CorruptFileError, DataError, ModelFileError, Problem, together
from dalr.training.check import check_recipe
from tiny import Outcome, Toys, write_pairs

Cli = Callable[..., Outcome]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output goes to a terminal of 300 columns, as far as rich can tell."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")


def test_good_data_as_a_table(cli: Cli, toys: Toys, tmp_path: Path, terminal: None) -> None:
    outcome = cli("check", toys.recipe(tmp_path))
    assert outcome.code == 0
    rows = [line for line in outcome.out.splitlines() if "captions_trained_on" in line]
    assert len(rows) == 1
    assert "72" in rows[0]


def test_problems_as_a_table_with_the_code_of_before(cli: Cli, toys: Toys, tmp_path: Path, terminal: None) -> None:
    write_pairs(tmp_path / "p.jsonl", ["000.jpg", "x[red]"], [["fine", " "], ["two", ""]])
    outcome = cli("check", toys.recipe(tmp_path), "-s", f"data.pairs={tmp_path}/p.jsonl")
    assert outcome.code == 3
    assert not outcome.err.startswith("error:")
    [empty] = [line for line in outcome.err.splitlines() if "caption 1 of image '000.jpg'" in line]
    assert f"{tmp_path}/p.jsonl:1" in empty
    assert "image 'x[red]'" in outcome.err, "brackets in data are no markup"
    assert outcome.err.splitlines()[-1] == "2 problems"


def test_of_many_problems_twenty_are_shown_and_all_on_request(
    cli: Cli, toys: Toys, tmp_path: Path, terminal: None
) -> None:
    (tmp_path / "t.txt").write_text("fine\n" + "\n" * 45)
    arguments = ("check", toys.recipe(tmp_path), "-s", f"data.text={tmp_path}/t.txt")
    outcome = cli(*arguments)
    assert outcome.err.count("empty line") == 20
    assert "45 problems, 25 of them not shown: -v shows all" in outcome.err
    assert cli(*arguments, "-v").err.count("empty line") == 45


def test_json_of_a_good_check(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    outcome = cli("check", toys.recipe(tmp_path), "--json", tmp_path / "c.json")
    assert outcome.code == 0
    written = json.loads((tmp_path / "c.json").read_text())
    assert (written["ok"], written["exit_code"], written["problems"]) == (True, 0, [])
    assert written["data"]["captions"] == 72
    assert {kind: each["rows_left_over"] for kind, each in written["batches"].items()} == {"text": 0, "pair": 0}
    assert all(each["per_epoch"] >= 9 for each in written["batches"].values())
    assert written["missing_models"] == []


def test_json_of_a_bad_check_holds_every_problem(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("fine\n" + "\n" * 45)
    setting = f"data.text={tmp_path}/t.txt"
    outcome = cli("check", toys.recipe(tmp_path), "-s", setting, "--json", tmp_path / "c.json")
    assert outcome.code == 3
    assert outcome.err.startswith("error: "), "not a terminal: one problem a line"
    written = json.loads((tmp_path / "c.json").read_text())
    assert (written["ok"], written["exit_code"], written["data"]) == (False, 3, {})
    empty = {"where": f"{tmp_path}/t.txt:2", "what": "empty line; remove it or set data.on_empty: drop", "count": 1}
    assert empty in written["problems"]
    assert sum("empty line" in problem["what"] for problem in written["problems"]) == 45


def test_a_mistake_in_the_recipe_does_not_hide_those_in_the_data(toys: Toys, tmp_path: Path) -> None:
    checked = check_recipe(str(toys.recipe(tmp_path)), ["sed=1", f"data.text={tmp_path}/no.txt"])
    assert isinstance(checked.error, ConfigError)
    assert len(checked.error.problems) == 2
    assert "did you mean 'seed'?" in str(checked.error)
    assert f"{tmp_path}/no.txt: no such file" in str(checked.error)


def test_data_a_store_the_schedule_and_a_model_are_wrong_and_all_is_said(
    cli: Cli, toys: Toys, tmp_path: Path
) -> None:
    cli("features", "import", toys.data.matrix, "--ids", toys.data.ids, "--out", tmp_path / "store")
    (tmp_path / "store" / "ids.jsonl").write_text("")
    recipe = str(toys.recipe(tmp_path, features={"image": str(tmp_path / "store")}))
    checked = check_recipe(recipe, [f"validation.data={tmp_path}/no.tsv", "student.model=/nowhere/bert"])
    assert isinstance(checked.error, DataError)
    text = str(checked.error)
    assert text.startswith(f"{tmp_path}/no.tsv: no such file")
    assert "ids.jsonl: expected" in text
    assert "/nowhere/bert" in text


def test_the_class_of_several_errors_is_that_of_the_data() -> None:
    errors = [
        ModelFileError("m"),
        ConfigError("c"),
        DataError([Problem(where="a", what="d")], total=7),
        CorruptFileError("f"),
    ]
    merged = together(errors)
    assert (type(merged), merged.exit_code, merged.total) == (DataError, 3, 10)
    assert [problem.what for problem in merged.problems] == ["d", "m", "c", "f"]
    again = together([*errors, DataError([Problem(where="a", what="d")], total=3)])
    assert [problem.what for problem in again.problems] == ["d", "m", "c", "f"], "each is said once"
    assert again.total == 12, "what is not listed is counted all the same"
    assert type(together(errors[:2])) is ConfigError
    assert type(together([ModelFileError("m")])) is ModelFileError
