"""Validation sentences that are trained on are named, at `check` and at `train`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tiny import Outcome, Toys, write_pairs

Cli = Callable[..., Outcome]
HELD_OUT = ("-s", "data.holdout.last=6", "-s", "validation.every=2", "-s", "training.max_steps=2")


def captions_of(toys: Toys, change: Callable[[int, str], str], path: Path) -> Path:
    """The toy pairs, distinct in all their captions, with changes to some by their number."""
    images = toys.data.images
    every = [[f"caption {number * 3 + k} of many" for k in range(3)] for number in range(len(images))]
    changed = [[change(number * 3 + k, text) for k, text in enumerate(each)] for number, each in enumerate(every)]
    return write_pairs(path, images, changed)


def check(cli: Cli, toys: Toys, tmp_path: Path, pairs: Path, *options: object) -> Outcome:
    return cli("check", toys.recipe(tmp_path), "-s", f"data.pairs={pairs}", *options)


def test_the_count_and_the_first_five_are_said(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    first = 3 * (len(toys.data.images) - 6)
    pairs = captions_of(
        toys, lambda n, text: f"Caption  {n - first} OF many" if n >= first + 11 else text, tmp_path / "p.jsonl"
    )
    outcome = check(cli, toys, tmp_path, pairs, *HELD_OUT)
    assert outcome.code == 0
    [line] = [line for line in outcome.err.splitlines() if "captions held out for validation" in line]
    assert line.startswith("warning: 7 of 18 captions held out for validation are also trained on")
    assert line.count("'Caption ") == 5
    assert line.endswith(", …; data.holdout.drop_leaking: true takes them out of training")


def test_long_captions_are_shortened_and_harmless_on_a_terminal(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    same = "\x1b[31m" + "long " * 100
    last = 3 * len(toys.data.images) - 1
    pairs = captions_of(toys, lambda n, text: same if n in (0, last) else text, tmp_path / "p.jsonl")
    outcome = check(cli, toys, tmp_path, pairs, *HELD_OUT)
    [line] = [line for line in outcome.err.splitlines() if "captions held out" in line]
    assert "1 of 18" in line
    assert len(line) < 300
    assert "\x1b" not in line
    assert "…" in line


def test_lines_of_text_count_too(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    last = 3 * len(toys.data.images) - 1
    pairs = captions_of(toys, lambda n, text: text, tmp_path / "p.jsonl")
    text = tmp_path / "text.txt"
    text.write_text(toys.data.text.read_text() + f"Caption {last} of many\n")
    outcome = check(cli, toys, tmp_path, pairs, *HELD_OUT, "-s", f"data.text={text}")
    assert "1 of 18 captions held out for validation are also trained on" in outcome.err
    assert f"'caption {last} of many'" in outcome.err


def test_scored_pairs_count_too(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    dev = tmp_path / "my-dev.tsv"
    dev.write_text(toys.data.validation.read_text() + "2.5\tcaption 3 of many\tsomething of its own\n")
    pairs = captions_of(toys, lambda n, text: text, tmp_path / "p.jsonl")
    outcome = check(cli, toys, tmp_path, pairs, "-s", f"validation.data={dev}", "--json", tmp_path / "c.json")
    [warning] = json.loads((tmp_path / "c.json").read_bytes())["warnings"]
    assert "sentences of my-dev.tsv are also trained on" in warning
    assert "'caption 3 of many'" in warning
    assert f"warning: {warning}" in outcome.err


def test_nothing_is_said_where_nothing_is_shared(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    pairs = captions_of(toys, lambda n, text: text, tmp_path / "p.jsonl")
    assert "captions held out" not in check(cli, toys, tmp_path, pairs, *HELD_OUT).err


def test_a_training_says_it_too(cli: Cli, toys: Toys, tmp_path: Path) -> None:
    last = 3 * len(toys.data.images) - 1
    pairs = captions_of(toys, lambda n, text: "twice the same" if n in (0, last) else text, tmp_path / "p.jsonl")
    options = ("-s", f"data.pairs={pairs}", *HELD_OUT, "--out", tmp_path / "run")
    outcome = cli("train", toys.recipe(tmp_path), *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("warning: 1 of 18 captions held out for validation are also trained on") == 1
