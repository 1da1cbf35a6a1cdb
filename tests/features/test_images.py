"""R22, R23: vectors of image files survive kills and rot with the same bytes; bad images come as one list."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalr.errors import ConfigError, CorruptFileError, DataError, StorageError
from dalr.features import images
from dalr.features.decoding import read_image
from dalr.features.images import ImageReport, write_image_store
from dalr.features.store import open_store
from dalr.io.console import Console
from dalr.models.vision import VisionModel, load_vision_model
from kills import Killed, killed_at
from stores import as_matrix
from tiny import Outcome, write_pairs
from tiny_images import photo, save_photos, save_tiny_image_model

COUNT, PART, BATCH = 12, 5, 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    return tmp_path / "images"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each batch of the model had, without those that fill it up."""
    calls: list[int] = []
    vectors = VisionModel.vectors

    def counted(self: VisionModel, pixels: np.ndarray) -> np.ndarray:
        calls.append(len(np.unique(pixels, axis=0)))
        return vectors(self, pixels)

    monkeypatch.setattr(VisionModel, "vectors", counted)
    return calls


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def write(
    out: Path, root: Path, model: VisionModel, ids: Sequence[str] | None = None, **options: Any
) -> ImageReport:
    settings: dict[str, Any] = {
        "part_images": PART,
        "batch_size": BATCH,
        "workers": 0,
        "console": Console(quiet=True),
    }
    return write_image_store(out, ids=ids or names(root), root=root, model=model, **(settings | options))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bad_images(out: Path) -> dict[str, str]:
    lines = (out / "bad_images.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["image"]: row["reason"] for row in map(json.loads, lines)}


def test_rows_are_the_models_vectors_of_the_decoded_files(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    report = write(tmp_path / "s", root, clip)
    store = open_store(tmp_path / "s")
    assert report == ImageReport(rows=COUNT, distinct=COUNT, computed=COUNT, bad=0, dim=clip.dim)
    assert store.ids == tuple(names(root))
    expected = clip.embed_images([read_image(root / name) for name in store.ids])
    assert np.allclose(as_matrix(store), expected, atol=2e-3)
    assert sorted(content(tmp_path / "s")) == [
        "bad_images.jsonl",
        "contents.txt",
        "ids.jsonl",
        "manifest.json",
        "vectors-00000.safetensors",
    ]


def test_the_manifest_says_how_the_vectors_were_made(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    write(tmp_path / "s", root, clip)
    source = open_store(tmp_path / "s").source
    assert source["model"] == clip.reference
    assert source["sha256"] == clip.source["sha256"]
    assert source["processor"]["image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert (source["dim"], source["normalized"], source["images"]) == (clip.dim, False, COUNT)
    assert len(source["ids_sha256"]) == 64


@pytest.mark.slow
def test_decoding_in_workers_changes_no_byte(
    tmp_path: Path, clip_folder: Path, root: Path, clip: VisionModel
) -> None:
    """In a process of its own, because workers are forked."""
    write(tmp_path / "here", root, clip)
    code = (
        "import sys; from pathlib import Path; from dalr.features.images import write_image_store\n"
        "from dalr.models.vision import load_vision_model\n"
        "root = Path(sys.argv[1]); ids = sorted(path.name for path in root.iterdir())\n"
        "write_image_store(Path(sys.argv[2]), ids=ids, root=root, workers=2, part_images=5, batch_size=2,\n"
        "                  model=load_vision_model(sys.argv[3], device='cpu'))"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "there"), str(clip_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "there") == content(tmp_path / "here")


def test_files_of_one_content_are_computed_once(
    tmp_path: Path, root: Path, clip: VisionModel, seen: list[int]
) -> None:
    (root / "inner").mkdir()
    shutil.copy(root / "001.jpg", root / "zz.jpg")
    shutil.copy(root / "001.jpg", root / "inner" / "again.jpg")
    near = bytearray((root / "003.jpg").read_bytes())
    near[15] ^= 1  # its resolution: the same size and the same end, other content
    (root / "near.jpg").write_bytes(near)
    ids = ["zz.jpg", *[f"{number:03d}.jpg" for number in range(COUNT)], "inner/again.jpg", "near.jpg"]
    report = write(tmp_path / "s", root, clip, ids)
    assert (report.rows, report.distinct, sum(seen)) == (COUNT + 3, COUNT + 1, COUNT + 1)
    rows = as_matrix(open_store(tmp_path / "s"))
    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(rows[0], rows[-2])
    assert len(np.unique(rows[1:-2], axis=0)) == COUNT


class TestBadImages:
    @pytest.fixture
    def hostile(self, root: Path) -> dict[str, str]:
        """Bad files among the good ones, with what their reason says."""
        whole = (root / "000.jpg").read_bytes()
        (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
        (root / "empty.jpg").touch()
        (root / "page.jpg").write_text("<html>404</html>")
        (root / "folder.jpg").mkdir()
        with open(root / "long.jpg", "wb") as file:
            file.truncate(64 * 2**20 + 1)
        (root.parent / "secret.jpg").write_bytes(whole)
        (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
        for kind, mode in (("cmyk.jpg", "CMYK"), ("grey.png", "L"), ("clear.png", "RGBA"), ("palette.gif", "P")):
            photo(5).convert(mode).save(root / kind)
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(root / "deep.png")
        return {
            "cut.jpg": "cannot be decoded: ",
            "empty.jpg": "empty file",
            "page.jpg": "not one of JPEG",
            "folder.jpg": "a folder",
            "long.jpg": "64.0 MB, more than the 64 MB allowed",
            "link.jpg": "outside the image folder",
            "../secret.jpg": "outside the image folder",
            "gone.jpg": "no such file",
            "x" * 300: "not a file name",
            "nul\0.jpg": "not a file name",
        }

    @pytest.fixture
    def ids(self, root: Path, hostile: dict[str, str]) -> list[str]:
        return list(dict.fromkeys([*names(root), *hostile]))

    def test_all_are_listed_with_their_reasons_after_the_pass(
        self,
        tmp_path: Path,
        root: Path,
        clip: VisionModel,
        hostile: dict[str, str],
        ids: list[str],
        seen: list[int],
    ) -> None:
        with pytest.raises(DataError) as caught:
            write(tmp_path / "s", root, clip, ids)
        assert f"{len(hostile)} of {len(ids)} images cannot be used, 0 allowed" in str(caught.value)
        assert str(tmp_path / "s" / "bad_images.jsonl") in str(caught.value)
        listed = bad_images(tmp_path / "s")
        assert listed.keys() == hostile.keys()
        for name, reason in hostile.items():
            assert reason in listed[name]
        assert sum(seen) == len(ids) - len(hostile), "the pass went on to its end"
        with pytest.raises(CorruptFileError, match=r"no manifest\.json"):
            open_store(tmp_path / "s")

    def test_allowed_ones_are_left_out_and_nothing_is_computed_again(
        self, tmp_path: Path, root: Path, clip: VisionModel, hostile: dict[str, str], ids: list[str]
    ) -> None:
        with pytest.raises(DataError):
            write(tmp_path / "s", root, clip, ids)
        report = write(tmp_path / "s", root, clip, ids, resume=True, max_bad_images=len(hostile))
        assert (report.computed, report.bad, report.rows) == (0, len(hostile), len(ids) - len(hostile))
        store = open_store(tmp_path / "s")
        assert store.ids == tuple(name for name in ids if name not in hostile)
        assert bad_images(tmp_path / "s").keys() == hostile.keys()
        good = clip.embed_images([read_image(root / name) for name in store.ids])
        assert np.allclose(as_matrix(store), good, atol=2e-3)
        write(tmp_path / "fresh", root, clip, ids, max_bad_images=len(hostile))
        assert content(tmp_path / "s") == content(tmp_path / "fresh")

    def test_one_too_many_is_refused(
        self, tmp_path: Path, root: Path, clip: VisionModel, hostile: dict[str, str], ids: list[str]
    ) -> None:
        with pytest.raises(DataError, match=f"{len(hostile) - 1} allowed"):
            write(tmp_path / "s", root, clip, ids, max_bad_images=len(hostile) - 1)

    def test_a_mended_file_costs_its_own_part(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        whole = (root / "007.jpg").read_bytes()
        (root / "007.jpg").write_bytes(whole[:100])
        with pytest.raises(DataError, match="1 of 12"):
            write(tmp_path / "s", root, clip)
        (root / "007.jpg").write_bytes(whole)
        assert write(tmp_path / "s", root, clip, resume=True).computed == PART
        write(tmp_path / "fresh", root, clip)
        assert content(tmp_path / "s") == content(tmp_path / "fresh")

    def test_all_bad_is_no_store(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        with pytest.raises(DataError, match="none of the 2 images can be used"):
            write(tmp_path / "s", root, clip, ["a", "b"], max_bad_images=2)

    def test_the_command_exits_with_3_and_the_count(
        self, cli: Callable[..., Outcome], tmp_path: Path, root: Path, clip_folder: Path
    ) -> None:
        (root / "003.jpg").write_bytes(b"GIF89a")
        pairs = write_pairs(tmp_path / "p.jsonl", names(root), [["a dog"]] * COUNT)
        options = [
            "--pairs",
            pairs,
            "--images",
            root,
            "--model",
            clip_folder,
            "--out",
            tmp_path / "s",
            "--workers",
            0,
        ]
        outcome = cli("features", "images", *options)
        assert outcome.code == 3
        assert "1 of 12 images cannot be used, 0 allowed" in outcome.err
        assert (
            "leave them out with --resume --max-bad-images 1, and take them out of the captions too" in outcome.err
        )
        assert "image '003.jpg': " in outcome.err
        outcome = cli("features", "images", *options, "--resume", "--max-bad-images", 1)
        assert outcome.code == 0, outcome.err
        assert f"{tmp_path / 's'}: 11 images of dimension 16 (11 distinct, 1 bad ones listed in" in outcome.out

    def test_one_split_of_a_table_with_columns_of_its_own_whatever_its_captions_are(
        self, cli: Callable[..., Outcome], tmp_path: Path, root: Path, clip_folder: Path
    ) -> None:
        table = tmp_path / "p.csv"
        rows = [
            f"{name},{'' if n == 2 else 'a dog'},{'test' if n % 2 else 'train'}"
            for n, name in enumerate(names(root))
        ]
        table.write_text("\n".join(["file,words,part", *rows, ""]))
        outcome = cli(
            *("features", "images", "--pairs", table, "--columns", "image=file,caption=words,split=part"),
            *(
                "--split",
                "train",
                "--images",
                root,
                "--model",
                clip_folder,
                "--out",
                tmp_path / "s",
                "--workers",
                0,
            ),
        )
        assert outcome.code == 0, outcome.err
        assert list(open_store(tmp_path / "s").ids) == names(root)[::2]


@pytest.mark.slow
def test_a_kill_at_every_write_costs_at_most_one_part(
    tmp_path: Path, root: Path, clip: VisionModel, seen: list[int]
) -> None:
    ids, part = names(root)[:6], 3
    with killed_at(10**9) as changes_so_far:
        write(tmp_path / "whole", root, clip, ids, part_images=part)
        changes = changes_so_far()
    expected = content(tmp_path / "whole")
    assert changes > 40
    for at in range(1, changes + 1):
        out = tmp_path / f"s{at}"
        seen.clear()
        with killed_at(at), pytest.raises(Killed):
            write(out, root, clip, ids, part_images=part)
        write(out, root, clip, ids, part_images=part, resume=True)
        assert content(out) == expected, f"killed at change {at} of {changes}"
        assert len(ids) <= sum(seen) <= len(ids) + part, f"killed at change {at} of {changes}"


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "duplicate", "manifest", "folder"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_rot_in_a_part_costs_that_part(
    tmp_path: Path, root: Path, clip: VisionModel, monkeypatch: pytest.MonkeyPatch, damage: str, part: int
) -> None:
    write(tmp_path / "whole", root, clip)
    with monkeypatch.context() as stopped:
        stopped.setattr(images, "write_store", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "s", root, clip)
    folder = tmp_path / "s" / ".partial" / f"part-{part:05d}"
    vectors = folder / "vectors.safetensors"
    data = vectors.read_bytes()
    match damage:
        case "flip":
            vectors.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        case "truncate":
            vectors.write_bytes(data[:-7])
        case "delete":
            vectors.unlink()
        case "duplicate":
            other = folder.with_name(f"part-{(part + 1) % 3:05d}")
            shutil.rmtree(folder)
            shutil.copytree(other, folder)
        case "manifest":
            (folder / "manifest.json").write_text("{}")
        case _:
            shutil.rmtree(folder)
    report = write(tmp_path / "s", root, clip, resume=True)
    assert report.computed == (PART, PART, COUNT - 2 * PART)[part]
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_changed_picture_costs_its_part(
    tmp_path: Path, root: Path, clip: VisionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(images, "write_store", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "s", root, clip)
    photo(99).save(root / "001.jpg")
    assert write(tmp_path / "s", root, clip, resume=True).computed == PART
    write(tmp_path / "fresh", root, clip)
    assert content(tmp_path / "s") == content(tmp_path / "fresh")


class TestOtherMakings:
    @pytest.fixture
    def made(self, tmp_path: Path, root: Path, clip: VisionModel) -> Path:
        write(tmp_path / "s", root, clip)
        return tmp_path / "s"

    def refused(self, *arguments: Any, **options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            write(*arguments, **options)
        return str(caught.value)

    def test_another_model_is_refused_with_both_named(
        self, tmp_path: Path, root: Path, clip: VisionModel, made: Path
    ) -> None:
        other = load_vision_model(str(save_tiny_image_model(tmp_path / "dino", "dinov2")), device="cpu")
        kept = content(made)
        found = self.refused(made, root, other)
        assert f"made with model {clip.reference!r}, now asked for {other.reference!r}" in found
        assert "made with dim 16, now asked for 24" in found
        assert content(made) == kept

    def test_other_processor_settings_are_refused(
        self, tmp_path: Path, root: Path, clip_folder: Path, made: Path
    ) -> None:
        changed = Path(shutil.copytree(clip_folder, tmp_path / "changed"))
        settings = json.loads((changed / "preprocessor_config.json").read_text())
        (changed / "preprocessor_config.json").write_text(json.dumps(settings | {"resample": 2}))
        found = self.refused(made, root, load_vision_model(str(changed), device="cpu"))
        assert "made with processor.resample 3, now asked for 2" in found

    def test_other_ids_are_refused(self, root: Path, clip: VisionModel, made: Path) -> None:
        assert "made with images 12, now asked for 11" in self.refused(made, root, clip, names(root)[1:])

    def test_unfinished_work_of_another_model_is_refused(
        self, tmp_path: Path, root: Path, clip: VisionModel
    ) -> None:
        with pytest.raises(DataError):
            write(tmp_path / "t", root, clip, [*names(root), "gone.jpg"])
        other = load_vision_model(str(save_tiny_image_model(tmp_path / "dino", "dinov2")), device="cpu")
        found = self.refused(tmp_path / "t", root, other, [*names(root), "gone.jpg"], resume=True)
        assert f"the unfinished store there was made with model {clip.reference!r}" in found

    def test_the_same_model_in_another_folder_is_the_same_making(
        self, tmp_path: Path, root: Path, clip_folder: Path, made: Path
    ) -> None:
        moved = load_vision_model(str(shutil.copytree(clip_folder, tmp_path / "moved")), device="cpu")
        assert write(made, root, moved).computed == 0

    def test_a_store_of_captions_is_refused_too(
        self, cli: Callable[..., Outcome], tmp_path: Path, made: Path, tiny_teacher: Path
    ) -> None:
        pairs = write_pairs(tmp_path / "p.jsonl", ["a"], [["a dog"]])
        outcome = cli("features", "text", "--pairs", pairs, "--model", tiny_teacher, "--out", made)
        assert outcome.code == 2
        assert "was made with kind 'images', now asked for 'text'" in outcome.err

    def test_unfinished_work_needs_resume(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        with pytest.raises(DataError):
            write(tmp_path / "t", root, clip, [*names(root), "gone.jpg"])
        found = self.refused(tmp_path / "t", root, clip, [*names(root), "gone.jpg"])
        assert "unfinished work of an earlier run; rerun with --resume" in found

    def test_a_finished_store_is_left_alone(
        self, root: Path, clip: VisionModel, made: Path, seen: list[int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        kept = content(made)
        report = write(made, root, clip, console=Console())
        assert "s already exists, from the same images by the same model" in capsys.readouterr().err
        assert (report.rows, report.computed, seen) == (COUNT, 0, [])
        assert content(made) == kept

    @pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
    def test_a_damaged_store_is_noticed_and_made_again(
        self, root: Path, clip: VisionModel, made: Path, damage: str
    ) -> None:
        expected = content(made)
        path = made / "vectors-00000.safetensors"
        data = path.read_bytes()
        path.unlink()
        if damage != "delete":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "flip" else data[:-1])
        with pytest.raises(
            CorruptFileError, match=r"vectors-00000\.safetensors: .*create the store again with dalr"
        ):
            as_matrix(open_store(made))
        assert write(made, root, clip).computed == COUNT
        assert content(made) == expected

    def test_a_foreign_folder_is_not_touched(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
        with pytest.raises(StorageError, match="another --out"):
            write(tmp_path / "thesis", root, clip)
        assert content(tmp_path / "thesis") == {"thesis.tex": b"years of work"}


def test_a_broken_model_is_named_with_the_image(
    tmp_path: Path, root: Path, clip: VisionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VisionModel, "vectors", lambda self, pixels: np.full((len(pixels), 16), np.nan, np.float32))
    with pytest.raises(DataError, match=r"image '000\.jpg': its vector: value 1 is nan, expected finite numbers"):
        write(tmp_path / "s", root, clip)


def test_no_image_folder_is_said(tmp_path: Path, clip: VisionModel) -> None:
    with pytest.raises(DataError, match="expected the folder that holds the images"):
        write(tmp_path / "s", tmp_path / "nowhere", clip, ["a.jpg"])


def test_captions_by_the_text_tower(
    cli: Callable[..., Outcome], tmp_path: Path, clip_folder: Path, clip: VisionModel
) -> None:
    """KDMCSE's features, in the space of the images."""
    several = [["a red dog", "http://192.0.2.1/x.jpg"], ["the cat sleeps", "a red dog"]]
    pairs = write_pairs(tmp_path / "p.jsonl", ["a.jpg", "b.jpg"], several)
    options = [
        "features",
        "text",
        "--pairs",
        pairs,
        "--model",
        clip_folder,
        "--out",
        tmp_path / "s",
        "--device",
        "cpu",
    ]
    outcome = cli(*options)
    assert outcome.code == 0, outcome.err
    store = open_store(tmp_path / "s")
    assert store.ids == ("a.jpg#0", "a.jpg#1", "b.jpg#0", "b.jpg#1")
    assert np.allclose(as_matrix(store), clip.embed_texts([*several[0], *several[1]]), atol=2e-3)
    assert (store.source["kind"], store.source["output"]) == ("text", "projected")
    outcome = cli(*options, "--pooling", "mean")
    assert outcome.code == 2
    assert "a text tower has its own" in outcome.err


@pytest.mark.slow
def test_the_largest_pictures_fit_in_memory(tmp_path: Path, clip_folder: Path) -> None:
    """R22: peak resident memory below 1.5 GB, also of 50 Mpx in four channels, alpha and 16 bits."""
    root = tmp_path / "images"
    root.mkdir()
    Image.new("CMYK", (7_000, 7_000), (9, 80, 200, 3)).save(root / "cmyk.jpg")
    Image.new("RGBA", (7_000, 7_000), (9, 80, 200, 30)).save(root / "alpha.png")
    Image.fromarray(np.full((7_000, 7_000), 40_000, np.uint16)).save(root / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7_000, 7_000), (9, 80, 200)).save(root / "turned.jpg", exif=exif)
    code = (
        "import re, sys; from pathlib import Path; from dalr.features.images import write_image_store\n"
        "from dalr.models.vision import load_vision_model\n"
        "root = Path(sys.argv[1]); ids = sorted(path.name for path in root.iterdir())\n"
        "write_image_store(Path(sys.argv[2]), ids=ids, root=root, workers=0,\n"
        "                  model=load_vision_model(sys.argv[3], device='cpu'))\n"
        # ru_maxrss would begin at the parent's size
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "s"), str(clip_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 2**20 < 1.5
