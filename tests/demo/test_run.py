"""`dalr demo` from start to end on a tiny world, and what it leaves behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from dalr.demo.run import Scale, run_demo
from dalr.demo.teachers import TeacherSteps
from dalr.demo.world import WorldSize
from dalr.errors import StorageError
from dalr.features.store import open_store
from dalr.io.console import Console
from tiny import Outcome

SCALE = Scale(
    world=WorldSize(scenes=90, held_out=12, corpus=200, dev_pairs=40, test_pairs=60, upbringing=120),
    teachers=TeacherSteps(clip=2, text=2),
    steps=4,
)
MODELS = [
    "untrained student",
    "teacher-paraphrases",
    "teacher-captions",
    "clip",
    "simcse",
    "rankcse",
    "mcse",
    "kdmcse",
    "dalr",
]


@dataclass(frozen=True, kw_only=True)
class Finished:
    out: Path
    printed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("demo") / "out"
    return Finished(out=out, printed=run_demo(out, seed=3, console=Console(quiet=True), scale=SCALE))


class Page(HTMLParser):
    """What a page links to, and whether its tags are balanced."""

    void = {"meta", "img", "br", "line", "polyline", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in self.void or self.open.pop() == tag


@pytest.mark.slow
class TestWholeDemo:
    def test_the_table_has_every_model_and_the_yardsticks(self, finished: Finished) -> None:
        labels = re.findall(r"^\| (\w[\w -]*?) *\|", finished.printed, re.MULTILINE)
        assert [label.lower() for label in labels] == ["chance", *MODELS]
        scores = json.loads((finished.out / "results.json").read_text())
        assert list(scores) == MODELS
        grounded = {name for name in MODELS if scores[name]["text_to_image"] is not None}
        assert grounded == {"untrained student", "clip", "mcse", "kdmcse", "dalr"}
        assert (finished.out / "table.md").read_text().strip() in finished.printed

    def test_it_says_in_words_who_is_ahead(self, finished: Finished) -> None:
        scores = json.loads((finished.out / "results.json").read_text())
        tests = {name: scores[name]["test"] for name in MODELS[4:]}
        wins = max(tests, key=tests.__getitem__) == "dalr"
        assert ("DALR is ahead" in finished.printed) >= wins
        assert f"{max(tests.values()):.1f}" in finished.printed

    def test_made_anew_with_the_same_seed_all_is_the_same(self, finished: Finished, tmp_path: Path) -> None:
        earlier = tmp_path / "again"
        earlier.mkdir()
        (earlier / "demo.json").write_text("{}")
        (earlier / "old.txt").write_text("left over")
        run_demo(earlier, seed=3, console=Console(quiet=True), scale=SCALE)
        assert not (earlier / "old.txt").exists()
        for name in ("table.md", "results.json", "pairs.jsonl", "stores/clip-images/vectors-00000.safetensors"):
            assert (tmp_path / "again" / name).read_bytes() == (finished.out / name).read_bytes(), name

    def test_kdmcse_reads_both_branches_and_no_recipe_reads_test(self, finished: Finished) -> None:
        recipes = {path.stem: yaml.safe_load(path.read_text()) for path in (finished.out / "recipes").iterdir()}
        assert recipes["kdmcse"]["objective"]["grounding"]["clip_text_branch"] is True
        assert recipes["kdmcse"]["features"]["clip_text"].endswith("clip-text")
        assert len({json.dumps(recipe["student"]) for recipe in recipes.values()}) == 1
        assert {recipe["training"]["max_steps"] for recipe in recipes.values()} == {SCALE.steps}
        assert not any("sts-test" in path.read_text() for path in (finished.out / "recipes").iterdir())

    def test_its_recipe_trains_by_hand_from_another_folder(
        self,
        finished: Finished,
        cli: Callable[..., Outcome],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        outcome = cli("train", finished.out / "recipes" / "dalr.yaml", "--out", tmp_path / "by-hand", "-q")
        assert outcome.code == 0, outcome.err
        by_hand = (tmp_path / "by-hand" / "model" / "model.safetensors").read_bytes()
        assert by_hand == (finished.out / "dalr" / "model" / "model.safetensors").read_bytes()

    def test_stores_hold_every_picture_and_caption(self, finished: Finished) -> None:
        assert len(open_store(finished.out / "stores" / "clip-images")) == SCALE.world.scenes
        assert len(open_store(finished.out / "stores" / "clip-text")) == 5 * SCALE.world.scenes
        text = open_store(finished.out / "stores" / "teacher-captions")
        assert len(text) == 5 * SCALE.world.scenes + SCALE.world.corpus

    def test_the_report_is_whole_and_asks_for_nothing(self, finished: Finished) -> None:
        page = Page((finished.out / "report.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert page.links
        assert all(link.startswith("data:image/png;base64,") for link in page.links)
        assert not {"script", "link", "iframe"} & set(page.tags)
        terms = {"simcse": 1, "rankcse": 3, "mcse": 2, "kdmcse": 2, "dalr": 6}
        assert page.tags.count("svg") == 1 + sum(terms.values())
        text = (finished.out / "report.html").read_text(encoding="utf-8")
        assert "url(" not in text
        assert "@import" not in text


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="not an earlier demo"):
        run_demo(tmp_path, seed=0, console=Console(quiet=True), scale=SCALE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
