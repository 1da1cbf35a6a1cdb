"""How a pairs file is read, as options of the command line say it."""

from __future__ import annotations

from typing import get_args

import pytest

from dalr.data.config import DataConfig
from dalr.data.formats import FORMATS
from dalr.data.formats.collecting import Columns
from dalr.data.reading import FormatName, Reading, reading_of_options
from dalr.errors import ConfigError


def test_the_names_of_formats_are_those_that_are_read() -> None:
    assert get_args(FormatName) == tuple(FORMATS)


@pytest.mark.parametrize(
    ("options", "reading"),
    [
        ((None, None, None), Reading(split=None)),
        ((None, None, "all"), Reading()),
        (
            ("csv", "caption=text, image=file", "train"),
            Reading(format="csv", columns=Columns(image="file", caption="text"), split="train"),
        ),
        ((None, "split=part", "train, val"), Reading(columns=Columns(split="part"), split=("train", "val"))),
    ],
)
def test_options_say_what_the_keys_of_a_recipe_say(
    options: tuple[str | None, str | None, str | None], reading: Reading
) -> None:
    assert reading_of_options(*options) == reading


def test_a_recipe_has_the_same_three_keys() -> None:
    keys = {"format": "tsv", "columns": {"image": "file"}, "split": ("a", "b")}
    assert DataConfig.model_validate({"pairs": "p", **keys}).reading == Reading.model_validate(keys)
    assert DataConfig(pairs="p").reading == Reading(split=None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("file", "--columns: expected image=NAME, caption=NAME, split=NAME with commas, found 'file'"),
        ("photo=a", "found 'photo=a'"),
        ("image=", "found 'image='"),
        ("image=a,", "found ''"),
        ("image=a,image=b", "--columns: image is given twice, 'a' and 'b'"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reading_of_options(None, columns, None)
    assert message in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        reading_of_options("xml", "a=b,c=d", "train,,all")
    assert [problem.where for problem in caught.value.problems] == ["--format", "--columns", "--columns", "--split"]
    assert "expected one of jsonl, karpathy, coco" in caught.value.problems[0].what
    assert "found 'train,,all'" in caught.value.problems[-1].what


@pytest.mark.parametrize("split", [None, "all", "train", ("train", "val")])
def test_it_is_written_as_options_that_give_it_back(split: str | tuple[str, ...] | None) -> None:
    reading = Reading(format="csv", columns=Columns(image="a b", split="c"), split=split)
    options = reading.options()
    given = dict(zip(options[::2], options[1::2], strict=True))
    again = reading_of_options(given.get("--format"), given.get("--columns"), given.get("--split"))
    assert again == reading
