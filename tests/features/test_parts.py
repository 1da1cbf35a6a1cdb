"""Parts by several processes, merged: the bytes of one made at once; what is missing or different is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from dalr.errors import ConfigError, CorruptFileError, DataError
from dalr.features.images import write_image_store
from dalr.features.parts import merge, write_text_part
from dalr.features.text import embedding, text_source, write_text_store
from dalr.io.console import Bar, Console
from dalr.io.share import Share, share_of
from dalr.models.config import EncoderConfig
from dalr.models.vision import VisionModel
from tiny import Outcome, Toys, captions
from tiny_images import save_photos

Cli = Callable[..., Outcome]
COUNT, BLOCK = 11, 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    shutil.copy(tmp_path / "images" / sorted(os.listdir(tmp_path / "images"))[0], tmp_path / "images" / "twin.png")
    return tmp_path / "images"


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def images(out: Path, root: Path, model: VisionModel, part: str | None = None, *, bad: int = 0) -> None:
    share = share_of(part) if part is not None else None
    write_image_store(
        out,
        ids=names(root),
        root=root,
        model=model,
        share=share,
        resume=True,
        max_bad_images=bad,
        workers=0,
        batch_size=2,
        part_images=3,
        console=Console(quiet=True),
    )


def text(out: Path, toys: Toys, part: str | None = None, *, sentences: list[str] | None = None) -> None:
    encoder = EncoderConfig(model=str(toys.teacher))
    given = sentences or [*captions(10), *captions(3)]
    ids = [str(number) for number in range(len(given))]
    if part is None:
        write_text_store(out, encoder=encoder, ids=ids, sentences=given, block=BLOCK)
        return
    model = SentenceTransformer(str(toys.teacher), device="cpu")
    model = SentenceTransformer(modules=list(model)[:-1], device="cpu")
    write_text_part(
        out,
        share_of(part),
        ids=ids,
        sentences=given,
        making=text_source(encoder),
        embed=embedding(model, None),
        bar=Bar(),
        block=BLOCK,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("order", [("1/3", "2/3", "3/3"), ("3/3", "1/3", "2/3"), ("1/1",), ("2/2", "1/2")])
def test_merged_image_features_have_the_bytes_of_one_run(
    tmp_path: Path, root: Path, clip: VisionModel, order: tuple[str, ...]
) -> None:
    images(tmp_path / "whole", root, clip)
    for part in order:
        images(tmp_path / "parts", root, clip, part)
    report = merge(tmp_path / "parts")
    assert (report.rows, report.distinct) == (COUNT + 1, COUNT)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_merged_text_features_have_the_bytes_of_one_run(tmp_path: Path, toys: Toys) -> None:
    text(tmp_path / "whole", toys)
    for part in ("2/2", "1/2"):
        text(tmp_path / "parts", toys, part)
    assert merge(tmp_path / "parts").distinct == 10
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_missing_part_is_named_and_may_be_made_again_alone(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    images(tmp_path / "whole", root, clip)
    for part in ("1/3", "2/3", "3/3"):
        images(tmp_path / "parts", root, clip, part)
    shutil.rmtree(tmp_path / "parts" / ".partial" / "part-00001")
    with pytest.raises(ConfigError, match="1 of 4 parts are missing: run --part 2/3 again with --resume"):
        merge(tmp_path / "parts")
    images(tmp_path / "parts", root, clip, "2/3")
    merge(tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_damaged_part_is_named(tmp_path: Path, toys: Toys) -> None:
    for part in ("1/2", "2/2"):
        text(tmp_path / "parts", toys, part)
    vectors = tmp_path / "parts" / ".partial" / "part-00001" / "vectors.safetensors"
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    with pytest.raises(CorruptFileError, match="run --part 2/2 again with --resume"):
        merge(tmp_path / "parts")
    text(tmp_path / "parts", toys, "2/2")
    assert merge(tmp_path / "parts").rows == 13


def test_a_share_that_never_ran_is_named(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    images(tmp_path / "parts", root, clip, "1/2")
    with pytest.raises(ConfigError, match="run --part 2/2 again"):
        merge(tmp_path / "parts")


def test_parts_of_different_inputs_are_not_joined(
    tmp_path: Path, root: Path, clip: VisionModel, toys: Toys
) -> None:
    images(tmp_path / "parts", root, clip, "1/2")
    os.utime(root / names(root)[0], (1, 1))
    images(tmp_path / "parts", root, clip, "2/2")
    with pytest.raises(DataError, match="plan-1-of-2 and plan-2-of-2 were made of different inputs"):
        merge(tmp_path / "parts")
    text(tmp_path / "text", toys, "1/2")
    text(tmp_path / "text", toys, "2/2", sentences=captions(9))
    with pytest.raises(DataError, match="different inputs"):
        merge(tmp_path / "text")


def test_bad_images_of_all_parts_are_listed_by_the_merge(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    for name in (names(root)[1], names(root)[7]):
        (root / name).write_bytes(b"no image")
    images(tmp_path / "whole", root, clip, bad=2)
    for part in ("1/2", "2/2"):
        images(tmp_path / "parts", root, clip, part)
    with pytest.raises(DataError, match="2 of 12 images cannot be used, 0 allowed"):
        merge(tmp_path / "parts")
    assert merge(tmp_path / "parts", max_bad_images=2).bad == 2
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_there_is_nothing_to_merge_where_no_part_was_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no parts in"):
        merge(tmp_path / "nothing")


def test_the_commands_do_the_same(tmp_path: Path, toys: Toys, cli: Cli) -> None:
    given = ["features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher, "--device", "cpu"]
    assert cli(*given, "--out", tmp_path / "whole").code == 0
    for part in ("1/2", "2/2"):
        done = cli(*given, "--out", tmp_path / "parts", "--part", part)
        assert done.code == 0, done.err
        assert "this part is done" in done.out
    again = cli(*given, "--out", tmp_path / "parts", "--part", "1/2")
    assert (again.code, "rerun with --resume" in again.err) == (2, True), again.err
    assert cli(*given, "--out", tmp_path / "parts", "--part", "1/2", "--resume").code == 0
    done = cli("features", "merge", tmp_path / "parts")
    assert done.code == 0, done.err
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_somebody_elses_folder_gets_no_parts(
    tmp_path: Path, root: Path, clip_folder: Path, toys: Toys, cli: Cli
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("x")
    text_of = ["features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher]
    images_of = ["features", "images", "--pairs", toys.data.pairs, "--images", root, "--model", clip_folder]
    for given in (text_of, images_of):
        done = cli(*given, "--out", tmp_path / "mine", "--part", "1/2", "--device", "cpu")
        assert done.code == 6, done.err
        assert content(tmp_path / "mine") == {"diary.txt": b"x"}
        assert os.listdir(tmp_path / "mine") == ["diary.txt"]


@pytest.mark.parametrize("part", ["", "1", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "²/3"])
def test_a_part_is_i_of_n(part: str) -> None:
    with pytest.raises(ConfigError, match="expected i/n"):
        share_of(part)
    assert share_of("2/8") == Share(number=1, of=8)
