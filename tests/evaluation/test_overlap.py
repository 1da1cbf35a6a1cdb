"""The overlap audit: what counts as the same sentence, near matches against a naive loop, known figures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalr.errors import ConfigError, DataError
from dalr.evaluation.overlap import audit, folded, training_sentences
from dalr.evaluation.sts import ScoredPairs, load_sts
from senteval import write_senteval
from tiny import Outcome, Toys


def pairs(name: str, *both: tuple[str, str]) -> ScoredPairs:
    return ScoredPairs(
        name=name,
        first=tuple(first for first, _ in both),
        second=tuple(second for _, second in both),
        gold=np.arange(len(both), dtype=np.float64),
        split="test",
        subset_sizes={name: len(both)},
    )


class TestFolding:
    @pytest.mark.parametrize(
        ("tokenised", "written"),
        [
            ("a t-shirt , folded .", "A T-shirt, folded."),
            ("two dogs , one ball !", "Two dogs, one  ball!"),
            ("x y", "X\u00a0Y"),
            ("ﬁve men", "five men"),
            ("a b", "_a_ b"),
            ("whitewashing of ariel sharon ŕä", "Whitewashing of Ariel Sharon"),
        ],
    )
    def test_the_same_sentence_written_otherwise(self, tokenised: str, written: str) -> None:
        assert folded(tokenised) == folded(written)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("a man runs", "a man ran"),
            ("a man bites a dog", "a dog bites a man"),
            ("ein Hund", "ein Hut"),
            ("Собака бежит", "Кошка бежит"),
            ("犬が走る 1", "猫が走る 1"),
            ("room 1", "room 2"),
        ],
    )
    def test_other_sentences_stay_others(self, one: str, other: str) -> None:
        assert folded(one) != folded(other)

    def test_other_scripts_keep_their_letters(self) -> None:
        assert folded("Собака бежит!") == "собака бежит"

    @given(st.text())
    def test_folding_twice_changes_nothing(self, text: str) -> None:
        assert folded(folded(text)) == folded(text)


class TestMatches:
    SET = pairs(
        "set",
        ("a dog runs on the green grass", "it rains"),
        ("the cat sleeps", "two young women ride a red bus"),
        ("nothing like it", "at all here"),
    )

    def test_exact_and_near_pairs_have_masks_of_their_own(self) -> None:
        training = ["The cat sleeps.", "Two young women ride a red bus today", "A dog runs on the wet grass"]
        task = audit(training, [self.SET], threshold=0.7).tasks["set"]
        assert task.exact.tolist() == [False, True, False]
        assert task.near.tolist() == [True, False, False]
        assert task.affected.tolist() == [True, True, False]
        assert {match.evaluation: match.training for match in task.matches.values()} == {
            "the cat sleeps": "The cat sleeps.",
            "two young women ride a red bus": "Two young women ride a red bus today",
            "a dog runs on the green grass": "A dog runs on the wet grass",
        }

    def test_similarity_is_that_of_the_sets_of_words(self) -> None:
        task = audit(["a dog runs on the wet grass"], [self.SET], threshold=0.5).tasks["set"]
        [match] = task.matches.values()
        assert (match.similarity, match.exact) == (6 / 8, False)

    def test_an_exact_match_replaces_a_near_one(self) -> None:
        training = ["two young women ride a red red bus today", "two young women ride a red bus"]
        for order in (training, training[::-1]):
            [match] = audit(order, [self.SET]).tasks["set"].matches.values()
            assert match.exact
            assert match.training == "two young women ride a red bus"

    def test_other_order_or_repetition_is_near(self) -> None:
        task = audit(["It rains it rains", "sleeps the cat"], [self.SET], threshold=1.0).tasks["set"]
        assert task.near.tolist() == [True, True, False]
        assert not task.exact.any()

    def test_empty_sentences_match_nothing(self) -> None:
        task = audit(["", " . ", "?"], [pairs("set", ("!", "..."), ("", "a"))]).tasks["set"]
        assert not task.affected.any()

    def test_each_set_is_told_of_its_own_sentences(self) -> None:
        other = pairs("other", ("the cat sleeps", "a"), ("b", "c"))
        report = audit(["the cat sleeps", "c"], [self.SET, other])
        assert report.tasks["set"].exact.tolist() == [False, True, False]
        assert report.tasks["other"].exact.tolist() == [True, True]
        assert set(report.tasks["set"].matches) == {"the cat sleeps"}
        assert report.training_sentences == 2

    def test_counts_of_a_part(self) -> None:
        task = audit(["the cat sleeps", "it rains"], [self.SET]).tasks["set"]
        whole, part = task.counts(), task.counts(slice(1, 3))
        assert (whole.pairs, whole.pairs_exact, whole.sentences, whole.sentences_exact) == (3, 2, 6, 2)
        assert (part.pairs, part.pairs_exact, part.sentences, part.sentences_exact) == (2, 1, 4, 1)

    def test_examples_are_the_doubtful_ones(self) -> None:
        training = ["two young women ride a red bus today", "a dog runs on the wet grass", "the cat sleeps"]
        examples = audit(training, [self.SET], threshold=0.7).tasks["set"].examples(1)
        assert [match.training for match in examples] == ["a dog runs on the wet grass"]

    @pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
    def test_an_impossible_threshold_is_refused(self, threshold: float) -> None:
        with pytest.raises(ConfigError, match="overlap threshold"):
            audit([], [self.SET], threshold=threshold)

    def test_progress_ends_at_the_number_of_sentences(self) -> None:
        seen: list[int] = []
        audit((str(number) for number in range(20_500)), [self.SET], progress=seen.append)
        assert seen == [10_000, 20_000, 20_500]


sentences = st.lists(st.sampled_from(list("abcdefghijkl")), max_size=9).map(" ".join)
"""So few words that similar sentences are common."""


@given(
    training=st.lists(sentences, max_size=12),
    first=st.lists(sentences, min_size=1, max_size=12),
    threshold=st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0]),
)
def test_near_matches_are_those_of_a_naive_loop(training: list[str], first: list[str], threshold: float) -> None:
    task = audit(training, [pairs("set", *((sentence, "z") for sentence in first))], threshold=threshold).tasks[
        "set"
    ]
    for row, sentence in enumerate(first):
        words = set(sentence.split())
        exact = sentence in training and bool(words)
        near = any(
            words and len(words & set(other.split())) / len(words | set(other.split())) >= threshold
            for other in training
        )
        assert task.exact[row] == exact
        assert task.near[row] == (near and not exact)


class TestFiles:
    def test_sentences_of_pairs_and_of_text(self, tmp_path: Path) -> None:
        (tmp_path / "pairs.jsonl").write_text('{"image": "a", "captions": ["one", ""]}\n')
        (tmp_path / "pairs.csv").write_text("image,caption\na,two\n")
        (tmp_path / "text.txt").write_text("three\n\nfour\n")
        assert training_sentences(tmp_path / "pairs.jsonl") == ("one",)
        assert training_sentences(tmp_path / "pairs.csv") == ("two",)
        assert training_sentences(tmp_path / "text.txt") == ("three", "four")

    def test_what_is_wrong_with_them_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "pairs.jsonl").write_text("no JSON\n[]\n")
        with pytest.raises(DataError) as caught:
            training_sentences(tmp_path / "pairs.jsonl")
        assert len(caught.value.problems) == 2
        with pytest.raises(DataError, match="no such file"):
            training_sentences(tmp_path / "nowhere.txt")


class TestKnownFigures:
    """Those of the real captions and sets, counted once by other means."""

    @pytest.mark.slow
    def test_flickr30k(self, shared: Path) -> None:
        data = shared / "data"

        def captions() -> Iterator[str]:
            with gzip.open(data / "captions" / "flickr30k_captions.jsonl.gz", "rt", encoding="utf-8") as file:
                for line in file:
                    yield from json.loads(line)["captions"]

        sets = [load_sts(data / "senteval", task) for task in ("STS15", "STS-B", "sts-b-dev")]
        tasks = audit(captions(), sets, threshold=1.0).tasks
        images = tasks["STS15"].counts(sets[0].subset_rows()["images"])
        test, dev = tasks["STS-B"].counts(), tasks["sts-b-dev"].counts()
        assert (images.sentences_exact, images.sentences) == (1256, 1415)
        assert (test.sentences_exact, test.sentences) == (274, 2549)
        assert (dev.sentences_exact, dev.sentences) == (318, 2905)

    def test_flickr8k_clip(self, shared: Path) -> None:
        data = shared / "data"
        captions = training_sentences(data / "flickr8k-clip" / "captions.jsonl")
        pairs = load_sts(data / "senteval", "STS15")
        counts = audit(captions, [pairs]).tasks["STS15"].counts(pairs.subset_rows()["images"])
        assert (counts.sentences_exact, counts.sentences) == (175, 1415)


class TestCommand:
    def test_check_counts_the_overlap_with_each_set(
        self, cli: Callable[..., Outcome], toys: Toys, tmp_path: Path
    ) -> None:
        data = write_senteval(tmp_path / "data")
        caption = json.loads(toys.data.pairs.read_text().splitlines()[0])["captions"][0]
        path = data / "STS" / "STS14-en-test" / "STS.input.images.txt"
        path.write_text(f"{caption.upper()} !\tsomething else\n" + "".join(path.read_text().splitlines(True)[1:]))
        outcome = cli("check", toys.recipe(tmp_path), "--against", data)
        assert outcome.code == 0, outcome.err
        rows = {
            line.split("|")[1].strip(): line.split("|")[2:5] for line in outcome.out.splitlines() if "|" in line
        }
        assert [int(cell) for cell in rows["STS14 images"]] == [6, 1, 0]
        assert [int(cell) for cell in rows["STS14"]] == [36, 1, 0]
        assert [int(cell) for cell in rows["STS13"]] == [18, 0, 0]

    def test_check_against_an_incomplete_folder_exits_with_3(
        self, cli: Callable[..., Outcome], toys: Toys, tmp_path: Path
    ) -> None:
        outcome = cli("check", toys.recipe(tmp_path), "--against", tmp_path)
        assert outcome.code == 3
        assert "no such file" in outcome.err
