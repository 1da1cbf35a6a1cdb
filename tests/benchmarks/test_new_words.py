"""Benchmark new-words on small data of its own: words, inflection, consistency, and what no test set may hold."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

simplemma = pytest.importorskip("simplemma")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import new_words  # noqa: E402
from new_words_lexicon import (  # noqa: E402
    Lexicon,
    ending_of,
    frequent_lemmas,
    invent,
    is_content,
    lemma_of,
    words_of,
)

from dalr.errors import ConfigError, DataError  # noqa: E402
from dalr.evaluation.graded import load_graded_pairs  # noqa: E402
from senteval import write_senteval  # noqa: E402

CAPTIONS = [
    "A dog runs on the beach .",
    "Two dogs are running on the beach",
    "The man's dog jumped into water .",
    "Men walking near the water .",
    "A DOG and a man .",
]
SHAPE = re.compile(r"([bdfgklmnprstvz][aeiou]){2}[bdfgklmnprstvz]\Z")
WORDS = 5
IMAGES = new_words.HELD_OUT + 3


def write_data(folder: Path) -> Path:
    """A folder as the shared one: captions, text, and STS sets whose photo pairs share words with the captions."""
    senteval = write_senteval(folder / "senteval")
    rows = [{"image": f"{n}.jpg", "captions": [f"{caption} {n}" for caption in CAPTIONS]} for n in range(IMAGES)]
    for images, extra in (("clip", {}), ("cnn", {"split": "train"})):
        (folder / f"flickr8k-{images}").mkdir()
        lines = [
            {**row, **(extra if number < 3 or not extra else {"split": "test"})} for number, row in enumerate(rows)
        ]
        (folder / f"flickr8k-{images}" / "captions.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in lines)
        )
    (folder / "text").mkdir()
    (folder / "text" / "wiki10k.txt").write_text("The dog is an animal.\n")
    benchmark = senteval / "STS" / "STSBenchmark"
    for split, pairs in (
        (
            "dev",
            [
                ("a dog runs .", "dogs ran ."),
                ("dev man", "dev men"),
                ("dev beach", "dev water"),
                ("dev dog", "dev"),
            ],
        ),
        (
            "test",
            [
                ("a man walks .", "men walk ."),
                ("test dog", "test man"),
                ("test water", "test dog"),
                ("test man", "test"),
            ],
        ),
    ):
        genre = ["main-captions", "main-captions", "main-news", "main-news"]
        lines_ = [
            f"{g}\tf\t2012\t0\t{n}.0\t{a}\t{b}\n" for n, (g, (a, b)) in enumerate(zip(genre, pairs, strict=True))
        ]
        (benchmark / f"sts-{split}.csv").write_text("".join(lines_))
    photos = senteval / "STS" / "STS12-en-test"
    pairs = ["Dogs ran.\tA dog runs", "a man walks .\tmen walk .", "dog one\tdog two", "man one\tman two"]
    (photos / "STS.input.MSRvid.txt").write_text("".join(f"{pair}\n" for pair in pairs))
    (photos / "STS.gs.MSRvid.txt").write_text("1\n2\n3\n4\n")
    photos = senteval / "STS" / "STS15-en-test"
    pairs = ["dog three\tdog four", "man three\tman four", f"{CAPTIONS[0]} 1\tdog five", "water\tbeach"]
    (photos / "STS.input.images.txt").write_text("".join(f"{pair}\n" for pair in pairs))
    (photos / "STS.gs.images.txt").write_text("1\n2\n3\n4\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def make(data: Path, out: Path, seed: int = 0, images: str = "clip") -> dict[str, Any]:
    return new_words.make(data, out, seed=seed, images=images, vocabulary=["dog", "man"], words=WORDS)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestWords:
    @pytest.mark.parametrize(
        ("form", "lemma"),
        [
            *[("dogs", "dog"), ("men", "man"), ("children", "child"), ("running", "run"), ("ran", "run")],
            *[("playing", "play"), ("sitting", "sit"), ("skies", "sky"), ("grey", "gray"), ("wearing", "wear")],
        ],
    )
    def test_lemmas(self, form: str, lemma: str) -> None:
        assert lemma_of(form) == lemma

    @pytest.mark.parametrize(
        ("form", "ending"),
        [
            *[("dog", ""), ("dogs", "s"), ("men", "s"), ("children", "s"), ("feet", "s"), ("grey", "")],
            *[("running", "ing"), ("playing", "ing"), ("jumped", "ed"), ("ran", "ed"), ("worn", "ed")],
            *[("smaller", "er"), ("biggest", "est"), ("player", ""), ("players", "s")],
        ],
    )
    def test_endings(self, form: str, ending: str) -> None:
        assert ending_of(form, lemma_of(form)) == ending

    @pytest.mark.parametrize("word", ["the", "is", "running", "s", "two", "with", "herself"])
    def test_closed_classes_are_no_content(self, word: str) -> None:
        assert is_content(word) == (word == "running")

    def test_forms_of_a_lemma_count_together_and_equal_counts_go_by_alphabet(self) -> None:
        assert frequent_lemmas(CAPTIONS, 4) == {"dog": 4, "man": 3, "beach": 2, "run": 2}
        with pytest.raises(ValueError, match="expected at least 100 different content words, found 7"):
            frequent_lemmas(CAPTIONS, 100)

    def test_invented_words_have_the_shape_and_are_no_words(self) -> None:
        lemmas = [f"lemma{n}" for n in range(400)]
        found = invent(lemmas, seed=0, taken=())
        assert list(found) == lemmas
        assert len(set(found.values())) == 400
        assert all(SHAPE.match(word) for word in found.values())
        known = [
            word + e
            for word in found.values()
            for e in ("", "s", "ing", "ed")
            if simplemma.is_known(word + e, "en")
        ]
        assert known == []

    def test_words_that_are_taken_are_not_invented_nor_are_their_forms(self) -> None:
        before = invent(["dog", "man"], seed=0, taken=())
        after = invent(["dog", "man"], seed=0, taken=[before["dog"] + "s"])
        assert before["dog"] not in after.values()

    def test_seeds_draw_other_words(self) -> None:
        lemmas = [f"lemma{n}" for n in range(50)]
        assert invent(lemmas, seed=1, taken=()) == invent(lemmas, seed=1, taken=())
        assert not set(invent(lemmas, seed=1, taken=()).values()) & set(invent(lemmas, seed=2, taken=()).values())

    def test_a_sentence_keeps_everything_else(self) -> None:
        lexicon = Lexicon(words={"dog": "subit", "run": "vunad"})
        assert lexicon.rewrite("Dogs, DOG's dog-like hotdog: running (ran)  .") == (
            "Subits, SUBIT's subit-like hotdog: vunading (vunaded)  ."
        )
        assert lexicon.count("A dog ran home .") == (2, 4)


class TestFiles:
    def test_the_same_arguments_give_the_same_bytes(self, data: Path, tmp_path: Path) -> None:
        make(data, tmp_path / "a")
        make(data, tmp_path / "b")
        make(data, tmp_path / "b")  # over what it made before
        assert content(tmp_path / "a") == content(tmp_path / "b")

    def test_seeds_differ_in_words_and_in_nothing_else(self, data: Path, tmp_path: Path) -> None:
        first, second = make(data, tmp_path / "a"), make(data, tmp_path / "b", seed=1)
        assert [each["lemma"] for each in first["words"]] == [each["lemma"] for each in second["words"]]
        assert not {each["word"] for each in first["words"]} & {each["word"] for each in second["words"]}
        assert first["pairs"] == second["pairs"]
        plain = [name for name in content(tmp_path / "a") if "/plain" in name or name.startswith("plain")]
        assert all(content(tmp_path / "a")[name] == content(tmp_path / "b")[name] for name in plain)

    def test_captions_keep_their_images_and_sets_have_the_same_new_words(self, data: Path, tmp_path: Path) -> None:
        manifest = make(data, tmp_path / "out")
        word = {each["lemma"]: each["word"] for each in manifest["words"]}
        rows = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
        assert [row["image"] for row in rows] == [f"{n}.jpg" for n in range(IMAGES)]
        assert rows[0]["captions"][0] == f"A {word['dog']} {word['run']}s on the {word['beach']} . 0"
        pairs = load_graded_pairs(tmp_path / "out" / "test" / "new-words" / "MSRvid.tsv")
        assert (pairs.first[0], pairs.second[0]) == (f"{word['dog']} one", f"{word['dog']} two")
        plain = load_graded_pairs(tmp_path / "out" / "plain-photo-captions" / "MSRvid.tsv")
        assert plain.first[0] == "dog one"
        everything = " ".join(path.read_text() for path in (tmp_path / "out" / "test" / "new-words").iterdir())
        assert not {lemma_of(each) for each in words_of(everything)} & set(word)

    def test_the_training_images_alone_fix_the_words(self, data: Path, tmp_path: Path) -> None:
        manifest = make(data, tmp_path / "out")
        assert (
            manifest["words_fixed_by"] == "the 15 captions of the 3 training images of flickr8k-clip/captions.jsonl"
        )
        assert manifest["words"][0] == {"lemma": "dog", "occurrences": 12, "word": manifest["words"][0]["word"]}
        assert len((tmp_path / "out" / "training-captions.txt").read_text().splitlines()) == 15

    def test_tuning_pairs_and_pairs_that_were_looked_at_are_in_no_test(self, data: Path, tmp_path: Path) -> None:
        manifest = make(data, tmp_path / "out")
        left_out = manifest["left_out"]
        # whatever its case, its punctuation and its order
        assert left_out["new-words/MSRvid"] == {"pairs of STS-B dev": 1, "caption pairs of STS-B test": 1}
        assert left_out["plain/STS12"] == {"pairs of STS-B dev": 1}
        assert manifest["pairs"]["test/new-words/MSRvid"] == 2
        assert manifest["pairs"]["test/plain/STS-B"] == 4, "its caption pairs stay in plain words"
        assert (manifest["pairs"]["validation/new-words"], manifest["pairs"]["validation/plain"]) == (2, 2)

    def test_pairs_with_a_training_caption_are_left_out_of_a_set_of_captions(
        self, data: Path, tmp_path: Path
    ) -> None:
        rule = "pairs with a training caption"
        assert rule not in make(data, tmp_path / "clip")["left_out"]["new-words/STS15-images"]
        assert make(data, tmp_path / "cnn", images="cnn")["left_out"]["new-words/STS15-images"][rule] == 1

    def test_validation_and_test_are_two_groups(self, data: Path, tmp_path: Path) -> None:
        make(data, tmp_path / "out")
        for part in ("validation", "test"):
            files = load_graded_pairs(tmp_path / "out" / part).subset_sizes
            assert {name.split("/")[0] for name in files} == {"new-words", "plain"}

    def test_a_downstream_folder_is_read_as_sts_and_lacks_the_same_pairs(self, data: Path, tmp_path: Path) -> None:
        from dalr.evaluation.sts import load_sts

        manifest = make(data, tmp_path / "out")
        downstream = tmp_path / "out" / "downstream"
        photos = load_sts(downstream, "STS12").subset_sizes["MSRvid"]
        assert photos == manifest["pairs"]["test/new-words/MSRvid"]
        assert len(load_sts(downstream, "SICK-R").gold) == manifest["pairs"]["test/new-words/SICK-R"]
        assert len(load_sts(downstream, "sts-b-dev").gold) == 4
        rows = (downstream / "STS" / "STSBenchmark" / "sts-test.csv").read_text().splitlines()
        assert [row.split("\t")[0] for row in rows] == ["main-news"] * 2

    def test_captions_of_one_image_beside_those_of_the_next(self, data: Path, tmp_path: Path) -> None:
        make(data, tmp_path / "out")
        rows = [line.split("\t") for line in (tmp_path / "out" / "same-image.tsv").read_text().splitlines()]
        number = [(row[0], row[1].split()[-1], row[2].split()[-1]) for row in rows]
        assert number[:2] == [("1", "3", "3"), ("0", "3", "4")]
        assert len(rows) == new_words.HELD_OUT * 20

    def test_every_file_is_in_the_manifest_with_its_checksum(self, data: Path, tmp_path: Path) -> None:
        manifest = make(data, tmp_path / "out")
        files = content(tmp_path / "out")
        assert json.loads(files.pop("manifest.json")) == manifest
        assert {name: new_words._sha256(found) for name, found in files.items()} == manifest["files"]

    def test_a_folder_of_something_else_is_left_alone(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("all of it")
        with pytest.raises(ConfigError, match="holds something else"):
            make(data, tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]

    def test_too_few_words_are_an_error_of_the_data(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="expected at least 400 different content words"):
            new_words.make(data, tmp_path / "out", seed=0, images="clip", vocabulary=[])
        assert not (tmp_path / "out").exists()


def test_real_data_has_the_counts_that_the_benchmark_is_described_with(shared: Path, tmp_path: Path) -> None:
    manifest: Any = new_words.make(shared / "data", tmp_path / "out", seed=0, images="clip", vocabulary=[])
    left_out = {name: rules["pairs of STS-B dev"] for name, rules in manifest["left_out"].items()}
    assert [left_out[f"new-words/{name}"] for name in ("MSRvid", "STS14-images", "STS15-images")] == [138, 118, 132]
    assert (manifest["pairs"]["validation/new-words"], manifest["pairs"]["validation/plain"]) == (625, 875)
    assert len(manifest["words"]) == 400
    assert 0.36 < manifest["new_words_of_all"]["validation"] < 0.39
