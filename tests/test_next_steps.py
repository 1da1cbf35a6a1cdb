"""An error names the next step: what is there, which option or key to use, which place said what is wrong."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dalr.models.reference import unavailable
from tiny import Outcome, write_pairs

Cli = Callable[..., Outcome]

RECIPE = "name: s\ndata: {pairs: p.jsonl}\nstudent: {model: BERT, pooling: cls}\nobjective: {infonce: {}}\n"
RECIPE += "training: {batch_size: 4}\n"


@pytest.fixture
def shop(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, its pairs, a table with other columns, and what stands for a finished run."""
    monkeypatch.chdir(tmp_path)
    ids = [f"{number}.jpg" for number in range(20)]
    write_pairs(Path("p.jsonl"), ids, [[f"a dog number {name}"] for name in ids])
    Path("p.csv").write_text("filename,text\n1.jpg,a dog\n")
    Path("shop.yaml").write_text(RECIPE.replace("BERT", str(tiny_bert)))
    Path("study.yaml").write_text("name: st\nseeds: [0, 1, 2]\nselect_by: tsv\nmethods: {a: {recipe: shop.yaml}}\n")
    run = Path("runs/shop")
    (run / "model").mkdir(parents=True)
    for name in ("run.json", "heads.safetensors"):
        (run / name).write_text("{}")
    return tmp_path


def error_of(outcome: Outcome, code: int) -> str:
    assert outcome.code == code, outcome.err
    return outcome.err


