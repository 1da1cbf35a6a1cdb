"""`dalr data pack`: equal inputs give equal shards, which read back as the same captions and images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dalr.data.formats import read_pairs_file
from dalr.data.formats.shards import shard_images
from dalr.data.packing import ShardSize, shard_size
from dalr.errors import ConfigError, Problem
from dalr.io.shards import read_member
from tiny import Outcome, write_pairs

Cli = Callable[..., Outcome]
COUNT = 7


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [f"é {number}.JPG" for number in range(COUNT)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(bytes([number]) * 1_000)
    write_pairs(folder / "pairs.jsonl", names, [[f"caption {n}", "and another"] for n in range(COUNT)])
    return folder


def pack(cli: Cli, photos: Path, out: Path, size: str = "3") -> Outcome:
    return cli("data", "pack", photos / "pairs.jsonl", "--images", photos, "--out", out, "--shard-size", size)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_read_back_as_what_was_packed(photos: Path, cli: Cli) -> None:
    done = pack(cli, photos, photos / "shards")
    assert done.code == 0, done.err
    pattern = photos / "shards" / "{00000..00002}.tar"
    assert f"{pattern}: {COUNT} images with {2 * COUNT} captions" in done.out
    problems: list[Problem] = []
    rows = read_pairs_file(pattern, problems)
    assert problems == []
    assert [row.captions for row in rows] == [(f"caption {n}", "and another") for n in range(COUNT)]
    assert [row.image for row in rows][2:4] == ["00000/000000002", "00001/000000003"]
    images = shard_images(pattern)
    assert [read_member(images[row.image], most=1_000)[0] for row in rows] == list(range(COUNT))


def test_the_time_of_a_file_changes_no_byte(photos: Path, cli: Cli) -> None:
    assert pack(cli, photos, photos / "one", "4kB").code == 0
    for path in photos.glob("*.JPG"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert pack(cli, photos, photos / "two", "4kB").code == 0
    assert content(photos / "one") == content(photos / "two")
    assert all(path.stat().st_size < 5 * 4_096 for path in (photos / "one").glob("*.tar"))


def test_all_unusable_images_are_named_before_anything_is_written(photos: Path, cli: Cli) -> None:
    (photos / "é 1.JPG").unlink()
    (photos / "é 2.JPG").write_bytes(b"")
    done = pack(cli, photos, photos / "shards")
    assert done.code == 3
    assert "'é 1.JPG': no such file" in done.err
    assert "'é 2.JPG': empty file" in done.err
    assert not (photos / "shards").exists()


def test_images_outside_the_folder_and_of_no_known_ending_are_refused(photos: Path, cli: Cli) -> None:
    (photos / "a.exe").write_bytes(b"x")
    (photos.parent / "secret.jpg").write_bytes(b"x")
    write_pairs(photos / "pairs.jsonl", ["a.exe", "../secret.jpg"], [["a"], ["b"]])
    done = pack(cli, photos, photos / "shards")
    assert done.code == 3
    assert "'a.exe': expected a name that ends in one of jpg" in done.err
    assert "lies outside the image folder" in done.err


def test_somebody_elses_folder_is_left_alone(photos: Path, cli: Cli) -> None:
    (photos / "mine").mkdir()
    (photos / "mine" / "diary.txt").write_text("x")
    assert pack(cli, photos, photos / "mine").code == 6
    assert content(photos / "mine") == {"diary.txt": b"x"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", ShardSize(bytes=500_000_000)),
        ("1 GB", ShardSize(bytes=10**9)),
        ("64kB", ShardSize(bytes=64_000)),
        ("10000", ShardSize(images=10_000)),
    ],
)
def test_a_size_is_bytes_or_images(text: str, size: ShardSize) -> None:
    assert shard_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5GB", "1TB", "many", "0GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected bytes such as 500MB"):
        shard_size(text)
