"""`dalr audit`: table, JSON and page; what cannot be audited is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_pairs import ToyPairs, toy_pairs

import dalr
from tiny import Outcome, Toys, write_pairs

Cli = Callable[..., Outcome]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ToyPairs]:
    """Pairs, a matrix of image features and stored caption vectors of another dimension."""
    toys = toy_pairs(noise=1.0, twins=True)
    captions = [[f"<b>{toys.found.captions[3 * image + k]}</b>" for k in range(3)] for image in range(40)]
    write_pairs(tmp_path / "pairs.jsonl", toys.found.names, captions)
    np.save(tmp_path / "images.npy", toys.images)
    np.save(tmp_path / "text.npy", toys.vectors)
    (tmp_path / "text.txt").write_text("".join(f"{name}\n" for name in toys.found.caption_ids))
    return tmp_path, toys


def arguments(folder: Path) -> list[object]:
    given = ["--features", folder / "images.npy", "--text", folder / "text.npy", "--text-ids", folder / "text.txt"]
    return ["audit", folder / "pairs.jsonl", *given]


def test_scores_of_every_pair_and_image_go_into_the_file(files: tuple[Path, ToyPairs], cli: Cli) -> None:
    folder, toys = files
    done = cli(*arguments(folder), "--json", folder / "audit.json", "--neighbours", 5)
    assert done.code == 0, done.err
    found = json.loads((folder / "audit.json").read_text())
    assert [each["id"] for each in found["captions"]] == list(toys.found.caption_ids)
    assert [each["id"] for each in found["images"]] == list(toys.found.names)
    assert found["source"]["image_evidence"].startswith("linear map")
    assert found["verdict"][0] in done.out
    assert (found["format"], found["neighbours"]) == ("dalr-audit", 5)


def test_the_page_shows_the_worst_cases_with_photos_and_escapes_captions(
    files: tuple[Path, ToyPairs], cli: Cli
) -> None:
    folder, toys = files
    (folder / "photos").mkdir()
    for name in toys.found.names:
        Image.new("RGB", (640, 480), "red").save(folder / "photos" / name)
    page = folder / "page.html"
    done = cli(*arguments(folder), "--html", page, "--images", folder / "photos", "--worst", 5)
    assert done.code == 0, done.err
    html = page.read_text()
    assert 5 <= html.count('src="data:image/jpeg;base64,') <= 20
    assert "&lt;b&gt;caption" in html
    assert "<b>" not in html
    assert cli(*arguments(folder), "--html", page).code == 0, "a page of an audit may be written over"
    assert "data:image" not in page.read_text(), "without --images captions and names stand alone"


def test_vectors_of_one_dual_encoder_are_compared_as_they_are(files: tuple[Path, ToyPairs], cli: Cli) -> None:
    folder, toys = files
    unit = np.stack([toys.vectors[3 * image : 3 * image + 3].mean(axis=0) for image in range(40)])
    np.save(folder / "images.npy", unit)
    done = cli(*arguments(folder), "--json", folder / "audit.json")
    assert done.code == 0, done.err
    assert json.loads((folder / "audit.json").read_text())["source"]["image_evidence"].startswith("cosine")


def test_an_encoder_may_be_named_in_place_of_its_vectors(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    given = ["--features", toys.data.matrix, "--model", toys.teacher, "--device", "cpu"]
    done = cli("audit", toys.data.pairs, *given, "--json", tmp_path / "audit.json")
    assert done.code in (0, 3), done.err
    if done.code:  # random vectors and random features may not even reach chance
        assert "no better than any others" in done.err


def test_a_run_judges_only_images_that_it_never_saw(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    data = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "max_tokens": 16, "holdout": {"last": 12}}
    run = dalr.train(toys.recipe(tmp_path, data=data), out=tmp_path / "run").run
    given = ["--features", toys.data.matrix, "--image-ids", toys.data.ids, "--run", run, "--device", "cpu"]
    refused = cli("audit", toys.data.pairs, *given)
    assert (refused.code, "was trained on 12 of the 24 images" in refused.err) == (2, True), refused.err
    held_out = write_pairs(tmp_path / "held-out.jsonl", toys.data.images[12:], toys.data.captions[12:])
    done = cli("audit", held_out, *given)
    assert done.code in (0, 3), done.err
    if done.code:
        assert "no better than any others" in done.err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--model", "nothing"], 2, "name one of --text STORE"),
        (["--images", "photos"], 2, "is for the thumbnails of --html"),
        (["--split", "val"], 3, "this file names no splits"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    files: tuple[Path, ToyPairs], cli: Cli, more: list[str], code: int, message: str
) -> None:
    folder, _ = files
    done = cli(*arguments(folder), *more)
    assert (done.code, message in done.err) == (code, True), done.err


def test_captions_without_vectors_are_named(files: tuple[Path, ToyPairs], cli: Cli) -> None:
    folder, toys = files
    np.save(folder / "text.npy", toys.vectors[:-1])
    (folder / "text.txt").write_text("".join(f"{name}\n" for name in toys.found.caption_ids[:-1]))
    done = cli(*arguments(folder))
    assert (done.code, "caption '039.jpg#2': no such id" in done.err) == (3, True), done.err


def test_captions_need_vectors_from_somewhere(files: tuple[Path, ToyPairs], cli: Cli) -> None:
    folder, _ = files
    done = cli("audit", folder / "pairs.jsonl", "--features", folder / "images.npy")
    assert (done.code, "captions need vectors" in done.err) == (2, True), done.err


def test_somebody_elses_file_is_not_written_over(files: tuple[Path, ToyPairs], cli: Cli) -> None:
    folder, _ = files
    (folder / "mine.html").write_text("<p>mine</p>")
    done = cli(*arguments(folder), "--html", folder / "mine.html")
    assert done.code == 6, done.err
    assert (folder / "mine.html").read_text() == "<p>mine</p>"