class TestNames:
    def test_an_unknown_column_is_answered_with_those_that_are_there(self, cli: Cli, shop: Path) -> None:
        for command in (
            ["check", "shop.yaml", "-s", "data.pairs=p.csv"],
            ["init", "--pairs", "p.csv", "--out", "new.yaml"],
            ["features", "text", "--pairs", "p.csv", "--model", "x", "--out", "st"],
        ):
            said = error_of(cli(*command), 3)
            assert "found filename, text;" in said
            assert "--columns image=filename,caption=text" in said
            assert said.count("filename, text") == 1
        said = error_of(cli("init", "--pairs", "p.csv", "--columns", "image=filname,caption=text"), 3)
        assert "did you mean 'filename'?" in said

    @pytest.mark.parametrize("name", ["shop.yml", "shp.yaml"])
    def test_a_recipe_of_nearly_this_name(self, cli: Cli, shop: Path, name: str) -> None:
        assert "did you mean shop.yaml?" in error_of(cli("check", name), 2)

    @pytest.mark.parametrize(
        "command",
        [
            "evaluate {} --tasks captions",
            "evaluate {}",
            "compare {}",
            "search {} dog",
            "serve {} --port 0",
            "encode {} p.jsonl --out v.npy",
            "index {} p.jsonl --out ix",
            "export {} --format onnx --out o",
            "export {} --format sentence-transformers --vision v --out o",
            "push {} me/shop --dry-run",
            "features text --pairs p.jsonl --model {} --out st",
            "features images --pairs p.jsonl --images . --model {} --out st",
            "audit p.jsonl --features im.npy --model {}",
            "audit p.jsonl --features im.npy --run {}",
            "report {}",
            "report runs/shop {}",
            "train shop.yaml --out runs/new --init-from {}",
        ],
    )
    def test_a_run_that_is_not_there_is_answered_with_those_that_are(
        self, cli: Cli, shop: Path, command: str
    ) -> None:
        if command.startswith("serve"):
            pytest.importorskip("fastapi")
        np.save("im.npy", np.ones((20, 4), np.float32))
        outcome = cli(*command.format("runs/shp").split())
        assert outcome.code in (2, 3, 4)
        assert "did you mean runs/shop? runs there: runs/shop\n" in outcome.err
        assert "hub" not in outcome.err

    @pytest.mark.parametrize("name", ["runs/shp/model", "rnus/shop/model", "./rnus/shp/model"])
    def test_the_part_of_a_path_that_is_not_there_is_corrected(self, cli: Cli, shop: Path, name: str) -> None:
        said = error_of(cli("encode", name, "p.jsonl", "--out", "v.npy"), 4)
        assert "did you mean runs/shop/model?" in said

    def test_a_hub_id_is_no_misspelt_run(self, cli: Cli, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not even where the current folder holds runs."""
        monkeypatch.chdir("runs")
        said = error_of(cli("encode", "someone/shop", "../p.jsonl", "--out", "v.npy"), 4)
        assert "hf download someone/shop" in said
        assert "runs there" not in said

    def test_a_result_file_of_nearly_this_name(self, cli: Cli, shop: Path) -> None:
        Path("results.json").write_text("{}")
        said = error_of(cli("report", "reslts.json"), 3)
        assert "no such run or result file; did you mean results.json?" in said

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("shop.yaml", "found the file shop.yaml; name the folder of a run"),
            (
                "plain",
                "plain without run.json; for a model without heads leave it out: -s student.model=plain",
            ),
            (
                "runs/unfinished",
                "without model and heads.safetensors; train it to its end first: dalr train",
            ),
        ],
    )
    def test_what_no_training_begins_with(self, cli: Cli, shop: Path, name: str, what: str) -> None:
        Path("plain").mkdir()
        Path("runs/unfinished").mkdir()
        Path("runs/unfinished/run.json").write_text("{}")
        said = error_of(cli("train", "shop.yaml", "--out", "runs/new", "--init-from", name), 2)
        assert said.startswith("error: --init-from: expected a finished run")
        assert what in said


class TestRunsAndModels:
    def test_a_run_folder_as_student(self, cli: Cli, shop: Path) -> None:
        said = error_of(cli("check", "shop.yaml", "-s", "student.model=runs/shop"), 2)
        assert "use its model: runs/shop/model" in said

    def test_a_model_folder_where_heads_are_needed(self, cli: Cli, shop: Path, tiny_bert: Path) -> None:
        import shutil

        shutil.copytree(tiny_bert, "runs/shop/model", dirs_exist_ok=True)
        command = [
            "evaluate",
            "runs/shop/model",
            "--tasks",
            "retrieval",
            "--pairs",
            "p.jsonl",
            "--features",
            "no.npy",
        ]
        assert "the run itself: runs/shop" in error_of(cli(*command), 2)
        assert "; use runs/shop" in error_of(cli("compare", "runs/shop/model"), 2)
        command = ["train", "shop.yaml", "--init-from", "runs/shop/model", "--out", "runs/new"]
        assert "; use runs/shop" in error_of(cli(*command), 2)

    def test_a_term_without_teachers(self, cli: Cli, shop: Path) -> None:
        said = error_of(cli("check", "shop.yaml", "-s", "objective.list_net={}"), 2)
        assert "add `teachers:` with `- {model: NAME}`" in said

    @pytest.mark.parametrize("key", ["student.model=nowhere/there", "teachers=[{model: nowhere}]"])
    def test_a_model_that_does_not_exist_fails_the_check(self, cli: Cli, shop: Path, key: str) -> None:
        said = error_of(cli("check", "shop.yaml", "-s", key), 4)
        assert "with a connection: hf download nowhere" in said
        assert "without one, name a folder" in said

    def test_a_near_folder_is_named(self, cli: Cli, shop: Path, tiny_bert: Path) -> None:
        (shop / "bert-mine").mkdir()
        assert "did you mean bert-mine?" in error_of(cli("check", "shop.yaml", "-s", "student.model=bert-mien"), 4)


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """Knows `there/model`, and no other."""

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.startswith("/api/models/there/model")
                self.send_response(200 if found else 404)
                if not found:
                    self.send_header("X-Error-Code", "RepoNotFound")
                body = b'{"id": "there/model", "siblings": []}' if found else b"{}"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()

    def test_the_hub_is_asked_whether_there_is_such_a_model(self, hub: str) -> None:
        assert unavailable("there/model", endpoint=hub) is None
        said = unavailable("not/there", endpoint=hub)
        assert said is not None
        assert "no model of that name on the hub" in said
        assert "name a folder, package:NAME/FOLDER, or a hub id" in said


class TestSettings:
    def test_key_and_value_are_one_word(self, cli: Cli, shop: Path) -> None:
        for command in (["check"], ["train"], ["recipe", "show"], ["study"]):
            said = error_of(cli(*command, "shop.yaml", "-s", "training.batch_size", "32"), 2)
            assert "-s training.batch_size: expected KEY=VALUE in one word: -s training.batch_size=VALUE" in said

    @pytest.mark.parametrize(
        ("setting", "what"),
        [
            ("training.batch_size=x", "expected integer, found 'x'"),
            ("training.batch_sze=3", "did you mean 'batch_size'?"),
            ("trainig.batch_size=3", "did you mean 'training'?"),
            ("objective.nonsense.weight=3", "unknown"),
            ("objective.grounding.weight=3", "features.image is not set"),
        ],
    )
    def test_a_wrong_setting_is_blamed_and_not_the_file(
        self, cli: Cli, shop: Path, setting: str, what: str
    ) -> None:
        said = error_of(cli("check", "shop.yaml", "-s", setting), 2)
        assert said.startswith(f"error: -s {setting}: ")
        assert what in said
        assert "shop.yaml:" not in said

    def test_a_setting_that_contradicts_the_file_is_named_with_the_line(self, cli: Cli, shop: Path) -> None:
        Path("corpus.txt").write_text("a dog\na cat\na cow\na horse\n")
        mixed = Path("shop.yaml").read_text().replace("p.jsonl", "p.jsonl, text: corpus.txt")
        Path("mixed.yaml").write_text(mixed.replace("4}", "4, schedule: {kind: every_k, k: 2}}"))
        assert cli("check", "mixed.yaml").code == 0
        said = error_of(cli("check", "mixed.yaml", "-s", "data.text=null"), 2)
        assert said.startswith("error: -s data.text=null: mixed.yaml:5: training.schedule.kind: every_k mixes")

    @pytest.mark.parametrize(
        "setting", ["seeds=[0]", "methods.a.recipe=simcse", "evaluate.tasks=[sts]", "trials=3"]
    )
    def test_a_key_of_the_study_is_changed_in_its_file(self, cli: Cli, shop: Path, setting: str) -> None:
        said = error_of(cli("study", "study.yaml", "--out", "st", "-s", setting), 2)
        assert f"-s {setting}: {setting.split('.')[0].split('=')[0]} is a key of the study" in said
        assert "change it in study.yaml, or in a file of your own that says `extends: study.yaml`" in said
        assert len(said.splitlines()) == 1


class TestLeftovers:
    def test_what_a_killed_init_left_is_taken_up(self, cli: Cli, shop: Path) -> None:
        assert cli("init", "--pairs", "p.jsonl", "--out", "new.yaml").code == 0
        sides = Path("new.split.jsonl").read_text()
        Path("new.yaml").unlink()
        assert cli("init", "--pairs", "p.jsonl", "--out", "new.yaml").code == 0
        assert Path("new.split.jsonl").read_text() == sides

    def test_another_file_of_sides_is_left_alone(self, cli: Cli, shop: Path) -> None:
        Path("new.split.jsonl").write_text("mine\n")
        said = error_of(cli("init", "--pairs", "p.jsonl", "--out", "new.yaml"), 6)
        assert "says otherwise which images are held out; choose another --out, or remove it" in said
        assert Path("new.split.jsonl").read_text() == "mine\n"

    @pytest.mark.parametrize("command", [["search", "runs/shop", "a dog"], ["compare", "runs/shop"]])
    @pytest.mark.parametrize("option", ["--html", "--json"])
    def test_a_file_of_somebody_else_is_not_written_over(
        self, cli: Cli, shop: Path, command: list[str], option: str
    ) -> None:
        if command[0] == "search" and option == "--json":
            return  # a switch there
        Path("thesis").write_text("years of work")
        said = error_of(cli(*command, option, "thesis"), 6)
        assert "thesis already exists, and it is not" in said
        assert f"choose another {option}" in said
        assert Path("thesis").read_text() == "years of work"


@pytest.mark.parametrize(
    "command",
    [
        "train shop.yaml",
        "study study.yaml",
        "features text --pairs p.jsonl --model NONE",
        "features images --pairs p.jsonl --images . --model NONE",
        "features import a.npy --ids p.jsonl",
        "encode NONE p.jsonl",
        "index NONE p.jsonl",
        "export NONE --format onnx",
        "import NONE",
        "report runs/shop",
        "demo",
        "data get sts",
        "init --pairs p.jsonl",
    ],
)
def test_an_out_that_cannot_be_written_fails_before_the_work(cli: Cli, shop: Path, command: str) -> None:
    """No model of the name NONE was looked for."""
    Path("file").write_text("mine")
    out = "file/x.npy" if command.startswith("encode") else "file/x"
    said = error_of(cli(*command.split(), "--out", out), 6)
    assert "--out: file is a file, not a folder: choose another --out" in said
    assert Path("file").read_text() == "mine"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder in which not even root can make a file, as in /proc: one that was removed while it was open."""
    folder = tmp_path / "closed"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    folder.rmdir()
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files have no names here")
@pytest.mark.parametrize(
    "command",
    [
        "train shop.yaml --out {}",
        "study study.yaml --out {}",
        "features text --pairs p.jsonl --model NONE --out {}",
        "features import a.npy --ids p.jsonl --out {}",
        "encode NONE p.jsonl --out {}.npy",
        "index NONE p.jsonl --out {}",
        "import NONE --out {}",
        "report runs/shop --out {}.html",
        "evaluate NONE --tasks captions --json {}.json",
        "check shop.yaml --json {}.json",
        "compare runs/shop --html {}.html",
        "demo --out {}",
        "data pack p.jsonl --images . --out {}",
        "init --pairs p.jsonl --out {}.yaml",
    ],
)
def test_a_file_system_without_new_files_is_not_called_in_use(
    cli: Cli, shop: Path, closed: Path, command: str
) -> None:
    np.save("a.npy", np.ones((20, 4), np.float32))
    said = error_of(cli(*command.format(closed / "new").split()), 6)
    assert "cannot write" in said
    assert f"{closed}: its file system takes no new files" in said or f"{closed} takes no new files" in said
    option = next(word for word in command.split() if word in ("--out", "--json", "--html"))
    assert f"choose another {option}" in said


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("search dog runs/shop", "dalr search runs/shop dog"),
        ("search dog runs/shop --index ix", "dalr search runs/shop dog"),
        ("encode p.jsonl runs/shop --out v.npy", "dalr encode runs/shop p.jsonl --out v.npy"),
        ("index p.jsonl runs/shop --out ix", "dalr index runs/shop p.jsonl --out ix"),
        ("push me/shop runs/shop --dry-run", "dalr push runs/shop me/shop"),
    ],
)
def test_swapped_arguments_are_called_so(cli: Cli, shop: Path, command: str, meant: str) -> None:
    said = error_of(cli(*command.split()), 2)
    assert said.endswith(f"the arguments are in the wrong order; expected: {meant}\n")


