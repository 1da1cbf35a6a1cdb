"""The documentation site: generated pages, pages of experiments, and the built site, which asks no other host."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from dalr.recipe.explain import recipe_keys

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXPERIMENTS = sorted((DOCS / "experiments").glob("20*.md"))
GENERATED = {"index.md", "changelog.md", "reference/recipe.md", "reference/commands.md", "experiments/index.md"}


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_of(each)


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    listed = set(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {
        path.relative_to(DOCS).as_posix() for path in EXPERIMENTS
    }
    assert listed == written | GENERATED


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_inside_the_repository_leads_to_a_file_of_it(page: Path) -> None:
    """On the page of a hosting site nothing has been generated yet."""
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))]
    inside = [target for target in targets if target and not urlsplit(target).scheme]
    assert [target for target in inside if not (page.parent / unquote(target)).exists()] == []


def test_the_reference_has_every_recipe_key_with_its_meaning() -> None:
    page = hook("keys").page()
    for key in recipe_keys():
        assert f"`{key.name}`" in page or f"`{key.name.rpartition('.')[2]}`" in page
        assert key.meaning.split("`")[0].split("_")[0].split("*")[0].split("|")[0].split("<")[0] in page


def test_the_reference_has_every_command_with_its_example() -> None:
    page = hook("commands").page()
    for name in ("train", "recipe show", "features images", "data verify", "import"):
        assert f"## `dalr {name}`" in page
    assert "dalr train photos.yaml -s training.learning_rate=1e-4 --out runs/photos" in page
    assert "9223372036854775807" not in page


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_has_a_question_a_date_a_command_and_a_verdict(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    title, _, date = text.splitlines()[:3]
    assert title.startswith("# ")
    assert title.endswith("?")
    assert path.name.startswith(date)
    assert text.count("**Command.** ") == text.count("**Verdict.** ") == 1
    assert path.name in hook("experiments").page(DOCS / "experiments")


def test_equations_become_mathml_and_code_is_left_alone() -> None:
    pytest.importorskip("latex2mathml")
    equations = hook("equations").Equations()
    text = equations.taken_out("cost $a_i * b_j$ and `$HOME/x$`, $DATA alone\n\n$$\\tau^2$$\n\n```\n$x$\n```\n")
    assert "a_i" not in text
    assert "`$HOME/x$`, $DATA alone" in text
    assert "```\n$x$\n```" in text
    html = equations.put_back(text)
    assert html.count("<math ") == 2
    assert 'display="block"' in html


class Page(HTMLParser):
    """What a page loads, where it links to, and which places it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.viewport = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.places.add(found.get("id", ""))
        self.viewport |= found.get("name") == "viewport"
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(found["href"])


@pytest.mark.slow
def test_the_site_builds_strictly_links_resolve_and_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 50
    wrong = []
    for path, page in pages.items():
        assert page.viewport, path
        wrong += [f"{path.name} loads {each}" for each in page.loads if "//" in each]
        for link in page.links if path.name != "404.html" else []:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_lost = not parts.scheme and not target.exists()
            if is_lost or (parts.fragment and target in pages and parts.fragment not in pages[target].places):
                wrong.append(f"{path.name} links to {link}")
    assert wrong == []
