"""The data of a recipe: every problem of every file at once, and counts of what was found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dalr.data.config import DataConfig
from dalr.data.dataset import Dataset, load_dataset
from dalr.data.holdout import HoldoutConfig
from dalr.data.rows import comparable, is_blank
from dalr.errors import DataError
from tiny import CAPTIONS_PER_IMAGE, IMAGES, LINES, TinyData, write_pairs

BLANKS = ["", "   ", "\t", "\u200b", "\u200b \u2060", "\ufeff", "\u3000", "\x00"]


def load(pairs: Path | None = None, text: Path | None = None, *, seed: int = 0, **settings: Any) -> Dataset:
    config = DataConfig(
        pairs=str(pairs) if pairs is not None else None, text=str(text) if text is not None else None, **settings
    )
    return load_dataset(config, seed=seed)


def refused(**arguments: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(**arguments)
    return [str(problem) for problem in caught.value.problems]


def write_text(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_captions_and_lines_keep_the_order_of_their_files(tiny_data: TinyData) -> None:
    data = load(tiny_data.pairs, tiny_data.text)
    assert data.pairs is not None
    assert data.text is not None
    assert data.held_out is None
    assert data.pairs.images == tiny_data.images
    assert data.pairs.captions == tuple(caption for several in tiny_data.captions for caption in several)
    assert data.pairs.caption_ids[:4] == ("000.jpg#0", "000.jpg#1", "000.jpg#2", "001.jpg#0")
    assert data.pairs.image_of.tolist() == [n for n in range(IMAGES) for _ in range(CAPTIONS_PER_IMAGE)]
    assert data.text.lines == tiny_data.lines
    assert data.text.ids == tuple(str(number) for number in range(1, LINES + 1))
    assert data.report["images"] == IMAGES
    assert data.report["captions"] == data.report["captions_trained_on"] == IMAGES * CAPTIONS_PER_IMAGE
    assert data.report["text_lines"] == LINES
    assert data.report["captions_repeated"] == data.report["text_repeated"] == 0


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_sentence_is_recognised(blank: str) -> None:
    assert is_blank(blank)
    assert not is_blank(f"{blank}x{blank}")


def test_empty_captions_are_errors_by_default(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b", "c"], [["one", ""], ["two"], ["\u200b", " "]])
    problems = refused(pairs=pairs)
    assert [problem.partition(": ")[0].rpartition(":")[2] for problem in problems] == ["1", "3", "3"]
    assert "caption 1 of image 'a' is empty" in problems[0]
    assert all("on_empty: drop" in problem for problem in problems)


def test_empty_captions_are_dropped_and_counted_on_request(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b", "c"], [["one", "", "three"], [" "], ["two"]])
    data = load(pairs, on_empty="drop")
    assert data.pairs is not None
    assert data.pairs.captions == ("one", "three", "two")
    assert data.pairs.caption_ids == ("a#0", "a#2", "c#0"), "an id is a place in the file"
    assert data.pairs.image_of.tolist() == [0, 0, 2]
    assert data.report["captions_dropped_empty"] == 2


def test_empty_lines_are_errors_by_default_the_first_twenty_named(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", ["fine", *[""] * 30])
    with pytest.raises(DataError) as caught:
        load(text=text)
    shown = str(caught.value).splitlines()
    assert len(shown) == 21
    assert f"{text}:2: empty line" in shown[0]
    assert shown[-1] == "... and 10 more (30 in total)"


def test_empty_lines_are_dropped_and_counted_and_ids_stay_line_numbers(tmp_path: Path) -> None:
    data = load(text=write_text(tmp_path / "t.txt", ["one", "", "two", "\u200b", "three"]), on_empty="drop")
    assert data.text is not None
    assert data.text.lines == ("one", "two", "three")
    assert data.text.ids == ("1", "3", "5")
    assert data.report["text_dropped_empty"] == 2
    assert data.report["text_lines"] == 3


@pytest.mark.parametrize("on_empty", ["error", "drop"])
@pytest.mark.parametrize("content", [b"", b"\n\n", "\u200b\n \n".encode()])
def test_a_file_without_a_sentence_is_an_error(tmp_path: Path, content: bytes, on_empty: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    assert any("no sentence in it" in problem for problem in refused(text=tmp_path / "t.txt", on_empty=on_empty))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_pairs_file_without_a_pair_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    assert refused(pairs=tmp_path / "p.jsonl") == [f"{tmp_path / 'p.jsonl'}: no pairs in it"]


def test_a_pairs_file_whose_captions_are_all_dropped_is_an_error(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b"], [[""], [" "]])
    assert refused(pairs=pairs, on_empty="drop")


def test_an_image_without_captions_is_an_error(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b"], [["one"], []])
    assert refused(pairs=pairs) == [f"{pairs}:2: image 'b' has no caption"]


def test_an_image_that_occurs_twice_is_an_error_naming_both_lines(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b", "a"], [["one"], ["two"], ["three"]])
    [problem] = refused(pairs=pairs)
    assert problem.startswith(f"{pairs}:3: image 'a' occurs twice (first at {pairs}:1)")


def test_a_lone_surrogate_is_located_and_not_left_to_the_tokenizer(tmp_path: Path) -> None:
    """JSON can write one as an escape; it is no character, and tokenizers stop at it with a TypeError."""
    rows = ['{"image": "a", "caption": "fine"}', '{"image": "b", "caption": "x \\ud83d y"}']
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    [problem] = refused(pairs=tmp_path / "p.jsonl")
    assert problem.startswith(f"{tmp_path / 'p.jsonl'}:2: ")


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"image": "a", "captions": [""]}\nnonsense\n')
    (tmp_path / "t.txt").write_bytes(b"fine\n\nbad \xff\n")
    problems = refused(pairs=tmp_path / "p.jsonl", text=tmp_path / "t.txt")
    assert len(problems) == 3
    assert any("p.jsonl:1: caption 0" in problem for problem in problems)
    assert any("p.jsonl:2: not JSON" in problem for problem in problems)
    assert any("t.txt:3: byte 5 is 0xff" in problem for problem in problems)


def test_missing_files_come_together(tmp_path: Path) -> None:
    problems = refused(pairs=tmp_path / "p.jsonl", text=tmp_path / "t.txt")
    assert problems == [f"{tmp_path / 'p.jsonl'}: no such file", f"{tmp_path / 't.txt'}: no such file"]


def test_the_last_images_are_held_out(tiny_data: TinyData) -> None:
    data = load(tiny_data.pairs, holdout=HoldoutConfig(last=5))
    assert data.pairs is not None
    assert data.held_out is not None
    assert set(data.pairs.image_of.tolist()) == set(range(IMAGES - 5))
    assert set(data.held_out.image_of.tolist()) == set(range(IMAGES - 5, IMAGES))
    assert not set(data.pairs.caption_ids) & set(data.held_out.caption_ids)
    assert data.held_out.captions == tuple(caption for several in tiny_data.captions[-5:] for caption in several)
    assert data.report["images_held_out"] == 5
    assert data.report["captions_trained_on"] == (IMAGES - 5) * CAPTIONS_PER_IMAGE


@pytest.mark.parametrize("number", [IMAGES, IMAGES + 1])
def test_holding_out_everything_is_an_error_with_both_numbers(tiny_data: TinyData, number: int) -> None:
    [problem] = refused(pairs=tiny_data.pairs, holdout=HoldoutConfig(last=number))
    assert f"holdout.last is {number}, but there are only {IMAGES} images" in problem


@pytest.mark.parametrize("per_image", [1, 2])
def test_captions_are_drawn_once_under_the_seed(tiny_data: TinyData, per_image: int) -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        data = load(tiny_data.pairs, captions_per_image=per_image, holdout=HoldoutConfig(last=4), seed=seed)
        assert data.pairs is not None
        assert data.held_out is not None
        assert set(Counter(data.pairs.image_of.tolist()).values()) == {per_image}
        assert len(set(data.pairs.image_of.tolist())) == IMAGES - 4
        assert len(data.held_out.captions) == 4 * CAPTIONS_PER_IMAGE, "held-out images keep all captions"
        assert data.report["captions_trained_on"] == (IMAGES - 4) * per_image
        return data.pairs.caption_ids

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    positions = {name.rpartition("#")[2] for name in drawn(0)}
    assert positions == {"0", "1", "2"}, "any caption may be drawn"


def test_an_image_with_fewer_captions_gives_what_it_has(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b"], [["one"], ["two", "three", "four"]])
    data = load(pairs, captions_per_image=2)
    assert data.pairs is not None
    assert Counter(data.pairs.image_of.tolist()) == {0: 1, 1: 2}


def test_repetitions_are_counted_after_normalisation(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b"], [["A dog", "a  DOG "], ["a dog", "ａ dog", "a cat"]])
    text = write_text(tmp_path / "t.txt", ["x", "X", "y"])
    data = load(pairs, text)
    assert data.report["captions_repeated"] == 3
    assert data.report["text_repeated"] == 1


def test_sentences_are_compared_without_case_dim_and_white_space() -> None:
    assert comparable(" A\u00a0Ｄog\t") == comparable("a dog") == "a dog"
    assert comparable("Straße") == comparable("STRASSE")
    assert comparable("a dog") != comparable("a dog.")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "C:\\x", "a#0", "x" * 300, "CON", "日本.jpg"])
def test_names_of_images_are_data_and_come_back_as_they_are(tmp_path: Path, name: str) -> None:
    data = load(write_pairs(tmp_path / "p.jsonl", [name, "b"], [["one"], ["two"]]))
    assert data.pairs is not None
    assert data.pairs.images == (name, "b")
    assert data.pairs.caption_ids == (f"{name}#0", "b#0")
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]


def test_broken_pairing_deals_the_training_captions_out_at_random(tiny_data: TinyData) -> None:
    whole = load(tiny_data.pairs, holdout=HoldoutConfig(last=4))
    broken = load(tiny_data.pairs, holdout=HoldoutConfig(last=4), pairing_control="broken")
    assert whole.pairs is not None
    assert broken.pairs is not None
    assert broken.held_out is not None
    assert whole.held_out is not None
    assert broken.pairs.captions == whole.pairs.captions
    assert broken.pairs.caption_ids == whole.pairs.caption_ids, "teachers still know whose vector is whose"
    assert Counter(broken.pairs.image_of.tolist()) == Counter(whole.pairs.image_of.tolist())
    moved = int((broken.pairs.image_of != whole.pairs.image_of).sum())
    assert moved > 50
    assert broken.report["captions_with_a_strange_image"] == moved
    assert broken.report["pairing_control"] == "broken"
    assert broken.held_out.image_of.tolist() == whole.held_out.image_of.tolist()
    again = load(tiny_data.pairs, holdout=HoldoutConfig(last=4), pairing_control="broken")
    other = load(tiny_data.pairs, holdout=HoldoutConfig(last=4), pairing_control="broken", seed=1)
    assert again.pairs is not None
    assert other.pairs is not None
    assert broken.pairs.image_of.tolist() == again.pairs.image_of.tolist() != other.pairs.image_of.tolist()