def test_a_long_sentence_is_no_path(cli: Cli, shop: Path) -> None:
    said = cli("search", "runs/shop", "a dog " * 100).err
    assert "wrong order" not in said
    assert "at most" not in said


def test_a_bare_call_of_encode_says_all_that_it_takes(cli: Cli) -> None:
    said = error_of(cli("encode"), 2)
    for where in ("MODEL: name a run", "INPUT: name a file", "--out: name FILE.npy"):
        assert where in said
    assert said.endswith("for example: dalr encode runs/photos sentences.txt --out vectors.npy\n")
    assert "dalr encode runs/shop p.jsonl --out vectors.npy" in error_of(cli("encode", "runs/shop", "p.jsonl"), 2)
    assert "dalr encode --merge --out vectors.npy" in error_of(cli("encode", "--merge"), 2)


ONE_WORD = "search index serve export train evaluate report compare audit explore push import init check"
TWO_WORDS = (
    "features images,features text,features import,features merge,data get,data verify,data pack,recipe show"
)


@pytest.mark.parametrize("command", [*ONE_WORD.split(), *TWO_WORDS.split(",")])
def test_a_call_without_what_it_needs_shows_an_example(cli: Cli, command: str) -> None:
    said = error_of(cli(*command.split()), 2)
    assert "Missing " in said
    assert f"Example:\n  dalr {command} " in said


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["data.max_tokens:", "8"], "-s data.max_tokens=VALUE"),
        (["data.max_tokens: 8"], "-s data.max_tokens=8"),
        (["data.max_tokens:8"], "-s data.max_tokens=8"),
        (["data.max_tokens:=8"], "-s data.max_tokens=8"),
        (["data.max_tokens 8"], "-s data.max_tokens=8"),
        (["data.text: my texts.txt"], "-s 'data.text=my texts.txt'"),
        (["=8"], "-s training.batch_size=32"),
    ],
)
def test_a_setting_as_a_recipe_writes_it_is_answered_with_key_and_value(
    cli: Cli, shop: Path, given: list[str], meant: str
) -> None:
    said = error_of(cli("check", "shop.yaml", "-s", *given), 2)
    assert said.endswith(f": expected KEY=VALUE in one word: {meant}\n")
