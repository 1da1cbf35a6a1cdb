"""Image files as they are found: links, accents in two Unicode forms, more pixels than usual, odd shapes."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bounds import bounded
from dalr.errors import ConfigError, DataError
from dalr.features.decode_ahead import ImageBatch, decoded_ahead
from dalr.features.decoding import ImageRefusedError, decode, locate, reason_of
from dalr.features.images import ImageReport, write_image_store
from dalr.features.store import open_store
from dalr.io.console import Console
from dalr.models.vision import VisionModel
from tiny import Outcome, write_pairs
from tiny_images import photo, save_photos


def write(out: Path, root: Path, model: VisionModel, ids: list[str], **options: Any) -> ImageReport:
    settings: dict[str, Any] = {"workers": 0, "part_images": 2, "batch_size": 2, "console": Console(quiet=True)}
    return write_image_store(out, ids=ids, root=root, model=model, **(settings | options))


class TestLinks:
    """A hub cache, git-annex and DVC keep the files elsewhere and put links in their place."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        save_photos(tmp_path / "cache" / "blobs", 2)
        (tmp_path / "cache-private").mkdir()
        photo(3).save(tmp_path / "cache-private" / "c.png")
        images = tmp_path / "images"
        images.mkdir()
        for number, blob in enumerate(sorted((tmp_path / "cache" / "blobs").iterdir())):
            (images / f"{number}.jpg").symlink_to(blob)
        (images / "other.jpg").symlink_to(tmp_path / "cache-private" / "c.png")
        (images / "folder").symlink_to(tmp_path / "cache" / "blobs")
        return images

    def test_they_are_refused_with_the_option_that_allows_them(
        self, tmp_path: Path, root: Path, clip: VisionModel
    ) -> None:
        with pytest.raises(DataError, match="--follow-links FOLDER"):
            write(tmp_path / "s", root, clip, ["0.jpg", "1.jpg"])

    def test_they_are_followed_into_the_folder_that_is_named(
        self, tmp_path: Path, root: Path, clip: VisionModel
    ) -> None:
        ids = ["0.jpg", "1.jpg", f"folder/{next(iter((root / 'folder').iterdir())).name}"]
        report = write(tmp_path / "s", root, clip, ids, follow_links=tmp_path / "cache")
        assert (report.rows, report.distinct) == (3, 2)

    @pytest.mark.parametrize(
        "name",
        ["other.jpg", "../cache-private/c.png", "../cache/blobs/000.jpg", "folder/../../cache-private/c.png"],
    )
    def test_nothing_else_is_opened(self, tmp_path: Path, root: Path, name: str) -> None:
        with pytest.raises(ImageRefusedError, match="outside the image folder"):
            locate(root.resolve(), name, (tmp_path / "cache").resolve())

    def test_a_name_with_a_whole_path_is_no_link(self, tmp_path: Path, root: Path) -> None:
        blob = next(iter((tmp_path / "cache" / "blobs").iterdir()))
        with pytest.raises(ImageRefusedError, match="outside the image folder"):
            locate(root.resolve(), str(blob), (tmp_path / "cache").resolve())

    def test_a_folder_that_is_not_there_is_said(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        with pytest.raises(DataError, match="expected the folder that links may lead into"):
            write(tmp_path / "s", root, clip, ["0.jpg"], follow_links=tmp_path / "nowhere")

    def test_the_command_has_the_option(
        self, cli: Callable[..., Outcome], tmp_path: Path, root: Path, clip_folder: Path
    ) -> None:
        pairs = write_pairs(tmp_path / "p.jsonl", ["0.jpg", "1.jpg"], [["a dog"], ["a cat"]])
        options = ["--pairs", pairs, "--images", root, "--model", clip_folder, "--out", tmp_path / "s"]
        outcome = cli("features", "images", *options, "--workers", 0)
        assert outcome.code == 3
        assert "--follow-links" in outcome.err
        outcome = cli(
            "features", "images", *options, "--workers", 0, "--resume", "--follow-links", tmp_path / "cache"
        )
        assert outcome.code == 0


@pytest.mark.parametrize(("on_disk", "in_data"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_in_another_unicode_form_is_the_same_and_said(
    tmp_path: Path, clip: VisionModel, capsys: pytest.CaptureFixture[str], on_disk: Any, in_data: Any
) -> None:
    names = ["Füße/Ångström.jpg", "Füße/가.jpg", "plain.jpg"]
    for number, name in enumerate(names):
        path = tmp_path / "images" / unicodedata.normalize(on_disk, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)
    ids = [unicodedata.normalize(in_data, name) for name in names]
    write(tmp_path / "s", tmp_path / "images", clip, ids, console=Console())
    assert open_store(tmp_path / "s").ids == tuple(ids), "ids stay as they are in the data"
    assert capsys.readouterr().err.count("note: 2 image names are in another Unicode form") == 1


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é.jpg")).write_text(form)  # type: ignore[arg-type]
    for form in ("NFC", "NFD"):
        found = locate(tmp_path.resolve(), unicodedata.normalize(form, "é.jpg"))  # type: ignore[arg-type]
        assert found.read_text() == form


class TestMegapixels:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        save_photos(tmp_path / "images", 3)
        Image.new("L", (2_000, 1_500)).save(tmp_path / "images" / "large.png")
        return tmp_path / "images"

    def test_the_limit_may_be_lower_and_raised_again(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        ids = sorted(path.name for path in root.iterdir())
        with pytest.raises(DataError, match=r"3\.0 Mpx, more than the 2 Mpx allowed") as caught:
            write(tmp_path / "s", root, clip, ids, max_megapixels=2)
        assert "--max-megapixels N" in str(caught.value)
        report = write(tmp_path / "s", root, clip, ids, max_megapixels=3, resume=True)
        assert (report.rows, report.computed) == (4, 2), "only the part with the large image is computed again"
        assert open_store(tmp_path / "s").source["max_megapixels"] == 3
        with pytest.raises(ConfigError, match="max_megapixels"):
            write(tmp_path / "s", root, clip, ids, max_megapixels=2)

    def test_the_usual_limit_changes_no_store(self, tmp_path: Path, root: Path, clip: VisionModel) -> None:
        write(tmp_path / "s", root, clip, ["large.png"])
        assert "max_megapixels" not in open_store(tmp_path / "s").source

    def test_a_limit_above_the_usual_one_is_decoded(self, tmp_path: Path) -> None:
        Image.new("1", (7_072, 7_072)).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        with pytest.raises(ImageRefusedError, match="50 Mpx allowed"):
            decode(data)
        assert decode(data, max_pixels=51_000_000).size == (7_072, 7_072)


@pytest.mark.parametrize("size", [(1, 50_000_000), (50_000_000, 1), (1, 100_000)])
def test_an_image_too_narrow_for_the_model_is_refused_with_its_size(
    tmp_path: Path, clip: VisionModel, size: tuple[int, int]
) -> None:
    path = tmp_path / "a.png"
    Image.new("1", size).save(path)
    with bounded():
        [batch] = decoded_ahead([ImageBatch(files=((0, path),))], clip.pixels, workers=0)
    assert batch.refused[0].startswith("cannot be ")
    assert str(max(size)) in batch.refused[0] or "large" in batch.refused[0]


@pytest.mark.parametrize("error", [MemoryError(), ValueError(), OSError(), RuntimeError("\n"), OverflowError("")])
def test_no_reason_is_empty(error: Exception) -> None:
    assert reason_of(error).strip()


def test_a_pointer_of_git_lfs_is_no_image(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"
    with pytest.raises(ImageRefusedError, match="git lfs pull"):
        decode(pointer)
