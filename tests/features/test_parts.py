"""Parts by several processes, merged: the bytes of one made at once; what is missing or different is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from dalr.errors import ConfigError, CorruptFileError, DataError
from dalr.features.images import ImageReport, write_image_store
from dalr.features.parts import merge, write_text_part
from dalr.features.store import CONTENTS, open_store, verify_store
from dalr.features.text import (
    encoder_embedding,
    text_source,
    tower_embedding,
    tower_source,
    write_text_store,
    write_tower_store,
)
from dalr.io.console import Console
from dalr.io.lock import locked_output
from dalr.io.shards import Member, members, write_shard
from dalr.io.share import Share, share_of
from dalr.models.choices import ComputePrecision
from dalr.models.config import EncoderConfig
from dalr.models.device import computes_bf16
from dalr.models.vision import VisionModel
from kills import Killed, killed_at
from tiny import Outcome, Toys, captions, write_pairs
from tiny_images import save_photos

Cli = Callable[..., Outcome]
COUNT, BLOCK = 11, 4
native = pytest.mark.skipif(
    not computes_bf16(torch.device("cpu")), reason="this processor has no instructions for bf16"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    shutil.copy(tmp_path / "images" / sorted(os.listdir(tmp_path / "images"))[0], tmp_path / "images" / "twin.png")
    return tmp_path / "images"


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def in_shards(root: Path) -> dict[str, Member]:
    """The same images, as members of two tar shards beside their folder."""
    for shard, several in enumerate((names(root)[:5], names(root)[5:])):
        path = root.parent / f"{shard}.tar"
        path.unlink(missing_ok=True)
        write_shard(path, [(name, (root / name).read_bytes()) for name in several])
    return {each.name: each for shard in range(2) for each in members(root.parent / f"{shard}.tar")}


def images(
    out: Path,
    root: Path,
    model: VisionModel,
    part: str | None = None,
    *,
    ids: Sequence[str] | None = None,
    shards: dict[str, Member] | None = None,
    bad: int = 0,
    update: bool = False,
    max_megapixels: int = 50,
) -> ImageReport:
    return write_image_store(
        out,
        ids=ids if ids is not None else names(root),
        root=root,
        members=shards,
        model=model,
        share=share_of(part) if part is not None else None,
        resume=True,
        update=update,
        max_bad_images=bad,
        max_megapixels=max_megapixels,
        workers=0,
        batch_size=2,
        part_images=3,
        console=Console(quiet=True),
    )


SENTENCES = [*captions(10), *captions(3), "the long river near the first city and the hill", "a dog"]


def text(
    out: Path,
    toys: Toys,
    part: str | None = None,
    *,
    sentences: Sequence[str] = SENTENCES,
    precision: ComputePrecision = "fp32",
    update: bool = False,
) -> None:
    encoder = EncoderConfig(model=str(toys.teacher))
    ids = [str(number) for number in range(len(sentences))]
    if part is None:
        write_text_store(out, encoder=encoder, ids=ids, sentences=sentences, precision=precision, update=update)
        return
    write_text_part(
        out,
        share_of(part),
        ids=ids,
        sentences=sentences,
        making=text_source(encoder, precision),
        embed=encoder_embedding(encoder, precision=precision),
        block=BLOCK,
        console=Console(quiet=True),
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


@pytest.mark.parametrize("sharded", [False, True], ids=["files", "shards"])
def test_made_at_once_updated_and_merged_image_features_have_the_same_bytes(
    tmp_path: Path, root: Path, clip: VisionModel, sharded: bool
) -> None:
    shards = in_shards(root) if sharded else None
    images(tmp_path / "whole", root, clip, shards=shards)
    images(tmp_path / "updated", root, clip, ids=names(root)[2:8], shards=shards)
    report = images(tmp_path / "updated", root, clip, shards=shards, update=True)
    assert (report.kept, report.computed) == (6, COUNT - 6)
    for part in ("2/2", "1/2"):
        images(tmp_path / "merged", root, clip, part, shards=shards)
    merge(tmp_path / "merged")
    whole = content(tmp_path / "whole")
    assert CONTENTS in whole
    assert content(tmp_path / "updated") == content(tmp_path / "merged") == whole


def test_a_store_of_files_is_updated_from_shards_and_a_changed_member_computed_again(
    tmp_path: Path, root: Path, clip: VisionModel
) -> None:
    images(tmp_path / "store", root, clip)
    assert images(tmp_path / "store", root, clip, shards=in_shards(root), update=True).computed == 0
    shutil.copy(root / names(root)[3], root / names(root)[2])
    (root / names(root)[4]).write_bytes(b"no image")
    shards = in_shards(root)
    report = images(tmp_path / "store", root, clip, shards=shards, update=True, bad=1)
    assert (report.computed, report.bad, report.distinct) == (0, 1, COUNT - 2)
    images(tmp_path / "whole", root, clip, shards=shards, bad=1)
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=native)])
def test_made_at_once_updated_and_merged_text_features_have_the_same_bytes(
    tmp_path: Path, toys: Toys, precision: ComputePrecision
) -> None:
    text(tmp_path / "whole", toys, precision=precision)
    text(tmp_path / "updated", toys, sentences=SENTENCES[5:9], precision=precision)
    text(tmp_path / "updated", toys, precision=precision, update=True)
    for part in ("2/2", "1/2"):
        text(tmp_path / "merged", toys, part, precision=precision)
    assert merge(tmp_path / "merged").distinct == len(set(SENTENCES))
    whole = content(tmp_path / "whole")
    assert CONTENTS in whole
    assert content(tmp_path / "updated") == content(tmp_path / "merged") == whole


def test_the_same_of_a_text_tower(tmp_path: Path, clip: VisionModel) -> None:
    ids = [str(number) for number in range(len(SENTENCES))]
    write_tower_store(tmp_path / "whole", model=clip, ids=ids, sentences=SENTENCES)
    write_tower_store(tmp_path / "updated", model=clip, ids=ids[:4], sentences=SENTENCES[5:9])
    write_tower_store(tmp_path / "updated", model=clip, ids=ids, sentences=SENTENCES, update=True)
    for number in range(3):
        write_text_part(
            tmp_path / "merged",
            Share(number=number, of=3),
            ids=ids,
            sentences=SENTENCES,
            making=tower_source(clip),
            embed=tower_embedding(clip),
            block=BLOCK,
            console=Console(quiet=True),
        )
    merge(tmp_path / "merged")
    whole = content(tmp_path / "whole")
    assert content(tmp_path / "updated") == content(tmp_path / "merged") == whole


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
    assert merge(tmp_path / "parts").rows == len(SENTENCES)


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


def test_parts_with_other_limits_are_not_joined(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    images(tmp_path / "parts", root, clip, "1/2", max_megapixels=60)
    images(tmp_path / "parts", root, clip, "2/2")
    advice = "made with --max-megapixels 60, and the last part with 50; run --part 1/2 again with --resume"
    with pytest.raises(ConfigError, match=advice):
        merge(tmp_path / "parts")
    images(tmp_path / "parts", root, clip, "1/2")
    images(tmp_path / "whole", root, clip)
    merge(tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=native)])
def test_the_commands_do_the_same(tmp_path: Path, toys: Toys, cli: Cli, precision: str) -> None:
    given = ["features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher, "--device", "cpu"]
    given += ["--precision", precision]
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


@native
def test_parts_of_another_precision_are_refused(tmp_path: Path, toys: Toys, cli: Cli) -> None:
    given = ["features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher, "--out", tmp_path / "parts"]
    assert cli(*given, "--part", "1/2", "--precision", "bf16").code == 0
    done = cli(*given, "--part", "2/2")
    assert (done.code, "made with precision 'bf16', now asked for None" in done.err) == (2, True), done.err


def test_text_is_not_written_over_parts_that_wait(tmp_path: Path, toys: Toys, cli: Cli) -> None:
    given = ["features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher, "--out", tmp_path / "parts"]
    assert cli(*given, "--part", "1/1").code == 0
    kept = content(tmp_path / "parts")
    for more in ((), ("--update",)):
        done = cli(*given, *more)
        assert done.code == 2, done.err
        assert f"put all together with dalr features merge {tmp_path / 'parts'}" in " ".join(done.err.split())
    assert content(tmp_path / "parts") == kept
    assert cli("features", "merge", tmp_path / "parts").code == 0
    assert cli(*given).code == 0


def test_images_name_the_merge_too_and_resume_takes_the_parts_over(
    tmp_path: Path, root: Path, clip_folder: Path, cli: Cli
) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", names(root), [["a dog"] for _ in names(root)])
    given = ["features", "images", "--pairs", pairs, "--images", root, "--model", clip_folder, "--workers", 0]
    given += ["--device", "cpu", "--out", tmp_path / "parts"]
    assert "this part is done" in cli(*given, "--part", "1/1").out
    done = cli(*given)
    assert (done.code, "dalr features merge" in done.err) == (2, True), done.err
    assert "0 computed" in cli(*given, "--resume").out
    done = cli(*given, "--part", "1/1")
    assert (done.code, "already exists" in done.err, "12 images of dimension" in done.out) == (0, True, True)


@pytest.mark.parametrize("kind", ["images", "text"])
def test_a_part_is_not_updated(tmp_path: Path, root: Path, toys: Toys, cli: Cli, kind: str) -> None:
    given = ["features", kind, "--pairs", toys.data.pairs, "--model", toys.teacher, "--out", tmp_path / "s"]
    done = cli(*given, "--part", "1/2", "--update")
    assert (done.code, "leave --part out" in done.err) == (2, True), done.err
    assert not (tmp_path / "s").exists()


def test_sentences_are_resumed_in_parts_alone(tmp_path: Path, toys: Toys, cli: Cli) -> None:
    done = cli(
        *("features", "text", "--pairs", toys.data.pairs, "--model", toys.teacher, "--out", tmp_path / "s"),
        "--resume",
    )
    assert (done.code, "--resume: is for --part" in done.err) == (2, True), done.err


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


@pytest.mark.parametrize("kind", ["images", "text"])
def test_a_merge_killed_at_any_moment_leaves_no_half_store_and_a_second_one_has_the_same_bytes(
    tmp_path: Path, root: Path, clip: VisionModel, toys: Toys, kind: str
) -> None:
    def make(out: Path, part: str | None = None) -> None:
        if kind == "images":
            images(out, root, clip, part, ids=names(root)[:5])
        else:
            text(out, toys, part, sentences=SENTENCES[:6])

    make(tmp_path / "whole")
    for part in ("1/2", "2/2"):
        make(tmp_path / "parts", part)
    whole = content(tmp_path / "whole")
    seen = set()
    for at in range(1, 10**6):
        out = Path(shutil.copytree(tmp_path / "parts", tmp_path / "store"))
        try:
            with killed_at(at):
                merge(out)
            break
        except Killed:
            finished = (out / "manifest.json").is_file()
        seen.add(finished)
        if finished:
            verify_store(out)
        else:
            with pytest.raises(CorruptFileError):
                open_store(out)
        with locked_output(out):  # as the command does
            assert merge(out).rows == len(open_store(out))
        assert content(out) == whole, f"killed at change {at}"
        assert not list(tmp_path.glob(".store.*"))
        shutil.rmtree(out)
    assert at > 10
    assert seen == {True, False}
