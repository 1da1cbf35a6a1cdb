"""What the page shows is right, with and without gradio: answers, mistakes, misjudged pairs, and refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import rankdata

import dalr
from dalr.errors import ConfigError, DataError
from dalr.evaluation.own_photos import photos_of
from dalr.evaluation.sts import load_scored_tsv
from dalr.explore import cards
from dalr.explore.mistakes import HeldOut, graded_pairs, held_out, misjudged, mistakes
from dalr.explore.models import Model, open_models
from dalr.explore.page import Page
from dalr.explore.queries import by_file, by_key, by_sentence
from dalr.explore.server import address_of, bind, guarded
from dalr.features.thumbnails import lacking
from dalr.inference.nearest import unit
from dalr.inference.searcher import Searcher
from dalr.models.heads import ground
from senteval import write_senteval
from tiny import Outcome, Toys, write_pairs
from tiny_images import save_photos, save_tiny_image_model

Cli = Callable[..., Outcome]
HOLDOUT = {"validation_fraction": 0.25, "test_fraction": 0.25}


def trained(toys: Toys, folder: Path, *, holdout: dict[str, Any] | None = HOLDOUT, **sections: Any) -> Path:
    folder.mkdir()
    data = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "max_tokens": 16}
    data |= {"holdout": holdout} if holdout is not None else {}
    return dalr.train(toys.recipe(folder, **({"data": data} | sections)), out=folder / "run").run


@pytest.fixture(scope="module")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(toys, tmp_path_factory.mktemp("explore") / "first")


@pytest.fixture(scope="module")
def other(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that saw everything but the last two images, under another seed."""
    return trained(toys, tmp_path_factory.mktemp("explore") / "second", holdout={"last": 2}, seed=3)


@pytest.fixture(scope="module")
def models(run: Path) -> tuple[Model, ...]:
    return open_models([str(run)], device="cpu")


@pytest.fixture(scope="module")
def both(run: Path, other: Path) -> tuple[Model, ...]:
    return open_models([str(run), str(other)], device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the first eight images."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(8):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number:03d}.jpg")
    return folder


class TestModels:
    def test_a_model_is_called_by_its_folder_or_by_its_path_where_folders_are_alike(
        self, models: tuple[Model, ...], both: tuple[Model, ...], run: Path, other: Path
    ) -> None:
        assert [model.name for model in models] == ["run"]
        assert [model.name for model in both] == [str(run), str(other)]

    def test_one_run_twice_and_three_runs_are_refused(self, run: Path) -> None:
        with pytest.raises(ConfigError, match="is there twice"):
            open_models([str(run), str(run)])
        with pytest.raises(ConfigError, match="expected one run or two, found 3"):
            open_models([str(run)] * 3)

    @pytest.mark.parametrize(
        ("sections", "lacks"),
        [
            ({"data": None}, "without image-caption pairs"),
            ({"features": {}, "objective": {"infonce": {"temperature": 0.05}}}, "without image vectors"),
            ({"objective": {"infonce": {"temperature": 0.05}}}, "no trained grounding heads"),
        ],
    )
    def test_a_run_without_an_image_part_says_what_it_lacks(
        self, sections: dict[str, Any], lacks: str, toys: Toys, tmp_path: Path
    ) -> None:
        if "data" in sections:
            sections = {"data": {"text": str(toys.data.text), "max_tokens": 16}, "features": {}}
            sections |= {
                "objective": {"infonce": {"temperature": 0.05}},
                "training": {"max_steps": 1, "batch_size": 8},
            }
        made = trained(toys, tmp_path / "made", holdout=None, **sections)
        with pytest.raises(ConfigError, match=f"the run has no image part: it (was trained|has).*{lacks[-18:]}"):
            open_models([str(made)])

    def test_a_model_that_is_no_run_is_refused(self, toys: Toys) -> None:
        with pytest.raises(ConfigError, match="expected a run of dalr train"):
            open_models([str(toys.teacher)])

    def test_a_second_run_without_vectors_of_the_images_is_refused(
        self, run: Path, toys: Toys, tmp_path: Path
    ) -> None:
        pairs = write_pairs(tmp_path / "few.jsonl", toys.data.images[:12], toys.data.captions[:12])
        np.save(tmp_path / "few.npy", toys.data.features[:12])
        made = trained(
            toys,
            tmp_path / "few",
            data={"pairs": str(pairs), "text": str(toys.data.text), "max_tokens": 16},
            features={"image": str(tmp_path / "few.npy"), "image_ids": str(pairs)},
        )
        with pytest.raises(DataError, match=r"image '012\.jpg': no such id among the 12 rows"):
            open_models([str(run), str(made)])


