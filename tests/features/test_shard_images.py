"""Features of images in tar shards: those of the same files, without extraction, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dalr.features.store import open_store
from dalr.io.shards import members, write_shard
from stores import as_matrix
from tiny import Outcome, write_pairs
from tiny_images import save_photos

Cli = Callable[..., Outcome]
COUNT = 6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images in a folder, and the same ones in two shards."""
    folder = tmp_path / "photos"
    save_photos(folder, COUNT)
    names = sorted(path.name for path in folder.iterdir())
    write_pairs(tmp_path / "pairs.jsonl", names, [["a"]] * COUNT)
    for shard in range(2):
        files = [
            file
            for number in range(3 * shard, 3 * shard + 3)
            for file in ((f"{number}.jpg", (folder / names[number]).read_bytes()), (f"{number}.txt", b"a"))
        ]
        write_shard(tmp_path / f"{shard}.tar", files)
    return tmp_path


def extract(cli: Cli, photos: Path, model: Path, out: str, *more: object) -> Outcome:
    given = ["--pairs", photos / "{0..1}.tar", "--model", model, "--device", "cpu", "--workers", 0]
    return cli("features", "images", *given, "--out", photos / out, *more)


def test_vectors_are_those_of_the_files(photos: Path, clip_folder: Path, cli: Cli) -> None:
    done = extract(cli, photos, clip_folder, "sharded")
    assert done.code == 0, done.err
    given = ["--pairs", photos / "pairs.jsonl", "--images", photos / "photos", "--model", clip_folder]
    assert cli("features", "images", *given, "--out", photos / "plain", "--workers", 0, "--device", "cpu").code == 0
    sharded, plain = open_store(photos / "sharded"), open_store(photos / "plain")
    assert sharded.ids == tuple(f"{number // 3}/{number}" for number in range(COUNT))
    assert np.array_equal(as_matrix(sharded), as_matrix(plain))


def test_a_damaged_image_is_named_with_its_shard_and_offset_and_the_rest_resumes(
    photos: Path, clip_folder: Path, cli: Cli
) -> None:
    whole = extract(cli, photos, clip_folder, "whole")
    assert whole.code == 0, whole.err
    good = (photos / "1.tar").read_bytes()
    bad = next(each for each in members(photos / "1.tar") if each.name == "4.jpg")
    (photos / "1.tar").write_bytes(
        good[: bad.offset + 40] + b"\0" * (bad.size - 40) + good[bad.offset + bad.size :]
    )
    refused = extract(cli, photos, clip_folder, "store")
    assert refused.code == 3
    assert "image '1/4': " in refused.err
    assert f"1.tar: member '4.jpg' at byte {bad.offset}" in refused.err
    (photos / "1.tar").write_bytes(good)
    done = extract(cli, photos, clip_folder, "store", "--resume")
    assert done.code == 0, done.err
    shutil.rmtree(photos / "whole")
    assert extract(cli, photos, clip_folder, "whole").code == 0
    names = sorted(path.name for path in (photos / "whole").iterdir())
    assert names == sorted(path.name for path in (photos / "store").iterdir())
    for name in names:
        assert (photos / "whole" / name).read_bytes() == (photos / "store" / name).read_bytes(), name


def test_a_folder_is_named_for_files_and_not_for_shards(photos: Path, clip_folder: Path, cli: Cli) -> None:
    done = extract(cli, photos, clip_folder, "store", "--images", photos / "photos")
    assert (done.code, "the images are in" in done.err) == (2, True), done.err
    given = ["--pairs", photos / "pairs.jsonl", "--model", clip_folder, "--out", photos / "store"]
    done = cli("features", "images", *given)
    assert (done.code, "name the folder that the image names are relative to" in done.err) == (2, True), done.err
