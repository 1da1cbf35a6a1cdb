"""A store that is updated computes only what is new, and has the bytes of one made at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.errors import ConfigError, CorruptFileError, DataError
from dalr.features import images
from dalr.features.images import ImageReport, write_image_store
from dalr.features.store import open_store, verify_store
from dalr.features.text import TextReport, write_text_store, write_tower_store
from dalr.io.console import Console
from dalr.io.lock import locked_output
from dalr.models.config import EncoderConfig
from dalr.models.vision import VisionModel, load_vision_model
from kills import Killed, killed_at
from tiny import Outcome, captions, write_pairs
from tiny_images import photo, save_photos, save_tiny_image_model

FIRST, ALL, PART, BATCH = 7, 12, 3, 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", ALL)
    return tmp_path / "images"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(out: Path, root: Path, model: VisionModel, ids: Sequence[str], **options: Any) -> ImageReport:
    settings: dict[str, Any] = {
        "part_images": PART,
        "batch_size": BATCH,
        "workers": 0,
        "console": Console(quiet=True),
    }
    return write_image_store(out, ids=ids, root=root, model=model, **(settings | options))


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.fixture
def november(tmp_path: Path, root: Path, clip: VisionModel) -> Path:
    write(tmp_path / "s", root, clip, names(root)[:FIRST])
    return tmp_path / "s"


class TestImages:
    def at_once(self, tmp_path: Path, root: Path, clip: VisionModel, ids: Sequence[str]) -> dict[str, bytes]:
        write(tmp_path / "at-once", root, clip, ids)
        return content(tmp_path / "at-once")

    def test_new_images_are_computed_alone(
        self, tmp_path: Path, root: Path, clip: VisionModel, november: Path
    ) -> None:
        ids = names(root)[::-1]
        report = write(november, root, clip, ids, update=True)
        assert (report.rows, report.kept, report.computed, report.dropped) == (ALL, FIRST, ALL - FIRST, 0)
        assert content(november) == self.at_once(tmp_path, root, clip, ids)

    @pytest.mark.parametrize("kind", ["resnet", "vit", "siglip", "dinov2"])
    def test_every_kind_of_model(self, tmp_path: Path, root: Path, kind: str) -> None:
        model = load_vision_model(str(save_tiny_image_model(tmp_path / kind, kind)), device="cpu")
        write(tmp_path / "s", root, model, names(root)[:FIRST])
        write(tmp_path / "s", root, model, names(root)[1:], update=True)
        assert content(tmp_path / "s") == self.at_once(tmp_path, root, model, names(root)[1:])

    def test_changed_images_are_computed_again_and_gone_ones_dropped(
        self, tmp_path: Path, root: Path, clip: VisionModel, november: Path
    ) -> None:
        status = os.stat(root / "002.jpg")
        photo(50, (42, 48)).save(root / "002.jpg")
        os.utime(root / "002.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))  # nor does its time say so
        ids = names(root)[1:]
        report = write(november, root, clip, ids, update=True)
        assert (report.kept, report.computed, report.dropped) == (FIRST - 2, ALL - FIRST + 1, 1)
        assert content(november) == self.at_once(tmp_path, root, clip, ids)

    def test_a_renamed_image_keeps_its_vector(
        self, tmp_path: Path, root: Path, clip: VisionModel, november: Path
    ) -> None:
        (root / "003.jpg").rename(root / "zebra.jpg")
        shutil.copy(root / "004.jpg", root / "copy.jpg")
        ids = [name for name in names(root) if not "007.jpg" <= name < "012.jpg"]
        report = write(november, root, clip, ids, update=True)
        assert (report.kept, report.computed, report.dropped) == (FIRST, 0, 1)
        assert content(november) == self.at_once(tmp_path, root, clip, ids)

    def test_nothing_new_changes_no_byte(self, root: Path, clip: VisionModel, november: Path) -> None:
        kept = content(november)
        assert write(november, root, clip, names(root)[:FIRST], update=True).computed == 0
        assert content(november) == kept

    def test_where_there_is_no_store_yet_one_is_made(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        assert write(tmp_path / "s", root, clip, names(root), update=True).computed == ALL
        assert content(tmp_path / "s") == self.at_once(tmp_path, root, clip, names(root))

    def test_bad_images_are_listed_and_tried_again(
        self, tmp_path: Path, root: Path, clip: VisionModel, november: Path
    ) -> None:
        (root / "bad.jpg").write_bytes(b"no image")
        kept = content(november)
        with pytest.raises(DataError, match=r"1 of 13 images cannot be used.*rerun with --update") as caught:
            write(november, root, clip, names(root), update=True)
        assert "--update --max-bad-images 1" in str(caught.value)
        assert {name: data for name, data in content(november).items() if ".partial" not in name} == kept
        write(november, root, clip, names(root), update=True, max_bad_images=1)
        write(tmp_path / "at-once", root, clip, names(root), max_bad_images=1)
        assert content(november) == content(tmp_path / "at-once")
        photo(77).save(root / "bad.jpg")
        assert write(november, root, clip, names(root), update=True).computed == 1
        shutil.rmtree(tmp_path / "at-once")
        assert content(november) == self.at_once(tmp_path, root, clip, names(root))

    def test_another_model_is_refused_with_both_named(
        self, tmp_path: Path, root: Path, clip: VisionModel, november: Path
    ) -> None:
        kept = content(november)
        other = load_vision_model(str(save_tiny_image_model(tmp_path / "dino", "dinov2")), device="cpu")
        with pytest.raises(ConfigError) as caught:
            write(november, root, other, names(root), update=True)
        found = str(caught.value)
        assert f"made with model {clip.reference!r}, now asked for {other.reference!r}" in found
        assert "choose another --out, or delete that one" in found
        assert "ids_sha256" not in found
        with pytest.raises(ConfigError, match="made with batch_size 4, now asked for 5"):
            write(november, root, clip, names(root), update=True, batch_size=5)
        assert content(november) == kept

    def test_vectors_of_another_making_are_not_mixed(
        self, root: Path, clip: VisionModel, november: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = content(november)
        monkeypatch.setattr(VisionModel, "vectors", lambda self, pixels: np.ones((len(pixels), 16), np.float32))
        with pytest.raises(ConfigError, match=r"gives other vectors now.*lowest cosine.*delete that one"):
            write(november, root, clip, names(root), update=True)
        assert {name: data for name, data in content(november).items() if ".partial" not in name} == kept

    def test_last_bits_of_another_machine_are_noted(
        self,
        root: Path,
        clip: VisionModel,
        november: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        vectors = VisionModel.vectors
        monkeypatch.setattr(VisionModel, "vectors", lambda self, pixels: vectors(self, pixels) * 1.001)
        write(november, root, clip, names(root), update=True, console=Console())
        assert "kept vectors differ from those computed now in their last bits" in capsys.readouterr().err

    @pytest.mark.parametrize("damage", ["vectors-00000.safetensors", "contents.txt"])
    def test_a_damaged_store_is_not_updated(
        self, root: Path, clip: VisionModel, november: Path, damage: str
    ) -> None:
        data = (november / damage).read_bytes()
        (november / damage).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        with pytest.raises(CorruptFileError, match="create the store again with dalr features"):
            write(november, root, clip, names(root), update=True)

    def test_without_update_other_images_are_refused_and_the_option_named(
        self, root: Path, clip: VisionModel, november: Path
    ) -> None:
        with pytest.raises(ConfigError, match="rerun with --update, which computes only what is new"):
            write(november, root, clip, names(root))

    @pytest.mark.slow
    def test_a_kill_at_any_moment_leaves_the_old_store_or_the_new_one(
        self, tmp_path: Path, root: Path, clip: VisionModel, november: Path
    ) -> None:
        ids = names(root)[2 : FIRST + 2]
        expected, old = self.at_once(tmp_path, root, clip, ids), tuple(open_store(november).ids)
        kept = shutil.copytree(november, tmp_path / "kept")
        seen = set()
        for at in range(1, 10**6):
            out = Path(shutil.copytree(kept, tmp_path / "store"))
            try:
                with killed_at(at):
                    write(out, root, clip, ids, update=True)
                break
            except Killed:
                verify_store(out)
                seen.add(tuple(open_store(out).ids))
            with locked_output(out):  # as the command does
                report = write(out, root, clip, ids, update=True)
            assert content(out) == expected, f"killed at change {at}"
            assert report.computed <= 2
            shutil.rmtree(out)
        assert seen == {old, tuple(ids)}

    def test_an_interrupted_update_is_resumed(
        self, root: Path, clip: VisionModel, november: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as stopped:
            stopped.setattr(images, "write_store", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                write(november, root, clip, names(root), update=True)
        assert len(open_store(november)) == FIRST
        photo(99).save(root / "011.jpg")
        assert write(november, root, clip, names(root), update=True).computed == 2  # the part of the changed one

    def test_the_command_says_what_stayed(
        self, cli: Callable[..., Outcome], tmp_path: Path, root: Path, clip_folder: Path
    ) -> None:
        arguments = ["--images", root, "--model", clip_folder, "--out", tmp_path / "c", "--workers", "0"]
        for month, (ids, said) in enumerate([(names(root)[:5], "5 computed"), (names(root)[1:], "4 kept, 1 rows")]):
            pairs = write_pairs(tmp_path / f"{month}.jsonl", ids, [["a dog"] for _ in ids])
            outcome = cli("features", "images", "--pairs", pairs, *arguments, "--update")
            assert outcome.code == 0, outcome.err
            assert said in outcome.out


class TestText:
    SENTENCES = (*captions(20), *captions(4), "the long river near the first city and the hill", "a dog")

    def made(
        self, out: Path, encoder: EncoderConfig, sentences: Sequence[str], *, update: bool = False
    ) -> TextReport:
        ids = [f"{number}-{len(sentences)}" for number in range(len(sentences))]
        return write_text_store(out, encoder=encoder, ids=ids, sentences=sentences, update=update)

    def test_new_sentences_are_encoded_alone(self, tmp_path: Path, tiny_teacher: Path) -> None:
        encoder = EncoderConfig(model=str(tiny_teacher))
        self.made(tmp_path / "s", encoder, self.SENTENCES[:9])
        report = self.made(tmp_path / "s", encoder, self.SENTENCES[2:][::-1], update=True)
        distinct = len(set(self.SENTENCES[2:]))
        assert (report.kept, report.computed, report.dropped) == (9, distinct - 9, 9)
        self.made(tmp_path / "at-once", encoder, self.SENTENCES[2:][::-1])
        assert content(tmp_path / "s") == content(tmp_path / "at-once")
        assert self.made(tmp_path / "s", encoder, self.SENTENCES[2:][::-1], update=True).computed == 0
        assert content(tmp_path / "s") == content(tmp_path / "at-once")

    @pytest.mark.parametrize("kind", ["clip", "siglip"])
    def test_a_text_tower(self, tmp_path: Path, kind: str) -> None:
        model = load_vision_model(str(save_tiny_image_model(tmp_path / kind, kind)), device="cpu")
        sentences, ids = self.SENTENCES[:20], [str(number) for number in range(20)]
        write_tower_store(tmp_path / "s", model=model, ids=ids[:6], sentences=sentences[:6])
        report = write_tower_store(tmp_path / "s", model=model, ids=ids, sentences=sentences, update=True)
        assert (report.kept, report.computed) == (6, 14)
        write_tower_store(tmp_path / "at-once", model=model, ids=ids, sentences=sentences)
        assert content(tmp_path / "s") == content(tmp_path / "at-once")

    def test_a_changed_caption_is_encoded_again(
        self, cli: Callable[..., Outcome], tmp_path: Path, tiny_teacher: Path
    ) -> None:
        pairs = write_pairs(tmp_path / "p.jsonl", ["a", "b"], [["a dog", "a cat"], ["two cows"]])
        arguments = ["features", "text", "--pairs", pairs, "--model", tiny_teacher, "--out", tmp_path / "s"]
        assert "; 3 sentences encoded" in cli(*arguments, "--update").out
        write_pairs(pairs, ["a", "b"], [["a dog", "a bird"], ["two cows"]])
        assert "; 2 kept, 1 sentences encoded" in cli(*arguments, "--update").out
        arguments[-1] = tmp_path / "at-once"
        cli(*arguments)
        assert content(tmp_path / "s") == content(tmp_path / "at-once")

    def test_another_model_is_refused_with_both_named(
        self, cli: Callable[..., Outcome], tmp_path: Path, tiny_teacher: Path, clip_folder: Path
    ) -> None:
        pairs = write_pairs(tmp_path / "p.jsonl", ["a"], [["a dog"]])
        arguments = ["features", "text", "--pairs", pairs, "--out", tmp_path / "s", "--model"]
        assert cli(*arguments, tiny_teacher).code == 0
        outcome = cli(*arguments, tiny_teacher, "--pooling", "cls", "--update")
        assert outcome.code == 2
        assert "made with encoder.pooling None, now asked for 'cls'" in outcome.err
        assert "was made with" in cli(*arguments, clip_folder, "--update").err


def test_an_updated_import_drops_rows_and_has_the_bytes_of_one_made_at_once(
    cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

    def imported(out: str, names: str, *options: str) -> Outcome:
        np.save(tmp_path / "m.npy", rows[[int(name) for name in names]])
        (tmp_path / "m.txt").write_text("".join(f"{name}.jpg\n" for name in names))
        files = [tmp_path / "m.npy", "--ids", tmp_path / "m.txt", "--out", tmp_path / out]
        return cli("features", "import", *files, *options)

    assert imported("store", "0123").code == 0
    refused = imported("store", "124")
    assert (refused.code, "2 of the 4 rows of the store there would be lost" in refused.err) == (2, True)
    updated = imported("store", "124", "--update")
    assert updated.out.endswith("store: 3 rows of dimension 4; 2 there before, 2 dropped\n"), updated.err
    assert imported("fresh", "124").code == 0
    files = sorted(path.name for path in (tmp_path / "fresh").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "store").iterdir())
    for name in files:
        assert (tmp_path / "fresh" / name).read_bytes() == (tmp_path / "store" / name).read_bytes()
    (tmp_path / "f.json").write_text("{}")
    refused = cli("features", "import", tmp_path / "f.json", "--out", tmp_path / "g", "--update")
    assert (refused.code, "--update: is for an .npy matrix" in refused.err) == (2, True)