class TestQueries:
    def test_a_sentence_finds_what_a_search_finds(self, models: tuple[Model, ...], run: Path) -> None:
        [answer] = by_sentence(models, "a red dog runs", k=4)
        searcher = Searcher(run, device="cpu")
        assert answer.images == tuple(searcher.search("a red dog runs", k=4))
        assert answer.captions == tuple(searcher.search("a red dog runs", k=4, within="captions"))

    def test_two_models_answer_over_the_same_collection(self, both: tuple[Model, ...], other: Path) -> None:
        first, second = by_sentence(both, "a red dog runs", k=24)
        assert {hit.id for hit in first.images} == {hit.id for hit in second.images}
        assert [hit.score for hit in first.images] != [hit.score for hit in second.images]
        assert second.images == tuple(Searcher(other, device="cpu").search("a red dog runs", k=24))

    def test_an_image_of_the_collection_finds_images_and_captions(
        self, models: tuple[Model, ...], toys: Toys
    ) -> None:
        found = by_key(models, "005.jpg", k=3)
        assert found.known == "005.jpg"
        assert found.captions == toys.data.captions[5]
        assert "005.jpg" not in {hit.id for hit in found.answers[0].images}
        assert [hit.kind for hit in found.answers[0].captions] == ["caption"] * 3

    def test_a_typed_path_is_never_opened(self, models: tuple[Model, ...], tmp_path: Path) -> None:
        Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
        with pytest.raises(DataError, match="is none of the 24 images"):
            by_key(models, str(tmp_path / "secret.png"), k=3)

    def test_a_file_is_the_image_that_it_is_named_after(self, models: tuple[Model, ...], images: Path) -> None:
        assert by_file(models, images / "003.jpg", k=2) == by_key(models, "003.jpg", k=2)

    def test_a_new_file_whose_vectors_nobody_knows_how_to_make_says_what_to_do(
        self, models: tuple[Model, ...], tmp_path: Path
    ) -> None:
        Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
        with pytest.raises(ConfigError, match="name it with --vision MODEL"):
            by_file(models, tmp_path / "new.png", k=3)

    def test_a_new_file_is_encoded_by_the_model_that_made_the_vectors(
        self, toys: Toys, tmp_path: Path, cli: Cli
    ) -> None:
        model = save_tiny_image_model(tmp_path / "clip", "clip")
        names = save_photos(tmp_path / "photos", len(toys.data.images))
        pairs = write_pairs(tmp_path / "pairs.jsonl", names, toys.data.captions)
        store = tmp_path / "store"
        done = cli(
            *("features", "images", "--model", model, "--pairs", pairs, "--images", tmp_path / "photos"),
            *("--out", store, "--device", "cpu"),
        )
        assert done.code == 0, done.err
        made = trained(
            toys,
            tmp_path / "made",
            data={"pairs": str(pairs), "text": str(toys.data.text), "max_tokens": 16},
            features={"image": str(store)},
        )
        models = open_models([str(made)], device="cpu")
        copy = tmp_path / "copy-of-the-fifth.png"
        copy.write_bytes((tmp_path / "photos" / names[5]).read_bytes())
        found = by_file(models, copy, k=3)
        assert (found.known, found.captions) == (None, ())
        assert found.answers[0].images[0].id == names[5]
        page = Page(models=models, k=3, held_out=ConfigError("none"))
        assert "not in the collection; encoded now" in (html := page.upload(str(copy)))
        assert html.count('src="data:image/jpeg;base64,') == 1
        (tmp_path / "no.jpg").write_text("not an image")
        assert "no.jpg: " in page.upload(str(tmp_path / "no.jpg"))


