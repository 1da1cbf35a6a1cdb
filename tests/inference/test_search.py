"""Search finds what `dalr evaluate` counts as found, and says what to do where it cannot search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dalr
from dalr.errors import ConfigError, DataError
from dalr.inference.nearest import nearest, unit
from dalr.inference.searcher import Searcher
from dalr.models import image_encoder
from tiny import Outcome, Toys

Cli = Callable[..., Outcome]
HELD_OUT = 6


@pytest.fixture(scope="module")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run that held out some images."""
    folder = tmp_path_factory.mktemp("search")
    data = {
        "pairs": str(toys.data.pairs),
        "text": str(toys.data.text),
        "max_tokens": 16,
        "holdout": {"last": HELD_OUT},
    }
    return dalr.train(toys.recipe(folder, data=data), out=folder / "run").run


def test_the_first_answers_are_the_recall_that_evaluate_says(run: Path) -> None:
    searcher = Searcher(run, held_out=True, device="cpu")
    pairs, images = searcher.collection.pairs, searcher.collection.images
    assert len(images) == HELD_OUT
    hits = searcher.search_many(pairs.captions, k=1)
    first = [found[0].image == pairs.images[owner] for found, owner in zip(hits, pairs.image_of, strict=True)]
    scored = dalr.evaluate(run, tasks="retrieval").tasks["retrieval"]
    assert 100 * float(np.mean(first)) == pytest.approx(scored.text_to_image.r1, abs=1e-9)


def test_a_sentence_finds_images_with_their_captions(run: Path, toys: Toys, cli: Cli) -> None:
    done = cli("search", run, "a red dog runs on the grass", "-k", 3, "--device", "cpu")
    assert done.code == 0, done.err
    header, *rows = done.out.splitlines()
    assert header.split() == ["rank", "score", "id", "caption"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    captions = dict(zip(toys.data.images, toys.data.captions, strict=True))
    for row in rows:
        _, score, image, *caption = row.split()
        assert " ".join(caption) == captions[image][0]
        assert -1 <= float(score) <= 1


def test_a_caption_is_found_by_itself(run: Path, toys: Toys, cli: Cli) -> None:
    sentence = toys.data.captions[3][1]
    done = cli("search", run, sentence, "--in", "captions", "--json", "-k", 2, "--device", "cpu")
    first, second = json.loads(done.out)
    assert (first["kind"], first["id"], first["image"]) == ("caption", "003.jpg#1", "003.jpg")
    assert first["captions"] == [sentence]
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert second["score"] <= first["score"]


def test_an_image_of_the_collection_finds_others_like_it(run: Path, toys: Toys, tmp_path: Path) -> None:
    searcher = Searcher(run, device="cpu")
    found = searcher.search_image(tmp_path / "elsewhere" / "005.jpg", k=3)
    cosines = unit(toys.data.features.astype(np.float16).astype(np.float32))
    order = np.argsort(-(cosines @ cosines[5]))
    assert [hit.image for hit in found] == [toys.data.images[number] for number in order[1:4]]
    assert [hit.rank for hit in found] == [1, 2, 3]
    captions = searcher.search_image("005.jpg", k=4, within="captions")
    assert {hit.kind for hit in captions} == {"caption"}


def test_an_image_of_unknown_vectors_is_refused_with_what_to_do(run: Path, tmp_path: Path, cli: Cli) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    done = cli("search", run, "--image", tmp_path / "new.png")
    assert (done.code, "name it with --vision MODEL" in done.err) == (2, True), done.err
    done = cli("search", run, "--image", tmp_path / "none.png")
    assert (done.code, "neither a file nor one of the 24 images" in done.err) == (3, True), done.err


def test_other_collections_are_searched_by_name(run: Path, toys: Toys, tmp_path: Path, cli: Cli) -> None:
    pairs = tmp_path / "others.jsonl"
    names = toys.data.images[:4]
    pairs.write_text("".join(json.dumps({"image": name, "captions": [f"two {name[:3]}"]}) + "\n" for name in names))
    np.save(tmp_path / "others.npy", toys.data.features[:4])
    done = cli(
        *("search", run, "two dogs", "--pairs", pairs, "--features", tmp_path / "others.npy"),
        *("--json", "--device", "cpu"),
    )
    assert {hit["image"] for hit in json.loads(done.out)} == set(names), done.err
    without = cli("search", run, "two dogs", "--pairs", pairs, "--device", "cpu")
    assert (without.code, "name --features" in without.err) == (2, True)
    captions = cli("search", toys.teacher, "two dogs", "--pairs", pairs, "--in", "captions", "--device", "cpu")
    assert captions.code == 0, captions.err
    headless = cli("search", toys.teacher, "two dogs", "--pairs", pairs, "--features", tmp_path / "others.npy")
    assert (headless.code, "the space of trained heads" in headless.err) == (2, True), headless.err


PLUGIN = """
import numpy as np
import dalr

@dalr.register_image_encoder("colours")
class Colours(dalr.ImageEncoder):
    version, dim, height, width = "1", DIM, 4, 4

    def __init__(self, device): ...

    @staticmethod
    def pixels(image):
        return np.asarray(image.resize((4, 4))).transpose(2, 0, 1)

    def vectors(self, pixels):
        return pixels.transpose(0, 2, 3, 1).reshape(len(pixels), 48)[:, : self.dim].astype(np.float32)
"""


def test_an_image_is_read_by_the_plug_in_that_made_the_vectors(
    run: Path, toys: Toys, tmp_path: Path, cli: Cli
) -> None:
    plugin = tmp_path / "colours.py"
    plugin.write_text(PLUGIN.replace("DIM", str(toys.data.features.shape[1])))
    colours = {"red.png": "red", "green.png": "green", "blue.png": "blue"}
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"image": name, "caption": f"all {each}"}) + "\n" for name, each in colours.items())
    )
    for name, each in colours.items():
        Image.new("RGB", (12, 9), each).save(tmp_path / name)
    store = ("--pairs", pairs, "--images", tmp_path, "--out", tmp_path / "s", "--workers", 0)
    done = cli("features", "images", *store, "--model", "plugin:colours", "--plugin", plugin)
    assert done.code == 0, done.err
    Image.new("RGB", (5, 8), (0, 0, 250)).save(tmp_path / "new.png")
    asked = (
        "search",
        run,
        "--image",
        tmp_path / "new.png",
        "--pairs",
        pairs,
        "--features",
        tmp_path / "s",
        "--json",
    )
    assert json.loads(cli(*asked, "--plugin", plugin).out)[0]["image"] == "blue.png"
    image_encoder._registered.pop("colours")
    done = cli(*asked)
    assert (done.code, "no image encoder 'colours' is registered" in done.err) == (2, True), done.err


