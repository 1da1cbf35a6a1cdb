"""Held-out images: their sides last, what is on both sides is counted and named, and may be dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dalr.data.config import DataConfig
from dalr.data.dataset import Dataset, load_dataset
from dalr.data.holdout import HoldoutConfig, read_sides, side_by_hash, side_line
from dalr.errors import DataError
from tiny import Outcome, Toys, write_pairs

Cli = Callable[..., Outcome]
FRACTIONS = HoldoutConfig(test_fraction=0.2, validation_fraction=0.1)


def load(pairs: Path, holdout: HoldoutConfig, text: Path | None = None) -> Dataset:
    return load_dataset(
        DataConfig(pairs=str(pairs), holdout=holdout, text=str(text) if text is not None else None), seed=0
    )


def many(path: Path, numbers: range) -> Path:
    return write_pairs(path, [f"{n}.jpg" for n in numbers], [[f"one {n}", f"two {n}"] for n in numbers])


def sides(data: Dataset) -> dict[str, str]:
    return dict(data.sides())


def test_an_image_stays_on_its_side_when_others_come_or_go(tmp_path: Path) -> None:
    before = sides(load(many(tmp_path / "a.jsonl", range(300)), FRACTIONS))
    later = sides(load(many(tmp_path / "b.jsonl", range(500)), FRACTIONS))
    fewer = sides(load(many(tmp_path / "c.jsonl", range(100, 300)), FRACTIONS))
    assert all(later[image] == side for image, side in before.items())
    assert all(before[image] == side for image, side in fewer.items())
    counts = Counter(later.values())
    assert 70 <= counts["test"] <= 130
    assert 30 <= counts["validation"] <= 70


def test_a_larger_validation_fraction_moves_no_test_image() -> None:
    images = [f"{n}" for n in range(1000)]
    small, large = (
        {image for image in images if side_by_hash(image, test=0.2, validation=v) == "test"} for v in (0.1, 0.4)
    )
    assert small == large


def test_every_caption_is_on_one_side(tmp_path: Path) -> None:
    data = load(many(tmp_path / "p.jsonl", range(200)), FRACTIONS)
    assert data.pairs is not None
    assert data.validation is not None
    assert data.test is not None
    assert data.held_out is not None
    ids = [*data.pairs.caption_ids, *data.validation.caption_ids, *data.test.caption_ids]
    assert len(ids) == len(set(ids)) == 400
    assert set(data.held_out.caption_ids) == {*data.validation.caption_ids, *data.test.caption_ids}
    assert data.report["images_for_test"] == len(data.test.image_numbers)


def test_a_file_names_the_sides_and_new_images_are_trained_on(tmp_path: Path) -> None:
    named = {"3.jpg": "test", "5.jpg": "validation", "gone.jpg": "test"}
    (tmp_path / "s.jsonl").write_text("".join(side_line(image, side) for image, side in named.items()))
    data = load(many(tmp_path / "p.jsonl", range(10)), HoldoutConfig(file=str(tmp_path / "s.jsonl")))
    assert Counter(sides(data).values()) == {"train": 8, "validation": 1, "test": 1}
    assert sides(data)["3.jpg"] == "test"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("3.jpg", "expected"),
        ('{"image": "3.jpg"}', "expected"),
        ('{"image": "3.jpg", "split": "dev"}', "one of train, validation, test"),
        ("[1]", "expected"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "s.jsonl").write_text('{"image": "1.jpg", "split": "test"}\n' + line + "\n")
    with pytest.raises(DataError, match=said) as caught:
        read_sides(tmp_path / "s.jsonl")
    assert caught.value.problems[0].where == f"{tmp_path / 's.jsonl'}:2"


def test_an_image_on_two_sides_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"image": "1", "split": "test"}\n{"image": "1", "split": "train"}\n')
    with pytest.raises(DataError, match="on the train side, and further up on the test side"):
        read_sides(tmp_path / "s.jsonl")


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"last": 2, "test_fraction": 0.1},
        {"file": "x", "last": 2},
        {"test_fraction": 0.6, "validation_fraction": 0.5},
    ],
)
def test_one_way_that_leaves_something_is_asked_for(way: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HoldoutConfig(**way)


def test_a_side_without_an_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="puts none of the 3 images on the validation side"):
        load(many(tmp_path / "p.jsonl", range(3)), HoldoutConfig(validation_fraction=0.0001))


def test_captions_and_lines_that_are_held_out_are_dropped(tmp_path: Path) -> None:
    images = [f"{n}" for n in range(10)]
    pairs = write_pairs(tmp_path / "p.jsonl", images, [["A  dog", f"own {n}"] for n in range(10)])
    (tmp_path / "t.txt").write_text("a dog\nanother line\n")
    data = load(pairs, HoldoutConfig(last=2, drop_leaking=True), tmp_path / "t.txt")
    assert data.pairs is not None
    assert data.text is not None
    assert data.pairs.captions == tuple(f"own {n}" for n in range(8))
    assert (data.text.lines, data.text.ids) == (("another line",), ("2",))
    assert data.report["captions_dropped_leaking"] == 8
    assert data.report["text_dropped_leaking"] == 1


def test_near_duplicates_are_named_and_dropped(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    matrix = np.load(toys.data.matrix)
    matrix[0] = matrix[-1] * 1.01
    np.save(tmp_path / "m.npy", matrix)
    first, last = toys.data.images[0], toys.data.images[-1]
    base = (
        "check",
        toys.recipe(tmp_path),
        "-s",
        f"features.image={tmp_path / 'm.npy'}",
        "-s",
        "data.holdout.last=4",
    )
    outcome = cli(*base)
    assert outcome.code == 0, outcome.err
    assert "1 training image is a near-duplicate of held-out images" in outcome.err
    assert f"{first!r} of {last!r} (1.000); data.holdout.drop_leaking: true" in outcome.err
    assert "images_near_duplicate: 1" in outcome.out
    outcome = cli(*base, "-s", "data.holdout.drop_leaking=true")
    assert "images_dropped_leaking: 1" in outcome.out
    assert "taken out of training" in outcome.err


def test_a_run_says_which_image_was_on_which_side(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    recipe = toys.recipe(tmp_path, training={"batch_size": 4, "max_steps": 1})
    outcome = cli("train", recipe, "-s", "data.holdout.last=3", "--out", tmp_path / "run", "-q")
    assert outcome.code == 0, outcome.err
    found = read_sides(tmp_path / "run" / "split.jsonl")
    assert Counter(found.values()) == {"train": len(toys.data.images) - 3, "test": 3}