class TestMistakes:
    def test_validation_images_are_shown_unless_the_test_is_asked_for(self, models: tuple[Model, ...]) -> None:
        photos = photos_of(models[0].run)
        assert photos.validation is not None
        assert photos.test is not None
        assert held_out(models).images.names == photos.validation.names
        assert held_out(models, test=True).images.names == photos.test.names

    def test_a_run_without_validation_images_says_how_to_see_the_test(self, other: Path) -> None:
        with pytest.raises(ConfigError, match=r"no validation images .*; --test shows the 2 images"):
            held_out(open_models([str(other)], device="cpu"))

    def test_images_that_the_second_run_was_trained_on_are_counted(self, both: tuple[Model, ...]) -> None:
        found = held_out(both)
        unseen = {"022.jpg", "023.jpg"} & set(found.images.names)
        assert found.seen_by == ((both[1].name, len(found.images.names) - len(unseen)),)

    def test_images_that_chose_the_weights_of_the_second_run_too_are_as_good_as_held_out(
        self, run: Path, toys: Toys, tmp_path: Path
    ) -> None:
        again = trained(toys, tmp_path / "again", seed=5)
        pair = open_models([str(run), str(again)], device="cpu")
        assert held_out(pair).seen_by == ()
        assert held_out(pair, test=True).seen_by == ()

    def test_they_explain_the_recall_of_evaluate(self, models: tuple[Model, ...]) -> None:
        found = mistakes(models[0], held_out(models, test=True).images, k=100)
        scored = dalr.evaluate(models[0].run, tasks="retrieval").tasks["retrieval"]
        assert found.r1 == pytest.approx(scored.text_to_image.r1)
        assert len(found.pairs) == found.wrong > 0

    def test_the_worst_ranks_come_first_with_the_image_that_was_first_instead(
        self, models: tuple[Model, ...]
    ) -> None:
        [model] = models
        images = held_out(models).images
        found = mistakes(model, images, k=100)
        sentences, grounded = ground(
            model.searcher.heads(),
            sentences=model.searcher.encoder.encode(images.captions).vectors,
            images=images.vectors(model.searcher.collection.required_store()),
        )
        cosines = unit(sentences) @ unit(grounded).T
        for each in found.pairs:
            row, own = images.captions.index(each.caption), images.names.index(each.image)
            assert own == images.owner[row]
            assert each.rank == 1 + sum(
                cosines[row, n] >= cosines[row, own] for n in range(len(images.names)) if n != own
            )
            assert each.first == images.names[int(cosines[row].argmax())]
            assert each.score == pytest.approx(cosines[row, own], abs=1e-5)
            assert each.first_score == pytest.approx(cosines[row].max(), abs=1e-5)
            assert each.first_captions[0] in images.captions
        assert [each.rank for each in found.pairs] == sorted((each.rank for each in found.pairs), reverse=True)
        assert min(each.rank for each in found.pairs) > 1
        assert mistakes(model, images, k=2).pairs == found.pairs[:2]


class TestGradedPairs:
    def test_they_are_those_that_the_run_was_validated_on(self, models: tuple[Model, ...], toys: Toys) -> None:
        found = graded_pairs(models)
        assert found is not None
        assert found.first == load_scored_tsv(toys.data.validation).first

    def test_others_are_named(self, models: tuple[Model, ...], tmp_path: Path) -> None:
        (tmp_path / "mine.tsv").write_text("1\ta dog\ta cat\n5\ta dog\ttwo dogs\n")
        found = graded_pairs(models, named=tmp_path / "mine.tsv")
        assert found is not None
        assert found.second == ("a cat", "two dogs")

    def test_of_senteval_the_validation_pairs_are_taken_unless_the_test_is_asked_for(
        self, models: tuple[Model, ...], tmp_path: Path
    ) -> None:
        data = write_senteval(tmp_path / "senteval")
        validation, test = (graded_pairs(models, data=data, test=test) for test in (False, True))
        assert validation is not None
        assert test is not None
        assert (validation.split, test.split) == ("dev", "test")

    def test_the_pairs_farthest_from_their_place_come_first(self, models: tuple[Model, ...], toys: Toys) -> None:
        pairs = load_scored_tsv(toys.data.validation)
        found = misjudged(models[0], pairs, k=5)
        encoder = models[0].searcher.encoder
        first, second = (unit(encoder.encode(each).vectors) for each in (pairs.first, pairs.second))
        error = (rankdata((first * second).sum(axis=1)) - rankdata(pairs.gold)) / len(pairs.gold)
        assert [abs(pair.rank_error) for pair in found.pairs] == pytest.approx(
            sorted(np.abs(error))[::-1][:5], abs=0.04
        )
        assert found.count == 30

    def test_a_pair_that_is_there_twice_is_shown_once(self, models: tuple[Model, ...], tmp_path: Path) -> None:
        (tmp_path / "mine.tsv").write_text(
            "5\ta dog\ta cat\n" * 2 + "".join(f"{n}\ta dog\ta {n}\n" for n in range(4))
        )
        pairs = graded_pairs(models, named=tmp_path / "mine.tsv")
        assert pairs is not None
        found = misjudged(models[0], pairs, k=5).pairs
        assert len({(pair.first, pair.second) for pair in found}) == len(found)


