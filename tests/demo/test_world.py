"""The demo world is reproducible, balanced, and does not give its gold away through shared words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from scipy.stats import spearmanr

from dalr.demo import grammar
from dalr.demo.grammar import Event, Scene, Thing, facts, gold_score, say, vocabulary
from dalr.demo.world import (
    SPECIAL_TOKENS,
    WorldFiles,
    draw_scene,
    draw_world,
    generate_world,
    picture_features,
    tell,
)
from dalr.errors import ConfigError

SIZES = {
    "scenes": 60,
    "held_out": 10,
    "corpus": 200,
    "dev_pairs": 200,
    "test_pairs": 300,
    "feature_width": 48,
}
DRAWN = {name: SIZES[name] for name in ("scenes", "corpus", "dev_pairs", "test_pairs")}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return generate_world(tmp_path_factory.mktemp("world"), seed=3, **SIZES)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def words(sentence: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", sentence.lower())


def graded(path: Path) -> list[tuple[float, str, str]]:
    rows = [line.split("\t") for line in lines(path)]
    return [(float(score), first, second) for score, first, second in rows]


def captions(files: WorldFiles) -> list[list[str]]:
    return [json.loads(line)["captions"] for line in lines(files.pairs)]


def bag_cosine(first: str, second: str) -> float:
    one, other = Counter(words(first)), Counter(words(second))
    norms = [sum(count**2 for count in bag.values()) for bag in (one, other)]
    return sum(count * other[word] for word, count in one.items()) / float(np.sqrt(norms[0] * norms[1]))


def test_same_seed_gives_the_same_bytes_under_another_hash_seed(files: WorldFiles, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dalr.demo.world import generate_world; "
        f"generate_world(pathlib.Path(sys.argv[1]), seed=3, **{SIZES!r})"
    )
    source = Path(grammar.__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert contents(tmp_path) == contents(files.pairs.parent)


def test_another_seed_gives_another_world_with_the_same_vocabulary(files: WorldFiles, tmp_path: Path) -> None:
    other = contents(generate_world(tmp_path, seed=4, **SIZES).pairs.parent)
    same = [name for name, data in contents(files.pairs.parent).items() if other[name] == data]
    assert same == [files.image_ids.name, files.vocabulary.name]


def test_files_hold_as_many_lines_as_asked(files: WorldFiles) -> None:
    asked = {"pairs": 60, "image_ids": 60, "text": 200, "sts_dev": 200, "sts_test": 300}
    assert {name: len(lines(path)) for name, path in asdict(files).items() if name in asked} == asked
    assert all(line.strip() for line in lines(files.text))


def test_image_ids_follow_the_order_of_the_pairs(files: WorldFiles) -> None:
    assert [json.loads(line)["image"] for line in lines(files.pairs)] == lines(files.image_ids)
    assert len(set(lines(files.image_ids))) == SIZES["scenes"]


def test_each_picture_has_five_distinct_captions_and_repetition_between_pictures_is_rare(
    files: WorldFiles,
) -> None:
    told = captions(files)
    assert all(len(set(five)) == len(five) == 5 for five in told)
    assert len({caption for five in told for caption in five}) >= 0.95 * 5 * len(told)


def test_captions_of_one_picture_state_different_things() -> None:
    rng = Random(1)
    scenes = [draw_scene(rng) for _ in range(200)]
    scores = [gold_score(tell(scene, rng), tell(scene, rng)) for scene in scenes]
    assert np.mean(np.array(scores) < 2.5) > 0.2
    assert np.mean(np.array(scores) > 2.5) > 0.2


def test_a_caption_states_a_part_of_its_picture() -> None:
    rng = Random(2)
    scenes = [draw_scene(rng) for _ in range(200)]
    sides = [(set(facts(scene)), set(facts(tell(scene, rng)))) for scene in scenes]
    assert all(told <= shown for shown, told in sides)
    assert np.mean([len(told) / len(shown) for shown, told in sides]) < 0.6


def test_no_scene_serves_two_splits() -> None:
    world = draw_world(seed=3, **DRAWN)
    splits = [
        {scene for pair in world.dev for scene in pair.scenes},
        {scene for pair in world.test for scene in pair.scenes},
        {picture.scene for picture in world.pictures},
    ]
    assert len(splits[2]) == len(world.pictures)
    assert sum(map(len, splits)) == len(set.union(*splits))


def test_a_larger_world_is_judged_on_the_same_sentences() -> None:
    small, large = (draw_world(seed=3, **{**DRAWN, "scenes": scenes}) for scenes in (5, 25))
    assert (small.dev, small.test) == (large.dev, large.test)


def test_gold_scores_spread_evenly_from_0_to_5(files: WorldFiles) -> None:
    for path in (files.sts_dev, files.sts_test):
        scores = np.array([score for score, _, _ in graded(path)])
        assert scores.min() >= 0
        assert scores.max() == 5
        share = np.histogram(scores, bins=5, range=(0, 5))[0] / len(scores)
        assert np.all(np.abs(share - 0.2) < 0.02)
        assert all(re.fullmatch(r"[0-5]\.\d\d\t[^\t]+\t[^\t]+", line) for line in lines(path))


def test_shared_words_hint_at_the_gold_score_and_do_not_give_it_away(files: WorldFiles) -> None:
    for path in (files.sts_dev, files.sts_test):
        rows = graded(path)
        overlap = [bag_cosine(first, second) for _, first, second in rows]
        assert 0.2 < spearmanr([score for score, _, _ in rows], overlap).statistic < 0.65


def test_no_graded_pair_repeats_one_sentence(files: WorldFiles) -> None:
    rows = graded(files.sts_dev) + graded(files.sts_test)
    assert all(first != second for _, first, second in rows)


def test_gold_score_counts_what_is_stated_whatever_the_words() -> None:
    def scene(actor: str, activity: str, target: str) -> Scene:
        event = Event(actor=Thing(concept=actor), activity=activity, target=Thing(concept=target))
        return Scene(events=(event,), place="street")

    chase = scene("dog", "chase", "cat")
    assert len({say(chase, Random(seed)) for seed in range(20)}) > 10
    assert gold_score(chase, chase) == 5
    related, reversed_, unrelated = (
        gold_score(chase, other)
        for other in (
            scene("dog", "chase", "rabbit"),
            scene("cat", "chase", "dog"),
            Scene(events=(Event(actor=Thing(concept="man"), activity="sleep"),)),
        )
    )
    assert 5 > related > 2.5
    assert 5 > reversed_ > 2.5
    assert unrelated == 0
    assert gold_score(chase, scene("man", "eat", "cake")) == gold_score(scene("man", "eat", "cake"), chase)


def test_features_are_normalised_float32_of_the_asked_width(files: WorldFiles) -> None:
    features = np.load(files.image_matrix)
    assert features.shape == (SIZES["scenes"], SIZES["feature_width"])
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)


def test_pictures_of_nearly_the_same_scene_are_closer_than_random_ones() -> None:
    rng = Random(5)
    scenes = [draw_scene(rng) for _ in range(80)]
    weathered = [replace(one, sky=other.sky) for one, other in pairwise(scenes)]
    features = picture_features([*scenes, *weathered], width=96, seed=0)
    whole, changed = features[: len(scenes)], features[len(scenes) :]
    random_pairs = (whole @ whole.T)[np.triu_indices(len(whole), 1)]
    assert (whole[: len(changed)] * changed).sum(axis=1).min() > np.quantile(random_pairs, 0.9)
    assert np.unique(features, axis=0).shape == features.shape  # noise: no two pictures are the same


def test_vocabulary_covers_every_sentence(files: WorldFiles) -> None:
    entries = lines(files.vocabulary)
    assert tuple(entries[:5]) == SPECIAL_TOKENS
    assert entries[5:] == sorted(set(entries[5:])) == vocabulary()
    assert 150 <= len(entries) <= 400
    assert all(entry == entry.lower() for entry in entries[5:])
    sentences = [caption for five in captions(files) for caption in five] + lines(files.text)
    sentences += [text for row in graded(files.sts_dev) + graded(files.sts_test) for text in row[1:]]
    assert {word for sentence in sentences for word in words(sentence)} <= set(entries)


def test_no_word_belongs_to_two_concepts() -> None:
    tables = [*grammar.THINGS.values(), *grammar.ACTIVITIES.values()]
    tables += [grammar.COLOURS, grammar.SIZES, grammar.MOODS]
    forms = [
        form
        for table in tables
        for synonyms in table.values()
        for synonym in synonyms.split("|")
        for form in dict.fromkeys(synonym.split("/"))
    ]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize("wrong", [{"held_out": 60}, {"held_out": -1}, {"corpus": 0}, {"feature_width": 0}])
def test_impossible_sizes_are_refused_before_writing(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="demo world"):
        generate_world(tmp_path / "world", **{**SIZES, **wrong})
    assert not (tmp_path / "world").exists()
