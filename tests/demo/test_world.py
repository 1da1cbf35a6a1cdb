"""The demo world is reproducible, balanced, and does not give its gold away through shared words."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from scipy.stats import spearmanr

from dalr.demo import grammar, world
from dalr.demo.grammar import Group, Scene, Thing, facts, gold_score, say, say_plain, vocabulary
from dalr.demo.world import SPECIAL_TOKENS, World, WorldFiles, WorldSize, draw_scene, draw_world, tell, write_world
from dalr.errors import ConfigError
from dalr.io.console import Console

SIZE = WorldSize(scenes=60, held_out=10, corpus=200, dev_pairs=100, test_pairs=200, upbringing=40)
LEFT = "left of|left side of"


@pytest.fixture(scope="module")
def drawn() -> World:
    return draw_world(SIZE, seed=3)


@pytest.fixture(scope="module")
def files(drawn: World, tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return write_world(drawn, tmp_path_factory.mktemp("world"), console=Console(quiet=True))


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


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


def concepts_in(sentence: str, table: dict[str, str]) -> set[str]:
    """The concepts of `table` that a sentence names, by any form of any synonym."""
    plain = " ".join(words(sentence))
    return {
        concept
        for concept, synonyms in table.items()
        if any(re.search(rf"\b{form}\b", plain) for form in re.split(r"[|/]", synonyms))
    }


def merged(table: dict[str, dict[str, str]]) -> dict[str, str]:
    return {concept: synonyms for concepts in table.values() for concept, synonyms in concepts.items()}


def test_same_seed_gives_the_same_bytes_under_another_hash_seed(files: WorldFiles, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dalr.io.console import Console; from dalr.demo.world import *; "
        f"write_world(draw_world({SIZE!r}, seed=3), pathlib.Path(sys.argv[1]), console=Console(quiet=True))"
    )
    source = Path(grammar.__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert contents(tmp_path) == contents(files.folder)


def test_another_seed_gives_another_world_with_the_same_vocabulary(files: WorldFiles, tmp_path: Path) -> None:
    other = write_world(draw_world(SIZE, seed=4), tmp_path, console=Console(quiet=True))
    found, expected = contents(other.folder), contents(files.folder)
    assert [name for name, data in expected.items() if found[name] == data] == [files.vocabulary.name]


def test_the_files_are_a_data_set_as_any_user_would_have_it(files: WorldFiles) -> None:
    named = [json.loads(line)["image"] for line in lines(files.pairs)]
    assert named == sorted(path.name for path in files.images.iterdir())
    assert len(named) == SIZE.scenes
    assert [len(lines(path)) for path in (files.text, files.sts_dev, files.sts_test)] == [200, 100, 200]
    assert all(line.strip() for line in lines(files.text))


def test_each_picture_has_five_distinct_captions_and_repetition_between_pictures_is_rare(
    files: WorldFiles,
) -> None:
    told = captions(files)
    assert all(len(set(five)) == len(five) == 5 for five in told)
    assert len({caption for five in told for caption in five}) >= 0.95 * 5 * len(told)


def test_captions_are_true_of_their_scene(drawn: World) -> None:
    """Read back from the words, not from what the grammar was told to say."""
    for picture in drawn.pictures:
        shown = {(fact.slot, fact.value) for fact in facts(picture.scene)}
        tables = {
            "thing": merged(grammar.THINGS),
            "place": merged(grammar.PLACES),
            "colour": grammar.COLOURS,
            "size": grammar.SIZES,
            "sky": grammar.SKIES,
        }
        for caption in picture.captions:
            named = {(slot, value) for slot, table in tables.items() for value in concepts_in(caption, table)}
            assert named
            assert named <= shown, caption


def test_a_relation_is_told_from_either_side_and_stays_true() -> None:
    scene = Scene(groups=(Group(one=Thing(concept="cat"), relation="left", other=Thing(concept="car")),))
    told = {say(scene, Random(seed)).lower() for seed in range(200)}
    cats, cars = (grammar.THINGS[kind][name] for kind, name in (("animal", "cat"), ("vehicle", "car")))
    cat, car = (f"(?:{forms.replace('/', '|')})" for forms in (cats, cars))
    before = [one for one in told if re.search(rf"\b{cat}\b.*\b{car}\b", one)]
    assert 0 < len(before) < len(told)
    for sentence in told:
        cat_first = re.search(rf"\b{cat}\b.*\b{car}\b", sentence) is not None
        place_first = sentence.startswith(("to the", "on the"))
        # "A is left of B" and "left of B there is A": with the place in front, the order of the names turns round
        assert (re.search(LEFT, sentence) is not None) == (cat_first != place_first), sentence


def test_captions_of_one_picture_state_different_things() -> None:
    rng = Random(1)
    scenes = [draw_scene(rng) for _ in range(200)]
    scores = np.array([gold_score(tell(scene, rng), tell(scene, rng)) for scene in scenes])
    assert np.mean(scores < 2.5) > 0.2
    assert np.mean(scores > 2.5) > 0.2


def test_a_caption_states_a_part_of_its_picture() -> None:
    rng = Random(2)
    scenes = [draw_scene(rng) for _ in range(200)]
    sides = [(set(facts(scene)), set(facts(tell(scene, rng)))) for scene in scenes]
    assert all(told <= shown for shown, told in sides)
    assert np.mean([len(told) / len(shown) for shown, told in sides]) < 0.6


def test_no_scene_serves_two_parts_and_teachers_have_their_own(drawn: World) -> None:
    parts = [
        {scene for pair in drawn.dev for scene in pair.scenes},
        {scene for pair in drawn.test for scene in pair.scenes},
        {picture.scene for picture in drawn.pictures},
        {picture.scene for picture in drawn.upbringing},
    ]
    assert [len(part) for part in parts[2:]] == [SIZE.scenes, SIZE.upbringing]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_a_larger_world_is_judged_on_the_same_sentences() -> None:
    small, large = (
        draw_world(WorldSize(scenes=n, held_out=2, corpus=10, dev_pairs=60, test_pairs=60, upbringing=5), seed=3)
        for n in (5, 25)
    )
    assert (small.dev, small.test) == (large.dev, large.test)


def test_gold_is_a_function_of_the_scenes_alone() -> None:
    """Neither module that makes gold can reach a model: they import no model code, and no numbers from one."""
    for module in (grammar, world):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {name for name in names if re.search(r"torch|transformers|numpy|models|features|training", name)}


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
        assert 0.1 < spearmanr([score for score, _, _ in rows], overlap).statistic < 0.65


def test_no_graded_pair_repeats_one_sentence(files: WorldFiles) -> None:
    rows = graded(files.sts_dev) + graded(files.sts_test)
    assert all(first != second for _, first, second in rows)


def test_gold_score_counts_what_is_stated_whatever_the_words() -> None:
    def scene(one: str, relation: str, other: str) -> Scene:
        group = Group(one=Thing(concept=one), relation=relation, other=Thing(concept=other))
        return Scene(groups=(group,), place="street")

    base = scene("dog", "left", "car")
    assert len({say(base, Random(seed)) for seed in range(20)}) > 10
    assert gold_score(base, base) == 5
    related, turned, unrelated = (
        gold_score(base, other)
        for other in (
            scene("dog", "left", "truck"),
            scene("car", "left", "dog"),
            Scene(groups=(Group(one=Thing(concept="tree")),), sky="rain"),
        )
    )
    assert 5 > related > 2.5
    assert 5 > turned > 2.5
    assert unrelated == 0
    other = scene("tree", "above", "ball")
    assert gold_score(base, other) == gold_score(other, base)


def test_paraphrases_state_the_same_facts_in_other_words(drawn: World) -> None:
    pairs = drawn.paraphrases()
    assert len(pairs) == SIZE.upbringing
    assert pairs == drawn.paraphrases()
    things = merged(grammar.THINGS)
    assert all(concepts_in(first, things) == concepts_in(second, things) for first, second in pairs)
    assert np.mean([first != second for first, second in pairs]) > 0.9


def test_vocabulary_covers_every_sentence(files: WorldFiles) -> None:
    entries = lines(files.vocabulary)
    assert tuple(entries[:5]) == SPECIAL_TOKENS
    assert entries[5:] == sorted(set(entries[5:])) == vocabulary()
    assert 150 <= len(entries) <= 400
    assert all(entry == entry.lower() for entry in entries[5:])
    sentences = [caption for five in captions(files) for caption in five] + lines(files.text)
    sentences += [text for row in graded(files.sts_dev) + graded(files.sts_test) for text in row[1:]]
    rng = Random(0)
    sentences += [say_plain(rng) for _ in range(500)]
    assert {word for sentence in sentences for word in words(sentence)} <= set(entries)


def test_no_word_belongs_to_two_concepts() -> None:
    tables = [*grammar.THINGS.values(), grammar.COLOURS, grammar.SIZES, grammar.RELATIONS]
    forms = [
        form
        for table in tables
        for synonyms in table.values()
        for synonym in synonyms.split("|")
        for form in dict.fromkeys(synonym.split("/"))
    ]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize(
    "wrong", [{"held_out": 60}, {"held_out": 1}, {"corpus": 0}, {"upbringing": 0}, {"dev_pairs": 0}]
)
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="demo world"):
        WorldSize(**{"scenes": 60, "held_out": 10, **wrong})