class TestPage:
    def page(self, models: tuple[Model, ...], **options: Any) -> Page:
        return Page(**({"models": models, "k": 24, "held_out": held_out(models)} | options))

    def test_thumbnails_stand_where_files_are_and_captions_where_not(
        self, models: tuple[Model, ...], images: Path
    ) -> None:
        page = self.page(models, images=images)
        html = page.sentence("a red dog")
        assert html.count('src="data:image/jpeg;base64,') == 8
        assert html.count("<li>") == 48
        assert "24 images, 72 captions, 8 image files" in page.heading
        assert 'src="' not in self.page(models).sentence("a red dog")

    def test_two_models_stand_side_by_side(self, both: tuple[Model, ...]) -> None:
        page = self.page(both, k=2, graded=graded_pairs(both))
        for html in (page.sentence("a dog"), page.image("003.jpg"), page.mistakes, page.misjudged):
            assert all(model.name in html for model in both)
        assert "has seen" in page.mistakes

    def test_texts_of_others_are_escaped(self, run: Path, toys: Toys, tmp_path: Path) -> None:
        bad = "<script>alert(1)</script>"
        captions = [[f"a dog {bad}", "a cat"] for _ in toys.data.images]
        pairs = write_pairs(tmp_path / "bad.jsonl", toys.data.images, captions)
        collection = Searcher(run, pairs=pairs, features=toys.data.matrix, device="cpu").collection
        model = Model(name=bad, run=run, searcher=Searcher(run, collection=collection, device="cpu"))
        page = self.page((model,), held_out=DataError(bad))
        for html in (page.sentence(bad), page.image("003.jpg"), page.heading, page.mistakes, page.image(bad)):
            assert "<script" not in html
            assert "&lt;script" in html

    def test_an_error_stands_in_place_of_an_answer(self, models: tuple[Model, ...], tmp_path: Path) -> None:
        page = self.page(models)
        assert "found none" in page.sentence("  ")
        assert "Choose an image" in page.image(None)
        (tmp_path / "no.jpg").write_text("not an image")
        assert "<p>no.jpg: not an image of the collection" in (html := page.upload(str(tmp_path / "no.jpg")))
        assert "name it with --vision" in html
        assert "No graded pairs" in page.misjudged

    def test_a_run_without_validation_images_says_so_on_the_page(self, other: Path) -> None:
        models = open_models([str(other)], device="cpu")
        with pytest.raises(ConfigError) as why:
            held_out(models)
        page = Page(models=models, k=3, held_out=why.value)
        assert "--test shows" in page.mistakes
        assert len(page.examples()) == 4

    def test_captions_to_try_are_of_held_out_images(self, models: tuple[Model, ...]) -> None:
        page = self.page(models)
        assert isinstance(page.held_out, HeldOut)
        assert set(page.examples()) <= set(page.held_out.images.captions)
        assert page.examples() == page.examples()

    def test_the_list_of_images_shows_a_caption_of_each(self, models: tuple[Model, ...], toys: Toys) -> None:
        page = self.page(models)
        assert page.listed()[3] == (f"003.jpg: {toys.data.captions[3][0]}", "003.jpg")
        assert page.another() in toys.data.images

    def test_nothing_in_it_names_another_host(self, both: tuple[Model, ...], images: Path) -> None:
        page = self.page(both, images=images, graded=graded_pairs(both))
        shown = [page.heading, page.sentence("a dog"), page.image("003.jpg"), page.mistakes]
        shown += [page.misjudged, cards.style()]
        assert [found for html in shown for found in re.findall(r"https?://|url\(|@import", html)] == []

    def test_a_folder_of_images_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="--images: no such folder"):
            cards.thumbnails(tmp_path / "none")

    def test_images_without_a_file_are_counted(self, images: Path, toys: Toys) -> None:
        assert lacking(images, toys.data.images[:8]) is None
        said = lacking(images, toys.data.images)
        assert said == f"16 of the 24 images are not in {images}, such as '008.jpg'"


class TestServer:
    def test_a_port_that_is_taken_says_what_to_do(self) -> None:
        with bind("127.0.0.1", 0) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(
                ConfigError, match=f"--port {port}: the port is in use; choose another --port, or 0"
            ):
                bind("127.0.0.1", port)
            assert address_of(taken, "127.0.0.1") == f"http://127.0.0.1:{port}/"
            assert address_of(taken, "0.0.0.0") == f"http://127.0.0.1:{port}/"

    @pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
    def test_an_address_of_another_machine_is_refused(self, host: str) -> None:
        with pytest.raises(ConfigError, match=f"--host {re.escape(host)} --port 0: no address of this machine"):
            bind(host, 0)

    def test_an_application_for_all_addresses_is_left_as_it_is(self) -> None:
        app = object()
        assert guarded(app, "0.0.0.0") is app


def test_the_command_refuses_before_anything_is_served(run: Path, cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = cli("explore", run, "--port", port)
        assert (done.code, "the port is in use" in done.err) == (2, True), done.err
    done = cli("explore", run, "--port", 0, "--images", tmp_path / "none")
    assert (done.code, "no such folder" in done.err) == (3, True), done.err
    (tmp_path / "empty").mkdir()
    done = cli("explore", run, "--port", 0, "--images", tmp_path / "empty")
    assert (done.code, "none of the 24 images is in" in done.err) == (3, True), done.err
    assert "such as '000.jpg'; name the folder that the image names are relative to" in done.err
    done = cli("explore", tmp_path, "--port", 0)
    assert (done.code, "expected a run of dalr train" in done.err) == (2, True), done.err