def test_a_contact_sheet_shows_thumbnails_or_captions(run: Path, tmp_path: Path, cli: Cli) -> None:
    images, page = tmp_path / "images", tmp_path / "page.html"
    images.mkdir()
    for number in range(12):
        Image.new("RGB", (640, 480), (number, 0, 0)).save(images / f"{number:03d}.jpg")
    done = cli(
        *("search", run, "<b>a dog</b>", "-k", 24, "--html", page, "--images", images, "--device", "cpu"),
    )
    assert done.code == 0, done.err
    html = page.read_text()
    assert html.count('src="data:image/jpeg;base64,') == 12
    assert html.count("<li>") == 24
    assert "&lt;b&gt;a dog&lt;/b&gt;" in html
    assert "<b>" not in html


def test_names_of_images_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    from dalr.inference.contact_sheet import write_contact_sheet
    from dalr.inference.searcher import Hit

    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    hit = Hit(rank=1, score=0.5, kind="image", id="../secret.png", image="../secret.png", captions=("a",))
    assert write_contact_sheet(tmp_path / "page.html", "a", [hit], tmp_path / "images") == 0
    assert "data:image" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a sentence, or --image FILE"),
        (("a dog", "--image", "x.jpg"), "a sentence, or --image FILE"),
        ((" ",), "expected words to search for, found none"),
        (("a dog", "--held-out", "--pairs", "x.jsonl"), "leave --pairs out"),
        (("a dog", "--features", "x.npy"), "name the captions of these images with --pairs"),
        (("a dog", "--index", "x", "--in", "images"), "does not apply to an index"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    run: Path, cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    done = cli("search", run, *arguments)
    assert (done.code, message in done.err) == (2, True), done.err


def test_a_model_alone_has_nothing_to_search(toys: Toys) -> None:
    with pytest.raises(ConfigError, match="a model alone has nothing to search; name --pairs"):
        Searcher(toys.teacher)


def test_an_empty_collection_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError):
        Searcher(run, pairs=tmp_path / "empty.jsonl")


def test_nearest_rows_are_those_of_sorting_and_ties_go_to_the_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    rows = unit(random.normal(size=(50, 6)).astype(np.float32))
    rows[[9, 30, 41]] = rows[3]
    queries = np.concatenate([rows[3:4], unit(random.normal(size=(4, 6)).astype(np.float32))])
    expected = np.argsort(-np.round(queries @ rows.T, 5), axis=1, kind="stable")
    for block in (7, 1000):
        monkeypatch.setattr("dalr.inference.nearest._BLOCK", block)
        for k in (1, 3, 10, 50, 80):
            numbers, scores = nearest(queries, rows, k)
            assert numbers.shape == scores.shape == (5, min(k, 50))
            assert (np.diff(scores, axis=1) <= 0).all()
            assert (numbers[1:] == expected[1:, :k]).all()
            assert set(numbers[0, : min(k, 4)].tolist()) <= {3, 9, 30, 41}
